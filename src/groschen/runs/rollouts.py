"""The rollouts of one step or one evaluation on the disk: each completion and each verdict as soon as it is
there.

What a killed process had drawn and graded is taken up again, with the same bits. Lines are

    {"key": "...", "sample": 3, "completion": {"text": ..., "token_ids": ..., ...}, "digest": "..."}
    {"key": "...", "sample": 3, "verdict": {"reward": 1.0, "passed": true, ...}, "digest": "..."}

A line that is not as it was written, or that no process of the run can have written, is left out, so that
rollout is drawn or graded again; the file as it was is set aside. The digest is against accidents and edits,
not against somebody who computes it anew: then what the lines say must still be possible. Leaves out what is
drawn and how it is graded (rollout.py).
"""

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

import msgspec

from groschen.errors import BadFile
from groschen.files import decode
from groschen.model.atomic import replaced_file
from groschen.records import Completion, FinishReason, Verdict
from groschen.runs.disk import not_written
from groschen.runs.journal import Journal, whole_lines

_DIGEST_DIGITS = 16  # of SHA-256 in hex
_ROUNDING = 1e-6  # nat: a sum of probabilities may be a little over 1


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutLine:
    """One line: a completion, or the verdict on one."""

    key: str  # of the problem
    sample: int
    completion: Completion | None = None
    verdict: Verdict | None = None
    digest: str = ""  # of the line without it

    def signed(self) -> "RolloutLine":
        """The line with its digest."""
        content = msgspec.json.encode(replace(self, digest=""))
        return replace(self, digest=hashlib.sha256(content).hexdigest()[:_DIGEST_DIGITS])


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What the lines of a journal can say."""

    prompts: Mapping[str, tuple[int, ...]]  # the prompt's tokens of each problem, by its key
    num_samples: int
    max_tokens: int
    vocab_size: int

    def fault_of(self, line: RolloutLine) -> str | None:
        """Why no process of this run wrote the line; None if one may have."""
        if line.key not in self.prompts or not 0 <= line.sample < self.num_samples:
            return "it is of a problem or sample that was not asked"
        if (line.completion is None) == (line.verdict is None):
            return "it holds not just one of completion and verdict"
        if line.verdict is not None:
            return None if math.isfinite(line.verdict.reward) else "its reward is no number"
        assert line.completion is not None
        return self._fault_of_completion(line, line.completion)

    def _fault_of_completion(self, line: RolloutLine, completion: Completion) -> str | None:
        if completion.sample != line.sample or completion.prompt_ids != self.prompts[line.key]:
            return "its completion is of another prompt or sample"
        if not 1 <= len(completion.token_ids) <= self.max_tokens:
            return f"its completion has {len(completion.token_ids)} tokens"
        if min(completion.token_ids) < 0 or max(completion.token_ids) >= self.vocab_size:
            return "a token id is not in the vocabulary"
        if len(completion.logprobs) != len(completion.token_ids):
            return f"it has {len(completion.logprobs)} logprobs for {len(completion.token_ids)} tokens"
        if not all(-math.inf < logprob <= _ROUNDING for logprob in completion.logprobs):
            return "a logprob is not one of a probability"
        if completion.finish_reason not in (FinishReason.STOP, FinishReason.LENGTH):
            return "its completion did not end"
        return None


class RolloutJournal:
    """The rollouts in one file, made if it is not there; only the holder of the run's lock writes."""

    def __init__(self, path: Path, expected: Callable[[], Expected] | None = None) -> None:
        """expected: asked once if the file has lines; without it only digests are compared.

        Raises BadFile for a link, or if the disk refuses.
        """
        self._completions: dict[tuple[str, int], Completion] = {}
        self._verdicts: dict[tuple[str, int], Verdict] = {}
        self.fault: str | None = None  # a sentence for people, if lines were left out
        self._journal = Journal(path)  # cuts a torn last line
        kept = self._read(path, expected)
        if self.fault is not None:
            self._journal.close()
            self._set_aside(path, kept)
            self._journal = Journal(path)

    def _read(self, path: Path, expected: Callable[[], Expected] | None) -> list[bytes]:
        """Take up the lines that are right and return them."""
        known: Expected | None = None
        kept: list[bytes] = []
        faults: list[str] = []
        for number, (raw, _) in enumerate(whole_lines(path), 1):
            if known is None and expected is not None:
                known = expected()
            line, fault = _decoded(raw)
            if line is not None and fault is None and known is not None:
                fault = known.fault_of(line)
            if line is None or fault is not None:
                faults.append(f"line {number}: {fault}")
                continue
            kept.append(raw)
            self._take(line)
        if faults:
            self.fault = (
                f"{len(faults)} of {len(kept) + len(faults)} lines of {path} are not as they were written "
                f"({faults[0]}); these rollouts are drawn or graded again"
            )
        return kept

    def _take(self, line: RolloutLine) -> None:
        if line.completion is not None:
            self._completions[line.key, line.sample] = line.completion
        if line.verdict is not None:
            self._verdicts[line.key, line.sample] = line.verdict

    def _set_aside(self, path: Path, kept: list[bytes]) -> None:
        """Keep the damaged file under another name, in its place the lines that are right."""
        names = (path.with_name(f"{path.name}.damaged{f'-{n}' if n > 1 else ''}") for n in count(1))
        aside = next(name for name in names if not name.exists())
        try:
            path.rename(aside)
        except OSError as error:
            raise not_written(aside, error) from error
        with replaced_file(path) as file:
            file.writelines(kept)
        self.fault = f"{self.fault}; the file as it was is {aside.name}"

    def completions(self) -> Mapping[tuple[str, int], Completion]:
        """(key of the problem, sample) to completion."""
        return self._completions

    def verdicts(self) -> Mapping[tuple[str, int], Verdict]:
        """(key of the problem, sample) to verdict."""
        return self._verdicts

    def write_completion(self, key: str, completion: Completion) -> None:
        """Append a completion. Raises BadFile if the disk refuses."""
        self._completions[key, completion.sample] = completion
        self._journal.append(RolloutLine(key=key, sample=completion.sample, completion=completion).signed())

    def write_verdict(self, key: str, sample: int, verdict: Verdict) -> None:
        """Append a verdict. Raises BadFile if the disk refuses."""
        self._verdicts[key, sample] = verdict
        self._journal.append(RolloutLine(key=key, sample=sample, verdict=verdict).signed())

    def close(self) -> None:
        """Give the file back; a second call does nothing."""
        self._journal.close()


def _decoded(raw: bytes) -> tuple[RolloutLine | None, str | None]:
    """The line, or what is wrong with it."""
    try:
        line = decode(raw, RolloutLine, "it", "")
    except BadFile as error:
        return None, str(error).rstrip("; ")
    try:
        return line, None if line.signed() == line else "it has another digest than when it was written"
    except (ValueError, OverflowError):  # a number that JSON can be read with but not written
        return None, "it holds a number that no run writes"
