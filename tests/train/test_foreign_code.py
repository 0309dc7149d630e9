"""A task whose code misbehaves in training: verdicts with errors, in the journal once and for all."""

import dataclasses
import io
import json
from pathlib import Path

import pytest
from tests.train.tiny_run import TASK, recipe

from groschen.train.alarms import AlarmSettings, RunStopped
from groschen.train.grpo import train
from groschen.train.opening import new_session, resumed_session
from groschen.train.recipe import GrpoRecipe


def faulty(folder: Path, fault: str, **changes: object) -> GrpoRecipe:
    """The tiny recipe; `verify` does `fault` for some completions of training problems, and notes it in
    faults.txt.
    """
    made = recipe(folder, num_steps=1, verdict_seconds=1.0, **changes)
    made = dataclasses.replace(made, alarms=AlarmSettings(max_error_share=0.0, max_truncated_share=0.0))
    body = f"""def verify(problem, text):
    import os, time
    if text and len(text) % 4 == 0 and os.path.exists({str(folder / "training")!r}):
        open({str(folder / "faults.txt")!r}, "a").write(problem.key + "\\n")
        {fault}
"""
    (folder / "task.py").write_text(TASK.replace("def verify(problem, text):\n", body))
    return made


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("time.sleep(1000)", "longer than 1 s"),
        ("os._exit(0)", "ended its process with exit status 0"),
        ("exit()", "SystemExit"),
        ("raise BaseException('late')", "BaseException: late"),
    ],
    ids=["hangs", "_exit", "exit", "BaseException"],
)
def test_a_verdict_that_failed_is_journaled_and_a_resume_does_not_ask_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str, said: str
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    session = new_session(faulty(tmp_path, fault), tmp_path / "run", io.StringIO())
    # From the first step on: the base is measured before.
    (tmp_path / "training").touch()
    monkeypatch.setattr("groschen.train.grpo.measure_base", lambda session: None)
    monkeypatch.setattr("groschen.train.grpo.measure_if_due", lambda session: None)
    monkeypatch.setattr("groschen.train.grpo.learn", stop)
    with pytest.raises(KeyboardInterrupt):
        train(session)
    session.close()
    faults = (tmp_path / "faults.txt").read_text().splitlines()
    lines = (tmp_path / "run" / "rollouts" / "step-000001.jsonl").read_text().splitlines()
    errors = [line for line in map(json.loads, lines) if line["verdict"] and line["verdict"]["error"]]
    assert 0 < len(errors) == len(faults) < 12
    assert all(said in line["verdict"]["error"] for line in errors)
    assert [line["key"] for line in errors] == faults
    again = resumed_session(tmp_path / "run", (), io.StringIO())
    with pytest.raises(KeyboardInterrupt):
        train(again)
    again.close()
    assert (tmp_path / "faults.txt").read_text().splitlines() == faults, "no verdict was asked for again"


def test_the_alarm_does_not_wait_for_every_verdict_and_a_resume_asks_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = faulty(tmp_path, "raise ValueError('no network')")
    strict = dataclasses.replace(made, alarms=AlarmSettings(max_error_share=0.01, max_truncated_share=0.0))
    session = new_session(strict, tmp_path / "run", io.StringIO())
    (tmp_path / "training").touch()
    monkeypatch.setattr("groschen.train.grpo.measure_base", lambda session: None)
    monkeypatch.setattr("groschen.train.grpo.measure_if_due", lambda session: None)
    with pytest.raises(RunStopped, match=r"failed on 1 of \d+ completions of step 1 .*no network \(task\.py"):
        train(session)
    session.close()
    assert len((tmp_path / "faults.txt").read_text().splitlines()) == 1
    (tmp_path / "training").unlink()
    again = resumed_session(tmp_path / "run", (), io.StringIO())
    groups, _ = again.roll_out(again.curriculum.next(3), 1)
    again.close()
    assert all(rollout.verdict.error is None for group in groups for rollout in group.rollouts)
