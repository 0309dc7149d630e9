"""Measures one GRPO step in steady state, ours against TRL's on the same CPU in one run.

    python benchmarks/run_grpo.py --model FOLDER --data GSM8K_FOLDER [--trl-python PATH]
        [--repeats 2] [--steps 2] [--out FOLDER]
    python benchmarks/run_grpo.py --model FOLDER --data GSM8K_FOLDER --samples 16,32,64,128,256

4 problems x 8 completions of at most 128 tokens at temperature 1, no divergence, every weight trained, one
update for each rollout batch. The programs take turns: one is started, takes a warm-up step and then
`--steps` measured ones and ends, then the other; both at once would not fit into memory. With `--samples`,
ours alone takes steps of several sizes in turn. Verifying, evaluating and saving are left out for all.
"""

import argparse
import datetime as dt
import json
import os
import shlex
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from grpo_figures import (
    OURS,
    ROOF_ROWS,
    Line,
    Measured,
    measure_roofs,
    peaks,
    program_record,
    ratios,
    refuse_other_work,
    summary,
)
from grpo_scaling import drawing, fit
from grpo_steps import Question, write_steps
from programs import HERE, Failed, Program, Running, end_as_interrupted, wait_until_quiet
from run_engine import commit, homeless, is_dirty, machine_words

from groschen import machine
from groschen.model.config import ModelConfig
from groschen.records import Split
from groschen.roofs import Roof
from groschen.tasks.load import load_task
from groschen.train.curriculum import Curriculum

COSTS = (
    "seconds_per_1000_tokens", "seconds", "generation_seconds_per_1000_tokens",
    "training_seconds_per_1000_tokens", "peak_rss_gib",
)  # fmt: skip


@dataclass
class Found:
    """All measured steps by program, the roofs of each turn, and why programs are missing."""

    steps: dict[str, list[Measured]] = field(default_factory=dict)
    commands: dict[str, str] = field(default_factory=dict)
    roofs: list[dict[str, Roof]] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)


def arguments_parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description="a GRPO step, ours against TRL's")
    made.add_argument("--model", required=True, type=Path, help="Hugging Face folder with bf16 weights")
    made.add_argument("--data", type=Path, help="folder of the GSM8K files; default: as the task has it")
    made.add_argument("--task", default=str(HERE.parent / "examples" / "gsm8k" / "task.py"))
    made.add_argument("--problems", type=int, default=4, help="of one step")
    made.add_argument("--group-size", type=int, default=8, help="completions of one problem")
    made.add_argument("--max-tokens", type=int, default=128, help="of a completion, at most")
    made.add_argument("--warm-up", type=int, default=2, help="steps of each start that are not measured")
    made.add_argument("--steps", type=int, default=2, help="measured steps of each start")
    made.add_argument("--repeats", type=int, default=2, help="starts of each program, in turn")
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    made.add_argument(
        "--samples", "--lengths", type=sizes, help="completions of a step, with commas: ours alone"
    )
    made.add_argument("--trl-python", type=Path, help="Python with trl")
    made.add_argument(
        "--trl-dtype", default="float32", choices=["float32", "mixed", "bfloat16"],
        help="of TRL; float32 is the fastest on a CPU without bfloat16 products, mixed is its default",
    )  # fmt: skip
    made.add_argument("--trl-rows", type=int, default=8, help="completions of one pass of TRL's training")
    made.add_argument("--trl-continuous", action="store_true", help="TRL generates by continuous batching")
    made.add_argument("--trl-checkpointing", action="store_true", help="TRL computes activations twice")
    made.add_argument("--trl-preload", default="", help="LD_PRELOAD for TRL (tcmalloc, libiomp5)")
    made.add_argument("--start-seconds", type=float, default=3600, help="limit of a start or of one step")
    made.add_argument("--quiet-seconds", type=float, default=60, help="wait so long at most for idle cores")
    made.add_argument("--rivals-only", action="store_true", help="to try a rival; writes no result")
    made.add_argument("--allow-dirty", action="store_true", help="measure uncommitted changes, and say so")
    made.add_argument("--out", type=Path, default=HERE / "results")
    return made


