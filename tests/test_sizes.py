"""What no longer fits has to move out: limits on files and functions."""

import ast
from pathlib import Path

import pytest

TOP = Path(__file__).parent.parent
FILE_LINES, FUNCTION_LINES = 400, 60

PYTHON = sorted(path for folder in ("src", "tests", "benchmarks") for path in (TOP / folder).rglob("*.py"))
SOURCES = sorted([*PYTHON, *(TOP / "src").rglob("*.[ch]")])


def name_of(path: Path) -> str:
    return str(path.relative_to(TOP))


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_a_file_is_short_enough_to_be_read_at_once(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= FILE_LINES


@pytest.mark.parametrize("path", PYTHON, ids=name_of)
def test_a_function_fits_one_screen(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            assert lines <= FUNCTION_LINES, f"{name_of(path)}:{node.lineno} {node.name} has {lines} lines"
