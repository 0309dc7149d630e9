"""Messages to and from a process in the sandbox, with deadlines. What one process says to another is passed
on in pieces, so that no size limits it and nothing of it is held or read here.

The form of a message stands in inside_values.py. The other process is not trusted to read, write, or end.
"""

import os
import select
from typing import IO

from groschen import clock
from groschen.tasks.inside_values import RELAYED
from groschen.tasks.lines import TimeUp, TooLong

_PIECE = 1 << 16


class Ended(Exception):
    """A process closed its end of a conversation: it ended or was killed."""

    def __init__(self, frames: "Frames") -> None:
        super().__init__("it ended")
        self.frames = frames


class Frames:
    """Both ends of a conversation. Deadlines are times of `clock.seconds()`."""

    def __init__(self, to: IO[bytes], back: IO[bytes]) -> None:
        self._to, self._back = to.fileno(), back.fileno()
        self._read = bytearray()
        os.set_blocking(self._to, False)
        os.set_blocking(self._back, False)

    def send(self, content: bytes, deadline: float) -> None:
        """Write one message, which has no letter in this direction. Raises Ended or TimeUp."""
        if content:
            self._write(len(content).to_bytes(4, "big") + content, deadline)
        self._write(bytes(4), deadline)

    def letter(self, deadline: float) -> bytes:
        """The letter that starts the next message. Raises Ended or TimeUp."""
        return self._exactly(1, deadline)

    def content(self, most: int, deadline: float) -> bytes:
        """The rest of a message whose letter was read. Raises Ended, TimeUp, or TooLong (`most`: bytes)."""
        whole = bytearray()
        while size := self._size(deadline):
            if len(whole) + size > most:
                raise TooLong(f"more than {most} bytes in one message")
            whole += self._exactly(size, deadline)
        return bytes(whole)

    def relay(self, other: "Frames", deadline: float) -> None:
        """Pass on the rest of a message whose letter was read. Raises Ended or TimeUp."""
        while True:
            size = self._size(deadline)
            other._write(size.to_bytes(4, "big"), deadline)
            if size == 0:
                return
            while size:
                piece = self._exactly(min(size, _PIECE), deadline)
                other._write(piece, deadline)
                size -= len(piece)

    def pass_on(self, other: "Frames", deadline: float) -> None:
        """Relay the next message. Raises ValueError if it is none for the other process."""
        if self.letter(deadline) != RELAYED:
            raise ValueError("a message that was not asked for")
        self.relay(other, deadline)

    def _size(self, deadline: float) -> int:
        return int.from_bytes(self._exactly(4, deadline), "big")

    def _exactly(self, size: int, deadline: float) -> bytes:
        while len(self._read) < size:
            _wait(self._back, select.POLLIN, deadline)
            try:
                piece = os.read(self._back, _PIECE)
            except BlockingIOError:
                continue
            if not piece:
                raise Ended(self)
            self._read += piece
        found = bytes(self._read[:size])
        del self._read[:size]
        return found

    def _write(self, content: bytes, deadline: float) -> None:
        rest = memoryview(content)
        while rest:
            _wait(self._to, select.POLLOUT, deadline)
            try:
                rest = rest[os.write(self._to, rest) :]
            except BlockingIOError:
                continue
            except BrokenPipeError as ended:
                raise Ended(self) from ended


def _wait(descriptor: int, event: int, deadline: float) -> None:
    """Return when the descriptor may be used. Raises TimeUp."""
    poll = select.poll()
    poll.register(descriptor, event)
    left = deadline - clock.seconds()
    if left <= 0 or not poll.poll(left * 1000):
        raise TimeUp