def sizes(text: str) -> list[int]:
    """Numbers with commas, each once."""
    return sorted({int(word) for word in text.split(",")})


def wrong_flags(given: argparse.Namespace) -> str | None:
    """What is wrong with the flags; None if nothing is."""
    counts = ("problems", "warm_up", "steps", "repeats", "max_tokens", "threads", "trl_rows")
    for name in counts:
        if getattr(given, name) < 1:
            return f"--{name.replace('_', '-')} must be 1 or more, found {getattr(given, name)}"
    if given.group_size < 2:
        return "--group-size must be 2 or more: an advantage compares siblings"
    if given.samples and (odd := [n for n in given.samples if n < 1 or n % given.group_size]):
        return f"--samples: {odd[0]} is not a number of groups of {given.group_size}"
    if given.samples and len(given.samples) < 2:
        return "--samples needs two numbers or more for a line"
    if given.trl_python and given.problems * given.group_size % given.trl_rows:
        return f"--trl-rows {given.trl_rows} does not divide {given.problems * given.group_size} completions"
    return None


def curriculum_of(given: argparse.Namespace) -> Curriculum:
    """The train split in the order of a run with this seed."""
    if given.data is not None:
        os.environ["GSM8K_DIR"] = str(given.data.resolve())
    return Curriculum(load_task(given.task).of(Split.TRAIN), given.seed, put_aside_after=0)


def next_steps(curriculum: Curriculum, problems: Sequence[int]) -> list[list[Question]]:
    """The questions of steps of so many problems."""
    return [
        [Question(each.key, [{k: str(v) for k, v in m.items()} for m in each.messages]) for each in step]
        for step in (curriculum.next(count) for count in problems)
    ]


def program_words(given: argparse.Namespace, prompts: Path) -> tuple[str, ...]:
    """The arguments that all programs share."""
    numbers = ("group_size", "max_tokens", "warm_up", "seed", "threads")
    words = [word for name in numbers for word in (f"--{name.replace('_', '-')}", str(getattr(given, name)))]
    return ("--model", str(given.model.resolve()), "--prompts", str(prompts), *words)


def ours(given: argparse.Namespace, prompts: Path) -> Program:
    """This checkout, whatever is installed."""
    source = {"PYTHONPATH": str(HERE.parent / "src")}
    return Program(OURS, (sys.executable, "-m", "ours_grpo", *program_words(given, prompts)), source)


def trl(given: argparse.Namespace, prompts: Path) -> Program:
    """TRL with the settings asked for; its name says those that are not the default."""
    words = ["--dtype", given.trl_dtype, "--rows", str(given.trl_rows)]
    words += ["--continuous"] if given.trl_continuous else []
    words += ["--checkpointing"] if given.trl_checkpointing else []
    environment = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    environment |= {"LD_PRELOAD": given.trl_preload} if given.trl_preload else {}
    command = (str(given.trl_python.absolute()), "-m", "rivals.trl_grpo", *program_words(given, prompts))
    return Program(trl_name(given), (*command, *words), environment)


def trl_name(given: argparse.Namespace) -> str:
    ways = [name for name in ("continuous", "checkpointing") if getattr(given, f"trl_{name}")]
    return " ".join(["trl", given.trl_dtype, *ways])


def programs_of(given: argparse.Namespace, prompts: Path, found: Found) -> list[Program]:
    """Ours and, where it is there, TRL, unless it has failed before."""
    made = [] if given.rivals_only else [ours(given, prompts)]
    if given.trl_python is None:
        found.skipped["trl"] = "--trl-python was not given"
    elif not given.trl_python.exists():
        found.skipped["trl"] = homeless(f"--trl-python {given.trl_python} does not exist")
    elif trl_name(given) not in found.skipped:
        made.append(trl(given, prompts))
    return made


def take_turn(
    program: Program, given: argparse.Namespace, logs: Path, turn: int, count: int
) -> list[Measured]:
    """Start a program, take `count` steps, end it. Raises Failed."""
    wait_until_quiet(given.quiet_seconds)
    running = Running(program, logs / f"{program.name}-{turn}.log", given.start_seconds)
    try:
        steps = []
        for step in range(count):
            steps.append(Measured.of_line(running.repeat(), turn, step))
            print(progress(program.name, steps[-1]), file=sys.stderr, flush=True)
        return steps
    finally:
        running.end()


