"""A run whose files were changed between two lives says so and ends in the same bits, or it is refused."""

import io
import json
import os
import shutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.tiny import VOCABULARY
from tests.train.test_grpo import assert_same_end, tensors
from tests.train.tiny_run import recipe

from groschen import cli
from groschen.errors import BadFile
from groschen.runs.rollouts import Expected, RolloutJournal, RolloutLine
from groschen.train import origin
from groschen.train.grpo import train
from groschen.train.opening import new_session, resumed_session
from groschen.train.recipe import GrpoRecipe
from groschen.train.session import Session

STEP = 3  # whose rollouts are drawn and graded but not trained when the process ends


class Killed(BaseException):
    """The end of a process, wherever it is."""


@pytest.fixture(scope="module", autouse=True)
def _one_look_at_the_machine() -> Iterator[None]:
    """The probe of exactness and the roofs are measured once, not at each of sixty openings."""
    look_once, roofs = cache(origin.probe), {"bf16_gflops": 100.0, "read_gbps": 10.0}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(origin, "probe", look_once)
        patch.setattr(origin, "measured_roofs", lambda _config, _device: roofs)
        yield


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`whole`, a run in one go, and `killed`, the same until the rollouts of a step are on the disk."""
    folder = tmp_path_factory.mktemp("runs")
    session = new_session(recipe(folder), folder / "whole", io.StringIO())
    train(session)
    session.close()
    kill_after_rollouts(recipe(folder), folder / "killed")
    return folder


def kill_after_rollouts(settings: GrpoRecipe, folder: Path) -> None:
    """A run that ends when the rollouts of its step STEP are drawn and graded, but not trained."""
    session = new_session(settings, folder, io.StringIO())
    roll_out = Session.roll_out

    def stop_after(self: Session, problems: Any, number: int) -> Any:
        rolled = roll_out(self, problems, number)
        if number == STEP:
            raise Killed
        return rolled

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Session, "roll_out", stop_after)
        with pytest.raises(Killed):
            train(session)
    session.close()


@pytest.fixture
def killed(runs: Path, tmp_path: Path) -> Path:
    """A copy of the killed run, to be damaged."""
    shutil.copytree(runs / "killed", tmp_path / "run", symlinks=True)
    return tmp_path / "run"


def go_on(folder: Path) -> str:
    """What is said on standard error."""
    said = io.StringIO()
    session = resumed_session(folder, (), said)
    try:
        train(session)
    finally:
        session.close()
    return said.getvalue()


def change(path: Path, number: int, edit: Callable[[dict[str, Any]], object], *, signs: bool = False) -> None:
    """Edit one line of a journal; signs: with the digest of what it says then."""
    lines = path.read_text().splitlines()
    line = json.loads(lines[number])
    edit(line)
    lines[number] = json.dumps(line)
    if signs:
        signed = msgspec.json.decode(lines[number], type=RolloutLine).signed()
        lines[number] = msgspec.json.encode(signed).decode()
    path.write_text("".join(f"{line}\n" for line in lines))


def completion(**changes: Any) -> Callable[[dict[str, Any]], object]:
    def edit(line: dict[str, Any]) -> None:
        for name, value in changes.items():
            line["completion"][name] = value(line["completion"][name]) if callable(value) else value

    return edit


EDITS = {
    "a token": completion(token_ids=lambda ids: [(ids[0] + 1) % 200, *ids[1:]]),
    "a token out of the vocabulary": completion(token_ids=lambda ids: [10**6, *ids[1:]]),
    "a negative token": completion(token_ids=lambda ids: [*ids[:-1], -1]),
    "a huge token": completion(token_ids=lambda ids: [*ids[:-1], 10**30]),
    "no logprobs": completion(logprobs=[]),
    "a logprob above 0": completion(logprobs=lambda logprobs: [0.5, *logprobs[1:]]),
    "no tokens": completion(token_ids=[], logprobs=[]),
    "too many tokens": completion(token_ids=[1] * 5000, logprobs=[-1.0] * 5000),
    "another prompt": completion(prompt_ids=[1, 2]),
    "another sample": completion(sample=17),
    "aborted": completion(finish_reason="aborted"),
    "a problem of nobody": lambda line: line.update(key="nobody"),
    "a sample of nobody": lambda line: line.update(sample=-1),
    "nothing": lambda line: line.update(completion=None),
}


# A token that could have been drawn is not among the signed ones: who signs it anew is believed.
@pytest.mark.parametrize(
    ("name", "signs"),
    [(name, False) for name in EDITS] + [(name, True) for name in EDITS if name != "a token"],
)
def test_a_line_that_no_process_of_the_run_wrote_is_left_out(
    runs: Path, tmp_path: Path, name: str, signs: bool
) -> None:
    path = shutil.copy(runs / "killed" / "rollouts" / f"step-{STEP:06d}.jsonl", tmp_path / "lines.jsonl")
    before = RolloutJournal(path)
    prompts = {key: drawn.prompt_ids for (key, _), drawn in before.completions().items()}
    expected = Expected(prompts=prompts, num_samples=4, max_tokens=16, vocab_size=VOCABULARY)
    assert RolloutJournal(path, lambda: expected).fault is None
    content = path.read_bytes()
    change(path, 0, EDITS[name], signs=signs)
    damaged = path.read_bytes()
    journal = RolloutJournal(path, lambda: expected)
    assert journal.fault is not None and journal.fault.startswith(f"1 of 24 lines of {path} are not as they")
    assert len(journal.completions()) == 11 and journal.verdicts() == before.verdicts()
    assert path.read_bytes().splitlines() == content.splitlines()[1:]
    assert (tmp_path / "lines.jsonl.damaged").read_bytes() == damaged


@pytest.mark.parametrize(
    ("name", "signs"), [("a token", False), ("a token out of the vocabulary", True)], ids=["token", "bad id"]
)
def test_a_changed_rollout_is_said_and_drawn_again_with_the_same_bits(
    runs: Path, killed: Path, name: str, signs: bool
) -> None:
    path = killed / "rollouts" / f"step-{STEP:06d}.jsonl"
    before = path.read_bytes()
    change(path, 0, EDITS[name], signs=signs)
    said = go_on(killed)
    assert "1 of 24 lines of" in said and "drawn or graded again" in said
    assert sorted(path.read_bytes().splitlines()) == sorted(before.splitlines())
    for step, tensor in tensors(runs / "whole", 4).items():
        assert tensor.equal(tensors(killed, 4)[step])


def test_a_run_that_nobody_touched_goes_on_without_a_word(runs: Path, killed: Path) -> None:
    assert "line" not in go_on(killed)
    assert_same_end(runs / "whole", killed)


def test_a_changed_verdict_is_graded_again(runs: Path, killed: Path) -> None:
    path = killed / "rollouts" / f"step-{STEP:06d}.jsonl"
    change(path, 20, lambda line: line["verdict"].update(reward=1 - line["verdict"]["reward"]))
    assert "another digest than when it was written" in go_on(killed)
    for step, tensor in tensors(runs / "whole", 4).items():
        assert tensor.equal(tensors(killed, 4)[step])


@pytest.mark.parametrize("num_lines", [0, 3])
def test_metrics_that_are_shorter_than_they_were_are_said_and_not_cut_in_the_wrong_place(
    killed: Path, num_lines: int
) -> None:
    path = killed / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:num_lines]))
    assert f"has {num_lines} of the {len(lines)} lines that it had at step 2" in go_on(killed)
    once = path.read_text()
    shutil.rmtree(killed / "checkpoints" / "step-000004")  # back to step 3, whose count is of the short file
    (killed / "best").unlink()
    assert " lines that it had" not in go_on(killed)
    steps = [
        line["step"] for line in map(json.loads, path.read_text().splitlines()) if line["kind"] == "step"
    ]
    assert steps[-2:] == [3, 4] and steps == sorted(set(steps)), once


@pytest.mark.parametrize(
    "name", ["lock", "metrics.jsonl", "ledger.jsonl", f"rollouts/step-{STEP:06d}.jsonl", "rollouts",
             "evaluations", "checkpoints"]
)  # fmt: skip
def test_a_link_where_a_run_writes_is_refused_and_what_it_points_to_is_as_before(
    killed: Path, name: str, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    if (killed / name).is_dir():
        shutil.move(killed / name, outside)
        content = {path: path.read_bytes() for path in outside.rglob("*") if path.is_file()}
    else:
        outside.write_bytes((killed / name).read_bytes() + b"and a line without an end")
        (killed / name).unlink()
        content = {outside: outside.read_bytes()}
    (killed / name).symlink_to(outside)
    with pytest.raises(
        BadFile, match=f"{name} is a link, and a run writes only into files of its own folder"
    ):
        go_on(killed)
    assert {path: path.read_bytes() for path in content} == content


@pytest.mark.parametrize("name", ["lock", "metrics.jsonl", "ledger.jsonl", "manifest.json", "config.toml"])
def test_a_pipe_in_a_run_folder_holds_nobody_up(killed: Path, name: str) -> None:
    (killed / name).unlink()
    os.mkfifo(killed / name)
    with pytest.raises(BadFile, match=r"a pipe|no regular file"):
        go_on(killed)


def test_an_evaluation_that_was_cut_is_set_aside_and_measured_again(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "whole", tmp_path / "run", symlinks=True)
    path = tmp_path / "run" / "evaluations" / "best-test.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[: whole.index(b"\n") + 1])
    assert "does not hold the 8 answers" in go_on(tmp_path / "run")
    assert path.read_bytes() == whole


@pytest.mark.parametrize("command", ["eval", "export", "chat", "serve"])
@pytest.mark.parametrize(
    ("damage", "fault"),
    [("bit", "model.safetensors has another SHA-256"), ("template", "chat_template.jinja was added")],
)
def test_a_changed_checkpoint_is_refused_by_whoever_opens_it(
    runs: Path, tmp_path: Path, command: str, damage: str, fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(runs / "whole", tmp_path / "run", symlinks=True)
    best = (tmp_path / "run" / "best").resolve()
    if damage == "bit":
        with (best / "model.safetensors").open("r+b") as file:
            file.seek(-1, os.SEEK_END)
            last = file.read(1)
            file.seek(-1, os.SEEK_END)
            file.write(bytes([last[0] ^ 1]))
    else:
        (best / "chat_template.jinja").unlink(missing_ok=True)
        added = "chat_template.jinja" if "template" in fault else ""
        listed = json.loads((best / "checkpoint.json").read_text())
        listed["files"].pop(added, None)
        (best / "checkpoint.json").write_text(json.dumps(listed))
        (best / added).write_text("{{ messages }}")
    model = str(tmp_path / "run")
    more = {
        "eval": ["--task", "countdown"],
        "export": [str(tmp_path / "copy")],
        "chat": [],
        "serve": ["--port", "0"],
    }
    assert cli.run([command, model, *more[command]]) == 1
    assert fault in capsys.readouterr().err
