"""Which code of a completion is the program."""

import time

import pytest

from groschen.tasks.code_blocks import code_elsewhere, program_of

ADD, SUB = "def add(a, b):\n    return a + b", "def add(a, b):\n    return a - b"
READS = "a, b = map(int, input().split())\nprint(a + b)"
TESTS = ["assert add(1, 2) == 3"]


def completion(*codes: str) -> str:
    return "\n".join(f"Text.\n```python\n{code}\n```" for code in codes)


@pytest.mark.parametrize(
    ("codes", "program"),
    [
        ((ADD,), ADD),
        ((SUB, ADD), ADD),
        ((ADD, SUB), SUB),  # the last word
        ((ADD, "print(add(1, 2))"), ADD),
        ((ADD, "# Example usage\nresult = add(1, 2)\nprint(result)  # 3"), ADD),
        ((ADD, "assert add(1, 2) == 4"), ADD),
        ((ADD, "for i in range(3):\n    print(add(i, i))"), ADD),
        ((ADD, "print(add(1, 2))", "print(add(3, 4))"), ADD),
        ((ADD, ">>> add(1, 2)\n3"), ADD),
        ((ADD, "# prints 3"), ADD),
        ((ADD, ""), ADD),
        ((ADD, "def broken(:"), "def broken(:"),  # broken, and the last word
        (("def broken(:", ADD), ADD),
        (("def broken(:", ADD, "print(add(1, 2))"), ADD),
        ((SUB, ADD, "print(add(1, 2))"), ADD),
        (("def help(a): return a", "def add(a, b): return help(a) + b"), None),
        (("import math", "def add(a, b): return math.floor(a + b)"), None),
        (("LIMIT = 5", "def add(a, b): return min(a + b, LIMIT)", "print(add(1, 2))"), None),
        ((ADD, "def twice(a): return a * 2"), None),  # the tests ask for add
        ((ADD, "print(5)"), None),  # stands alone, but the tests ask for add
    ],
)
def test_the_program_is_the_last_block_that_is_no_example(
    codes: tuple[str, ...], program: str | None
) -> None:
    chosen = program_of(completion(*codes), TESTS)
    expected = (
        program
        if program is not None
        else "\n\n".join(codes[: 2 if "print(add" in codes[-1] else len(codes)])
    )
    assert chosen is not None and chosen.strip() == expected.strip()


@pytest.mark.parametrize(
    ("codes", "program"),
    [
        ((READS, "print(5)"), "print(5)"),
        ((READS, "# 1 2\n# 3"), READS),
        (
            ("def solve(a, b): return a + b\n" + READS, "print(solve(1, 2))"),
            "def solve(a, b): return a + b\n" + READS,
        ),
        (("def solve(a, b): return a + b", "print(solve(*map(int, input().split())))"), None),
        (
            (
                "import sys\ndef solve(): print(5)",
                "if __name__ == '__main__':\n    solve()\n    sys.stdin.read()",
            ),
            None,
        ),
    ],
)
def test_a_program_with_input_is_continued_where_the_next_block_reads(
    codes: tuple[str, ...], program: str | None
) -> None:
    chosen = program_of(completion(*codes))
    assert chosen is not None and chosen.strip() == (program or "\n\n".join(codes)).strip()


def test_thoughts_and_other_languages_are_no_program() -> None:
    assert program_of(f"<think>{completion(ADD)}</think>{completion(SUB)}", TESTS) == SUB + "\n"
    assert program_of(f"<think>{completion(ADD)}", TESTS) is None
    assert program_of("```bash\nls\n```", TESTS) is None and program_of("no code", TESTS) is None
    assert program_of(completion(ADD) + "\n```text\n3\n```", TESTS) == ADD + "\n"


def test_code_elsewhere_is_another_block_or_the_whole_text() -> None:
    assert code_elsewhere(f"```\n{ADD}\n```") == ADD + "\n" and code_elsewhere(ADD) == ADD
    assert code_elsewhere("no code here") is None and code_elsewhere("") is None
    assert code_elsewhere("x = " + "-" * 100_000 + "1") is None


def test_many_and_large_blocks_take_no_quadratic_time() -> None:
    start = time.perf_counter()
    for code in (
        "print(add(1, 2))",
        "x = " + "(" * 5000,
        "def f(:",
        "x = " + "-" * 3000 + "1",
        "a = " + "[1, 2]," * 1000,
    ):
        program_of(completion(ADD, *[code] * 300), TESTS)
    assert time.perf_counter() - start < 10
