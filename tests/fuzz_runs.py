"""Damaged run folders and task files: each is read right, or refused in one sentence.

`python tests/fuzz_runs.py --count 2500` tries as many; `tests/runs/test_fuzz.py` tries a few. A run folder is
reported on, opened as a model, or gone on with to its end; a task file is loaded, asked and verified with.
What is damaged is made by a process of its own, because a process with threads must not fork.
"""

import hashlib
import io
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.train.test_damaged_runs import STEP, kill_after_rollouts
from tests.train.tiny_run import recipe

from damage import damage_bytes, damage_json, damage_kind, dump, mutate, replace
from fuzzing import main
from groschen.evals.report import write_report
from groschen.model.load import load_model
from groschen.records import Split
from groschen.tasks.load import load_task
from groschen.tasks.task import judge as verdict_on
from groschen.train import origin
from groschen.train.command import conclusion
from groschen.train.grpo import train
from groschen.train.opening import new_session, resumed_session

_LINKS = ("lock", "rollouts", "evaluations", "checkpoints")
_READ = ("manifest.json", "config.toml", "metrics.jsonl", "ledger.jsonl", "plan.json", "prices.json",
         "check.json", "problems.jsonl",
         "evaluations/base-test.jsonl", "evaluations/best-test.jsonl", "best")  # fmt: skip
_CHECKPOINT = ("checkpoint.json", "trainer.json", "config.json", "tokenizer.json", "generation_config.json",
               "model.safetensors", "trainer.safetensors")  # fmt: skip
_TOML_VALUES = (
    "nan", "inf", "-inf", "-1", "0", "1e999", "9" * 5000, "1" + "0" * 30, "true", '"x"', '"none"', "[]",
    "{}",
    "[1, 1]", "1979-05-27", "[" * 3000 + "]" * 3000, '"\\u0000"', '"' + "a" * 5000 + '"', "''",
    "0.5", "{a = 1}",
)  # fmt: skip
ROWS = [
    {"question": "1 + 1", "answer": 2, "checker": "number"},
    {"prompt": [{"role": "user", "content": "Say yes"}], "answer": "yes", "checker": {"kind": "exact"},
     "id": "a"},
    {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "A or B?"}],
     "answer": "A", "checker": {"kind": "choice", "slot": "boxed"}, "page": 3},
    {"question": "An object with x = 1", "answer": {"x": 1}, "checker": {"kind": "json"}, "split": "train"},
    {"question": "x + x", "answer": "2x", "checker": {"kind": "expression"}, "split": "test", "id": 7},
    {"question": "A word of e", "answer": "^e+$", "checker": {"kind": "regex"}},
]  # fmt: skip
SETTINGS = """[checker]
kind = "number"
[prompt]
instruction = "Answer in a box."
instructions = ["Think.", "Be brief."]
[splits]
dev = 0.2
test = 0.2
"""
_WHOLE, _KILLED = "whole", "killed"  # a run to its end, and one that ended within its last step


def prepare(random_: random.Random, place: Path) -> str:
    """A task file or a run folder with one thing damaged; the file `how` says what is to be done with it."""
    if random_.random() < 0.35:
        return _damaged_task(random_, place)
    how, run = random_.choice(["report"] * 6 + ["resume", "open"]), place / "run"
    shutil.copytree(BASE / (_KILLED if how == "resume" else _WHOLE), run, symlinks=True)
    (place / "how").write_text(how)
    if how == "open":
        return f"{how}: {_damaged_checkpoint(random_, run)}"
    kind = random_.random()
    if how == "resume" and kind < 0.3:
        return f"{how}: {_damaged_checkpoint(random_, run)}"
    if how == "resume" and kind < 0.5:
        return f"{how}: {_damaged_lines(random_, next((run / 'rollouts').glob('step-000003.jsonl')))}"
    if how == "resume" and kind < 0.55:
        return f"{how}: {_linked(random_, run)}"
    name = random_.choice([name for name in _READ if os.path.lexists(run / name)])
    return f"{how}: {_damaged(random_, run / name)}"


def _damaged(random_: random.Random, path: Path) -> str:
    if path.is_symlink():
        path.unlink()
        target = random_.choice(
            ["checkpoints", "/etc", "best", "step-1", "checkpoints/step-999999", "a" * 200]
        )
        path.symlink_to(target)
        return f"{path.name} -> {target}"
    if random_.random() < 0.15:
        return damage_kind(random_, path)
    if random_.random() < 0.2:
        return damage_bytes(random_, path)
    if path.suffix == ".jsonl":
        return _damaged_lines(random_, path)
    if path.suffix == ".toml":
        return _damaged_toml(random_, path)
    return damage_json(random_, path)


