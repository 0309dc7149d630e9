"""Where an answer has to stop: strings are looked for in what a client is shown, tokens in what is drawn.

A client is not shown special tokens (`<|im_start|>`), the tags around reasoning and the markers of calls; one
of them is looked for as the token that it is. Leaves out the model's own end tokens.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from groschen.serve import faults
from groschen.serve.events import Content, Event
from groschen.serve.served import Served
from groschen.text.stream import StopSearch


@dataclass(frozen=True, slots=True)
class Stops:
    """strings: looked for in the text. tokens: id to the string that asks for it."""

    strings: tuple[str, ...]
    tokens: Mapping[int, str]


def stops_of(served: Served, wanted: Sequence[str], *, is_chat: bool, has_tools: bool) -> Stops:
    """What the strings of a request ask for. Raises ApiFault for one that could never be met.

    is_chat: the text is parted into reasoning, calls and content; a string is looked for in content alone.
    """
    unseen = _unseen(served, is_chat=is_chat, has_tools=has_tools)
    tokens: dict[int, str] = {}
    for text in wanted:
        inner = next((each for each in unseen if each in text), None)
        if inner is None:
            continue
        if text not in served.named_ids:
            advice = f"send {inner!r} alone" if inner in served.named_ids else "leave it out"
            raise faults.invalid(
                f"The stop string {faults.short(text)} holds {inner!r}, which is never part of the text that "
                f"you are sent; {advice}.",
                "stop",
            )
        tokens[served.named_ids[text]] = text
    return Stops(tuple(wanted), tokens)


def _unseen(served: Served, *, is_chat: bool, has_tools: bool) -> list[str]:
    """What a model writes and a client is never shown as text."""
    hidden = served.hidden_ids if is_chat else served.opened.text.tokenizer.special_ids
    form = served.form
    tags = (form.reasoning_open, form.reasoning_close) if is_chat and form.has_reasoning else ()
    markers = (*form.openers, *form.inner) if has_tools else ()
    return [*(text for text, i in served.named_ids.items() if i in hidden), *tags, *markers]


class ContentSearch:
    """Looks for stop strings in the content of one answer: not in its reasoning, which may quote them, and
    not in the arguments of calls.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._search = StopSearch(stops)

    @property
    def stopped(self) -> str | None:
        """The stop string that was met."""
        return self._search.stopped

    def pass_on(self, events: Sequence[Event]) -> list[Event]:
        """The events up to a stop string; the end of a content may be held back."""
        passed: list[Event] = []
        for event in events:
            if isinstance(event, Content):
                text = self._search.push(event.text)
            else:
                text = self._search.finish()  # a string does not go on behind something else
            if text:
                passed.append(Content(text))
            if self.stopped is not None:
                break
            if not isinstance(event, Content):
                passed.append(event)
        return passed
