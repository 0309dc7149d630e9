"""The whole application and the command around it: routes, errors, responsiveness, an orderly shutdown."""

import asyncio
import gc
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast

import pytest
import uvicorn

from groschen import machine
from groschen.errors import BadRequest
from groschen.serve import chat, generation
from groschen.serve.app import AppConfig
from groschen.serve.command import ServeOptions, _is_local, _listen, _Server, serve
from groschen.serve.host import Host
from groschen.serve.keys import KeyFile, make_key
from serve.serving import PUZZLE, Server, serving

ROOT = Path(__file__).parents[2]


def test_models_are_listed_with_what_they_can_do(server: Server) -> None:
    listed = server.get("/v1/models").json()
    assert listed["object"] == "list"
    model = listed["data"][0]
    assert (model["id"], model["object"], model["max_model_len"]) == ("penny", "model", 1024)
    assert model["groschen"]["chat"] and not model["groschen"]["tools"]
    assert server.get("/v1/models/penny").json() == model
    assert server.get("/v1/models/nobody").error["code"] == "model_not_found"


def test_every_error_has_the_shape_that_clients_read(server: Server) -> None:
    assert server.get("/v1/nothing").error["code"] == "unknown_url"
    assert server.get("/v1/chat/completions").status == 405
    assert server.post("/v1/chat/completions", b"{not json").error["code"] == "invalid_json"
    assert server.post("/v1/chat/completions", b"[]").status == 400
    assert server.post("/v1/chat/completions", b"{}").error["param"] == "model"


