"""HTML from functions, so that no text can become markup by accident.

A plain string is always escaped and made readable; only what `tag`, `join` and `trusted` return is `Html` and
passes as it is. What a model wrote stays a plain string until `tag` takes it in. Leaves out what a page looks
like (page/report.css).
"""

import html
import unicodedata
from collections.abc import Iterable, Mapping

# Elements without content: those of HTML have no end at all, those of SVG close themselves.
_VOID, _SELF_CLOSED = frozenset({"br", "input", "meta"}), frozenset({"path", "circle", "line", "rect"})
# Marks that change the direction of the text after them (Unicode bidirectional algorithm).
_DIRECTIONS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


class Html(str):
    """Markup that is safe to write into a page."""

    __slots__ = ()


def trusted(markup: str) -> Html:
    """This very text as markup. For files of the package only, never for anything that a run or a user
    wrote.
    """
    return Html(markup)


def tag(name: str, /, *children: Html | str | None, **attributes: str | float | None) -> Html:
    """An element. Strings among the children are escaped, None is left out, attribute values are escaped.

    Attributes: `class_` stands for class, `aria_label` for aria-label; None leaves one out, "" writes it
    alone.
    """
    written = "".join(f" {_attribute(key, value)}" for key, value in attributes.items() if value is not None)
    if name in _VOID:
        return Html(f"<{name}{written}>")
    if name in _SELF_CLOSED:
        return Html(f"<{name}{written}/>")
    return Html(f"<{name}{written}>{join(children)}</{name}>")


def join(parts: Iterable[Html | str | None], separator: str = "") -> Html:
    """The parts one after another; strings are escaped, None is left out."""
    return Html(separator.join(_safe(part) for part in parts if part is not None))


def table(
    header: Iterable[Html | str],
    rows: Iterable[Iterable[Html | str]],
    *,
    caption: str,
    texts: Iterable[int] = (),
) -> Html:
    """A table in a box of its own that scrolls sideways where the screen is narrow; first cells head their
    rows.

    texts: columns of running text, set to the left and broken into lines; the others are numbers. The box can
    be reached by keyboard, because something that scrolls must be.
    """
    kinds = dict.fromkeys(texts, "words")
    names = (tag("th", cell, scope="col", class_=kinds.get(i)) for i, cell in enumerate(header))
    head = tag("thead", tag("tr", *names))
    body = tag("tbody", *(_row(list(cells), kinds) for cells in rows))
    inner = tag("table", tag("caption", caption), head, body)
    return tag("div", inner, class_="scroll", tabindex="0", role="region", aria_label=caption)


def section(name: str, title: str, language: str, *content: Html | None) -> Html:
    """A part of the page under a heading of the second rank, with an anchor of its own in each language."""
    anchor = f"{name}-{language}"
    heading = tag("h2", title, id=f"{anchor}-title")
    return tag("section", heading, *content, id=anchor, class_=name, aria_labelledby=f"{anchor}-title")


def readable(text: str) -> str:
    """The text with control characters, lone surrogates and direction overrides made visible.

    A model can write anything: an override could show a line in another order than it was written.
    """
    return "".join(character if _is_plain(character) else _visible(character) for character in text)


def _row(cells: list[Html | str], kinds: Mapping[int, str]) -> Html:
    rest = (tag("td", cell, class_=kinds.get(i)) for i, cell in enumerate(cells[1:], 1))
    return tag("tr", tag("th", cells[0], scope="row"), *rest)


def _safe(part: Html | str) -> str:
    return part if isinstance(part, Html) else html.escape(readable(part))


def _attribute(key: str, value: str | float) -> str:
    name = key.rstrip("_").replace("_", "-")
    return name if value == "" else f'{name}="{html.escape(readable(str(value)))}"'


def _is_plain(character: str) -> bool:
    is_control = unicodedata.category(character) in ("Cc", "Cs") or character in _DIRECTIONS
    return not is_control or character in "\n\t"


def _visible(character: str) -> str:
    if ord(character) < 0x20:
        return chr(0x2400 + ord(character))  # the pictures of control characters, U+2400 ff.
    return f"\u27e8U+{ord(character):04X}\u27e9"
