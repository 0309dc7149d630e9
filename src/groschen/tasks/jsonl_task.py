"""A task from a JSONL file, with a checker named in each row or in a TOML file beside it.

Leaves out the checkers themselves (verifiers.py). docs/tasks.md lists every key.
"""

import difflib
import hashlib
import json
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from groschen.errors import BadFile, BadRequest
from groschen.records import Problem, Split, Verdict
from groschen.tasks import verifiers
from groschen.tasks.jsonl import numbered_rows, read_file
from groschen.tasks.splits import Shares, content, shares_from
from groschen.tasks.task import Draft, with_instruction
from groschen.tasks.verifiers import Verifier

_PROMPTS = ("messages", "prompt", "question")
_USED = {*_PROMPTS, "id", "key", "answer", "split", "checker"}  # any other key of a row goes to meta
_TABLES = {"checker": (), "prompt": ("system", "instruction", "instructions"), "splits": ("dev", "test")}

Row = Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Settings:
    """What the TOML file beside the rows says."""

    checker: object = None
    system: str | None = None
    instruction: str | None = None
    instructions: tuple[str, ...] = ()
    shares: Shares = field(default_factory=Shares)

    def complete(self, problem: Problem) -> Problem:
        """The problem with the system message and the instruction that all problems share."""
        if self.instruction is not None:
            problem = with_instruction(problem, self.instruction)
        if self.system is not None:
            first = {"role": "system", "content": self.system}
            problem = replace(problem, messages=(first, *problem.messages))
        return problem


@dataclass(frozen=True, slots=True)
class _Checkers:
    """The checker of each problem, by its key."""

    by_key: Mapping[str, Verifier]

    def verify(self, problem: Problem, text: str) -> Verdict:
        return self.by_key[problem.key](problem, text)

    def gold(self, problem: Problem) -> str | None:
        return self.by_key[problem.key].gold(problem)

    def wrong(self, problem: Problem) -> tuple[str, ...]:
        return self.by_key[problem.key].wrong(problem)


def load_jsonl(path: Path) -> Draft:
    """The task of a JSONL file. Raises BadFile or BadRequest with the line and key of what is wrong."""
    beside = path.with_suffix(".toml")
    sources = [read_file(path), read_file(beside) if beside.exists() else b""]
    settings = _settings(beside, sources[1]) if beside.exists() else _Settings()
    problems: dict[str, Problem] = {}
    checkers: dict[str, Verifier] = {}
    made: dict[str, Verifier] = {}
    for number, row in numbered_rows(path.absolute()):
        where = f"{path}, line {number}"
        problem = _problem(row, where, problems)
        if settings.system is not None and any(turn.get("role") == "system" for turn in problem.messages):
            raise BadFile(
                f"{where} has a system message of its own, and {beside.name} gives one to all rows ([prompt] "
                "system); remove one of the two"
            )
        problems[problem.key] = problem
        checkers[problem.key] = checker = _checker(row, settings, where, beside, made)
        _check_reference(checker, problem, where)
    chosen = _Checkers(checkers)
    return Draft(
        name=path.stem,
        digest=hashlib.sha256(b"".join(hashlib.sha256(source).digest() for source in sources)).hexdigest(),
        problems=tuple(problems.values()),
        verify=chosen.verify,
        gold=chosen.gold,
        wrong=chosen.wrong,
        instructions=settings.instructions,
        shares=settings.shares,
        complete=settings.complete,
    )


def _problem(row: Row, where: str, earlier: Mapping[str, Problem]) -> Problem:
    meta = {name: value for name, value in row.items() if name not in _USED}
    problem = Problem(
        key="", messages=_messages(row, where), answer=row.get("answer"), meta=meta, split=_split(row, where)
    )
    return replace(problem, key=_key(row, problem, where, earlier))


def _messages(row: Row, where: str) -> tuple[Mapping[str, object], ...]:
    given = [name for name in _PROMPTS if name in row]
    if len(given) != 1:
        found = " and ".join(f"'{name}'" for name in given) or (
            f"no prompt, only {_listed(row)}" if row else "nothing in its object"
        )
        raise BadFile(f"{where} has {found}; expected exactly one of {_listed(_PROMPTS)}")
    prompt = row[given[0]]
    if isinstance(prompt, str):
        return ({"role": "user", "content": prompt},)
    if isinstance(prompt, list) and all(isinstance(message, dict) for message in prompt):
        return tuple(prompt)
    raise BadFile(f"{where}: '{given[0]}' is neither a text nor a list of messages")


