"""`groschen serve`: open the models, listen, say how to talk to them, and leave in order.

SIGTERM and Ctrl-C stop taking requests, finish those that are open, and then leave; a second one leaves at
once. Leaves out the flags themselves (`cli.py`) and everything a request meets (`app.py`).
"""

import asyncio
import gc
import ipaddress
import json
import logging
import shlex
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TextIO, cast

import uvicorn

from groschen import machine
from groschen.errors import BadRequest, UsageError
from groschen.model.quantized import Weights, weights_of
from groschen.serve import logs
from groschen.serve.app import DRAIN_S, MAX_QUEUE, AppConfig, application
from groschen.serve.connections import (
    MOST_CONNECTIONS,
    Connections,
    Door,
    most_connections,
    on_loop_error,
)
from groschen.serve.engines import HostConfig
from groschen.serve.host import Host
from groschen.serve.keys import KeyFile, make_key
from groschen.serve.limits import LOCAL_NAMES, MAX_BODY_BYTES
from groschen.serve.served import Served, Wanted, wanted_models

log = logging.getLogger("groschen.serve")

_OPEN_FILES = 2 * MOST_CONNECTIONS
_SEND_S = 5  # for clients that are slow to take the end of their answer
_SEND_AT_ONCE_S = 1  # the same after a second signal
_BACKLOG = 2048  # connections that the kernel accepts before we do
_ACCEPTS = 16  # in one turn of the event loop: its other work waits for them


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeOptions:
    """What can be said on the command line."""

    names: tuple[str, ...] = ()
    host: str = "127.0.0.1"
    port: int = 8000
    keys: Path | None = None
    max_queue: int = MAX_QUEUE
    max_rows: int | None = None  # None: as suits the device
    max_body: int = MAX_BODY_BYTES
    weights: str = "bf16"
    speculate: int = 0
    follow: bool = False
    log_prompts: bool = False
    drain_s: float = DRAIN_S


def serve(sources: Sequence[str], options: ServeOptions, stream: TextIO | None = None) -> None:
    """Serve until a signal comes.

    stream: where to say what happens (standard error). Raises UsageError, BadRequest for an address that
    cannot be had, and what opening a model raises.
    """
    _check(options)
    stream = stream or sys.stderr
    weights = weights_of(options.weights)
    if options.follow and weights is not Weights.PLAIN:
        raise UsageError(f"--follow changes weights in place, which --weights {weights} can't; leave one out")
    wanted = wanted_models(sources, options.names, follows=options.follow)
    keys = KeyFile(options.keys) if options.keys is not None else None
    is_local = _is_local(options.host)
    with _listen(options.host, options.port) as listener:
        address = _address(options.host, listener.getsockname()[1])
        logs.set_up(stream)
        logging.getLogger("uvicorn").setLevel(logging.WARNING)
        connections = Connections(most_connections(machine.raise_open_files(_OPEN_FILES)))
        hosts: list[Host] = []

        def make_host() -> Host:
            config = HostConfig(max_rows=options.max_rows, weights=weights, speculate=options.speculate)
            hosts.append(Host(wanted, config))
            return hosts[0]

        app = application(
            make_host,
            AppConfig(
                keys=keys,
                max_queue=options.max_queue,
                max_body=options.max_body,
                host_names=LOCAL_NAMES | {options.host.lower()} if is_local else None,
                logs_prompts=options.log_prompts,
            ),
        )
        uvicorn_config = uvicorn.Config(
            app, log_config=None, access_log=False, lifespan="on", backlog=_ACCEPTS, server_header=False,
            timeout_keep_alive=75, ws="none", timeout_graceful_shutdown=_SEND_S,
            http=cast("type[asyncio.Protocol]", partial(Door, connections)),  # uvicorn only calls it
            h11_max_incomplete_event_size=64 * 1024,
        )  # fmt: skip
        server = _Server(uvicorn_config, lambda: hosts[0], options.drain_s)
        server.on_listening = lambda: _begin_to_accept(listener, connections)
        print(f"groschen: listening on {address}, loading {_listed(wanted)}", file=stream)
        if not is_local and keys is None:
            print(
                f"groschen: WARNING: everybody who reaches {options.host}:{listener.getsockname()[1]} can "
                "use these models; ask for keys with --keys FILE, or leave --host at 127.0.0.1",
                file=stream,
            )
        server.on_ready = lambda host, seconds: print(
            _welcome(host, address, keys is not None, seconds), file=stream, flush=True
        )
        server.run(sockets=[listener])
    if hosts and hosts[0].failure is not None:
        raise hosts[0].failure


def new_key(name: str, path: Path | None, models: Sequence[str]) -> str:
    """A new key, whose hash is in the file from now on. Raises UsageError without a file or with models."""
    if path is None or models:
        raise UsageError(
            "--make-key needs --keys FILE and no model: groschen serve --make-key me --keys keys"
        )
    return make_key(name, path)


