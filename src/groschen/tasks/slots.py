"""Where an answer stands in a completion: found strictly as asked, or anywhere for a control.

Only what follows the last `</think>` counts; while a `<think>` is open there is no answer. Every search is
linear in the text, because a model may write the same mark a hundred thousand times. Leaves out what the
found text means. A template that opens `<think>` in the prompt hides that mark from this file: a completion
that was cut inside such thoughts looks like one without thoughts.
"""

import re
from collections.abc import Iterator
from enum import StrEnum


class Slot(StrEnum):
    """The place that a task asks for."""

    ANSWER = "answer"  # the last <answer>..</answer>
    BOXED = "boxed"  # the last \boxed{..} or \boxed {..}, braces balanced
    HASHES = "hashes"  # the rest of the line after the last ####
    LAST_LINE = "last_line"  # the last line that is not empty
    WHOLE = "whole"  # all of it


_BOX = "\\boxed{"
_BOX_OPENS = re.compile(r"\\boxed\s*\{")  # TeX allows white space before the brace
_PHRASE = re.compile(r"(?:answer is|answer:|antwort ist|antwort lautet|antwort:|ergebnis:)", re.IGNORECASE)
_FENCE = re.compile(r"^[ \t]*```[ \t]*([\w+-]*)[^\n]*$", re.MULTILINE)


def after_thinking(text: str) -> str | None:
    """What is not thought; None while a <think> is still open."""
    rest = text[text.rfind("</think>") + len("</think>") :] if "</think>" in text else text
    return None if "<think>" in rest else rest


def strict(text: str, slot: Slot) -> str | None:
    """The content of the slot without white space around it; None if the slot is absent, empty, or opened
    once more and not closed.
    """
    rest = after_thinking(text)
    found = None if rest is None else _content(rest, slot)
    return (found.strip() or None) if found is not None else None


def anywhere(text: str) -> Iterator[str]:
    """The places where a person would look for the answer, the most explicit first."""
    rest = after_thinking(text) or text
    for slot in (Slot.ANSWER, Slot.BOXED, Slot.HASHES):
        found = _content(rest, slot)
        if found and found.strip():
            yield found.strip()
    phrases = list(_PHRASE.finditer(rest))
    if phrases:
        said = rest[phrases[-1].end() :].strip().split("\n", 1)[0]
        yield said.strip().rstrip(".")
    line = _content(rest, Slot.LAST_LINE)
    if line and not _BOX_OPENS.search(line) and "<answer>" not in line and "####" not in line:
        yield line.strip()


def fill(content: str, slot: Slot) -> str:
    """A completion that has this content in the slot."""
    match slot:
        case Slot.ANSWER:
            return f"<answer>{content}</answer>"
        case Slot.BOXED:
            return f"{_BOX}{content}}}"
        case Slot.HASHES:
            return f"#### {content}"
        case _:
            return content


def last_fence(text: str, languages: frozenset[str]) -> str | None:
    """What stands in the last closed ``` block whose language is one of these ("" for none named)."""
    found = fences(text, languages)
    return found[-1] if found else None


def fences(text: str, languages: frozenset[str]) -> list[str]:
    """What stands in each closed ``` block whose language is one of these ("" for none named)."""
    marks = list(_FENCE.finditer(text))
    found, index = [], 0
    while index + 1 < len(marks):
        opening, closing = marks[index], marks[index + 1]
        if closing.group(1):  # a block can't be closed by a mark that names a language
            index += 1
            continue
        if opening.group(1).lower() in languages:
            found.append(text[opening.end() + 1 : closing.start()])
        index += 2
    return found


def _content(text: str, slot: Slot) -> str | None:
    match slot:
        case Slot.ANSWER:
            return _tagged(text)
        case Slot.BOXED:
            return _boxed(text)
        case Slot.HASHES:
            at = text.rfind("####")
            return None if at < 0 else text[at + 4 :].split("\n", 1)[0]
        case Slot.LAST_LINE:
            stripped = text.rstrip()
            return stripped[stripped.rfind("\n") + 1 :]
        case Slot.WHOLE:
            return text


def _tagged(text: str) -> str | None:
    end = text.rfind("</answer>")
    start = text.rfind("<answer>", 0, max(end, 0))
    if end < 0 or start < 0 or "<answer>" in text[end:]:
        return None
    return text[start + len("<answer>") : end]


def _boxed(text: str) -> str | None:
    ends = [match.end() for match in _BOX_OPENS.finditer(text)]
    if not ends:
        return None
    depth, at = 1, ends[-1]
    while at < len(text):
        if text[at] == "\\":
            at += 2  # \{ and \} are signs, not braces
            continue
        depth += {"{": 1, "}": -1}.get(text[at], 0)
        if depth == 0:
            return text[ends[-1] : at]
        at += 1
    return None
