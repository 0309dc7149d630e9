"""The rollouts of one step or one evaluation on the disk: each completion and each verdict as soon as it is
there.

What a killed process had drawn and graded is taken up again, with the same bits. Lines are

    {"key": "...", "sample": 3, "completion": {"text": ..., "token_ids": ..., "logprobs": ...}}
    {"key": "...", "sample": 3, "verdict": {"reward": 1.0, "passed": true, ...}}

Leaves out what is drawn and how it is graded (rollout.py).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from groschen.records import Completion, Verdict
from groschen.runs.journal import Journal, read_journal


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutLine:
    """One line: a completion, or the verdict on one."""

    key: str  # of the problem
    sample: int
    completion: Completion | None = None
    verdict: Verdict | None = None


class RolloutJournal:
    """The rollouts in one file, made if it is not there; only the holder of the run's lock writes."""

    def __init__(self, path: Path) -> None:
        self._journal = Journal(path)  # cuts a torn last line
        self._completions: dict[tuple[str, int], Completion] = {}
        self._verdicts: dict[tuple[str, int], Verdict] = {}
        for line in read_journal(path, RolloutLine):
            if line.completion is not None:
                self._completions[line.key, line.sample] = line.completion
            if line.verdict is not None:
                self._verdicts[line.key, line.sample] = line.verdict

    def completions(self) -> Mapping[tuple[str, int], Completion]:
        """(key of the problem, sample) to completion."""
        return self._completions

    def verdicts(self) -> Mapping[tuple[str, int], Verdict]:
        """(key of the problem, sample) to verdict."""
        return self._verdicts

    def write_completion(self, key: str, completion: Completion) -> None:
        """Append a completion. Raises BadFile if the disk refuses."""
        self._completions[key, completion.sample] = completion
        self._journal.append(RolloutLine(key=key, sample=completion.sample, completion=completion))

    def write_verdict(self, key: str, sample: int, verdict: Verdict) -> None:
        """Append a verdict. Raises BadFile if the disk refuses."""
        self._verdicts[key, sample] = verdict
        self._journal.append(RolloutLine(key=key, sample=sample, verdict=verdict))

    def close(self) -> None:
        """Give the file back; a second call does nothing."""
        self._journal.close()
