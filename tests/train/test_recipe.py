"""What a recipe's algorithm stands for, and the settings that would do nothing or harm."""

import pytest

from groschen.errors import BadRequest
from groschen.train.losses import Bounds
from groschen.train.optimizer import OptimizerSettings
from groschen.train.recipe import EvaluationSettings, GrpoRecipe, PolicySettings, SamplingSettings
from groschen.train.rewards import RewardSettings


def test_bounds_are_the_algorithms_unless_they_are_set() -> None:
    def bounds(**settings: object) -> Bounds:
        return GrpoRecipe(policy=PolicySettings(**settings)).bounds  # type: ignore[arg-type]

    assert bounds() == (0.2, 0.28)
    assert bounds(algorithm="gspo") == (3e-4, 4e-4), "ratios of whole sequences move little"
    assert bounds(algorithm="gspo", clip_high=0.1) == (3e-4, 0.1)
    assert bounds(clip_low=0.0) == (0.0, 0.28)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("rewards.length_penalty", {"rewards": RewardSettings(length_penalty=0.5)}),
        ("rewards.length_buffer", {"rewards": RewardSettings(length_buffer=20)}),
        ("optimizer.max_grad_norm", {"optimizer": OptimizerSettings(max_grad_norm=0.0)}),
        ("evaluation.dev_problems", {"evaluation": EvaluationSettings(dev_problems=0)}),
        ("evaluation.dev_samples", {"evaluation": EvaluationSettings(dev_samples=0)}),
        ("evaluation.test_samples", {"evaluation": EvaluationSettings(test_samples=0)}),
        ("sampling.trained_per_group", {"sampling": SamplingSettings(trained_per_group=1)}),
        ("sampling.trained_per_group", {"sampling": SamplingSettings(group_size=4, trained_per_group=5)}),
        ("keep_last", {"keep_last": 0}),
        ("max_rows", {"max_rows": 0}),
    ],
)
def test_a_setting_that_would_do_nothing_or_harm_is_refused_by_name(
    name: str, settings: dict[str, object]
) -> None:
    with pytest.raises(BadRequest, match=name.replace(".", r"\.")):
        GrpoRecipe(**settings)  # type: ignore[arg-type]
