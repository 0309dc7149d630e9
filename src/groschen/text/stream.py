"""Token ids to text while they arrive: never half a character, never a piece of a stop string.

What has been emitted, together, is `Tokenizer.decode` of all ids (of a text that continues another one: what
decoding both adds to the first), cut where the first stop string begins.
Leaves out: end tokens and lengths, which the engine decides by id.
"""

import codecs
from collections.abc import Iterable, Sequence

from groschen.errors import BadRequest
from groschen.text.tokenizer import Tokenizer


class TextStream:
    """The text of one completion.

    stopped: the stop string that was found (`StopSearch`), or None. num_tokens: ids taken so far, up to and
    with the one that completed it. continues: the text goes on with another one, so that a space at its
    beginning, which some vocabularies put before every text, is its own.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        stop: Sequence[str] = (),
        *,
        skip_special: bool = True,
        continues: bool = False,
    ) -> None:
        self.num_tokens = 0
        self._tokenizer = tokenizer
        self._search = StopSearch(stop)
        self._skipped = tokenizer.special_ids if skip_special else frozenset()
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._strips_space = tokenizer.spelling.strips_first_space and not continues

    @property
    def stopped(self) -> str | None:
        """The stop string that was found."""
        return self._search.stopped

    def push(self, ids: Iterable[int]) -> str:
        """The text that is now safe to show. Ids after a stop string are not taken."""
        parts = []
        for token_id in ids:
            if self.stopped is not None:
                break
            self.num_tokens += 1
            if token_id not in self._skipped:
                parts.append(self._take(self._decoder.decode(self._tokenizer.token_bytes(token_id))))
        return "".join(parts)

    def finish(self) -> str:
        """What was still held back: no more ids will come."""
        if self.stopped is not None:
            return ""
        text = self._take(self._decoder.decode(b"", final=True))
        return text + self._search.finish()

    def _take(self, text: str) -> str:
        if self._strips_space and text:
            self._strips_space = False
            text = text.removeprefix(" ")
        return self._search.push(text)


class StopSearch:
    """Looks for stop strings in a text that arrives in pieces.

    stopped: the stop string that was found, or None. The first one to be complete wins; of two that end at
    the same character, the longer one.
    """

    def __init__(self, stop: Sequence[str]) -> None:
        if any(not text for text in stop):
            raise BadRequest(
                "a stop string is empty, which would stop every completion at once; remove it", "stop"
            )
        self.stopped: str | None = None
        self._stop = tuple(stop)
        self._held = ""  # may be the beginning of a stop string

    def push(self, text: str) -> str:
        """The text that is now safe to show; nothing once a stop string was found."""
        if self.stopped is not None:
            return ""
        if not text or not self._stop:
            return text
        text = self._held + text
        found = [(text.find(stop) + len(stop), -len(stop), stop) for stop in self._stop if stop in text]
        if found:
            end, minus_length, self.stopped = min(found)
            self._held = ""
            return text[: end + minus_length]
        keep = max(_overlap(text, stop) for stop in self._stop)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def finish(self) -> str:
        """What was held back: the text is over, or something else follows."""
        text, self._held = self._held, ""
        return text


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of the text may be the beginning of the stop string."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)
