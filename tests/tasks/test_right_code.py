"""Code that is right passes, whatever Python it uses; the oracle is Python without a sandbox."""

import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from groschen.errors import Unsupported
from groschen.records import Verdict
from groschen.tasks.sandbox import find_sandbox
from groschen.tasks.unit_tests import Code
from right_code import RUN, TESTED
from verifier_samples import problem

CODE = Code(seconds=30)


@pytest.fixture(autouse=True)
def _needs_a_sandbox() -> None:
    try:
        find_sandbox()
    except Unsupported as unsupported:
        pytest.skip(str(unsupported))


def judged(answer: object, code: str) -> Verdict:
    verdict = CODE(problem(answer), f"```python\n{code}\n```")
    assert verdict.error is None, verdict.error
    return verdict


@pytest.mark.parametrize("what", list(TESTED))
def test_a_right_program_passes_its_tests(what: str) -> None:
    code, tests = (dedent(text) for text in TESTED[what])
    first = "import sys\n__name__ = 'solution'\nsys.modules['solution'] = sys.modules['__main__']\n"
    whole = f"{first}{code}\n{tests}"
    future = "from __future__ import annotations\n"
    whole = future + whole.replace(future, "") if future in whole else whole
    plain = subprocess.run([sys.executable, "-c", whole], capture_output=True)
    assert plain.returncode == 0, plain.stderr
    verdict = judged({"tests": tests}, code)
    assert verdict.passed, verdict


@pytest.mark.parametrize("what", list(RUN))
def test_a_right_program_has_its_output(what: str, tmp_path: Path) -> None:
    code, given, expected = RUN[what]
    code = dedent(code)
    (tmp_path / "program.py").write_text(code)
    (tmp_path / "input").write_text(given, newline="")
    with open(tmp_path / "input") as file:
        plain = subprocess.run(
            [sys.executable, str(tmp_path / "program.py")], stdin=file, capture_output=True
        )
    assert plain.returncode == 0 and plain.stdout.decode().strip() == expected.strip(), plain
    verdict = judged({"cases": [[given, expected], [given, expected]]}, code)
    assert verdict.passed, verdict


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("print('é' * 250_000)", "é" * 250_000),
        ("for i in range(400_000): print(i % 10)", "\n".join(str(i % 10) for i in range(400_000))),
        ("print('x' * 3_000_000)", "x" * 3_000_000),
        ("print('\\U0001f600' * 100_000)", "\U0001f600" * 100_000),
    ],
    ids=["250,000 é", "400,000 lines", "3 MB", "100,000 emoji"],
)
def test_a_long_output_is_compared_in_whole(code: str, expected: str) -> None:
    assert judged({"cases": [["", expected]]}, code).passed
    assert not judged({"cases": [["", expected[:-1] + "y"]]}, code).passed


def test_an_output_without_end_fails_and_is_no_error() -> None:
    verdict = judged({"cases": [["", "y"]]}, "while True: print('y' * 1000)")
    assert not verdict.passed


def test_many_long_inputs_travel() -> None:
    given = " ".join(map(str, range(200_000)))
    cases = {"cases": [[given, str(sum(range(200_000)))]] * 5}
    assert judged(cases, "print(sum(map(int, input().split())))").passed


def test_the_memory_of_one_case_is_not_the_next_ones() -> None:
    code = "import sys\nx = [0] * 20_000_000\nx.append(x)\nprint(len(x))"
    assert judged({"cases": [["", "20000001"]] * 5}, code).passed
