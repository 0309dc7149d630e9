"""Each alarm stops a run with its reason, and none of them cries wolf."""

import io
import math
from pathlib import Path

import pytest
from tests.train.tiny_run import recipe

from groschen.records import Verdict
from groschen.train.alarms import (
    AlarmSettings,
    Held,
    RunStopped,
    best_of,
    check_step,
    has_fallen,
    is_silent,
)
from groschen.train.grpo import train
from groschen.train.opening import new_session, resumed_session

HEALTHY = {
    "update/loss": 0.1, "update/grad_norm": 0.5, "policy/entropy_nat": 0.4, "reward/mean": 0.3,
    "verify/error_share": 0.0, "completion/truncated_share": 0.1, "groups/with_signal": 5.0,
    "update/trained_groups": 5.0, "accuracy/train": 0.3,
}  # fmt: skip


def step(**changes: float) -> dict[str, float]:
    return {**HEALTHY, **{name.replace("__", "/"): value for name, value in changes.items()}}


def test_a_healthy_run_goes_on() -> None:
    check_step(step(), 0, AlarmSettings())


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"update__loss": math.nan}, "update/loss is nan"),
        ({"update__grad_norm": math.inf}, "grad_norm is inf"),
        ({"reward__mean": math.nan}, "reward/mean is nan"),
        ({"verify__error_share": 0.45}, r"verifier failed on 50%.*groschen check"),
        ({"verify__error_share": 0.1, "completion__truncated_share": 0.9}, "verifier failed on 100%"),
        ({"policy__entropy_nat": 0.0001}, "collapsed"),
        ({"completion__truncated_share": 0.95}, r"95%.*max_tokens"),
    ],
)
def test_what_is_beyond_a_limit_stops_the_run_with_its_reason(changes: dict[str, float], reason: str) -> None:
    with pytest.raises(RunStopped, match=reason):
        check_step(step(**changes), 0, AlarmSettings())


def test_no_signal_for_too_long_stops_the_run_however_long_that_is() -> None:
    silent, settings = step(update__trained_groups=0.0), AlarmSettings(steps_without_signal=40)
    check_step(silent, 39, settings)
    with pytest.raises(RunStopped, match="no group had signal for 40 steps"):
        check_step(silent, 40, settings)


def test_no_signal_because_all_is_right_is_no_alarm() -> None:
    silent = step(update__trained_groups=0.0, accuracy__train=0.97)
    check_step(silent, 1000, AlarmSettings())
    assert is_silent(8, AlarmSettings()) and not is_silent(7, AlarmSettings())
    assert not is_silent(1000, AlarmSettings(steps_without_signal=0)), "it is switched off"


def test_a_run_that_has_learned_it_all_ends_with_its_measurement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    always = Verdict(reward=1.0, passed=True)
    monkeypatch.setattr("groschen.rollout._verdict", lambda task, problem, completion: always)
    alarms = AlarmSettings(steps_without_signal=2, max_truncated_share=0.0)
    session = new_session(recipe(tmp_path, num_steps=9, alarms=alarms), tmp_path / "run", io.StringIO())
    train(session)
    session.close()
    assert session.state.step == 2
    assert (tmp_path / "run" / "evaluations" / "best-test.jsonl").is_file()
    again = resumed_session(tmp_path / "run", [], io.StringIO())
    train(again)
    again.close()
    assert again.state.step == 2, "a resume knows it too"


def test_a_verifier_that_always_breaks_is_named_and_not_the_learning_rate() -> None:
    with pytest.raises(RunStopped, match="verifier failed on 100%"):
        check_step(step(verify__error_share=0.9, reward__mean=math.nan), 0, AlarmSettings())


def test_entropy_is_not_asked_for_where_nothing_was_trained() -> None:
    check_step(step(update__trained_groups=0.0, policy__entropy_nat=0.0), 1, AlarmSettings())


def test_an_alarm_can_be_switched_off() -> None:
    settings = AlarmSettings(
        max_error_share=0.0, max_truncated_share=0.0, steps_without_signal=0, min_entropy=0.0
    )
    bad = step(
        verify__error_share=1.0,
        completion__truncated_share=1.0,
        groups__with_signal=0.0,
        policy__entropy_nat=0.0,
    )
    check_step(bad, 20, settings)


def held(*accuracies: float | None, error: float = 0.02) -> list[Held]:
    return [Held(step, accuracy, error) for step, accuracy in enumerate(accuracies)]


def test_accuracy_that_fell_and_stayed_low_ends_a_run() -> None:
    settings = AlarmSettings(falls_by_errors=2.0, patience=2)
    assert has_fallen(held(0.1, 0.5, 0.3, 0.3), settings)
    assert not has_fallen(held(0.1, 0.5, 0.3), settings), "once may be chance"
    assert not has_fallen(held(0.1, 0.5, 0.3, 0.49), settings), "it came back"
    assert not has_fallen(held(0.1, 0.5, 0.3, 0.3, error=0.2), settings), "within the noise"
    assert not has_fallen(held(0.1, 0.2, 0.3, 0.5), settings)
    assert not has_fallen(held(0.1, 0.5, 0.3, 0.3), AlarmSettings(falls_by_errors=0.0))


def test_the_best_is_the_earliest_of_equals_and_never_one_that_could_not_be_graded() -> None:
    assert best_of(held(None, 0.3, 0.5, 0.5, None)).step == 2
    assert best_of(held(None, None)).step == 0
    assert not has_fallen(held(0.5, None, None), AlarmSettings(falls_by_errors=2.0, patience=2))
