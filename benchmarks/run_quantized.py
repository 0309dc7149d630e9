"""What int8 and int4 weights buy and cost: speed and memory beside llama.cpp, perplexity and accuracy.

    python benchmarks/run_quantized.py --model FILE.gguf --data ROWS.jsonl [--rows 200] [--questions 0]
        [--repeats 3] [--llama-bin FOLDER] [--llama Q8_0=FILE.gguf --llama Q4_K_M=FILE.gguf]
        [--what speed,quality] [--out FOLDER]

Speeds: all kinds of ours are loaded first and give one repeat in turn; a repeat of llama.cpp is its own bench
program, which does not sample. Quality: perplexity of the gold answers after the chat prompt, the share of
positions where the model would write the same token as with bf16 weights, and greedy accuracy on
--questions questions. A file of llama.cpp is scored through our reader and our arithmetic, so that only its
rounding of weights differs.
"""

import argparse
import datetime as dt
import json
import math
import shlex
import statistics
import sys
import tempfile
from pathlib import Path

from ours_quantized import SPEEDS
from programs import HERE, Failed, Program, Running, end_as_interrupted, wait_until_quiet
from rivals.llama_cpp import PROMPT_TOKENS, binary, json_lines
from run_engine import Line, commit, homeless, is_dirty, machine_words, summary

KINDS = ("bf16", "int8", "int4")
LIMIT_SECONDS = 7200.0
Figures = dict[str, list[float]]  # a kind of work or a fact to its repeats


def arguments_parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description="what int8 and int4 weights buy and cost")
    made.add_argument("--model", required=True, type=Path)
    made.add_argument("--data", required=True, type=Path, help="GSM8K test rows, JSONL")
    made.add_argument("--what", default="speed,quality")
    made.add_argument("--kinds", default=",".join(KINDS))
    made.add_argument("--rows", type=int, default=200, help="gold answers to score")
    made.add_argument("--questions", type=int, default=0, help="questions to answer greedily")
    made.add_argument("--new-tokens", type=int, default=400)
    made.add_argument("--repeats", type=int, default=3)
    made.add_argument("--threads", type=int, default=2, help="of llama.cpp")
    made.add_argument("--llama-bin", type=Path, help="folder of llama.cpp's binaries")
    made.add_argument("--llama", action="append", default=[], metavar="NAME=FILE", help="may be repeated")
    made.add_argument("--quiet-seconds", type=float, default=60)
    made.add_argument("--allow-dirty", action="store_true")
    made.add_argument("--out", type=Path, default=HERE / "results")
    return made


def program(given: argparse.Namespace, name: str, model: Path, kind: str, what: str) -> Program:
    words = ["--model", str(model.resolve()), "--data", str(given.data.resolve()), "--weights", kind]
    words += ["--what", what, "--repeats", str(given.repeats if what == "speed" else 1)]
    words += ["--rows", str(given.rows), "--questions", str(given.questions)]
    words += ["--new-tokens", str(given.new_tokens)]
    command = (sys.executable, "-m", "ours_quantized", *words)
    return Program(name, command, {"PYTHONPATH": str(HERE.parent / "src")})


def llama_files(given: argparse.Namespace, skipped: dict[str, str]) -> dict[str, Path]:
    """Name to file of those that are there; the others are skipped with a word."""
    found = {}
    for pair in given.llama:
        name, _, file = pair.partition("=")
        if Path(file).is_file():
            found[f"llama.cpp {name}"] = Path(file)
        else:
            skipped[f"llama.cpp {name}"] = f"there is no file {file}"
    return found


def llama_speeds(given: argparse.Namespace, file: Path) -> dict[str, float]:
    """One repeat of each kind of work with llama.cpp's bench programs."""
    words = argparse.Namespace(model=file, bin=given.llama_bin, threads=given.threads)
    found = {}
    for name, mode in SPEEDS.items():
        if mode.completions == 1 or mode.prompt_tokens:
            prompt, new = (mode.prompt_tokens, 0) if mode.prompt_tokens else (0, mode.new_tokens)
            command = binary(words, "llama-bench", f"-p {prompt} -n {new} -r 1 -fa 1 -o jsonl")
            (sample,) = json_lines(command)[0]["samples_ns"]  # type: ignore[misc]
            found[name] = (prompt or new) * 1e9 / sample
        else:
            rows = mode.completions
            shape = f"-npp {PROMPT_TOKENS} -ntg {mode.new_tokens} -npl {rows} -c {rows * 512}"
            more = f"-tb {given.threads} -fa on -pps --output-format jsonl"
            line = json_lines(binary(words, "llama-batched-bench", f"{shape} {more}"))[0]
            found[name] = rows * mode.new_tokens / float(str(line["t_tg"]))
    return found


