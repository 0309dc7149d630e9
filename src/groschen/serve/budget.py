"""Reasoning as a guide: how long a model may think, and that a grammar begins only after it has thought.

Follows the bytes of the text, as the parser does, so it does not matter whether a tag is one token or
several. Leaves out the grammar that follows (`grammar.py`) and how reasoning is told from the answer in the
text (`parser.py`).
"""

from collections.abc import Collection
from copy import copy
from dataclasses import dataclass, field
from enum import Enum, auto

import numpy as np

from groschen.errors import Unsupported
from groschen.records import Guide
from groschen.serve.grammar import mask_of
from groschen.text.tokenizer import Tokenizer

_GAPS = (b"\n", b"\n\n")  # what stands between reasoning and answer; the parser leaves it out
_MOST_GAPS = 2  # such tokens


class _Phase(Enum):
    BEFORE = auto()  # nothing but white space yet: the model may begin to think
    INSIDE = auto()
    GAP = auto()  # the reasoning has ended and a grammar begins
    AFTER = auto()


class ReasoningTags:
    """The tags around a model's reasoning, as its vocabulary writes them. One for each served model.

    open_tag, close_tag: such as `<think>` and `</think>`; end_ids: what ends a text (`Engine.end_ids`).
    """

    def __init__(self, tokenizer: Tokenizer, open_tag: str, close_tag: str, end_ids: Collection[int]) -> None:
        self.tokenizer = tokenizer
        self.open, self.close = open_tag.encode(), close_tag.encode()
        self.open_ids = self._ids(self.open)
        self.end_ids = frozenset(end_ids)
        words = tokenizer.bytes_by_id
        self.gap_ids = frozenset(i for i, word in enumerate(words) if word in _GAPS)
        self._closing = [(i, word) for i, word in enumerate(words) if self.close[-1:] in word]
        self._close_ids: dict[int, tuple[int, ...]] = {}
        self._thinking: dict[int, bytes] = {}

    def begun(self, text: bytes) -> int:
        """How many bytes of the close tag the end of a text may already be."""
        longest = min(len(text), len(self.close) - 1)
        return next((n for n in range(longest, 0, -1) if text.endswith(self.close[:n])), 0)

    def close_ids(self, begun: int) -> tuple[int, ...]:
        """The tokens of the close tag without the first bytes, which are there already."""
        if begun not in self._close_ids:
            self._close_ids[begun] = self._ids(self.close[begun:])
        return self._close_ids[begun]

    def thinking(self, begun: int) -> bytes:
        """The mask of reasoning that an answer in a grammar must follow: no end token, and no token that
        closes the reasoning and goes on with the answer, which the grammar would not see.
        """
        if begun not in self._thinking:
            rest, num_words = self.close[begun:], self.tokenizer.vocab_size
            hides = [i for i, word in self._closing if word.startswith(rest) and word[len(rest) :].strip()]
            bits = np.ones(num_words, dtype=np.uint8)
            bits[[*hides, *(i for i in self.end_ids if i < num_words)]] = 0
            self._thinking[begun] = np.packbits(bits, bitorder="little").tobytes()
        return self._thinking[begun]

    def _ids(self, text: bytes) -> tuple[int, ...]:
        """Tokens of a text that follows another one."""
        before, both = (self.tokenizer.encode("\n" + end) for end in ("", text.decode()))
        ids = both[len(before) :] if both[: len(before)] == before else self.tokenizer.encode(text.decode())
        if b"".join(map(self.tokenizer.token_bytes, ids)) != text:
            raise Unsupported(
                f"the vocabulary cannot write {text.decode()!r} behind another text, so reasoning cannot be "
                "limited or followed by a grammar; ask for neither"
            )
        return tuple(ids)


