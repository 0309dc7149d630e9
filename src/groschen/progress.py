"""A line a minute on standard error about what takes long, where nobody sees a bar."""

import sys
from collections.abc import Callable

from groschen import clock

MINUTE_SECONDS = 60.0


class LineAMinute:
    """Says a sentence if nothing was said for a minute."""

    def __init__(self, now: Callable[[], float] = clock.seconds) -> None:
        """now: seconds from any origin."""
        self._now, self._last = now, now()

    def say(self, sentence: str) -> None:
        """Write it, or leave it: the next one comes soon enough. A terminal has a bar."""
        if self._now() - self._last >= MINUTE_SECONDS and not sys.stderr.isatty():
            say(sentence)
            self._last = self._now()


def say(sentence: str) -> None:
    """One line on standard error, at once; a bar or a table that is drawn there moves down for it."""
    sys.stderr.write(f"groschen: {sentence}\n")
    sys.stderr.flush()
