"""The one machine that turns a model's text into reasoning, content, tool calls and an end.

    reasoning --close tag--> content <--marker, end of the block--> calls

    state       begins                                  what its text is
    reasoning   the prompt opened it, or an open tag    Reasoning, newlines beside the tags left out
                before any content
    content     else                                    Content; white space alone beside a call is left out
    calls       a marker, if there are tools            ToolBegin, ToolArguments, ToolEnd; Content if it turns
                                                        out to be no call before one has begun

The states are coroutines that read characters (`forms/cursor.py`), so the events of a text are the same
however it is cut, but for where neighbouring pieces of one text are parted. Nothing of a text is dropped but
tags, markers and the space beside them. Leaves out how calls are written (`forms/families.py`).
"""

from collections.abc import Callable

from groschen.records import FinishReason
from groschen.serve.events import (
    Content,
    EndReason,
    Event,
    Finished,
    Part,
    Reasoning,
    Thinks,
    ToolArguments,
)
from groschen.serve.forms import families
from groschen.serve.forms.calls import Calls, Functions
from groschen.serve.forms.cursor import SPACE, Cursor, Ended, Malformed, Reading
from groschen.serve.forms.form import Form

_ENDS: dict[FinishReason, EndReason] = {
    FinishReason.STOP: "stop",
    FinishReason.LENGTH: "length",
    FinishReason.ABORTED: "abort",
}
_BARE = "{"  # the opener of a call that has none: it stays in the text