def _damaged_lines(random_: random.Random, path: Path) -> str:
    """One line of JSON changed, or lines lost, doubled or in another order."""
    lines = path.read_bytes().splitlines(keepends=True)
    number = random_.randrange(len(lines))
    kind = random_.random()
    if kind < 0.75:
        change, content = mutate(random_, json.loads(lines[number]))
        lines[number] = dump(content) + b"\n"
        what = f"line {number + 1}: {change}"
    elif kind < 0.85:
        del lines[number:]
        what = f"lines from {number + 1} on are gone"
    elif kind < 0.95:
        lines.insert(random_.randrange(len(lines)), lines[number])
        what = f"line {number + 1} twice"
    else:
        random_.shuffle(lines)
        what = "lines in another order"
    replace(path, b"".join(lines))
    return f"{path.name} {what}"


def _damaged_toml(random_: random.Random, path: Path) -> str:
    lines = path.read_text().splitlines()
    number = random_.choice([i for i, line in enumerate(lines) if " = " in line])
    name = lines[number].partition(" = ")[0]
    value = random_.choice(_TOML_VALUES)
    lines[number] = f"{name} = {value}"
    replace(path, ("\n".join(lines) + "\n").encode())
    return f"{path.name}: {name} = {value[:30]}"


def _damaged_checkpoint(random_: random.Random, run: Path) -> str:
    """A file of the newest checkpoint changed; half of the time its list says so, as a forger would."""
    folder = sorted((run / "checkpoints").iterdir())[-1]
    name = random_.choice([name for name in _CHECKPOINT if (folder / name).exists()])
    path = folder / name
    damage = damage_json if name.endswith(".json") and random_.random() < 0.8 else damage_bytes
    said = damage_kind(random_, path) if random_.random() < 0.1 else damage(random_, path)
    if (
        name != "checkpoint.json"
        and path.is_file()
        and path.stat().st_size < 1 << 30
        and random_.random() < 0.5
    ):
        listed = json.loads((folder / "checkpoint.json").read_bytes())
        content = path.read_bytes() if not path.is_symlink() else b""
        listed["files"][name] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        replace(folder / "checkpoint.json", json.dumps(listed).encode())
        said += ", and listed so"
    return f"checkpoint {said}"


def _linked(random_: random.Random, run: Path) -> str:
    name = random_.choice(_LINKS)
    outside = run.parent / "outside"
    shutil.move(run / name, outside)
    (run / name).symlink_to(outside)
    return f"{name} is a link"


def _damaged_task(random_: random.Random, place: Path) -> str:
    (place / "how").write_text("task")
    rows = [{**row, **({"id": f"{row['id']}{n}"} if "id" in row else {})} for n in range(12) for row in ROWS]
    for number, row in enumerate(rows):
        for name in ("question",):
            if name in row:
                row[name] = f"{row[name]} ({number})"
    path = place / "rows.jsonl"
    path.write_bytes(b"".join(dump(row) + b"\n" for row in rows))
    if random_.random() < 0.4:
        (place / "rows.toml").write_text(SETTINGS)
        if random_.random() < 0.7:
            return f"task: {_damaged(random_, place / 'rows.toml')}"
    return f"task: {_damaged(random_, path)}"


_probe_once = cache(origin.probe)


def _look_once() -> None:
    """Seconds and a gigabyte of each opening, and nothing of it comes from a file."""
    origin.probe = _probe_once
    origin.measured_roofs = lambda _config, _device: {"bf16_gflops": 100.0, "read_gbps": 10.0}


def judge(place: Path) -> str | None:
    """Do with it what its kind asks for."""
    torch.set_num_threads(1)
    _look_once()
    how = (place / "how").read_text()
    run = place / "run"
    if how == "task":
        _ask(place / "rows.jsonl")
    elif how == "report":
        write_report(run)
    elif how == "open":
        load_model(str(run))
    else:
        said = io.StringIO()
        session = resumed_session(run, (), said)
        try:
            train(session)
        finally:
            session.close()
        conclusion(run, session.spent())
        write_report(run)
    return how


def _ask(path: Path) -> None:
    task = load_task(str(path))
    for split in Split:
        for problem in task.problems[split][:4]:
            for text in (task.gold(problem), "", "42", "\\boxed{A}", *task.wrong(problem)):
                if text is not None:
                    json.dumps(verdict_on(task, problem, text).parts)


def _make(folder: Path) -> None:
    """Both runs, with their model and task beside them."""
    _look_once()
    settings = recipe(folder, num_steps=STEP)
    session = new_session(settings, folder / _WHOLE, io.StringIO())
    train(session)
    session.close()
    kill_after_rollouts(settings, folder / _KILLED)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--make"]:
        _make(Path(sys.argv[2]))
        sys.exit()
    with tempfile.TemporaryDirectory(prefix="fuzz-base-") as top:
        BASE = Path(top)
        subprocess.run([sys.executable, __file__, "--make", top], check=True)
        sys.exit(main(prepare, judge, __doc__))
