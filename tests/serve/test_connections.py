"""Connections that say nothing: they are closed in time, and never keep a place that somebody else needs."""

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

import groschen
from groschen.serve.connections import Connections, Door, most_connections, on_loop_error
from serve.serving import PUZZLE
from serve.test_limits import counting_app, running

HALF = b"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Half: "
WHOLE = b"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 3\r\n\r\nabc"


@contextlib.contextmanager
def guarded(most: int = 100, head_seconds: float = 60.0) -> Iterator[tuple[int, Connections]]:
    """The port of an application behind such connections."""
    connections = Connections(most, head_seconds)
    with running(counting_app(1000), http=partial(Door, connections)) as port:
        yield port, connections


@contextlib.contextmanager
def half_heads(port: int, count: int) -> Iterator[list[socket.socket]]:
    """So many clients that have sent half a head; the server has seen all of them."""
    with contextlib.ExitStack() as stack:
        lines = []
        for _ in range(count):
            line = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=20))
            line.sendall(HALF)
            lines.append(line)
        yield lines


def answer_of(line: socket.socket) -> bytes:
    """Everything until the server closes; b"" also where it was cut off."""
    answer = b""
    with contextlib.suppress(ConnectionResetError):
        while part := line.recv(65536):
            answer += part
    return answer


def ask(port: int) -> bytes:
    """The answer to an ordinary request on a connection of its own."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as line:
        line.sendall(WHOLE.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        return answer_of(line)


@pytest.mark.parametrize("sent", [b"", b"G", HALF], ids=["nothing", "a letter", "half a head"])
def test_a_head_that_is_not_whole_in_time_is_answered_with_408(sent: bytes) -> None:
    with (
        guarded(head_seconds=0.3) as (port, connections),
        socket.create_connection(("127.0.0.1", port), timeout=20) as line,
    ):
        line.sendall(sent)
        answer = answer_of(line)
        assert answer.startswith(b"HTTP/1.1 408 ") and b"request_timeout" in answer
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["type"] == "invalid_request_error"
        assert not connections.open and not connections.waiting


def test_the_head_of_a_second_request_has_to_be_whole_in_time_too() -> None:
    with (
        guarded(head_seconds=0.3) as (port, _),
        socket.create_connection(("127.0.0.1", port), timeout=20) as line,
    ):
        line.sendall(WHOLE + HALF)
        answer = answer_of(line)
        assert answer.startswith(b"HTTP/1.1 200 ") and b"HTTP/1.1 408 " in answer


def test_a_body_and_an_answer_may_take_longer_than_a_head() -> None:
    with (
        guarded(head_seconds=0.2) as (port, _),
        socket.create_connection(("127.0.0.1", port), timeout=20) as line,
    ):
        line.sendall(WHOLE[:-3].replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        time.sleep(0.6)
        line.sendall(b"abc")
        assert answer_of(line).startswith(b"HTTP/1.1 200 ")


def test_those_who_wait_longest_give_way_where_there_are_too_many() -> None:
    with guarded(most=20) as (port, connections), half_heads(port, 60) as lines:
        assert ask(port).startswith(b"HTTP/1.1 200 ")
        assert len(connections.open) <= 20
        assert answer_of(lines[0]) == b"", "the oldest was closed"
        lines[-1].sendall(b"x\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc")
        assert answer_of(lines[-1]).startswith(b"HTTP/1.1 200 "), "the newest was not"


def test_an_idle_connection_gives_way_and_one_with_an_open_request_does_not() -> None:
    with (
        guarded(most=4) as (port, _),
        socket.create_connection(("127.0.0.1", port), timeout=20) as idle,
        socket.create_connection(("127.0.0.1", port), timeout=20) as busy,
    ):
        idle.sendall(WHOLE)
        answer = b""
        while not answer.endswith(b"\r\n\r\n3"):
            answer += idle.recv(65536)
        busy.sendall(WHOLE[:-1].replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        with half_heads(port, 10):
            assert ask(port).startswith(b"HTTP/1.1 200 ")
            assert answer_of(idle) == b""
            busy.sendall(b"c")
            assert answer_of(busy).startswith(b"HTTP/1.1 200 ")


def test_where_all_are_busy_the_next_one_is_told() -> None:
    with guarded(most=4) as (port, _), contextlib.ExitStack() as stack:
        for _ in range(3):  # the share of one address
            line = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=20))
            line.sendall(WHOLE[:-1])
        time.sleep(0.2)
        answer = ask(port)
        assert answer == b"" or answer.startswith(b"HTTP/1.1 503 "), answer


def test_trouble_is_told_once_and_not_each_time(caplog: pytest.LogCaptureFixture) -> None:
    connections = Connections(10)
    tell = on_loop_error(connections)
    with asyncio.Runner() as runner, caplog.at_level(logging.WARNING, "groschen.serve"):
        for _ in range(5000):
            error = OSError(24, "Too many open files")
            tell(runner.get_loop(), {"message": "socket.accept() out of system resource", "exception": error})
    assert len(caplog.records) == 1 and "ulimit -n" in caplog.text


@pytest.mark.parametrize(("files", "most"), [(256, 192), (20_000, 4096), (64, 16)])
def test_connections_leave_descriptors_for_everything_else(files: int, most: int) -> None:
    assert most_connections(files) == most


@contextlib.contextmanager
def groschen_serve(log: Path, files: int = 1024) -> "Iterator[tuple[subprocess.Popen[bytes], int]]":
    """The real server with so many descriptors, and its port. log: what it writes."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    source = str(Path(groschen.__file__).parents[1])
    serve = f"{sys.executable} -m groschen serve penny --port {port}"
    with log.open("w") as errors:
        server = subprocess.Popen(
            ["bash", "-c", f"ulimit -n {files}; exec {serve}"],
            stderr=errors, env={**os.environ, "PYTHONPATH": source},
        )  # fmt: skip
    try:
        _wait_until_ready(server, port)
        yield server, port
    finally:
        server.kill()
        server.wait()


def _wait_until_ready(server: "subprocess.Popen[bytes]", port: int) -> None:
    for _ in range(600):
        assert server.poll() is None
        try:
            if status_of_health(port) == 200:
                return
        except OSError:
            time.sleep(0.1)
    raise AssertionError("the server was not ready within a minute")


def status_of_health(port: int) -> int:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=20) as answer:
        return int(answer.status)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs Linux")
def test_300_silent_clients_keep_nobody_out_of_a_server_with_256_descriptors(tmp_path: Path) -> None:
    with groschen_serve(tmp_path / "log", 256) as (server, port):
        with half_heads(port, 300):
            for _ in range(5):
                assert status_of_health(port) == 200
            assert len(list(Path(f"/proc/{server.pid}/fd").iterdir())) < 256
        assert (tmp_path / "log").stat().st_size < 10_000


def test_a_second_signal_ends_open_answers_with_an_error_and_leaves_no_traceback(tmp_path: Path) -> None:
    body = json.dumps(
        {"model": "penny", "messages": PUZZLE, "stream": True, "ignore_eos": True, "max_tokens": 900, "n": 64}
    ).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n\r\n"
    with groschen_serve(tmp_path / "log") as (server, port), contextlib.ExitStack() as stack:
        lines = [
            stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=20)) for _ in range(8)
        ]
        for line in lines:
            line.sendall(head.encode() + body)
        assert lines[0].recv(15) == b"HTTP/1.1 200 OK"
        server.send_signal(signal.SIGTERM)
        while b"being finished" not in (tmp_path / "log").read_bytes():
            time.sleep(0.01)
        server.send_signal(signal.SIGTERM)
        answers = [answer_of(line) for line in lines]
        assert server.wait(60) == 0
        assert all(b"shutting_down" in answer for answer in answers), [answer[-300:] for answer in answers]
        said = (tmp_path / "log").read_text()
        assert "Traceback" not in said and '"level":"error"' not in said