def test_a_bug_is_a_500_that_tells_nothing_but_its_id(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("a secret")

    monkeypatch.setattr(chat, "ask_of", broken)
    reply = server.chat()
    assert reply.status == 500 and "secret" not in reply.body.decode()
    assert reply.headers["x-request-id"] in reply.error["message"]


class Panic(BaseException):
    """As one in Rust arrives: no Exception."""


def test_a_panic_while_a_prompt_is_prepared_is_such_a_500_too(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise Panic("a secret")

    monkeypatch.setattr(generation, "_prepare", broken)
    reply = server.chat()
    assert reply.status == 500 and reply.error["code"] == "internal_error"
    assert "secret" not in reply.body.decode() and reply.headers["x-request-id"] in reply.error["message"]


def test_every_answer_has_an_id(server: Server) -> None:
    assert server.get("/health").headers["x-request-id"].startswith("req_")


def test_health_does_not_wait_for_a_step_of_the_engine_to_end(server: Server) -> None:
    with ThreadPoolExecutor(32) as pool:
        for seed in range(32):
            pool.submit(server.chat, seed=seed, max_tokens=200, ignore_eos=True)
        deadline = time.monotonic() + 10
        while server.host.num_running < 32 and time.monotonic() < deadline:
            time.sleep(0.01)
        times = []
        for _ in range(20):
            begun = time.perf_counter()
            assert server.get("/health").status == 200
            times.append(time.perf_counter() - begun)
            time.sleep(0.01)
    assert sorted(times)[10] < 0.25, times  # how many milliseconds it is, benchmarks/run_serve.py tells


def test_keys_open_the_door_and_nothing_else_does(tmp_path: Path) -> None:
    key = make_key("me", tmp_path / "keys")
    with serving(app_config=AppConfig(keys=KeyFile(tmp_path / "keys"))) as guarded:
        assert guarded.chat().status == 401
        assert guarded.get("/health").status == 200
        guarded.headers["authorization"] = f"Bearer {key}"
        assert guarded.chat(max_tokens=2).status == 200


def test_too_many_waiting_requests_are_told_to_come_back() -> None:
    with serving(app_config=AppConfig(max_queue=1)) as narrow:
        with ThreadPoolExecutor(80) as pool:
            replies = list(
                pool.map(lambda seed: narrow.chat(seed=seed, max_tokens=150, ignore_eos=True), range(80))
            )
        refused = [reply for reply in replies if reply.status == 429]
        assert refused and all(int(reply.headers["retry-after"]) >= 1 for reply in refused)
        assert all(reply.status in (200, 429) for reply in replies)
        assert narrow.is_empty()


def test_clients_that_vanish_at_random_leave_no_row_and_no_block(server: Server) -> None:
    def visit(number: int) -> int:
        body = {"model": "penny", "messages": PUZZLE, "seed": number, "stream": True, "max_tokens": 120,
                "ignore_eos": True}  # fmt: skip
        content = json.dumps(body).encode()
        head = (f"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
                f"content-length: {len(content)}\r\nconnection: close\r\n\r\n").encode()  # fmt: skip
        with socket.create_connection(("127.0.0.1", server.port), 60) as connection:
            connection.sendall(head + content)
            if number % 3 == 0:
                time.sleep(number % 10 / 100)
                return 0
            received = b""
            while part := connection.recv(65536):
                received += part
        return received.count(b"[DONE]")

    with ThreadPoolExecutor(100) as pool:
        done = list(pool.map(visit, range(150)))
    assert done == [int(number % 3 != 0) for number in range(150)]
    assert server.is_empty(10)


# -- the command
# --------------------------------------------------------------------------------------------------------


@pytest.fixture
def process() -> Iterator[subprocess.Popen[str]]:
    """`groschen serve penny` on a free port, in a process of its own."""
    code = """
from groschen.serve.command import ServeOptions, serve
serve(["penny"], ServeOptions(port=0, drain_s=20))
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as running:
        yield running
        running.kill()


def read_until(process: subprocess.Popen[str], word: str) -> list[str]:
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if word in line:
            return lines
    raise AssertionError(f"{word} was never said: {lines}")


def test_a_signal_lets_open_answers_end_and_refuses_new_ones(process: subprocess.Popen[str]) -> None:
    lines = read_until(process, "try ")
    port = int(re.search(r"127\.0\.0\.1:(\d+)", lines[0])[1])  # type: ignore[index]
    server = Server(port, None)  # type: ignore[arg-type]
    assert server.get("/health").json()["status"] == "ready"
    replies = []
    asked = threading.Thread(
        target=lambda: replies.append(server.chat(seed=1, max_tokens=900, ignore_eos=True, stream=True))
    )
    asked.start()
    while server.get("/health").json()["running"] == 0:
        time.sleep(0.005)
    process.send_signal(signal.SIGTERM)
    time.sleep(0.2)
    late = server.chat()
    assert late.status == 503 and late.error["code"] == "shutting_down" and "retry-after" in late.headers
    assert server.get("/health").status == 503
    asked.join(60)
    assert replies[0].events()[-1]["choices"][0]["finish_reason"] == "length"
    assert process.wait(20) == 0


def test_what_is_said_at_the_start_can_be_copied_and_run(process: subprocess.Popen[str]) -> None:
    lines = read_until(process, "try ")
    command = lines[-1].split("try ", 1)[1].strip()
    found = subprocess.run(["bash", "-c", f"{command} --silent"], capture_output=True, text=True, timeout=60)
    if found.returncode == 127:
        pytest.skip("no curl")
    assert json.loads(found.stdout)["choices"][0]["message"]["role"] == "assistant"
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a thread has no priority of its own")
def test_the_threads_that_compute_give_way_to_the_one_that_answers(process: subprocess.Popen[str]) -> None:
    read_until(process, "try ")
    nices = {
        int(path.name): int(path.joinpath("stat").read_text().rsplit(")", 1)[1].split()[16])
        for path in Path(f"/proc/{process.pid}/task").iterdir()
    }
    assert nices[process.pid] == os.nice(0)
    computing = min(2, machine.usable_cores())
    assert sum(nice > os.nice(0) for nice in nices.values()) >= computing, nices


def test_what_was_loaded_is_not_walked_by_the_collector_again() -> None:
    class Ready:
        """What the command looks at of a host."""

        state = "ready"
        settled = asyncio.Event()

    Ready.settled.set()
    frozen: list[int] = []
    server = _Server(uvicorn.Config(lambda: None), lambda: cast("Host", Ready()), 1)
    server.on_ready = lambda _host, _seconds: frozen.append(gc.get_freeze_count())
    try:
        asyncio.run(server._watch(cast("Host", Ready()), 0))
    finally:
        gc.unfreeze()
    assert frozen[0] > 10_000


def test_a_model_that_is_not_there_is_one_sentence_and_no_server() -> None:
    with pytest.raises(Exception, match="there is no model at"):
        serve(["/nowhere/at-all"], ServeOptions(port=0), io.StringIO())


def test_a_port_that_is_taken_is_said_before_anything_is_loaded() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(BadRequest, match="cannot be listened on"):
            _listen("127.0.0.1", taken.getsockname()[1])


@pytest.mark.parametrize(
    ("host", "is_local"),
    [("127.0.0.1", True), ("127.0.0.2", True), ("::1", True), ("localhost", True), ("0.0.0.0", False),
     ("192.168.1.5", False), ("example.org", False)],
)  # fmt: skip
def test_only_this_machines_own_addresses_are_local(host: str, is_local: bool) -> None:
    assert _is_local(host) is is_local


@pytest.mark.parametrize(
    "options", [ServeOptions(port=70000), ServeOptions(max_queue=0), ServeOptions(max_rows=0)]
)
def test_numbers_out_of_range_are_refused_with_their_flag(options: ServeOptions) -> None:
    with pytest.raises(BadRequest, match="--"):
        serve(["penny"], options)
