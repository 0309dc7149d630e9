"""llama.cpp, driven through its own binaries; needs only Python's standard library.

    cd benchmarks && python -m rivals.llama_cpp --bin FOLDER --model FILE.gguf --data ROWS --mode group64

Two ways. `server`: llama-server with one slot a row and separate KV per slot, all prompts in one request
with `n_cmpl` completions each, sampled at temperature 1 alone: the same work as everyone's. `bench`:
llama-bench (chat1, prefill) or llama-batched-bench, which neither samples nor stops: less work, so it
flatters.
"""

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from workload import MODES, Mode, Repeat, emit, fitting_new_tokens, parser, prompt_ids, stretched, turns

Json = dict[str, object]
PROMPT_TOKENS = 87  # llama-batched-bench: mean rendered length of the first 8 rows (694 tokens in all)
SLOTS = 64
START_SECONDS = 120


class Server:
    """A llama-server on a free local port."""

    def __init__(self, arguments: argparse.Namespace, mode: Mode) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        slots = min(SLOTS, mode.completions)
        context = slots * (1024 if mode.prompt_tokens else 512)
        words = f"--port {self.port} -tb {arguments.threads} -np {slots} -c {context} -fa on -no-kvu"
        command = binary(arguments, "llama-server", f"{words} --cache-ram 0 --no-webui")
        nowhere = subprocess.DEVNULL
        self.process = subprocess.Popen(command, stdin=nowhere, stdout=nowhere, stderr=nowhere)
        self.await_health()

    def await_health(self) -> None:
        """Returns when the model is loaded; ends the program when the server died or is late."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health"):
                    return
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.2)
        self.process.kill()
        status = self.process.poll()
        raise SystemExit(f"llama-server was not ready within {START_SECONDS} s (exit status {status})")

    def post(self, path: str, body: Json) -> object:
        """One JSON request."""
        address, kind = f"http://127.0.0.1:{self.port}{path}", {"Content-Type": "application/json"}
        request = urllib.request.Request(address, json.dumps(body).encode(), kind)
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)

    def render(self, messages: list[dict[str, str]]) -> str:
        """The chat template as the server has it from the file."""
        answer = self.post("/apply-template", {"messages": messages})
        assert isinstance(answer, dict)
        return str(answer["prompt"])

    def encode(self, text: str) -> list[int]:
        """Token ids, special tokens recognised."""
        answer = self.post("/tokenize", {"content": text, "add_special": False, "parse_special": True})
        assert isinstance(answer, dict)
        return [int(token) for token in answer["tokens"]]


@contextmanager
def running(arguments: argparse.Namespace, mode: Mode) -> Iterator[Server]:
    """A server that is ended with the block."""
    server = Server(arguments, mode)
    try:
        yield server
    finally:
        server.process.terminate()
        server.process.wait(timeout=30)


def completion_body(prompts: list[list[int]], mode: Mode, new_tokens: int, logprobs: bool) -> Json:
    """The request for all completions of one repeat; only the temperature sampler runs before the draw."""
    return {
        "prompt": prompts,
        "n_cmpl": mode.samples,
        "n_predict": new_tokens,
        "ignore_eos": not mode.stops,
        "cache_prompt": False,
        "n_probs": 1 if logprobs else 0,
        "temperature": 0.0 if mode.greedy else 1.0,
        "samplers": ["temperature"],
    }


def server_repeat(
    server: Server, prompts: list[list[int]], mode: Mode, new_tokens: int, logprobs: bool, first: float = 0.0
) -> Repeat:
    """One repeat through the server. `first`: see `workload.stretched`."""
    start = time.perf_counter()
    answer = server.post("/completion", completion_body(prompts, mode, new_tokens, logprobs))
    seconds = time.perf_counter() - start
    rows = cast("list[dict[str, int]]", answer if isinstance(answer, list) else [answer])
    wanted = len(prompts) * mode.samples
    if len(rows) != wanted:
        raise SystemExit(f"llama-server gave {len(rows)} completions, {wanted} were asked for")
    if mode.prompt_tokens is not None:
        return Repeat.whole(sum(map(len, prompts)), seconds, "server")
    tokens = sum(row["tokens_predicted"] for row in rows)
    note = "server" if logprobs == mode.logprobs else "server, no logprobs"
    return stretched(mode, tokens, seconds, first, new_tokens, note)


def measure_server(arguments: argparse.Namespace, mode: Mode) -> None:
    """Starts the server, warms it up with a few tokens, measures."""
    logprobs = mode.logprobs and not arguments.no_logprobs
    with running(arguments, mode) as server:
        prompts = prompt_ids(mode, arguments.data, server.render, server.encode)
        batch = prompts[: max(1, SLOTS // mode.samples)]
        warm = server_repeat(server, batch, mode, min(8, mode.new_tokens), logprobs)
        new_tokens = mode.new_tokens
        if mode.prompt_tokens is None:
            new_tokens = fitting_new_tokens(mode, warm.tokens / warm.seconds, arguments.max_seconds)
        is_cut = new_tokens < mode.new_tokens
        first = server_repeat(server, prompts, mode, 1, logprobs).seconds if is_cut else 0.0
        for _ in turns(arguments):
            emit(server_repeat(server, prompts, mode, new_tokens, logprobs, first))


def binary(arguments: argparse.Namespace, name: str, words: str) -> list[str]:
    """The command of one of llama.cpp's programs with what all of them share."""
    shared = ["-m", str(arguments.model), "-t", str(arguments.threads), "-b", "2048", "-ub", "512"]
    return [str(arguments.bin / name), *shared, *words.split()]


