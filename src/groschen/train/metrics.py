"""The numbers of one step: a line of metrics.jsonl. What they mean is in docs/runs.md.

Everything that is not a function of the seed has a name that begins with time/ or cost/, or is
tokens/per_s. Leaves out who reads them.
"""

import math
import statistics
from collections.abc import Sequence

from groschen.records import FinishReason, Group
from groschen.train.advantages import Rewards, has_signal
from groschen.train.step import StepStats


def group_metrics(groups: Sequence[Group], shaped: Sequence[Rewards], num_trained: int) -> dict[str, float]:
    """What the rollouts of a step show.

    shaped: the rewards of training, group by group; num_trained: groups that the update saw.
    """
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    graded = [each.verdict for each in rollouts if each.verdict.error is None]
    rewards = [verdict.reward for verdict in graded]
    lengths = [len(each.completion.token_ids) for each in rollouts]
    passed = [sum(r.verdict.passed for r in g.rollouts if r.verdict.error is None) for g in groups]
    num_graded = [sum(r.verdict.error is None for r in g.rollouts) for g in groups]
    pairs = list(zip(passed, num_graded, strict=True))
    with_format = [float(bool(v.parts["format"])) for v in graded if "format" in v.parts]
    return {
        "reward/mean": _mean(rewards),
        "reward/std": statistics.pstdev(rewards) if rewards else math.nan,
        "accuracy/train": _mean([float(verdict.passed) for verdict in graded]),
        "format/share": _mean(with_format),
        "completion/mean_tokens": _mean(lengths),
        "completion/max_tokens": float(max(lengths)),
        "completion/truncated_share": _mean(
            [float(each.completion.finish_reason is FinishReason.LENGTH) for each in rollouts]
        ),
        "groups/total": float(len(groups)),
        "groups/with_signal": float(sum(has_signal(own) for own in shaped)),
        "groups/all_passed": float(sum(0 < n == p for p, n in pairs)),
        "groups/all_failed": float(sum(p == 0 < n for p, n in pairs)),
        "verify/error_share": 1 - len(graded) / len(rollouts),
        "update/trained_groups": float(num_trained),
        "tokens/generated": float(sum(lengths)),
        "tokens/prompt": float(sum(len(group.rollouts[0].completion.prompt_ids) for group in groups)),
    }


def update_metrics(updates: Sequence[StepStats]) -> dict[str, float]:
    """What the updates of a step did. The gap is that of the first: after it the policy has moved on
    purpose.
    """
    num_tokens = sum(stats.num_tokens for stats in updates)

    def mean(name: str) -> float:
        total = math.fsum(getattr(stats, name) * stats.num_tokens for stats in updates)
        return total / num_tokens if num_tokens else 0.0

    return {
        "policy/logprob_gap_max": updates[0].logprob_gap_max if updates else 0.0,
        "policy/entropy_nat": mean("entropy"),
        "policy/ratio_clipped_share": mean("clipped_share"),
        "policy/kl_nat": mean("divergence"),
        "update/loss": math.fsum(stats.loss for stats in updates),
        "update/grad_norm": max((stats.grad_norm for stats in updates), default=0.0),
        "update/learning_rate": updates[-1].learning_rate if updates else 0.0,
        "tokens/trained": float(num_tokens),
    }


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan
