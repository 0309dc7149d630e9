"""Which problems a run is made from, as the model sees them: a line for each in the run folder.

Two tasks are the same for a run if every problem has the same key, messages, answer, meta and split, in the
same order; files, folders and names do not matter. Leaves out what judges the answers: the digest of the
task's source covers it, as far as it can.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from groschen.errors import BadFile
from groschen.records import Problem, Split
from groschen.tasks.splits import content

NAME = "problems.jsonl"
_DIGITS = 16  # 64 bits: a digest tells problems of one key apart, it guards nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Fingerprint:
    """One problem in a few bytes. Digests are the beginning of a SHA-256 in hex."""

    key: str
    split: Split
    prompt: str  # of its text; white space and the Unicode form of a character do not count
    digest: str  # of messages, answer and meta


Problems = Mapping[Split, Sequence[Problem]]


def fingerprints(problems: Problems) -> tuple[Fingerprint, ...]:
    """Of every problem, split by split and in their order there."""
    return tuple(
        Fingerprint(
            key=problem.key,
            split=split,
            prompt=prompt_digest(problem),
            digest=_short(
                msgspec.json.encode((problem.messages, problem.answer, problem.meta), order="deterministic")
            ),
        )
        for split in Split
        for problem in problems[split]
    )


def prompt_digest(problem: Problem) -> str:
    """The `prompt` of a problem's fingerprint."""
    return _short(content(problem).encode())


def digest_of(prints: Sequence[Fingerprint]) -> str:
    """SHA-256, hex, over all fingerprints in their order."""
    return hashlib.sha256(encoded(prints)).hexdigest()


def encoded(prints: Sequence[Fingerprint]) -> bytes:
    """The fingerprints as lines of JSON."""
    return b"".join(msgspec.json.encode(each) + b"\n" for each in prints)


def read_fingerprints(folder: Path) -> tuple[Fingerprint, ...] | None:
    """Those that a run folder keeps; None of a run that keeps none. Raises BadFile if they are damaged."""
    path = folder / NAME
    try:
        lines = path.read_bytes().splitlines()
        return tuple(msgspec.json.decode(line, type=Fingerprint) for line in lines)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        raise BadFile(f"{path} can't be read ({error}); restore it from a copy of the run") from error


def difference(before: Sequence[Fingerprint], now: Sequence[Fingerprint]) -> str | None:
    """What differs, as a sentence without a capital and an end; None if nothing does."""
    old, new = {each.key: each for each in before}, {each.key: each for each in now}
    both = [(old[key], new[key]) for key in old if key in new]
    other = [(a, f", another {_what(a, b)}") for a, b in both if (a.prompt, a.digest) != (b.prompt, b.digest)]
    moved = [(a, f", now in {b.split}") for a, b in both if a.split != b.split]
    gone = [(each, "") for key, each in old.items() if key not in new]
    added = [(each, "") for key, each in new.items() if key not in old]
    num_different = len({each.key for part in (other, moved, gone, added) for each, _ in part})
    if not num_different:
        is_same = list(before) == list(now)
        return None if is_same else f"the same {len(before)} problems stand in another order"
    parts = [
        f"{len(part)} {words} (first {part[0][0].key!r} in {part[0][0].split}{part[0][1]})"
        for part, words in ((other, "changed"), (moved, "moved"), (gone, "gone"), (added, "new"))
        if part
    ]
    return f"{num_different} of {max(len(old), len(new))} problems differ: {', '.join(parts)}"


def _what(before: Fingerprint, now: Fingerprint) -> str:
    return "prompt" if before.prompt != now.prompt else "answer, meta or form of the messages"


def _short(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()[:_DIGITS]
