"""Free text until a call begins, and the grammar of calls from there on: `strict` tools that a model may call
or not.

Leaves out the grammar itself (`forms/forced.py`) and the reasoning before the answer (`budget.py`).
"""

import re
from copy import copy
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from groschen.records import Guide
from groschen.serve.budget import union
from groschen.serve.forms.form import Form
from groschen.serve.grammar import mask_of
from groschen.text.tokenizer import Tokenizer

_BARE = b"{"  # the marker of a form that has none, where nothing but white space is before it


@dataclass(slots=True)
class CallGuide:
    """See `records.Guide`. calls: a guide at the beginning of its calls, whose grammar takes a marker first.

    Every marker that the form's reader takes for the beginning of a call begins one here too. A token may go
    on behind the marker that it ends, as `{"` does, if the calls may go on so; any other that ends a marker
    is not allowed, nor is a marker that the calls are not written with.
    """

    tokenizer: Tokenizer
    form: Form
    calls: Guide
    _openers: "_Openers" = field(init=False)
    _text: bytes = field(default=b"", init=False)  # its end, as far as a marker may begin in it
    _is_blank: bool = field(default=True, init=False)
    _is_calling: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self._openers = _openers(self.tokenizer, self.form)
        if self.form.is_bare:
            _no_objects(self.tokenizer)  # takes a while, and the engine would wait for it

    def allowed(self) -> bytes | None:
        """See `records.Guide`."""
        if self._is_calling:
            return self.calls.allowed()
        free = self._openers.free(self._text)
        if self.form.is_bare and self._is_blank:
            return union(self.calls.allowed(), _both(free, _no_objects(self.tokenizer)))
        return free

    def accept(self, token_id: int) -> None:
        """See `records.Guide`."""
        if self._is_calling:
            self.calls.accept(token_id)
            return
        new = self.tokenizer.token_bytes(token_id)
        if begun := self._begun(new):
            self._is_calling = True
            for each in [token_id] if begun == new else self._ids(begun.decode("utf-8", "replace")):
                self.calls.accept(each)
        self._is_blank = self._is_blank and not new.strip()
        self._text = self._openers.begun(self._text + new)

    def fork(self) -> "CallGuide":
        """See `records.Guide`."""
        twin = copy(self)
        twin.calls = self.calls.fork()
        return twin

    def _begun(self, new: bytes) -> bytes:
        """The beginning of a call that these bytes end, as the grammar writes it; b"" if they end none."""
        if self.form.is_bare and self._is_blank and new.lstrip().startswith(_BARE):
            return new.lstrip()
        opener, rest = self._openers.find(self._text + new)
        before = self._openers.beginnings.get(opener)
        return b"" if before is None else before.encode() + rest

    def _ids(self, text: str) -> list[int]:
        """Tokens of a text that follows another one; some encoders put a space before the first."""
        before, both = self.tokenizer.encode("\n"), self.tokenizer.encode("\n" + text)
        return both[len(before) :] if both[: len(before)] == before else self.tokenizer.encode(text)


class _Openers:
    """The markers that begin calls, in one vocabulary."""

    def __init__(self, tokenizer: Tokenizer, form: Form) -> None:
        self.beginnings, self._size = beginnings(form), tokenizer.vocab_size
        self._openers = {opener.encode(): opener for opener in form.openers}
        self._words: dict[bytes, list[tuple[int, bytes]]] = {}  # by their first byte
        for token_id, word in enumerate(tokenizer.bytes_by_id):
            self._words.setdefault(word[:1], []).append((token_id, word))
        marker = re.compile(b"|".join(map(re.escape, self._openers)))
        self._whole = [(i, word) for i, word in enumerate(tokenizer.bytes_by_id) if marker.search(word)]
        self._behind = {each: _behind(form, each, tokenizer) for each in form.openers}
        self._masks: dict[bytes, bytes | None] = {}
        self.free(b"")

    def find(self, text: bytes) -> tuple[str, bytes]:
        """The first marker in a text and what is behind it; ("", b"") if there is none."""
        found = [(at, each) for each in self._openers if (at := text.find(each)) >= 0]
        if not found:
            return "", b""
        at, opener = min(found)
        return self._openers[opener], text[at + len(opener) :]

    def begun(self, text: bytes) -> bytes:
        """The longest end of a text that a marker may begin with."""
        longest = min(len(text), max(map(len, self._openers), default=0))
        ends = (text[-size:] for size in range(longest, 0, -1))
        return next((end for end in ends if any(each[:-1].startswith(end) for each in self._openers)), b"")

    def free(self, begun: bytes) -> bytes | None:
        """The mask of text that is free or begins a call as the grammar has it; None: all. begun: its end."""
        if begun not in self._masks:
            bits = np.ones(self._size, dtype=np.uint8)
            for token_id, word in (*self._whole, *self._ending(begun)):
                opener, rest = self.find(begun + word)
                if opener and rest not in self._behind[opener]:
                    bits[token_id] = 0
            self._masks[begun] = None if bits.all() else np.packbits(bits, bitorder="little").tobytes()
        return self._masks[begun]

    def _ending(self, begun: bytes) -> list[tuple[int, bytes]]:
        """The tokens that end a marker which the end of a text begins."""
        sizes = range(1, len(begun) + 1)
        rests = {each[n:] for each in self._openers for n in sizes if begun.endswith(each[:n])}
        return [each for rest in rests for each in self._words.get(rest[:1], ()) if each[1].startswith(rest)]


def beginnings(form: Form) -> dict[str, str]:
    """The markers that calls in the form's own writing hold, each with such a call up to the marker's end."""
    begin = "" if form.written is None else form.written.begin + form.written.before
    return {each: begin[: begin.index(each) + len(each)] for each in form.openers if each in begin}


def can_follow(form: Form) -> bool:
    """Whether the beginning of a call can be seen in a text of this form."""
    return form.written is not None and (form.is_bare or bool(beginnings(form)))


def _behind(form: Form, opener: str, tokenizer: Tokenizer) -> frozenset[bytes]:
    """What one token may hold behind this marker: the beginnings of what calls go on with, before the name
    and before a token of its own. Nothing for a marker that calls are not written with.
    """
    before = beginnings(form).get(opener)
    if before is None or form.written is None:
        return frozenset()
    text = (form.written.begin + form.written.before)[len(before) :]
    length = min((at for each in tokenizer.control if (at := text.find(each)) >= 0), default=len(text))
    return frozenset(text[:size].encode() for size in range(length + 1))


def _both(one: bytes | None, other: bytes) -> bytes:
    """The mask of what both masks allow; None allows all."""
    if one is None:
        return other
    both = int.from_bytes(one, "little") & int.from_bytes(other, "little")
    return both.to_bytes(len(other), "little")


@lru_cache(maxsize=8)
def _openers(tokenizer: Tokenizer, form: Form) -> _Openers:
    return _Openers(tokenizer, form)


@lru_cache(maxsize=8)
def _no_objects(tokenizer: Tokenizer) -> bytes:
    """The mask of the tokens that begin no object."""
    words = enumerate(tokenizer.bytes_by_id)
    return mask_of([token_id for token_id, word in words if not word.lstrip().startswith(_BARE)])
