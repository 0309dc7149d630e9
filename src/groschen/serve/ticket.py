"""One request in the host, as the event loop sees it: what was drawn of it, and the way to end it early.

Leaves out the thread that draws (`engines.py`).
"""

import asyncio
from collections.abc import Callable

from groschen import machine
from groschen.engine.engine import Progress
from groschen.records import FinishReason, Request
from groschen.serve.faults import ApiFault


class Ticket:
    """A request that was submitted. Belongs to the event loop, but for `number` and `num_unfinished`.

    accepted: done when the engine has taken the request. fingerprint: of the weights that answer it, known
    then. submitted_s, first_s, ended_s: when it came, drew its first token and ended (`machine.seconds`; 0
    until then).
    """

    def __init__(
        self, model: str, request: Request, is_whole: bool, on_end: Callable[["Ticket"], None]
    ) -> None:
        self.model, self.request = model, request
        self.number: int | None = None  # the engine's; set by its thread
        self.num_unfinished = request.num_completions  # counted by the engines' thread
        self.accepted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.fingerprint = ""
        self.submitted_s, self.first_s, self.ended_s = machine.seconds(), 0.0, 0.0
        self.num_tokens = 0  # drawn, all samples
        self.cached_tokens = 0  # of the prompt; known when a sample has ended
        self.reasons: list[FinishReason] = []  # of the samples that have ended
        self.was_cancelled = False
        self.fault: ApiFault | None = None
        self.on_cancel: Callable[[], None] = lambda: None
        self._is_whole, self._on_end = is_whole, on_end
        self._left = request.num_completions
        self._new: list[Progress] = []
        self._waiting: asyncio.Future[None] | None = None

    @property
    def has_begun(self) -> bool:
        """Whether a token was drawn."""
        return self.first_s > 0

    @property
    def has_ended(self) -> bool:
        """Whether nothing more will be drawn."""
        return self.ended_s > 0

    async def take(self) -> list[Progress]:
        """What was drawn since the last call, in order; waits until there is something. Empty: it has ended.

        Raises ApiFault if the host gave the request up.
        """
        while not self._new:
            if self.fault is not None:
                raise self.fault
            if self.has_ended:
                return []
            self._waiting = asyncio.get_running_loop().create_future()
            try:
                await self._waiting
            finally:
                self._waiting = None
        new, self._new = self._new, []
        return new

    def cancel(self) -> None:
        """End it wherever it is. Harmless when it has ended; always called when a client is done."""
        if not self.has_ended:
            self.was_cancelled = True
            self.on_cancel()
            self._end()

    def leave(self) -> None:
        """The caller has all that it wants: the answer is whole, though the engine would go on."""
        if not self.has_ended:
            self.reasons += [FinishReason.STOP] * self._left
            self.on_cancel()
            self._end()

    # -- called by the host
    # ----------------------------------------------------------------------------------------------------

    def accept(self, fingerprint: str) -> None:
        """The engine has taken it."""
        self.fingerprint = fingerprint
        if not self.accepted.done():
            self.accepted.set_result(None)

    def deliver(self, progress: Progress) -> None:
        """Something was drawn."""
        if self.has_ended:
            return
        self.first_s = self.first_s or machine.seconds()
        self.num_tokens += len(progress.token_ids)
        self._new.append(progress)
        if progress.completion is not None:
            self._left -= 1
            self.reasons.append(progress.completion.finish_reason)
            self.cached_tokens = progress.completion.cached_tokens
        if self._left == 0:
            self._end()
        elif progress.completion is not None or not self._is_whole:
            self._wake()

    def fail(self, fault: ApiFault) -> None:
        """It will not be finished."""
        if not self.has_ended:
            self.fault = fault
            self.on_cancel()
            if not self.accepted.done():
                self.accepted.set_exception(fault)
                self.accepted.exception()  # whoever submitted it may have gone: then nobody asks
            self._end()

    def _end(self) -> None:
        self.ended_s = machine.seconds()
        self._wake()
        self._on_end(self)

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)
