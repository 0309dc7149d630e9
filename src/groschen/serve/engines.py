"""The thread that owns the engines: it carries out commands, steps each engine that has work, and tells.

An engine is not thread-safe, so one thread calls all of them, in turn, and sleeps when none has work.
Commands come through a queue; what a step drew goes to the event loop in one wake for all requests together.
Leaves out who may submit (`host.py`).
"""

import asyncio
import logging
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from groschen import machine
from groschen.engine.engine import Engine, EngineConfig, Progress
from groschen.errors import GroschenError
from groschen.model.quantized import Weights
from groschen.serve import faults
from groschen.serve.faults import ApiFault
from groschen.serve.served import Served, Wanted, cache_bytes, open_served
from groschen.serve.ticket import Ticket

log = logging.getLogger("groschen.serve")

Note = Callable[[], None]
R = TypeVar("R")


@dataclass(frozen=True, slots=True, kw_only=True)
class HostConfig:
    """What the server may take."""

    max_rows: int | None = None  # samples that decode together, for each model; None: as suits the device
    weights: Weights = Weights.PLAIN
    chunk_tokens: int | None = None  # prompt tokens of one step; None: as suits the device
    speculate: int = 0  # tokens guessed ahead while few samples decode; changes no text


@dataclass(slots=True)
class Lane:
    """One engine and what is open in it. Only `served` is for others than the engines' thread."""

    served: Served
    tickets: dict[int, Ticket] = field(default_factory=dict)  # by the engine's number
    held: list[Ticket] = field(default_factory=list)  # waiting for a change of weights
    next_weights: Path | None = None
    error: str | None = None  # it died

    @property
    def has_work(self) -> bool:
        """Whether a step would do something."""
        return self.error is None and (bool(self.tickets) or self.next_weights is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reports:
    """What the thread tells; called in the event loop."""

    ready: Callable[[Mapping[str, Lane]], None]  # every model is open
    failed: Callable[[BaseException], None]  # the thread has ended, or could not begin
    lost: Callable[[], None]  # one engine died


class EngineThread:
    """The thread. Its public methods are for the event loop, whose thread only they run in."""

    def __init__(self, wanted: Sequence[Wanted], config: HostConfig, reports: Reports) -> None:
        self._wanted, self._config, self._reports = wanted, config, reports
        self._lanes: Mapping[str, Lane] = {}
        self._commands: queue.SimpleQueue[Note] = queue.SimpleQueue()
        self._outbox: list[Note] = []
        self._is_stopping = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="groschen-engines", daemon=True)

    def start(self) -> None:
        """Begin to load the models."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    def add(self, lane: Lane, ticket: Ticket) -> None:
        """Give a ticket to its engine; it is accepted or fails in the event loop."""
        self._commands.put(lambda: self._add(lane, ticket))

    def abort(self, lane: Lane, ticket: Ticket) -> None:
        """Take a ticket back, wherever it is; one that has ended is no error."""
        self._commands.put(lambda: self._abort(lane, ticket))

    def change_weights(self, lane: Lane, checkpoint: Path) -> None:
        """Serve other weights as soon as what is open has ended; tickets that come later wait for them."""
        self._commands.put(lambda: _hold(lane, checkpoint))

    def run(self, lane: Lane, work: Callable[[Engine], R]) -> "Future[R]":
        """What `work` makes of the engine, between two steps: it must be short."""
        future: Future[R] = Future()
        self._commands.put(lambda: _fulfil(future, lane, work))
        return future

    async def stop(self, seconds: float) -> None:
        """End the thread after its present step; a step that takes longer than this is not waited for."""
        self._commands.put(self._stop)
        await asyncio.to_thread(self._thread.join, seconds)

    # -- in the thread
    # ----------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            machine.give_way()
            self._load()
            while not self._is_stopping:
                self._obey(is_waiting=not any(lane.has_work for lane in self._lanes.values()))
                for lane in self._lanes.values():
                    self._advance(lane)
                self._send()
        except GroschenError as error:
            self._fail(error)
        except BaseException as error:  # Rust panics too: nobody may wait for a thread that is gone
            log.exception("the engines' thread failed")
            self._fail(error)

    def _load(self) -> None:
        config = EngineConfig(
            max_rows=self._config.max_rows,
            chunk_tokens=self._config.chunk_tokens,
            cache_bytes=cache_bytes(self._wanted, self._config.weights),
            speculate=self._config.speculate,
        )
        lanes = {each.name: Lane(open_served(each, config, self._config.weights)) for each in self._wanted}
        self._lanes = lanes
        self._tell(lambda: self._reports.ready(lanes))
        self._send()

    def _fail(self, error: BaseException) -> None:
        self._tell(lambda: self._reports.failed(error))
        self._send()

    def _obey(self, *, is_waiting: bool) -> None:
        """Carry out the commands that are there; sleep for one if there is nothing else to do."""
        if is_waiting:
            self._commands.get()()
        for _ in range(self._commands.qsize()):  # those that come meanwhile have to let a step pass
            self._commands.get_nowait()()

    def _stop(self) -> None:
        self._is_stopping = True

    def _add(self, lane: Lane, ticket: Ticket) -> None:
        if lane.error is not None:
            self._tell_failure([ticket], dead(lane.error))
            return
        if lane.next_weights is not None:
            lane.held.append(ticket)
            return
        try:
            ticket.number = lane.served.opened.engine.add(ticket.request)
        except GroschenError as error:
            self._tell_failure([ticket], faults.fault_of(error))
        else:
            lane.tickets[ticket.number] = ticket
            fingerprint = lane.served.fingerprint
            self._tell(lambda: ticket.accept(fingerprint))

    def _abort(self, lane: Lane, ticket: Ticket) -> None:
        if ticket in lane.held:
            lane.held.remove(ticket)
        if ticket.number is not None and lane.tickets.pop(ticket.number, None) is not None:
            lane.served.opened.engine.abort(ticket.number)

    def _advance(self, lane: Lane) -> None:
        """One step of one engine, or its change of weights once it is idle."""
        if not lane.has_work:
            return
        try:
            if lane.tickets:
                self._pass_on(lane, lane.served.opened.engine.step())
            elif lane.next_weights is not None:
                self._change(lane, lane.next_weights)
        except BaseException as error:  # an engine that failed must not leave its clients waiting
            log.exception("the engine of %s failed", lane.served.name)
            self._end_lane(lane, error)

    def _pass_on(self, lane: Lane, drawn: list[Progress]) -> None:
        """Hand what a step drew to the event loop, in one piece."""
        pairs = []
        for progress in drawn:
            ticket = lane.tickets.get(progress.request)
            if ticket is None:  # another sample of it could not go on in this very step
                continue
            pairs.append((ticket, progress))
            if progress.completion is not None:
                ticket.num_unfinished -= 1
            if progress.error is not None or ticket.num_unfinished == 0:
                del lane.tickets[progress.request]
        if pairs:
            self._tell(lambda: _deliver(pairs))

    def _change(self, lane: Lane, checkpoint: Path) -> None:
        """Other weights, and whoever waited for them."""
        try:
            lane.served.change_to(checkpoint)
            log.info("%s is now served from %s", lane.served.name, checkpoint)
        except GroschenError as error:
            log.warning("%s could not be taken into service: %s", checkpoint, error)
        lane.next_weights = None
        held, lane.held = lane.held, []
        for ticket in held:
            self._add(lane, ticket)

    def _end_lane(self, lane: Lane, error: BaseException) -> None:
        kind = "" if isinstance(error, GroschenError) else f"{type(error).__name__}: "
        lane.error = f"{kind}{error}"
        tickets = [*lane.tickets.values(), *lane.held]
        lane.tickets.clear()
        lane.held.clear()
        self._tell(self._reports.lost)
        self._tell_failure(tickets, dead(lane.error))

    def _tell(self, note: Note) -> None:
        self._outbox.append(note)

    def _tell_failure(self, tickets: Sequence[Ticket], fault: ApiFault) -> None:
        self._tell(lambda: _fail_all(tickets, fault))

    def _send(self) -> None:
        """Everything in the outbox to the event loop, with one wake."""
        if self._outbox and self._loop is not None:
            notes, self._outbox = self._outbox, []
            try:
                self._loop.call_soon_threadsafe(_carry_out, notes)
            except RuntimeError:
                self._is_stopping = True  # the event loop is closed: nobody is left to tell


def dead(reason: str) -> ApiFault:
    """503: an engine, or all of them, will not step again."""
    return faults.unavailable(f"the engine has failed ({reason}); restart the server", "engine_dead", 30)


def _fulfil(future: "Future[R]", lane: Lane, work: Callable[[Engine], R]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        if lane.error is not None:
            raise dead(lane.error)
        future.set_result(work(lane.served.opened.engine))
    except BaseException as error:  # noqa: BLE001 - it is raised where the work was asked for
        future.set_exception(error)


def _hold(lane: Lane, checkpoint: Path) -> None:
    lane.next_weights = checkpoint


def _carry_out(notes: Sequence[Note]) -> None:
    for note in notes:
        note()


def _deliver(pairs: Sequence[tuple[Ticket, Progress]]) -> None:
    for ticket, progress in pairs:
        ticket.deliver(progress)
        if progress.error is not None:
            ticket.fail(faults.fault_of(progress.error))


def _fail_all(tickets: Sequence[Ticket], fault: ApiFault) -> None:
    for ticket in tickets:
        ticket.fail(fault)