class _Server(uvicorn.Server):
    """uvicorn, with a shutdown that lets open requests end first."""

    def __init__(self, config: uvicorn.Config, host: Callable[[], Host], drain_s: float) -> None:
        super().__init__(config)
        self.on_ready: Callable[[Host, float], None] = lambda _host, _seconds: None
        self.on_listening: Callable[[], None] = lambda: None
        self._host, self._drain_s = host, drain_s
        self._loop: asyncio.AbstractEventLoop | None = None
        self._num_signals = 0
        # Kept, or the tasks could be forgotten while they run.
        self._draining: asyncio.Task[None] | None = None
        self._leaving: asyncio.Task[None] | None = None

    async def main_loop(self) -> None:
        """Say when the models are there; leave if they cannot be opened."""
        started, host = machine.seconds(), self._host()
        self._loop = asyncio.get_running_loop()
        self.on_listening()
        watcher = asyncio.create_task(self._watch(host, started))
        await super().main_loop()
        watcher.cancel()

    async def _watch(self, host: Host, started: float) -> None:
        await host.settled.wait()
        if host.state == "ready":
            # A full collection walks half a million objects of torch and the models in 0.1 s and holds every
            # thread meanwhile; none of them will ever be garbage.
            gc.collect()
            gc.freeze()
            self.on_ready(host, machine.seconds() - started)
        else:
            self.should_exit = True

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - as signal.signal calls it
        """The first signal drains, the second ends what is open, and a third waits for nothing. One may come
        before there is a loop.
        """
        self._num_signals += 1
        if self._loop is None or self._num_signals > 2:
            self.should_exit = self.force_exit = True
        elif self._num_signals == 2:
            self._loop.call_soon_threadsafe(self._cut_short)
        else:
            self._loop.call_soon_threadsafe(self._begin_drain, signal.Signals(sig).name)

    def _begin_drain(self, name: str) -> None:
        self._draining = asyncio.create_task(self._drain(name))

    def _cut_short(self) -> None:
        """End open answers with an error that their clients understand, and leave."""
        if self._draining is not None:
            self._draining.cancel()
        self.config.timeout_graceful_shutdown = _SEND_AT_ONCE_S
        self._leaving = asyncio.create_task(self._leave())

    async def _leave(self) -> None:
        await self._host().stop(0.0)
        self.should_exit = True

    async def _drain(self, name: str) -> None:
        host = self._host()
        count = len(host.tickets)
        log.info(
            "%s: no new requests are taken, %d are being finished; once more leaves at once", name, count
        )
        await host.stop(self._drain_s)
        self.should_exit = True


def _begin_to_accept(listener: socket.socket, connections: Connections) -> None:
    """uvicorn's one number is both what the kernel holds and what one turn of the loop accepts."""
    listener.listen(_BACKLOG)
    asyncio.get_running_loop().set_exception_handler(on_loop_error(connections))


def _check(options: ServeOptions) -> None:
    if not 0 <= options.port <= 65535:
        raise BadRequest(f"--port must be from 0 to 65535, found {options.port}; 0 takes a free one")
    for flag, value, least in (
        ("--max-queue", options.max_queue, 1), ("--max-rows", options.max_rows, 1),
        ("--max-body", options.max_body, 1024), ("--speculate", options.speculate, 0),
    ):  # fmt: skip
        if value is not None and value < least:
            raise BadRequest(f"{flag} must be at least {least}, found {value}")


def _listen(host: str, port: int) -> socket.socket:
    """A socket that is bound before anything is loaded: an address that is taken is said at once."""
    listener = None
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        if listener is not None:
            listener.close()
        raise BadRequest(
            f"{host}:{port} cannot be listened on ({error.strerror or error}); choose another --port, or "
            "stop the program that has it"
        ) from error
    return listener


def _is_local(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _address(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _listed(wanted: Sequence[Wanted]) -> str:
    return ", ".join(
        each.name if each.name == each.source else f"{each.name} ({each.source})" for each in wanted
    )


def _question(served: Served) -> str:
    """Something that the model can answer: the built-in one knows puzzles alone."""
    return "Make 24 from 2, 6 and 6." if served.wanted.source == "penny" else "Hello"


def _welcome(host: Host, address: str, has_keys: bool, seconds: float) -> str:
    """What is served, and a line to try."""
    lines = [f"groschen: ready after {seconds:.1f} s"]
    for served in host.models:
        step = f", step {served.step}" if served.step is not None else ""
        facts = f"context {served.context:,} tokens, {served.mode}{step}, {served.fingerprint}"
        lines.append(f"  {served.name:<24} {facts}")
    key = " -H 'Authorization: Bearer KEY'" if has_keys else ""
    chats = next((each for each in host.models if each.opened.text.template is not None), None)
    if chats is not None:
        messages = [{"role": "user", "content": _question(chats)}]
        path, body = "chat/completions", json.dumps({"model": chats.name, "messages": messages})
    else:
        path, body = "completions", json.dumps({"model": host.models[0].name, "prompt": "Once upon"})
    url, content = shlex.quote(f"{address}/v1/{path}"), shlex.quote(body)
    lines += [
        f"  page     {address}/",
        f"  API      {address}/v1   ({'a key is asked for' if has_keys else 'no key is asked for'})",
        f"  try      curl {url}{key} -H 'Content-Type: application/json' -d {content}",
    ]
    return "\n".join(lines)