def _key(row: Row, problem: Problem, where: str, earlier: Mapping[str, Problem]) -> str:
    named = [row[name] for name in ("id", "key") if name in row]
    if named:
        if len(named) > 1 or isinstance(named[0], bool) or not isinstance(named[0], str | int):
            raise BadFile(f"{where} has {named} as 'id' and 'key'; expected one text or whole number")
        key = str(named[0])
        if key in earlier:
            raise BadFile(f"{where} has the id {key!r:.200} of an earlier line; every problem needs its own")
        return key
    # From the content, so that rows may be added, removed and sorted without renaming any other.
    digest = hashlib.sha256(content(problem).encode()).hexdigest()[:12]
    key, number = digest, 1
    while key in earlier:
        number += 1
        key = f"{digest}-{number}"
    return key


def _split(row: Row, where: str) -> Split | None:
    given = row.get("split")
    if given is None:
        return None
    if given not in tuple(Split):
        hint = " (its name here is dev)" if given in ("validation", "valid", "val", "eval") else ""
        raise BadFile(f"{where} has the split {given!r:.200}{hint}; expected 'train', 'dev' or 'test'")
    return Split(str(given))


def _checker(row: Row, settings: _Settings, where: str, beside: Path, made: dict[str, Verifier]) -> Verifier:
    """The checker of a row; `made` keeps those of earlier rows, because most rows share one."""
    given = row.get("checker", settings.checker)
    if given is None:
        raise BadFile(
            f'{where} names no checker; give each row one, as in "checker": "number", or write '
            f'{beside.name} beside the file with the lines [checker] and kind = "number"'
        )
    source = where if "checker" in row else str(beside)
    chosen = {"kind": given} if isinstance(given, str) else given
    if not isinstance(chosen, Mapping) or not isinstance(chosen.get("kind"), str):
        raise BadFile(f'{source}: the checker {given!r:.200} has no kind; expected {{"kind": "number", ...}}')
    name = json.dumps(chosen, sort_keys=True, default=str)
    if name not in made:
        rest = {key: value for key, value in chosen.items() if key != "kind"}
        try:
            made[name] = verifiers.from_settings(str(chosen["kind"]), rest)
        except BadRequest as error:
            raise BadRequest(f"{source}: {error}") from error
    return made[name]


def _check_reference(checker: Verifier, problem: Problem, where: str) -> None:
    try:
        checker.check(problem)
    except BadRequest as error:
        raise BadRequest(f"{where}: {error}") from error


def _settings(path: Path, raw: bytes) -> _Settings:
    try:
        found = tomllib.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError) as error:  # digits beyond what Python reads, and depth, too
        raise BadFile(f"{path} is not TOML: {error}") from error
    for name, table in found.items():
        _refuse_unknown(name, _TABLES, f"{path} has the table [{name}]")
        if not isinstance(table, dict):
            raise BadFile(f"{path} has {name} = {table!r:.200}; expected a table, [{name}]")
    prompt = found.get("prompt", {})
    for name in prompt:
        _refuse_unknown(name, _TABLES["prompt"], f"{path} has {name} in [prompt]")
    return _Settings(
        checker=found.get("checker"),
        system=_text(prompt, "system", path),
        instruction=_text(prompt, "instruction", path),
        instructions=_texts(prompt, "instructions", path),
        shares=shares_from(found.get("splits", {}), f"{path}: [splits]"),
    )


def _text(table: Row, name: str, path: Path) -> str | None:
    value = table.get(name)
    if value is None or isinstance(value, str):
        return value
    raise BadFile(f"{path} has {name} = {value!r:.200} in [prompt]; expected a text")


def _texts(table: Row, name: str, path: Path) -> tuple[str, ...]:
    value = table.get(name, [])
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return tuple(value)
    raise BadFile(f"{path} has {name} = {value!r:.200} in [prompt]; expected a list of texts")


def _refuse_unknown(name: str, known: Iterable[str], what: str) -> None:
    names = list(known)
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"known are {_listed(names)}"
        raise BadFile(f"{what}, which means nothing here; {hint}")


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)