def measure_speed(given: argparse.Namespace, skipped: dict[str, str]) -> dict[str, Figures]:
    """Every repeat of every kind of ours and of every file of llama.cpp, in turn."""
    found: dict[str, Figures] = {}
    running: list[Running] = []
    files = llama_files(given, skipped) if given.llama_bin else {}
    if not given.llama_bin:
        skipped["llama.cpp"] = "--llama-bin was not given"

    def keep(name: str, line: dict[str, float]) -> None:
        for key, value in line.items():
            found.setdefault(name, {}).setdefault(key, []).append(float(str(value)))
        told = ", ".join(f"{key} {line[key]:.1f}" for key in SPEEDS)
        print(f"{name}: {told} tok/s", file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory() as logs:
        try:
            for kind in given.kinds.split(","):
                one = program(given, kind, given.model, kind, "speed")
                running.append(Running(one, Path(logs) / f"{kind}.log", LIMIT_SECONDS))
            for _ in range(given.repeats):
                for each in running:
                    wait_until_quiet(given.quiet_seconds)
                    keep(each.program.name, {k: float(str(v)) for k, v in each.repeat().items()})
                for name, file in files.items():
                    wait_until_quiet(given.quiet_seconds)
                    keep(name, llama_speeds(given, file))
        finally:
            for each in running:
                each.end()
    return found


def measure_quality(given: argparse.Namespace, skipped: dict[str, str]) -> dict[str, Line]:
    """Losses, preferred tokens and right answers of every kind of ours and every file of llama.cpp."""
    found: dict[str, Line] = {}
    programs = [program(given, kind, given.model, kind, "quality") for kind in given.kinds.split(",")]
    for name, file in llama_files(given, skipped).items():
        programs.append(program(given, name, file, "bf16", "quality"))
    with tempfile.TemporaryDirectory() as logs:
        for number, one in enumerate(programs):
            try:
                running = Running(one, Path(logs) / f"{number}.log", LIMIT_SECONDS)
            except Failed as why:
                skipped[f"{one.name}, quality"] = str(why)
                continue
            try:
                found[one.name] = running.repeat()
            except Failed as why:
                skipped[f"{one.name}, quality"] = str(why)
            finally:
                running.end()
    return found


def quality_words(found: dict[str, Line], base: str) -> dict[str, Line]:
    """Perplexity, and what is paired with the base: the mean loss of each answer, tokens and answers."""
    told: dict[str, Line] = {}
    for name, line in found.items():
        losses, right = rows_of(line, "losses"), flags_of(line)
        flat = [loss for row in losses for loss in row]
        told[name] = {
            "perplexity": math.exp(statistics.fmean(flat)),
            "loss_nat": statistics.fmean(flat),
            "tokens": len(flat),
            "right": sum(right),
            "questions": len(right),
        }
        if name == base or base not in found:
            continue
        before, before_right = rows_of(found[base], "losses"), flags_of(found[base])
        gaps = [statistics.fmean(a) - statistics.fmean(b) for a, b in zip(losses, before, strict=True)]
        same = [
            a == b
            for ours, theirs in zip(
                rows_of(line, "preferred"), rows_of(found[base], "preferred"), strict=True
            )
            for a, b in zip(ours, theirs, strict=True)
        ]
        told[name] |= {
            "loss_gap_nat": statistics.fmean(gaps),
            "loss_gap_se_nat": statistics.stdev(gaps) / math.sqrt(len(gaps)) if len(gaps) > 1 else None,
            "perplexity_ratio": float(str(told[name]["perplexity"])) / float(str(told[base]["perplexity"])),
            "same_token_share": statistics.fmean(same),
            "right_only_here": sum(a and not b for a, b in zip(right, before_right, strict=True)),
            "right_only_bf16": sum(b and not a for a, b in zip(right, before_right, strict=True)),
        }
    return told


def rows_of(line: Line, key: str) -> list[list[float]]:
    rows = line[key]
    assert isinstance(rows, list)
    return rows


def flags_of(line: Line) -> list[bool]:
    flags = line["right"]
    assert isinstance(flags, list)
    return flags


def ratios(found: dict[str, Figures]) -> dict[str, dict[str, float]]:
    """Our median over the other's for each kind of work: int8 and int4 over bf16 and over every file."""
    medians = {
        name: {work: statistics.median(figures[work]) for work in SPEEDS} for name, figures in found.items()
    }
    return {
        f"{ours} over {other}": {work: medians[ours][work] / medians[other][work] for work in SPEEDS}
        for ours in ("int8", "int4")
        for other in medians
        if ours in medians and other not in ("int8", "int4")
    }


def main() -> None:
    """Measure, print, keep the result."""
    end_as_interrupted()
    given = arguments_parser().parse_args()
    dirty = is_dirty()
    if dirty and not given.allow_dirty:
        sys.exit("there are uncommitted changes: commit them, or mark the result with --allow-dirty")
    skipped: dict[str, str] = {}
    speed = measure_speed(given, skipped) if "speed" in given.what.split(",") else {}
    quality = measure_quality(given, skipped) if "quality" in given.what.split(",") else {}
    streams = speed.get("int8", {}).get("one stream")
    made: Line = {
        "name": "quantized",
        "commit": commit(dirty),
        "dirty": dirty,
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "machine": machine_words(),
        "command": homeless(shlex.join(["python", "benchmarks/run_quantized.py", *sys.argv[1:]])),
        "unit": "new tokens/s of one stream, int8",
        "repeats": given.repeats,
        **(summary(streams) if streams else {"median": None, "min": None, "max": None}),
        "measured": {
            name: {key: summary(values) for key, values in figures.items()} for name, figures in speed.items()
        },
        "ratios": ratios(speed),
        "quality": quality_words(quality, "bf16"),
        "skipped": skipped,
    }
    print(json.dumps({key: made[key] for key in ("measured", "ratios", "quality", "skipped")}, indent=2))
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "quantized.json").write_text(json.dumps(made, indent=2) + "\n")


if __name__ == "__main__":
    main()