def progress(name: str, each: Measured) -> str:
    """One step in one line."""
    taken = each.taken
    return (
        f"turn {each.turn + 1} step {each.step + 1} {name}: {taken.seconds:.1f} s = "
        f"{taken.generation_seconds:.1f} generation + {each.training_seconds:.1f} training; "
        f"{each.generated_tokens} tokens generated, {taken.trained_tokens} trained, "
        f"{each.seconds_per_1000_tokens:.1f} s per 1,000; peak {each.peak_rss_gib:.1f} GiB; "
        f"{each.elsewhere_share:.2f} of the cores elsewhere. {taken.note}"
    )


def measure(given: argparse.Namespace, config: ModelConfig) -> Found:
    """All turns. A program that fails is skipped with its reason, and its steps with it."""
    found, curriculum = Found(), curriculum_of(given)
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(given.repeats):
            prompts = Path(folder) / f"turn-{turn}.jsonl"
            write_steps(prompts, next_steps(curriculum, [given.problems] * (given.warm_up + given.steps)))
            wait_until_quiet(given.quiet_seconds)
            found.roofs.append(measure_roofs(config))
            for program in programs_of(given, prompts, found):
                found.commands[program.name] = homeless(shlex.join(program.command))
                try:
                    steps = take_turn(program, given, Path(folder), turn, given.steps)
                except Failed as why:
                    if program.name == OURS:
                        sys.exit(f"no result was written: {why}")
                    found.skipped[program.name] = homeless(str(why))
                    found.steps.pop(program.name, None)
                    continue
                found.steps.setdefault(program.name, []).extend(steps)
                refuse_other_work(found.steps)  # at once: the rest takes an hour
    return found


