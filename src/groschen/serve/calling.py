"""Free text until a marker begins a call, and the grammar of calls from there on: `strict` tools that a model
may call or not.

Leaves out the grammar itself (`forms/forced.py`) and the reasoning before the answer (`budget.py`).
"""

from copy import copy
from dataclasses import dataclass, field

from groschen.records import Guide
from groschen.serve.forms.form import Form
from groschen.text.tokenizer import Tokenizer

_BARE = b"{"  # the marker of a form that has none, where nothing but white space is before it


@dataclass(slots=True)
class CallGuide:
    """See `records.Guide`. calls: a guide at the beginning of its calls, whose grammar takes a marker first.

    A marker counts where a token ends with it; one that goes on within its token leaves the text free.
    """

    tokenizer: Tokenizer
    form: Form
    calls: Guide
    _text: bytes = field(default=b"", init=False)  # its end, as far as a marker may begin in it
    _is_blank: bool = field(default=True, init=False)
    _is_calling: bool = field(default=False, init=False)

    def allowed(self) -> bytes | None:
        """See `records.Guide`."""
        return self.calls.allowed() if self._is_calling else None

    def accept(self, token_id: int) -> None:
        """See `records.Guide`."""
        if self._is_calling:
            self.calls.accept(token_id)
            return
        new = self.tokenizer.token_bytes(token_id)
        text = self._text + new
        marker = next((each for each in markers(self.form) if text.endswith(each)), None)
        if marker is None and self.form.is_bare and self._is_blank and text.strip() == _BARE:
            marker = _BARE
        if marker is not None:
            for each in self.tokenizer.encode(marker.decode()):
                self.calls.accept(each)
            self._is_calling = True
        self._is_blank = self._is_blank and not new.strip()
        self._text = text[-max(map(len, (*markers(self.form), _BARE))) :]

    def fork(self) -> "CallGuide":
        """See `records.Guide`."""
        twin = copy(self)
        twin.calls = self.calls.fork()
        return twin


def markers(form: Form) -> tuple[bytes, ...]:
    """The markers that a call in the form's own writing begins with."""
    written = form.written
    begin = "" if written is None else written.begin + written.before
    return tuple(opener.encode() for opener in form.openers if begin.startswith(opener))


def can_follow(form: Form) -> bool:
    """Whether the beginning of a call can be seen in a text of this form."""
    return form.written is not None and (form.is_bare or bool(markers(form)))
