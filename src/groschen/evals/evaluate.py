"""k completions of each held-out problem, one record for each: what every accuracy is made from.

Sampling is that of training (`rollout.py`): temperature 1 and no truncation unless told otherwise; greedy
decoding is temperature 0 with k = 1. Leaves out statistics (stats.py) and which model is better
(comparison.py).
"""

from collections.abc import Sequence

import msgspec

from groschen.records import EvalRecord, FinishReason, Group

MAX_ERROR_SHARE = 0.2  # of the verdicts that were asked for; beyond it there is no accuracy
EVALUATION_SALT = 0x6576616C  # keeps the noise of evaluations apart from that of training steps


def records_of(groups: Sequence[Group]) -> list[EvalRecord]:
    """The rollouts of groups as lines of an evaluation, in the order of problems and samples."""
    return [record for group in groups for record in _records(group)]


def verifier_fault(records: Sequence[EvalRecord], limit: float, what: str) -> str | None:
    """A sentence if the verifier failed on more than `limit` of the completions that it was shown; else None.

    Completions that were cut by length are not shown to it: counted as graded, they would make an accuracy
    out of no verdict at all. what: whose completions these are.
    """
    shown = [record for record in records if record.finish_reason is not FinishReason.LENGTH]
    broken = [record for record in shown if record.error is not None]
    if not broken or len(broken) <= limit * len(shown):
        return None
    return (
        f"the verifier failed on {len(broken)} of {len(shown)} completions of {what} (limit {limit:.0%}), "
        f"first on problem {broken[0].key!r}: {broken[0].error}; so there is no accuracy; "
        "try `groschen check`"
    )


def _records(group: Group) -> list[EvalRecord]:
    problem = group.problem
    prompt = next((m["content"] for m in reversed(problem.messages) if m.get("role") == "user"), "")
    is_text = isinstance(problem.answer, str)
    answer = str(problem.answer) if is_text else msgspec.json.encode(problem.answer).decode()
    return [
        EvalRecord(
            key=problem.key,
            sample=each.completion.sample,
            prompt=str(prompt),
            text=each.completion.text,
            answer=answer,
            passed=each.verdict.passed,
            reward=each.verdict.reward,
            parts=each.verdict.parts,
            error=each.verdict.error,
            num_tokens=len(each.completion.token_ids),
            finish_reason=each.completion.finish_reason,
        )
        for each in group.rollouts
    ]
