"""The served models as the event loop sees them: submit a request, receive what is drawn, cancel, stop.

Leaves out the thread that draws (`engines.py`), what a request means (`generation.py`) and what weights are
(`served.py`).
"""

import asyncio
import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Literal, ParamSpec, TypeVar

from starlette.requests import HTTPConnection

from groschen import machine
from groschen.engine.engine import Engine
from groschen.records import Request
from groschen.serve import faults
from groschen.serve.engines import EngineThread, HostConfig, Lane, Reports, dead
from groschen.serve.faults import ApiFault
from groschen.serve.served import Served, Wanted
from groschen.serve.ticket import Ticket
from groschen.work_sizes import work_sizes

log = logging.getLogger("groschen.serve")

State = Literal["loading", "ready", "dead"]
_SWITCH_S = 0.0005  # Python's own 5 ms would let the engines' thread hold up the event loop for as long
_JOIN_S = 5.0  # a model that is still being loaded is not waited for: its thread ends with the process
_WATCH_S = 2.0  # between two looks at the folder of a run that is followed

_is_working = ContextVar("is_working", default=False)  # within a block of `Host.working`

P = ParamSpec("P")
R = TypeVar("R")


class Host:
    """All served models; made and used in the event loop's thread alone.

    state: "loading" until every model is open; "dead" once loading or a step of any engine failed, for good.
    failure: why no engine steps any more. listeners: called with each ticket that has ended, for whoever
    counts. reading: held while a text is read into a cache beside the engines' own; there is one at a time.
    """

    def __init__(self, wanted: Sequence[Wanted], config: HostConfig | None = None) -> None:
        self.wanted, self.config = tuple(wanted), config or HostConfig()
        self.state: State = "loading"
        self.failure: BaseException | None = None
        self.is_draining = False
        self.listeners: list[Callable[[Ticket], None]] = []
        self.settled = asyncio.Event()  # no longer loading
        self.reading = asyncio.Lock()
        self._emptied = asyncio.Event()  # nothing is open
        self._emptied.set()
        self._closed = asyncio.Event()  # what is still open is given up
        self._lanes: Mapping[str, Lane] = {}
        self._open: set[Ticket] = set()
        self._num_working = 0  # open without a ticket
        reports = Reports(ready=self._ready, failed=self._failed, lost=self._lost)
        self._engines = EngineThread(self.wanted, self.config, reports)
        self._text_thread = ThreadPoolExecutor(1, "groschen-text", initializer=machine.give_way)
        self._watcher: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to load the models; `settled` is set when that has come to an end."""
        sys.setswitchinterval(_SWITCH_S)
        self._engines.start()
        if any(each.follows for each in self.wanted):
            self._watcher = asyncio.create_task(self._watch())

    @property
    def models(self) -> tuple[Served, ...]:
        """The models in service, in the order of the command line; none while they are loaded."""
        return tuple(lane.served for lane in self._lanes.values())

    def served(self, name: str) -> Served:
        """The model of this name. Raises ApiFault: 503 while it is loaded, 404 where there is none."""
        lane = self._lanes.get(name)
        if lane is not None:
            return lane.served
        names = [each.name for each in self.wanted]
        if name not in names:
            raise faults.unknown_model(name, names)
        raise self._not_ready() or faults.unavailable(f"the model {name!r} is not there yet", "model_loading")

    @property
    def tickets(self) -> tuple[Ticket, ...]:
        """Every request that has not ended."""
        return tuple(self._open)

    @property
    def queue_depth(self) -> int:
        """Requests that wait for their first token."""
        return sum(not ticket.has_begun for ticket in self._open)

    @property
    def num_running(self) -> int:
        """Requests that have their first token and not their last."""
        return sum(ticket.has_begun for ticket in self._open)

    @property
    def num_rows(self) -> int:
        """Samples that all engines together decode at once."""
        suitable = work_sizes(machine.best_device()).max_rows
        return (self.config.max_rows or suitable) * len(self.wanted)

    async def submit(self, name: str, request: Request, *, is_whole: bool = False) -> Ticket:
        """Queue a request. Whoever leaves the ticket must cancel it, or it keeps its rows until it ends.

        is_whole: the caller wants nothing before a sample has ended, which saves wake-ups.
        Raises ApiFault: 404, 503 while loading, draining or dead, 400 for what the engine refuses.
        """
        self.refuse_if_closed()
        self.served(name)
        lane = self._lanes[name]
        ticket = Ticket(name, request, is_whole, self._forget)
        ticket.on_cancel = lambda: self._engines.abort(lane, ticket)
        self._open.add(ticket)
        self._emptied.clear()
        self._engines.add(lane, ticket)
        try:
            await ticket.accepted
        except BaseException:
            ticket.cancel()
            raise
        return ticket

    async def prepare(self, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run what may take long (templates, encoding, compiling a grammar) beside the event loop.

        One thread does all of it in turn: templates keep state while they render. Raises ApiFault with 503
        unless requests are taken, or once the host has stopped, and whatever `work` raises.
        """
        self.refuse_if_closed()
        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(self._text_thread, lambda: work(*args, **kwargs))
        return await self._unless_closed(future)

    @contextmanager
    def working(self) -> Iterator[None]:
        """Count the block as open, as a ticket is: `stop` waits for it, and a drain refuses nothing in it.

        Raises ApiFault as `submit` does.
        """
        self.refuse_if_closed()
        self._num_working += 1
        self._emptied.clear()
        outside = _is_working.set(True)
        try:
            yield
        finally:
            _is_working.reset(outside)
            self._num_working -= 1
            self._note_end()

    async def run(self, name: str, work: Callable[[Engine], R]) -> R:
        """What `work` makes of a model's engine, in the engines' thread between two steps: it must be short.

        Goes on while the host drains: it belongs into a block of `working`. Raises ApiFault: 404, 503 while
        loading, stopped or dead, and whatever `work` raises.
        """
        self.served(name)
        return await self._unless_closed(asyncio.wrap_future(self._engines.run(self._lanes[name], work)))

    def refuse_if_closed(self) -> None:
        """Raises ApiFault with 503 unless requests are taken."""
        fault = self._not_ready()
        if fault is not None:
            raise fault

    def change_weights(self, name: str, checkpoint: Path) -> None:
        """Serve `name` from another checkpoint as soon as its open requests have ended; new ones wait."""
        self._engines.change_weights(self._lanes[name], checkpoint)

    async def stop(self, drain_s: float) -> None:
        """Take no more requests, wait up to drain_s seconds for those that are open, end the rest."""
        self.is_draining = True
        if self._watcher is not None:
            self._watcher.cancel()
        try:
            if not self._emptied.is_set():
                await asyncio.wait_for(self._emptied.wait(), drain_s)
        except TimeoutError:
            count = len(self._open) + self._num_working
            log.warning("%d requests were still open after %g s and are ended", count, drain_s)
        self._closed.set()
        for ticket in list(self._open):
            ticket.fail(self._cut_off())
        await self._engines.stop(_JOIN_S)
        self._text_thread.shutdown(wait=False, cancel_futures=True)

    async def _unless_closed(self, result: "asyncio.Future[R]") -> R:
        """What a thread makes. Raises ApiFault with 503 if the host is closed before it is there."""
        closed = asyncio.create_task(self._closed.wait())
        either: list[asyncio.Future[R] | asyncio.Task[Literal[True]]] = [result, closed]
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if result.done() and not result.cancelled():
                return result.result()
            raise self._cut_off()
        finally:
            result.cancel()
            closed.cancel()

    def _cut_off(self) -> ApiFault:
        """What is told to whoever is open when the engines end."""
        if self.failure is not None:
            return dead(str(self.failure))
        return faults.unavailable("the server was shut down before the answer was whole", "shutting_down")

    def _not_ready(self) -> ApiFault | None:
        if self.is_draining and (self._closed.is_set() or not _is_working.get()):
            return faults.unavailable(
                "the server is shutting down and takes no new requests", "shutting_down"
            )
        if self.failure is not None:
            return dead(str(self.failure))
        if self.state == "loading":
            return faults.unavailable(
                "the server is still loading its models; try again soon", "model_loading", 5
            )
        return None

    def _forget(self, ticket: Ticket) -> None:
        """A ticket has ended, one way or another."""
        if ticket in self._open:
            self._open.discard(ticket)
            self._note_end()
            for listener in self.listeners:
                listener(ticket)

    def _note_end(self) -> None:
        if not self._open and not self._num_working:
            self._emptied.set()

    def _ready(self, lanes: Mapping[str, Lane]) -> None:
        self._lanes, self.state = lanes, "ready"
        self.settled.set()

    def _lost(self) -> None:
        self.state = "dead"

    def _failed(self, error: BaseException) -> None:
        self.state, self.failure = "dead", error
        self.settled.set()
        self._closed.set()
        for ticket in list(self._open):
            ticket.fail(self._cut_off())

    async def _watch(self) -> None:
        """Offer each followed model the newer checkpoint that has appeared."""
        offered: dict[str, Path] = {}
        unread: dict[str, str] = {}  # what was said of folders that could not be read
        while True:
            await asyncio.sleep(_WATCH_S)
            for served in self.models:
                try:
                    newer = await asyncio.to_thread(served.newer)
                except OSError as error:  # of a network drive, say: it may come back
                    if unread.get(served.name) != str(error):
                        log.warning("no newer weights for %s: %s; it is tried again", served.name, error)
                    unread[served.name] = str(error)
                    continue
                unread.pop(served.name, None)
                if newer is not None and offered.get(served.name) != newer:
                    offered[served.name] = newer
                    self.change_weights(served.name, newer)


def host_of(request: HTTPConnection) -> Host:
    """The host of the application that a request came to."""
    host = request.app.state.host
    assert isinstance(host, Host)
    return host
