"""A control is taken only from a run that differs in nothing but what was rewarded."""

from dataclasses import replace
from pathlib import Path

import pytest
from tests.evals.synthetic_run import MANIFEST, records, write_lines, write_run

from groschen.errors import BadFile, BadRequest
from groschen.evals.format_control import take_format_control
from groschen.evals.report import write_report
from groschen.runs.manifest import write_manifest

FORMAT = '\n[rewards]\nsource = "format"\n'


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """A run without a control, and one that was rewarded for the format."""
    run, control = write_run(tmp_path / "run"), write_run(tmp_path / "control")
    (run / "evaluations" / "format-only-test.jsonl").unlink(missing_ok=True)
    config = control / "config.toml"
    config.write_text(config.read_text() + FORMAT)
    write_lines(control / "evaluations" / "best-test.jsonl", list(records(21, 0.33, length=45)))
    return run, control


def test_the_report_says_what_is_left_beyond_format(pair: tuple[Path, Path]) -> None:
    run, control = pair
    assert "trained for the format alone, the gain" not in write_report(run).read_text()
    taken = take_format_control(run, control)
    assert taken.read_bytes() == (control / "evaluations" / "best-test.jsonl").read_bytes()
    assert "trained for the format alone, the gain" in write_report(run).read_text()


def test_a_run_that_was_rewarded_for_answers_is_no_control(pair: tuple[Path, Path]) -> None:
    run, control = pair
    config = control / "config.toml"
    config.write_text(config.read_text().replace(FORMAT, ""))
    with pytest.raises(BadRequest, match=r"rewards\.source=format"):
        take_format_control(run, control)


def test_another_setting_is_named(pair: tuple[Path, Path]) -> None:
    run, control = pair
    config = control / "config.toml"
    config.write_text(config.read_text().replace("group_size = 8", "group_size = 16"))
    with pytest.raises(BadRequest, match=r"sampling\.group_size differ"):
        take_format_control(run, control)


@pytest.mark.parametrize(
    "change",
    [{"seed": 8}, {"model_digest": "b4" * 32}, {"task_digest": "8d" * 32}],
    ids=lambda c: next(iter(c)),
)
def test_another_origin_is_named(pair: tuple[Path, Path], change: dict[str, object]) -> None:
    run, control = pair
    write_manifest(control, replace(MANIFEST, **change))
    with pytest.raises(BadRequest, match=f"another {next(iter(change)).removesuffix('_digest')}"):
        take_format_control(run, control)


def test_an_unfinished_control_is_sent_back(pair: tuple[Path, Path]) -> None:
    run, control = pair
    (control / "evaluations" / "best-test.jsonl").unlink()
    with pytest.raises(BadFile, match="--resume"):
        take_format_control(run, control)
