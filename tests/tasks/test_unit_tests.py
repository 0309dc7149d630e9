import subprocess
import sys
from collections.abc import Sequence

import pytest

from code_samples import FORGED_OUTPUTS, TRICKS, USEFUL
from groschen.errors import BadRequest, Unsupported
from groschen.records import Verdict
from groschen.tasks import unit_tests
from groschen.tasks.sandbox import Sandbox, find_sandbox, first_that_holds
from groschen.tasks.unit_tests import Code
from groschen.tasks.walls import WALLS, Bubblewrap, Process, Wall
from verifier_samples import assert_keeps_its_own_key, problem

ADD = {
    "tests": "assert add(1, 2) == 3\nassert add('a', 'b') == 'ab'",
    "solution": "def add(a, b): return a + b",
}
ECHO = {
    "cases": [["1 2\n", "3\n"], ["10 -4", "6"]],
    "solution": "a, b = map(int, input().split()); print(a + b)",
}
CODE = Code(seconds=30)


@pytest.fixture(autouse=True)
def _needs_a_sandbox(request: pytest.FixtureRequest) -> None:
    if "without" in request.node.name or "refused" in request.node.name:
        return
    try:
        find_sandbox()
    except Unsupported as unsupported:
        pytest.skip(str(unsupported))


def block(code: str) -> str:
    return f"Here it is:\n```python\n{code}\n```\n"


def judged(answer: object, code: str, verifier: Code = CODE) -> Verdict:
    verdict = verifier(problem(answer), block(code))
    assert verdict.error is None, verdict.error
    return verdict


@pytest.mark.parametrize("answer", [ADD, ECHO])
def test_code_keeps_its_own_key(answer: dict[str, object]) -> None:
    assert_keeps_its_own_key(CODE, problem(answer))


@pytest.mark.parametrize("wall", WALLS, ids=lambda wall: wall.name)
@pytest.mark.parametrize("answer", [ADD, ECHO], ids=["tests", "cases"])
def test_code_is_judged_alike_behind_every_wall(
    answer: dict[str, object], wall: Wall, monkeypatch: pytest.MonkeyPatch
) -> None:
    try:
        sandbox = first_that_holds([wall])
    except Unsupported as unsupported:
        pytest.skip(str(unsupported))
    monkeypatch.setattr(unit_tests, "find_sandbox", lambda: sandbox)
    assert judged(answer, str(answer["solution"])).passed
    for code in ("pass", "import os; os._exit(0)", "x = bytearray(2 << 30)", "import os; os.fork()"):
        assert not judged(answer, code).passed


def test_the_last_python_block_is_the_program() -> None:
    good, bad = block("def add(a, b): return a + b"), block("def add(a, b): return a - b")
    assert CODE(problem(ADD), bad + good).passed and not CODE(problem(ADD), good + bad).passed
    assert CODE(problem(ADD), f"<think>{bad}</think>{good}").passed
    assert not CODE(problem(ADD), f"<think>{good}").passed


@pytest.mark.parametrize("text", ["```\ndef add(a, b): return a + b\n```", "def add(a, b): return a + b"])
def test_code_elsewhere_is_lenient_only(text: str) -> None:
    verdict = CODE(problem(ADD), text)
    assert not verdict.passed and verdict.parts["lenient"] is True and verdict.parts["format"] is False


@pytest.mark.parametrize("trick", list(TRICKS))
def test_a_program_can_not_forge_the_result_of_tests(trick: str) -> None:
    verdict = judged(ADD, TRICKS[trick], Code(seconds=6))
    assert not verdict.passed and verdict.reward == 0.0 and verdict.parts["share"] in (0, 0.5), verdict


@pytest.mark.parametrize("trick", list(FORGED_OUTPUTS))
def test_a_program_can_not_forge_the_outputs_that_are_compared(trick: str) -> None:
    verdict = judged(ECHO, FORGED_OUTPUTS[trick])
    assert not verdict.passed and verdict.reward == 0.0


@pytest.mark.parametrize("first", ["", "import builtins\nbuiltins.len = builtins.sorted = lambda *x: 3\n"])
def test_a_program_that_redefines_builtins_does_not_change_the_tests(first: str) -> None:
    code = f"{first}len = sorted = lambda *x: 3\ndef f(): return []"
    assert not judged({"tests": "assert len(f()) == 3"}, code).passed


@pytest.mark.parametrize(
    "read",
    [
        "input()",
        "__import__('sys').stdin.readline()",
        "__import__('sys').stdin.buffer.read().decode()",
        "open(0).read()",
        "__import__('os').read(0, 100).decode()",
    ],
)
def test_every_way_to_read_the_input_works_for_every_case(read: str) -> None:
    assert judged(ECHO, f"a, b = map(int, {read}.split())\nprint(a + b)").passed


def test_ways_to_write_and_to_end_work() -> None:
    add = "import sys, os\na, b = map(int, input().split())\n"
    assert judged(ECHO, add + "sys.stdout.write(str(a + b) + '   \\n\\n')").passed
    assert judged(ECHO, add + "os.write(1, b'%d' % (a + b))").passed
    assert judged(ECHO, add + "print(a + b); sys.exit()").passed
    assert judged(ECHO, add + "print(a + b); sys.exit(1)").parts["why"] == "exit status 1"
    assert judged(ECHO, "if __name__ == '__main__':\n    print(sum(map(int, input().split())))").passed


