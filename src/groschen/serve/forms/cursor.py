"""A text that arrives in pieces, read by small coroutines that wait where it is used up.

A reading is a generator: it takes characters from the cursor and yields when it needs more of them; whoever
drives it adds text and resumes it. What a reading does depends on characters alone, never on where the text
was cut, so every cut gives the same result. Leaves out what the characters mean.
"""

import re
from collections.abc import Callable, Generator, Sequence
from typing import TypeVar

T = TypeVar("T")
Reading = Generator[None, None, T]

SPACE = " \t\r\n"
_NAME = re.compile(r"[\w.:/-]")  # OpenAI allows [a-zA-Z0-9_-]; others add dots, colons and slashes
_LONGEST_NAME = 256  # characters: longer ones are no names, and waiting for their end would hold back text


class Malformed(Exception):
    """The text is not what the form expects here; the character that is wrong has not been taken."""


class Ended(Exception):
    """The text is over, and the reading still expected some of it."""


class Cursor:
    """Where reading has got to, and from where on the text is undecided.

    Text between the mark and the place is held: `taken` hands it out, `drop` forgets it, and until then
    `rewind` can go back to the mark.
    """

    def __init__(self) -> None:
        self._text = ""
        self._mark = 0
        self._at = 0
        self._is_over = False

    def add(self, text: str) -> None:
        """More of the text."""
        self._text = self._text[self._mark :] + text
        self._at -= self._mark
        self._mark = 0

    def end(self) -> None:
        """No more will come: whoever waits gets Ended."""
        self._is_over = True

    def taken(self) -> str:
        """The text since the mark, which moves here."""
        text = self._text[self._mark : self._at]
        self._mark = self._at
        return text

    def drop(self) -> None:
        """Forget the text since the mark, which moves here."""
        self._mark = self._at

    def rewind(self) -> None:
        """Back to the mark: what was read since is read again."""
        self._at = self._mark

    def rest(self) -> str:
        """All that is undecided or unread; nothing is left."""
        self._at = len(self._text)
        return self.taken()

    def held(self) -> int:
        """How many characters stand between the mark and here."""
        return self._at - self._mark

    def since(self, held: int) -> str:
        """The text from where `held` gave that number to here."""
        return self._text[self._mark + held : self._at]

    def step(self) -> None:
        """Take the character that `peek` showed."""
        self._at += 1

    def advance(self, scan: Callable[[str, int], int]) -> None:
        """Let a function of (text, place) say how far to go in what has arrived."""
        self._at = scan(self._text, self._at)

    def peek(self, ahead: int = 0) -> Reading[str]:
        """The character here, or some characters ahead."""
        while self._at + ahead >= len(self._text):
            if self._is_over:
                raise Ended
            yield
        return self._text[self._at + ahead]

    def skip(self, characters: str = SPACE) -> Reading[None]:
        """Take all of these characters that stand here."""
        while (yield from self.peek()) in characters:
            self._at += 1

    def drop_all(self, characters: str) -> Reading[None]:
        """Take and forget all of these characters that stand here."""
        while (yield from self.peek()) in characters:
            self._at += 1
            self.drop()

    def literal(self, text: str) -> Reading[None]:
        """Take exactly this text; where another one stands, nothing is taken."""
        if not (yield from self.match((text,))):
            raise Malformed

    def name(self) -> Reading[str]:
        """The name that stands here: of a tool or of a parameter."""
        held = self.held()
        while _NAME.match((yield from self.peek())):
            self._at += 1
            if self.held() - held > _LONGEST_NAME:
                raise Malformed
        if self.held() == held:
            raise Malformed
        return self.since(held)

    def match(self, markers: Sequence[str]) -> Reading[str]:
        """Take the marker that stands here, or nothing: "". None may be the beginning of another one."""
        length = 0
        while markers:
            character = yield from self.peek(length)
            markers = [marker for marker in markers if marker[length] == character]
            length += 1
            whole = next((marker for marker in markers if len(marker) == length), None)
            if whole is not None:
                self._at += length
                return whole
        return ""

    def stands(self, marker: str) -> Reading[bool]:
        """Whether this marker comes next; it is not taken."""
        found = (yield from self.match((marker,))) if marker else ""
        self._at -= len(found)
        return found != ""

    def marker_after_space(self, markers: Sequence[str]) -> Reading[str]:
        """Which marker comes next: it is taken but stays held. "" if none does, and nothing is taken.

        At the end of the text, a mere beginning of one is forgotten.
        """
        self.drop()
        try:
            yield from self.skip()
            found = yield from self.match(markers)
        except Ended:
            self.rest()
            return ""
        if not found:
            self.rewind()
        return found

    def closing(self, marker: str) -> Reading[None]:
        """Forget this marker and the space before it, if that is what comes next."""
        if (yield from self.marker_after_space((marker,))):
            self.drop()

    def until(self, marker: str) -> Reading[str]:
        """The text before the next such marker, which is taken too."""
        searched = 0  # characters from here on at which it does not begin
        while (found := self._text.find(marker, self._at + searched)) < 0:
            searched = max(len(self._text) - self._at - len(marker) + 1, 0)
            yield from self.peek(len(self._text) - self._at)
        text = self._text[self._at : found]
        self._at = found + len(marker)
        return text

    def flow(self, markers: Sequence[str], emit: Callable[[str], None]) -> Reading[str]:
        """Emit text as it comes, up to the first of the markers, which is taken but stays held.

        Nothing is held back but what may be the beginning of a marker.
        """
        beginnings = (
            re.compile(f"[{re.escape(''.join(marker[0] for marker in markers))}]") if markers else None
        )
        while True:
            yield from self.peek()
            found = beginnings.search(self._text, self._at) if beginnings else None
            self._at = found.start() if found else len(self._text)
            emit(self.taken())
            if found:
                marker = yield from self.match(markers)
                if marker:
                    return marker
                self._at += 1
                emit(self.taken())
