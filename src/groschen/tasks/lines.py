"""Lines of JSON to and from another process over its pipes, with a deadline and a limit on their length.

The other process is not trusted to read, to write, or to end. Leaves out what the lines mean.
"""

import json
import os
import select
from typing import IO

from groschen import clock


class Closed(Exception):
    """The other process closed its end: it ended or was killed."""


class TimeUp(Exception):
    """The deadline came first."""


class TooLong(Exception):
    """A line has more bytes than allowed."""


class Lines:
    """Both ends of a conversation. Deadlines are times of `clock.seconds()`."""

    def __init__(self, to: IO[bytes], back: IO[bytes], max_bytes: int) -> None:
        self._to, self._back, self._max_bytes = to.fileno(), back.fileno(), max_bytes
        self._read = bytearray()
        os.set_blocking(self._to, False)
        os.set_blocking(self._back, False)

    def send(self, value: object, deadline: float) -> None:
        """Write one value as a line. Raises Closed or TimeUp."""
        self.send_line(json.dumps(value).encode(), deadline)

    def send_line(self, line: bytes, deadline: float) -> None:
        """Write a line as it is. Raises Closed or TimeUp."""
        rest = memoryview(line + b"\n")
        while rest:
            _wait(self._to, select.POLLOUT, deadline)
            try:
                rest = rest[os.write(self._to, rest) :]
            except BlockingIOError:
                continue
            except BrokenPipeError as ended:
                raise Closed from ended

    def receive(self, deadline: float) -> bytes:
        """The next line without its end. Raises Closed, TimeUp or TooLong."""
        searched = 0
        while (end := self._read.find(b"\n", searched)) < 0:
            searched = len(self._read)
            if searched > self._max_bytes:
                raise TooLong(f"more than {self._max_bytes} bytes in one line")
            _wait(self._back, select.POLLIN, deadline)
            try:
                piece = os.read(self._back, 1 << 16)
            except BlockingIOError:
                continue
            if not piece:
                raise Closed
            self._read += piece
        line = bytes(self._read[:end])
        del self._read[: end + 1]
        return line


def _wait(descriptor: int, event: int, deadline: float) -> None:
    """Return when the descriptor may be used. Raises TimeUp."""
    poll = select.poll()
    poll.register(descriptor, event)
    left = deadline - clock.seconds()
    if left <= 0 or not poll.poll(left * 1000):
        raise TimeUp
