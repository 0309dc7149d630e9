"""Which code of a completion is the program: the last ```python block, and what it needs of earlier ones.

Models put the solution in one block and show its use in another. A block that only uses what an earlier one
defines is no program; one that defines more is continued from the earlier one. Nothing else is searched: of
two programs that stand alone the last one counts.
"""

import ast
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from groschen.tasks.slots import after_thinking, fences

_PYTHON = frozenset(("python", "python3", "py"))
_ANY = _PYTHON | {""}
_READS_INPUT = frozenset(("input", "stdin", "open"))
_MAX_BLOCKS = 40  # from the end
_WORD = re.compile(r"[^\W\d]\w*")


@dataclass(frozen=True, slots=True)
class _Block:
    code: str
    is_python: bool
    defines: frozenset[str]  # at the top level
    needs: frozenset[str]  # what it reads and defines nowhere
    is_use: bool  # no definition and no reading of the input: statements and values only


def program_of(text: str, wanted: Sequence[str] = ()) -> str | None:
    """The program of a completion; None if no closed ```python block stands behind its thoughts.

    wanted: texts, such as tests, whose words tell which names are asked for.
    """
    rest = after_thinking(text)
    codes = [] if rest is None else fences(rest, _PYTHON)
    if len(codes) < 2:
        return codes[0] if codes else None
    blocks = [_read(code) for code in codes[-_MAX_BLOCKS:]]
    names = {word for source in wanted for word in _WORD.findall(source)}
    last = len(blocks) - 1
    while last > 0 and _is_no_program(blocks[last], blocks[:last], names):
        last -= 1
    return _with_what_it_needs(blocks[: last + 1], names)


def code_elsewhere(text: str) -> str | None:
    """Code that stands elsewhere than asked for: in another block, or the whole text if it is Python."""
    rest = after_thinking(text) or text
    found = fences(rest, _ANY)
    if found or not rest.strip():
        return found[-1] if found else None
    try:
        compile(rest, "<text>", "exec")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    return rest


def _is_no_program(block: _Block, earlier: Sequence[_Block], wanted: Collection[str]) -> bool:
    """Whether a block is an example of use, of input and output, or empty."""
    stripped = block.code.strip()
    if not stripped or stripped.startswith(">>>"):
        return True
    if not block.is_python:
        return False  # a program that is broken, and the last word
    if not ast.parse(block.code).body:
        return True  # comments only
    defined = frozenset().union(*(one.defines for one in earlier))
    return block.is_use and bool(block.needs & defined) and not block.defines & set(wanted)


def _with_what_it_needs(blocks: Sequence[_Block], wanted: Collection[str]) -> str:
    """The last block behind the latest earlier ones that define what it needs, and what these need."""
    chosen, have = [blocks[-1]], set(blocks[-1].defines)
    needs = set(blocks[-1].needs)
    if blocks[-1].is_python:
        needs |= set(wanted) - have
    for block in reversed(blocks[:-1]):
        if block.is_python and block.defines & (needs - have):
            chosen.insert(0, block)
            have |= block.defines
            needs |= block.needs
    return chosen[0].code if len(chosen) == 1 else "\n\n".join(block.code.strip("\n") for block in chosen)


def _read(code: str) -> _Block:
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return _Block(code, False, frozenset(), frozenset(), False)
    loaded: set[str] = set()
    stored: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            (loaded if isinstance(node.ctx, ast.Load) else stored).add(node.id)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            stored.add(node.name)
        elif isinstance(node, ast.arg):
            stored.add(node.arg)
        elif isinstance(node, ast.alias):
            stored.add((node.asname or node.name).partition(".")[0])
        elif isinstance(node, ast.ExceptHandler) and node.name:
            stored.add(node.name)
        elif isinstance(node, ast.Attribute):
            loaded |= {node.attr} & _READS_INPUT
    return _Block(
        code=code,
        is_python=True,
        defines=frozenset(_top_level(tree)),
        needs=frozenset(loaded - stored),
        is_use=not any(
            isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) for node in ast.walk(tree)
        )
        and not loaded & _READS_INPUT,
    )


def _top_level(tree: ast.Module) -> set[str]:
    """Names that the statements of a module bind, those inside of its `if`, `for`, `try` and `with` too."""
    names: set[str] = set()
    waiting: list[ast.AST] = list(tree.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.alias):
            names.add((node.asname or node.name).partition(".")[0])
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif not isinstance(node, ast.Lambda):
            waiting.extend(ast.iter_child_nodes(node))
    return names
