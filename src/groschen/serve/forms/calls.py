"""The tool calls of one answer, as readers of a form find them and as clients get them.

Leaves out how each family writes a call.
"""

import re
from collections.abc import Callable, Generator, Mapping

from groschen.serve.events import Event, ToolArguments, ToolBegin, ToolEnd
from groschen.serve.forms.cursor import Cursor, Malformed, Reading
from groschen.serve.forms.json_text import JsonObject

Functions = Mapping[str, Mapping[str, object]]  # name to the JSON schema of its parameters
_NOTHING = ("null", '""')  # what some models write for no arguments
_NAME = re.compile(r"[\w.:/-]{1,256}")


class Calls:
    """What readers report to.

    functions: the tools that may be called; None takes every name. num_complete: calls that were written to
    their end. is_open: a call has begun and not ended; has_arguments: its arguments are whole.
    """

    def __init__(
        self,
        cursor: Cursor,
        emit: Callable[[Event], None],
        call_id: Callable[[], str],
        functions: Functions | None,
    ) -> None:
        self.cursor = cursor
        self.num_begun = 0
        self.num_complete = 0
        self.is_open = False
        self.has_arguments = False
        self._emit = emit
        self._call_id = call_id
        self._functions = functions

    def check(self, name: str) -> None:
        """Malformed unless this is the name of a tool."""
        if not _NAME.fullmatch(name) or (self._functions is not None and name not in self._functions):
            raise Malformed

    def knows(self, name: str) -> bool:
        """Whether a tool of this name was given."""
        return self._functions is not None and name in self._functions

    def schema(self, name: str) -> Mapping[str, object]:
        """The JSON schema of a tool's parameters; empty if none was given."""
        return self._functions.get(name, {}) if self._functions is not None else {}

    def begin(self, name: str) -> None:
        """A call begins: from here on its text can't become content again."""
        self.check(name)
        self.cursor.drop()
        self._emit(ToolBegin(self.num_begun, self._call_id(), name))
        self.num_begun += 1
        self.is_open, self.has_arguments = True, False

    def add(self, text: str) -> None:
        """A piece of the arguments."""
        if text:
            self._emit(ToolArguments(self.num_begun - 1, text))

    def end(self, *, is_complete: bool = True) -> None:
        """The call that is open ends here; is_complete: it was written to its end."""
        self.cursor.drop()
        self._emit(ToolEnd(self.num_begun - 1, is_complete))
        self.num_complete += is_complete
        self.is_open = False

    def whole(self, name: str, arguments: str) -> None:
        """A call that was written in another notation than JSON, all at once. arguments: JSON text."""
        self.begin(name)
        self.add(arguments)
        self.end()

    def stream(self, close: str) -> Generator[None, None, bool]:
        """Arguments that are JSON go out as they come, unchanged; False if they are broken.

        Broken ones go out as they are, up to `close` (not taken) or to the end of the text.
        """
        scanned = JsonObject()
        while not scanned.is_whole:
            yield from self.cursor.peek()
            self.cursor.advance(scanned.take)
            self.add(self.cursor.taken())
            if scanned.is_broken:
                yield from self.cursor.flow((close,) if close else (), self.add)
                self.cursor.rewind()
                return False
        self.has_arguments = True
        return True

    def no_arguments(self, name: str) -> str:
        """The arguments of a call that was written without any. Malformed if the tool needs some."""
        if self.schema(name).get("required"):
            raise Malformed
        return "{}"

    def streamed(self, name: str, close: str) -> Reading[None]:
        """A call whose arguments stand here as JSON, or are left out before what closes, and end it."""
        self.check(name)
        if (yield from self.cursor.peek()) != "{":
            says_nothing = yield from self.cursor.match(_NOTHING)
            if not says_nothing and not (yield from self.cursor.stands(close)):
                raise Malformed
            self.whole(name, self.no_arguments(name))
            return
        self.begin(name)
        is_whole = yield from self.stream(close)
        self.end(is_complete=is_whole)