class Parser:
    """The events of one answer.

    form: how this model writes. in_reasoning: the prompt ended inside the reasoning. has_tools: whether the
    request allows calls; without them a call is text like any other. call_id: gives a whole id, `call_` and
    24 characters. functions: the tools by name, with the JSON schema of their parameters; a call of another
    name is text. None takes every name and leaves values without types as text. thinks: what is held to a
    form may hold the very characters of a tag, as a JSON string may, and they are content.

    part: where the last text that was pushed has left the machine.
    """

    def __init__(
        self,
        form: Form,
        *,
        in_reasoning: bool,
        has_tools: bool,
        call_id: Callable[[], str],
        functions: Functions | None = None,
        thinks: Thinks = "freely",
    ) -> None:
        assert form.has_reasoning or not in_reasoning, f"the form {form.name} has no reasoning to begin in"
        assert not in_reasoning or thinks != "never", "what begins in reasoning thinks"
        self.part: Part = "reasoning" if in_reasoning else "content"
        self._form = form
        self._thinks = thinks
        self._has_tools = has_tools and form.read is not None
        self._openers = form.openers if self._has_tools else ()
        self._bare = (_BARE,) if self._has_tools and (form.is_bare or form.reads_bare) else ()
        self._fence = (families.JSON_FENCE,) if self._has_tools and form.reads_bare else ()
        self._events: list[Event] = []
        self._cursor = Cursor()
        self._calls = Calls(self._cursor, self._events.append, call_id, functions)
        self._has_content = False
        self._is_blank = True  # no content since the beginning or the last call
        self._machine = self._run()

    def push(self, text: str) -> list[Event]:
        """What is now certain. Holds back only what may still become a marker or turn out to be no call."""
        self._cursor.add(text)
        return self._resume()

    def finish(self, reason: FinishReason, stop: str | int | None = None) -> list[Event]:
        """What was held back, the end of what is open, and Finished.

        reason: why the engine ended. It becomes "tool_calls" where the model stopped by itself and a call is
        complete. stop: the stop string, or the id of the token, that ended the text.
        """
        self._cursor.end()
        events = self._resume()
        has_called = reason is FinishReason.STOP and self._calls.num_complete > 0
        return [*events, Finished("tool_calls" if has_called else _ENDS[reason], stop)]

    def _resume(self) -> list[Event]:
        next(self._machine, None)
        events = merged(self._events)
        self._events.clear()
        return events

    def _run(self) -> Reading[None]:
        try:
            if self.part == "reasoning":
                yield from self._reasoning()
            while True:
                marker = yield from self._content()
                if marker == self._form.reasoning_open:
                    yield from self._reasoning()
                elif marker == self._form.reasoning_close:
                    yield from self._after_reasoning()
                else:
                    yield from self._block(marker)
        except Ended:
            self._end(self._cursor.rest())

    def _reasoning(self) -> Reading[None]:
        """Everything up to the close tag, without the newlines beside both tags."""
        self.part = "reasoning"
        cursor, form = self._cursor, self._form
        cursor.drop()
        yield from cursor.drop_all("\n")
        if (yield from cursor.match((form.reasoning_open,))):  # the model repeats what the prompt has opened
            cursor.drop()
            yield from cursor.drop_all("\n")
        while True:
            marker = yield from cursor.flow((form.reasoning_close, "\n"), self._think)
            if marker == form.reasoning_close:
                break
            yield from cursor.skip("\n")
            if (yield from cursor.match((form.reasoning_close,))):
                break
            self._think(cursor.taken())
        yield from self._after_reasoning()

    def _after_reasoning(self) -> Reading[None]:
        self.part = "content"
        self._thinks = "freely" if self._thinks == "freely" else "never"
        self._cursor.drop()
        yield from self._cursor.drop_all("\n")

    def _content(self) -> Reading[str]:
        """Text up to a marker, which stays held."""
        self.part = "content"
        if self._is_blank:
            yield from self._cursor.skip()
            marker = yield from self._cursor.match(self._markers())
            if marker:
                return marker
            if not self._has_content and (yield from self._cursor.peek()) in self._bare:
                return _BARE
        return (yield from self._cursor.flow(self._openers, self._say))

    def _markers(self) -> tuple[str, ...]:
        """What may stand where no content has begun."""
        form = self._form
        thinks = form.has_reasoning and not self._has_content and self._thinks != "never"
        fence = () if self._has_content else self._fence
        return (*self._openers, *fence, *((form.reasoning_open, form.reasoning_close) if thinks else ()))

    def _block(self, marker: str) -> Reading[None]:
        """Calls, from behind the marker that opened them."""
        self.part = "tool"
        self._is_blank = True
        is_bare = self._form.reads_bare and marker in (_BARE, *self._fence)
        read = families.read_bare if is_bare else self._form.read
        assert read is not None, "there are no openers without a reader"
        try:
            yield from read(self._calls, marker)
        except Malformed:
            text = self._cursor.taken()
            if self._calls.is_open:
                self._calls.end(is_complete=False)
            self._say(text)
        self.part = "content"

    def _end(self, rest: str) -> None:
        """The text is over and `rest` of it undecided."""
        calls = self._calls
        if self.part == "reasoning":
            self._think(rest)
        elif calls.is_open and not calls.has_arguments:
            calls.add(rest)
            calls.end(is_complete=False)
        else:
            if calls.is_open:
                calls.end(is_complete=False)
            if rest.strip(SPACE) or not (calls.num_begun and self._is_blank):
                self._say(rest)

    def _think(self, text: str) -> None:
        if text:
            self._events.append(Reasoning(text))

    def _say(self, text: str) -> None:
        if text:
            self._events.append(Content(text))
            self._has_content, self._is_blank = True, False


def merged(events: list[Event]) -> list[Event]:
    """The same events, with neighbouring pieces of one text put together."""
    found: list[Event] = []
    for event in events:
        last = found[-1] if found else None
        if isinstance(event, Content) and isinstance(last, Content):
            found[-1] = Content(last.text + event.text)
        elif isinstance(event, Reasoning) and isinstance(last, Reasoning):
            found[-1] = Reasoning(last.text + event.text)
        elif isinstance(event, ToolArguments) and isinstance(last, ToolArguments):
            found[-1] = ToolArguments(event.index, last.text + event.text)
        else:
            found.append(event)
    return found
