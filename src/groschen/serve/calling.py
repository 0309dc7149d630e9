"""Free text until a call begins, and the grammar of calls from there on: `strict` tools that a model may call
or not.

Leaves out the grammar itself (`forms/forced.py`) and the reasoning before the answer (`budget.py`).
"""

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, field
from functools import lru_cache

from groschen.records import Guide
from groschen.serve.budget import union
from groschen.serve.forms.form import Form
from groschen.serve.grammar import mask_of
from groschen.text.tokenizer import Tokenizer

_BARE = b"{"  # the marker of a form that has none, where nothing but white space is before it


@dataclass(slots=True)
class CallGuide:
    """See `records.Guide`. calls: a guide at the beginning of its calls, whose grammar takes a marker first.

    A token may go on behind the marker that it ends, as `{"` does, if the calls may go on so. Where an object
    is the marker, no other token that begins one is allowed; behind any other marker such a token leaves the
    text free, which a marker that is a token of its own rules out.
    """

    tokenizer: Tokenizer
    form: Form
    calls: Guide
    _text: bytes = field(default=b"", init=False)  # its end, as far as a marker may begin in it
    _is_blank: bool = field(default=True, init=False)
    _is_calling: bool = field(default=False, init=False)

    def allowed(self) -> bytes | None:
        """See `records.Guide`."""
        if self._is_calling:
            return self.calls.allowed()
        if self.form.is_bare and self._is_blank:
            return union(self.calls.allowed(), _no_objects(self.tokenizer))
        return None

    def accept(self, token_id: int) -> None:
        """See `records.Guide`."""
        if self._is_calling:
            self.calls.accept(token_id)
            return
        new = self.tokenizer.token_bytes(token_id)
        if begun := self._begun(new):
            self._call([token_id] if begun == new else self._ids(begun.decode("utf-8", "replace")))
        self._is_blank = self._is_blank and not new.strip()
        self._text = (self._text + new)[-max(map(len, (*markers(self.form), _BARE))) :]

    def fork(self) -> "CallGuide":
        """See `records.Guide`."""
        twin = copy(self)
        twin.calls = self.calls.fork()
        return twin

    def _begun(self, new: bytes) -> bytes:
        """The marker that these bytes end and what is behind it; b"" if they end none."""
        if self.form.is_bare and self._is_blank and new.lstrip().startswith(_BARE):
            return new.lstrip()
        text = self._text + new
        for each in markers(self.form):
            at = text.find(each, max(0, len(self._text) - len(each) + 1))
            if at >= 0:
                return text[at:]
        return b""

    def _ids(self, text: str) -> list[int]:
        """Tokens of a text that follows another one; some encoders put a space before the first."""
        before, both = self.tokenizer.encode("\n"), self.tokenizer.encode("\n" + text)
        return both[len(before) :] if both[: len(before)] == before else self.tokenizer.encode(text)

    def _call(self, ids: Sequence[int]) -> None:
        """Hand over to the calls if they may begin with these tokens."""
        calls = self.calls.fork()
        for each in ids:
            mask = calls.allowed()
            if mask is not None and not (each < 8 * len(mask) and mask[each // 8] >> each % 8 & 1):
                return
            calls.accept(each)
        self.calls, self._is_calling = calls, True


def markers(form: Form) -> tuple[bytes, ...]:
    """The markers that a call in the form's own writing begins with."""
    written = form.written
    begin = "" if written is None else written.begin + written.before
    return tuple(opener.encode() for opener in form.openers if begin.startswith(opener))


def can_follow(form: Form) -> bool:
    """Whether the beginning of a call can be seen in a text of this form."""
    return form.written is not None and (form.is_bare or bool(markers(form)))


@lru_cache(maxsize=8)
def _no_objects(tokenizer: Tokenizer) -> bytes:
    """The mask of the tokens that begin no object."""
    words = enumerate(tokenizer.bytes_by_id)
    return mask_of([token_id for token_id, word in words if not word.lstrip().startswith(_BARE)])
