"""Groups with given rewards, without a model."""

from collections.abc import Sequence

from groschen.records import Completion, FinishReason, Group, Problem, Rollout, Verdict


def rollout(
    reward: float | None, num_tokens: int = 4, finish: FinishReason = FinishReason.STOP, sample: int = 0
) -> Rollout:
    """A completion of so many tokens; None for a verifier that broke."""
    completion = Completion(
        token_ids=tuple(range(num_tokens)), logprobs=(-1.0,) * num_tokens, text="x", finish_reason=finish,
        policy_version=0, seed=0, sample=sample, prompt_ids=(1, 2), cached_tokens=0,
    )  # fmt: skip
    if reward is None:
        return Rollout(completion=completion, verdict=Verdict(reward=0.0, passed=False, error="it broke"))
    return Rollout(completion=completion, verdict=Verdict(reward=reward, passed=reward > 0.5))


def group(problem: Problem, rewards: Sequence[float | None]) -> Group:
    """One rollout for each reward."""
    return Group(problem=problem, rollouts=tuple(rollout(r, sample=i) for i, r in enumerate(rewards)))