def json_lines(command: list[str]) -> list[dict[str, object]]:
    """Runs a bench binary and reads its JSON lines."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        name = Path(command[0]).name
        raise SystemExit(f"{name} failed with status {done.returncode}: {done.stderr[-400:]}")
    return lines


def bench_repeat(arguments: argparse.Namespace, mode: Mode) -> Repeat:
    """llama-bench: one stream from an empty context, or prompts of 512 one after another."""
    work = f"-p {mode.prompt_tokens} -n 0" if mode.prompt_tokens else f"-p 0 -n {mode.new_tokens}"
    command = binary(arguments, "llama-bench", f"{work} -r {mode.completions} -fa 1 -o jsonl")
    samples = json_lines(command)[0]["samples_ns"]
    assert isinstance(samples, list)
    tokens = (mode.prompt_tokens or mode.new_tokens) * len(samples)
    return Repeat.whole(tokens, sum(samples) / 1e9, "llama-bench")


def batched_repeat(arguments: argparse.Namespace, mode: Mode, new_tokens: int) -> Repeat:
    """llama-batched-bench with 64 rows; its one shared prompt is counted once for each prompt of the mode."""
    shape = f"-npp {PROMPT_TOKENS} -ntg {new_tokens} -npl {SLOTS} -c {SLOTS * 512}"
    words = f"{shape} -tb {arguments.threads} -fa on -pps --output-format jsonl"
    command = binary(arguments, "llama-batched-bench", words)
    line = json_lines(command)[0]
    prompt_seconds, step_seconds = float(str(line["t_pp"])), float(str(line["t_tg"]))
    first = prompt_seconds * mode.prompts + step_seconds / new_tokens
    seconds = prompt_seconds * mode.prompts + step_seconds * mode.completions / SLOTS
    note = f"llama-batched-bench: shared prompt of {PROMPT_TOKENS}, no sampling, no stops"
    return stretched(mode, new_tokens * mode.completions, seconds, first, new_tokens, note)


def measure_bench(arguments: argparse.Namespace, mode: Mode) -> None:
    """Each repeat is a process of its own; loading is not in the figures of these programs."""
    alone = mode.completions == 1 or mode.prompt_tokens is not None
    new_tokens = mode.new_tokens
    if not alone and arguments.max_seconds is not None:
        warm = batched_repeat(arguments, mode, 8)
        new_tokens = fitting_new_tokens(mode, warm.tokens / warm.seconds, arguments.max_seconds)
    for _ in turns(arguments):
        emit(bench_repeat(arguments, mode) if alone else batched_repeat(arguments, mode, new_tokens))


if __name__ == "__main__":
    made = parser("llama.cpp")
    made.add_argument("--bin", required=True, type=Path, help="folder of llama.cpp's binaries")
    made.add_argument("--way", default="server", choices=["server", "bench"])
    given = made.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", str(given.threads))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the server is ended too
    (measure_server if given.way == "server" else measure_bench)(given, MODES[given.mode])