def test_cases_do_not_share_variables() -> None:
    cases = {"cases": [["", "1"], ["", "1"]]}
    assert judged(cases, "count = globals().get('count', 0) + 1\nprint(count)").passed


def test_the_share_of_tests_passed_is_told_and_rewarded_only_if_asked() -> None:
    answer = {"tests": ["assert f(1) == 1", "assert f(2) == 4", "assert f(3) == 9", "assert f(0) == 0"]}
    code = "def f(x): return x if x < 2 else 9"
    verdict = judged(answer, code)
    assert verdict.parts["share"] == 0.75 and verdict.reward == 0.0
    assert verdict.parts["why"] == "AssertionError at assert f(2) == 4"
    partial = judged(answer, code, Code(seconds=30, partial=True))
    assert partial.reward == 0.75 and not partial.passed
    assert judged({"cases": [["1", "1"], ["2", "3"]]}, "print(input())").parts["share"] == 0.5


@pytest.mark.parametrize("what", list(USEFUL))
def test_tests_of_many_shapes_work(what: str) -> None:
    code, tests = USEFUL[what]
    # The oracle: program and tests in one process, as most harnesses run them.
    plain = subprocess.run([sys.executable, "-c", f"{code}\n{tests}"], capture_output=True)
    assert plain.returncode == 0, plain.stderr
    verdict = judged({"tests": tests}, code)
    assert verdict.passed, verdict


def test_a_program_that_takes_too_long_fails_and_later_cases_with_it() -> None:
    code = "n = int(input())\nwhile n == 2: pass\nprint(n)"
    verdict = judged({"cases": [["1", "1"], ["2", "2"], ["3", "3"]]}, code, Code(seconds=2))
    assert verdict.parts["why"] == "longer than 2 s" and verdict.parts["share"] == 1 / 3


@pytest.mark.parametrize("depth", [440, 485])
def test_values_too_deep_to_be_handed_on_fail_and_are_no_error(depth: int) -> None:
    deep = f"def f():\n    deep = []\n    for _ in range({depth}): deep = [deep]\n    return deep\n"
    assert not judged({"tests": "assert g(f()) == 0"}, deep + "def g(x): return 1").passed


def test_no_amount_of_data_is_too_much_to_be_handed_on() -> None:
    code = "def f(): return 'x' * 7_000_000\ndef g(a, b): return len(a + b)"
    assert judged({"tests": "assert g(f(), f()) == 14_000_000"}, code).passed


def test_tests_that_break_are_an_error_and_no_zero() -> None:
    verdict = CODE(problem({"tests": "import os\nos._exit(0)"}), block("pass"))
    assert "ended before the last test, without the program too" in str(verdict.error) and not verdict.passed


@pytest.mark.parametrize("answer", [ADD, ECHO], ids=["tests", "cases"])
def test_a_sandbox_that_fails_is_an_error_and_no_zero(
    answer: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Ends(Bubblewrap):
        name = "ends at once"

        def start(self, argv: Sequence[str], memory_bytes: int) -> Process:
            return find_sandbox().wall.start(["/bin/true"], memory_bytes)

    monkeypatch.setattr(unit_tests, "find_sandbox", lambda: Sandbox(Ends()))
    verdict = CODE(problem(answer), block("pass"))
    assert verdict.error == "a process in the sandbox did not start"


@pytest.mark.parametrize(
    "test",
    [
        "assert f(object())",
        "try: f(iter([]))\nexcept BaseException: pass",
        "f([{1: open}, type('A', (), {})()])",
    ],
)
def test_a_test_that_passes_what_can_not_travel_is_an_error_and_no_zero(test: str) -> None:
    verdict = CODE(problem({"tests": test}), block("def f(x): return True"))
    assert "to the program" in str(verdict.error) and not verdict.passed


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (None, "expected"),
        ({}, "expected"),
        ({"tests": "a", "cases": []}, "expected"),
        ({"tests": []}, "list of texts"),
        ({"tests": [1]}, "list of texts"),
        ({"tests": "assert ("}, "no Python"),
        ({"cases": []}, "list of"),
        ({"cases": [["a"]]}, "two texts"),
        ({"cases": [["a", 1]]}, "two texts"),
        ({"cases": [["a" * 70_000_000, "b"]]}, "cases with 70000001 bytes"),
        ({"cases": [["a\ud800", "b"]]}, "no text of Unicode"),
        ({"cases": [["a", "\udfff"]]}, "no text of Unicode"),
        ({"tests": "x = " + "-" * 100_000 + "1"}, "no Python"),
        ({"tests": "x = " + "(" * 100_000 + "1" + ")" * 100_000}, "no Python"),
        ({"tests": "x = '\ud800'"}, "no Python"),
        ({"tests": "x = " + "9" * 5000}, "no Python"),
        ({"tests": "a\0"}, "no Python"),
    ],
)
def test_a_reference_that_is_no_test_is_refused(answer: object, words: str) -> None:
    with pytest.raises(BadRequest, match=words):
        CODE.check(problem(answer))


def test_a_problem_is_refused_without_a_sandbox(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_holds() -> None:
        raise Unsupported("none holds")

    monkeypatch.setattr(unit_tests, "find_sandbox", none_holds)
    with pytest.raises(Unsupported):
        CODE.check(problem(ADD))
    with pytest.raises(Unsupported):
        CODE(problem(ADD), block("def add(a, b): return a + b"))
