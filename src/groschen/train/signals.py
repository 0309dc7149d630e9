"""Ctrl-C and SIGTERM, as batch systems and `docker stop` send it: both end a run with everything saved.

A signal that was ignored when the process began (nohup, `&` in a script) stays ignored. Leaves out what is
saved (session.py) and kill -9, which asks nobody (runs/).
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

Handler = Callable[[int, FrameType | None], object]

_ENDING = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """SIGTERM raises a KeyboardInterrupt that names it, unless somebody handles or ignores it already."""
    if not _is_main() or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextmanager
def undisturbed() -> Iterator[None]:
    """A signal that would raise waits until the block is done: weights and what is known about them must not
    part.
    """
    handlers: dict[int, Handler] = {}
    if _is_main():
        found = {number: signal.getsignal(number) for number in _ENDING}
        handlers = {number: each for number, each in found.items() if callable(each)}
    arrived: list[tuple[int, FrameType | None]] = []

    def wait(number: int, frame: FrameType | None) -> None:
        arrived.append((number, frame))

    for number in handlers:
        signal.signal(number, wait)
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    for number, frame in arrived:
        handlers[number](number, frame)


def _interrupt(number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt(signal.Signals(number).name)


def _is_main() -> bool:
    """Only the main thread may handle signals."""
    return threading.current_thread() is threading.main_thread()
