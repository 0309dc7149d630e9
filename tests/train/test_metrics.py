"""What a line of metrics.jsonl says of groups."""

from tests.train.verdicts import group

from groschen.records import Problem
from groschen.train.metrics import group_metrics

PROBLEM = Problem(key="p", messages=({"role": "user", "content": "?"},))


def test_a_group_has_signal_by_the_rewards_of_training_and_not_by_its_verdicts() -> None:
    groups = [group(PROBLEM, [1.0, 1.0]), group(PROBLEM, [1.0, 0.0])]
    assert group_metrics(groups[:1], [[1.0, 0.75]], 1)["groups/with_signal"] == 1.0
    assert group_metrics(groups[1:], [[1.0, 1.0]], 0)["groups/with_signal"] == 0.0
