"""A task from a user's task.py.

The file is the user's own program: it runs with all rights of the user, like any script, in a process of
its own (task_process.py), so nothing here is undone. Leaves out answers that a model wrote; the verifiers
that run those use the sandbox.
"""

import hashlib
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder, SourceLoader
from importlib.machinery import ModuleSpec
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from groschen.errors import BadFile, GroschenError
from groschen.records import Problem
from groschen.tasks.jsonl import read_file, reading_in
from groschen.tasks.splits import Shares, shares_from
from groschen.tasks.task import Draft, Verify
from groschen.tasks.usual import usual_answers


class _Module(NamedTuple):
    """What a task.py defines."""

    load: Callable[[], Iterable[Problem]]
    verify: Verify
    gold: Callable[[Problem], str | None] | None
    wrong: Callable[[Problem], tuple[str, ...]] | None
    instructions: tuple[str, ...]
    shares: Shares


def load_user_file(path: Path) -> Draft:
    """The task that a Python file defines. To be called once in a process.

    The file's folder comes first in the search for modules, and relative paths of `read_jsonl` start there
    while the file and its `load` run. The digest covers the file, the modules of its folder that it has
    imported by then, and what it read through `read_jsonl`. Raises BadFile, with file and line, for whatever
    fails in it.
    """
    path = path.absolute()
    source = read_file(path)
    before = set(sys.modules)
    sys.path.insert(0, str(path.parent))
    with reading_in(path.parent) as reading, _errors_of(path):
        module = _definitions(_run(path, source), path)
        problems = _problems(module.load(), path)
    digests = [hashlib.sha256(source).hexdigest(), *sorted(reading.digests.values())]
    digests += [hashlib.sha256(read_file(one)).hexdigest() for one in _neighbours(before, path)]
    usual = usual_answers(problems, module.verify)
    return Draft(
        name=path.parent.name if path.stem == "task" else path.stem,
        digest=hashlib.sha256("\n".join(digests).encode()).hexdigest(),
        problems=problems,
        verify=module.verify,
        gold=module.gold or usual.gold,
        wrong=module.wrong or usual.wrong,
        instructions=module.instructions,
        shares=module.shares,
        notes=_notes(module),
    )


class _SourceOnce(SourceLoader):
    """Runs source text that is in memory, so that what ran is what the digest covers; no bytecode files."""

    def __init__(self, path: Path, source: bytes) -> None:
        self._path, self._source = path, source

    def get_filename(self, fullname: str) -> str:  # noqa: ARG002 - the signature is importlib's
        return str(self._path)

    def get_data(self, path: str) -> bytes:  # noqa: ARG002 - the signature is importlib's
        return self._source


def _run(path: Path, source: bytes) -> ModuleType:
    name = _module_name(path)
    loader = _SourceOnce(path, source)
    spec = spec_from_loader(name, loader, origin=str(path))
    assert spec is not None
    module = module_from_spec(spec)
    module.__file__ = str(path)
    sys.modules[name] = module  # dataclasses and pickle look a class's module up by its name
    loader.exec_module(module)
    return module


def make_importable(path: Path) -> None:
    """Let `import` find the task's module by the name under which it runs, as pickle does with functions.

    For processes that `multiprocessing` starts from a process in which the task runs.
    """
    sys.meta_path.append(_Finder(path.absolute()))


class _Finder(MetaPathFinder):
    """Finds one task file and nothing else."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        del path, target  # the signature is importlib's
        if fullname != _module_name(self._path):
            return None
        loader = _SourceOnce(self._path, read_file(self._path))
        return spec_from_loader(fullname, loader, origin=str(self._path))


def _module_name(path: Path) -> str:
    return f"groschen_task_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"


def _neighbours(before: set[str], path: Path) -> list[Path]:
    """The source files of the folder's modules that were imported since, in order."""
    new = [sys.modules[name] for name in set(sys.modules) - before - {_module_name(path)}]
    files = {file for module in new if (file := _file_below(module, path.parent))}
    return sorted(files)


def _file_below(module: ModuleType, folder: Path) -> Path | None:
    """The source file of a module that stands in `folder` or in a package there; None for all others."""
    file = getattr(module, "__file__", None)
    if not isinstance(file, str):
        return None
    names = module.__name__.split(".")
    found = Path(file)
    beside = folder.joinpath(*names)
    return found if found in (beside.with_name(beside.name + ".py"), beside / "__init__.py") else None


@contextmanager
def _errors_of(path: Path) -> Iterator[None]:
    """Whatever the user's program raises becomes one sentence with file and line."""
    try:
        yield
    except GroschenError:
        raise
    except SyntaxError as error:
        raise BadFile(f"{error.filename}:{error.lineno}: this is not Python: {error.msg}") from error
    except BaseException as error:
        # The last place in the task's own folder: what a library raises was called from there.
        frames = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in frames if Path(frame.filename).parent == path.parent]
        where = f"{own[-1].filename}:{own[-1].lineno}" if own else str(path)
        raise BadFile(f"{where}: {type(error).__name__}: {error}") from error


def _definitions(module: ModuleType, path: Path) -> _Module:
    load, verify = _function(module, "load", path), _function(module, "verify", path)
    if load is None or verify is None:
        missing = "load()" if load is None else "verify(problem, text)"
        raise BadFile(f"{path} defines no function {missing}; a task needs load() and verify(problem, text)")
    instructions = getattr(module, "INSTRUCTIONS", ())
    if not isinstance(instructions, list | tuple) or not all(isinstance(text, str) for text in instructions):
        raise BadFile(f"{path} has INSTRUCTIONS = {instructions!r}; expected a tuple of texts")
    return _Module(
        load=load,
        verify=verify,
        gold=_function(module, "gold", path),
        wrong=_function(module, "wrong", path),
        instructions=tuple(instructions),
        shares=shares_from(getattr(module, "SHARES", {}), f"{path}: SHARES"),
    )


def _function(module: ModuleType, name: str, path: Path) -> Callable[..., Any] | None:
    value = getattr(module, name, None)
    if value is not None and not callable(value):
        raise BadFile(f"{path} has {name} = {value!r}; expected a function")
    return value


def _problems(found: object, path: Path) -> tuple[Problem, ...]:
    """What load() returned, if it is problems and nothing else."""
    if not isinstance(found, Iterable):
        raise BadFile(
            f"{path}: load() returned {found!r}; expected problems, one after the other (yield them)"
        )
    problems = tuple(found)
    for number, problem in enumerate(problems, start=1):
        if not isinstance(problem, Problem):
            raise BadFile(
                f"{path}: item {number} of load() is {str(problem)[:60]!r}, of the type "
                f"{type(problem).__name__}; expected a Problem (from groschen import Problem)"
            )
    return problems


def _notes(module: _Module) -> tuple[str, ...]:
    notes = []
    if module.gold is None:
        notes.append(
            "the file has no gold(problem): the usual ways of writing `answer` were tried in its place"
        )
    if module.wrong is None:
        notes.append("the file has no wrong(problem): the answer of another problem was tried in its place")
    return tuple(notes)