@dataclass(slots=True, kw_only=True)
class ReasoningGuide:
    """Lets a model think, for `budget` tokens at most, and then hands over to `then`. See `records.Guide`.

    is_open: the prompt ended inside the reasoning; else the model may begin it with the open tag. budget:
    tokens of reasoning after which the close tag is forced; None: no limit. then: what guides the answer;
    None: nothing does.
    """

    tags: ReasoningTags
    is_open: bool
    budget: int | None = None
    then: Guide | None = None
    _phase: _Phase = field(default=_Phase.BEFORE, init=False)
    _text: bytes = field(default=b"", init=False)  # its end, as far as a tag may begin in it
    _num_tokens: int = field(default=0, init=False)  # of reasoning
    _num_gaps: int = field(default=0, init=False)
    _forced: tuple[int, ...] = field(default=(), init=False)
    _fresh: Guide | None = field(default=None, init=False)  # `then` before what may still become the open tag

    def __post_init__(self) -> None:
        if self.is_open:
            self._begin()

    def allowed(self) -> bytes | None:
        """See `records.Guide`."""
        if self._forced:
            return mask_of(self._forced[:1])
        if self.then is None:
            return None
        match self._phase:
            case _Phase.BEFORE if not self._text:
                return union(self.then.allowed(), mask_of(self.tags.open_ids[:1]))
            case _Phase.INSIDE:
                return self.tags.thinking(self.tags.begun(self._text))
            case _Phase.GAP if self._num_gaps < _MOST_GAPS:
                return union(self.then.allowed(), mask_of(self.tags.gap_ids))
        return self.then.allowed()

    def accept(self, token_id: int) -> None:
        """See `records.Guide`."""
        was_forced, self._forced = bool(self._forced), self._forced[1:]
        match self._phase:
            case _Phase.BEFORE:
                self._before(token_id, was_forced)
            case _Phase.INSIDE:
                self._inside(token_id, was_forced)
            case _Phase.GAP if token_id in self.tags.gap_ids and not self._is_answer(token_id):
                self._num_gaps += 1
            case _:
                self._answer(token_id)

    def fork(self) -> "ReasoningGuide":
        """See `records.Guide`."""
        twin = copy(self)
        twin.then = None if self.then is None else self.then.fork()
        return twin

    def _before(self, token_id: int, was_forced: bool) -> None:
        """White space, the open tag or a piece of it, or the answer already."""
        tags, is_first = self.tags, not self._text
        text = self._text = (self._text + tags.tokenizer.token_bytes(token_id)).lstrip()
        if text.startswith(tags.open):
            self._begin()
        elif self.then is None:
            self._phase = _Phase.BEFORE if tags.open.startswith(text) else _Phase.AFTER
        elif was_forced:
            return
        elif is_first and token_id == tags.open_ids[0] and not self._is_answer(token_id):
            self._forced = tuple(tags.open_ids[1:])
        elif tags.open.startswith(text) and self._is_answer(token_id):  # either may come of it
            if self._fresh is None:
                self._fresh = self.then.fork()
            self.then.accept(token_id)
        else:
            self._answer(token_id)

    def _inside(self, token_id: int, was_forced: bool) -> None:
        close = self.tags.close
        text = self._text + self.tags.tokenizer.token_bytes(token_id)
        self._num_tokens += not was_forced
        if close in text:
            self._phase, self._forced = _Phase.AFTER if self.then is None else _Phase.GAP, ()
        self._text = text[-len(close) :]
        self._force_if_spent()

    def _begin(self) -> None:
        self._phase, self._text, self._forced = _Phase.INSIDE, b"", ()
        if self._fresh is not None:  # of which forks know too
            self.then, self._fresh = self._fresh.fork(), None
        self._force_if_spent()

    def _force_if_spent(self) -> None:
        is_spent = self.budget is not None and self._num_tokens >= self.budget
        if self._phase is _Phase.INSIDE and is_spent and not self._forced:
            self._forced = self.tags.close_ids(self.tags.begun(self._text))

    def _answer(self, token_id: int) -> None:
        self._phase = _Phase.AFTER
        if self.then is not None:
            self.then.accept(token_id)

    def _is_answer(self, token_id: int) -> bool:
        """Whether what follows the reasoning could take this token."""
        mask = None if self.then is None else self.then.allowed()
        return mask is None or (token_id < 8 * len(mask) and bool(mask[token_id // 8] >> token_id % 8 & 1))


def union(one: bytes | None, other: bytes) -> bytes | None:
    """The mask of what either mask allows; None allows all."""
    if one is None:
        return None
    both = int.from_bytes(one, "little") | int.from_bytes(other, "little")
    return both.to_bytes(max(len(one), len(other)), "little")