def measure_samples(given: argparse.Namespace, config: ModelConfig) -> Found:
    """Ours alone in one process: steps of every size in turn, after the warm-up."""
    found, curriculum = Found(), curriculum_of(given)
    counts = [size // given.group_size for size in given.samples] * given.repeats
    with tempfile.TemporaryDirectory() as folder:
        prompts = Path(folder) / "steps.jsonl"
        write_steps(prompts, next_steps(curriculum, [given.problems] * given.warm_up + counts))
        wait_until_quiet(given.quiet_seconds)
        found.roofs.append(measure_roofs(config))
        program = ours(given, prompts)
        found.commands[OURS] = homeless(shlex.join(program.command))
        try:
            found.steps[OURS] = take_turn(program, given, Path(folder), 0, len(counts))
        except Failed as why:
            sys.exit(f"no result was written: {why}")
    return found


def header(given: argparse.Namespace, name: str, unit: str, dirty: bool) -> Line:
    """What every results file begins with."""
    return {
        "name": name,
        "commit": commit(dirty),
        "dirty": dirty,
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "machine": machine_words(),
        "command": homeless(shlex.join(["python", "benchmarks/run_grpo.py", *sys.argv[1:]])),
        "unit": unit,
        "threads": given.threads,
    }


def roof_record(found: Found) -> tuple[dict[str, float], str, Line]:
    """The peaks, the name of the higher one, which shares are of, and what a results file keeps."""
    peak = peaks(found.roofs)
    highest = max(peak, key=peak.__getitem__)
    medians = {
        name: statistics.median([r for each in found.roofs for r in each[name].rates]) for name in peak
    }
    return peak, highest, {
        "roof": highest,
        "roofs_gflops": {name: {"best": peak[name], "median": medians[name]} for name in peak},
        "roof_rows": ROOF_ROWS,
    }  # fmt: skip


def step_result(given: argparse.Namespace, config: ModelConfig, found: Found, dirty: bool) -> Line:
    """The content of grpo-step.json."""
    peak, highest, roof = roof_record(found)
    records = {
        name: {"command": found.commands[name], **program_record(steps, config, peak)}
        for name, steps in found.steps.items()
    }
    work = f"{given.problems} x {given.group_size} completions of at most {given.max_tokens} tokens"
    mine = found.steps[OURS]
    rate = statistics.median(each.model_flops(config) / each.training_seconds / 1e9 for each in mine)
    return {
        **header(given, "grpo-step", f"seconds a step of {work}", dirty),
        "repeats": len(mine),
        **summary([each.taken.seconds for each in mine]),
        "ratios": ratios(found.steps, COSTS[0]),
        "ratios_of": COSTS[0],
        "ratios_by_cost": {cost: ratios(found.steps, cost) for cost in COSTS},
        "roof_share": rate / peak[highest],
        **roof,
        "measured": records,
        "skipped": found.skipped,
    }


def samples_result(given: argparse.Namespace, config: ModelConfig, found: Found, dirty: bool) -> Line:
    """The content of grpo-samples.json."""
    by_size = steps_by_size(found.steps[OURS])
    seconds = {size: [each.taken.seconds for each in own] for size, own in by_size.items()}
    line, (peak, _, roof) = fit(seconds), roof_record(found)
    largest = max(by_size)
    return {
        **header(given, "grpo-samples", f"seconds a step of {largest} completions", dirty),
        "repeats": given.repeats,
        **summary(seconds[largest]),
        "line": {
            "seconds_each": line.seconds_each,
            "seconds_fixed": line.seconds_fixed,
            "largest_deviation": line.largest_deviation,
        },
        **roof,
        "by_samples": {str(size): program_record(own, config, peak) for size, own in by_size.items()},
        "measured_by": found.commands[OURS],
    }


def steps_by_size(steps: Sequence[Measured]) -> dict[int, list[Measured]]:
    """The steps of each number of completions."""
    by_size: dict[int, list[Measured]] = {}
    for each in steps:
        by_size.setdefault(sum(map(len, each.taken.completion_tokens)), []).append(each)
    return dict(sorted(by_size.items()))


def show(made: Line, found: Found) -> None:
    """The table on standard output."""
    print(f"{made['name']} ({made['unit']}), roofs {made['roofs_gflops']}")
    for name, steps in found.steps.items():
        for size, own in steps_by_size(steps).items():
            whole = statistics.median(each.taken.seconds for each in own)
            generation = statistics.median(each.taken.generation_seconds for each in own)
            training = statistics.median(each.training_seconds for each in own)
            per_1000 = statistics.median(each.seconds_per_1000_tokens for each in own)
            memory = max(each.peak_rss_gib for each in own)
            print(
                f"  {name:24} {size:4} samples {whole:8.1f} s = {generation:.1f} generation + {training:.1f} "
                f"training, {per_1000:.1f} s per 1,000 tokens, {memory:.1f} GiB"
            )
    for key in ("ratios_by_cost", "roof_share", "roof", "line"):
        if key in made:
            print(f"  {key}: {made[key]}")
    for name, why in found.skipped.items():
        print(f"  {name:24} skipped: {why}")


def main() -> None:
    """Measure, show, keep the result."""
    end_as_interrupted()
    given = arguments_parser().parse_args()
    if problem := wrong_flags(given):
        sys.exit(problem)
    dirty = is_dirty()
    if dirty and not given.allow_dirty:
        sys.exit("there are uncommitted changes: commit them, or mark the result with --allow-dirty")
    machine.set_threads(given.threads)
    config = ModelConfig.from_json(json.loads((given.model / "config.json").read_text()))
    found = measure_samples(given, config) if given.samples else measure(given, config)
    if OURS not in found.steps:
        sys.exit("only rivals were tried: no result was written")
    made = (samples_result if given.samples else step_result)(given, config, found, dirty)
    show(made, found)
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / f"{made['name']}.json").write_text(json.dumps(made, indent=2) + "\n")
    if given.samples:
        by_size = steps_by_size(found.steps[OURS])
        seconds = {size: [each.taken.seconds for each in own] for size, own in by_size.items()}
        title = f"A GRPO step of {OURS} by its number of samples"
        (given.out / f"{made['name']}.svg").write_text(drawing(seconds, fit(seconds), title))


if __name__ == "__main__":
    main()
