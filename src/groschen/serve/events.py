"""What a model's text is made of once it is understood: the pieces that every endpoint is a view of.

Leaves out how they are found (`parser.py`) and how they are sent (`chat.py`, `responses.py`).
"""

from dataclasses import dataclass
from typing import Literal

Part = Literal["reasoning", "content", "tool"]
EndReason = Literal["stop", "length", "tool_calls", "abort"]
# How often a text may turn to reasoning: one that is held to a form has no tags behind its one reasoning.
Thinks = Literal["freely", "once", "never"]


@dataclass(frozen=True, slots=True)
class Reasoning:
    """Text that the model thought; without the tags around it."""

    text: str


@dataclass(frozen=True, slots=True)
class Content:
    """Text that is the answer."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolBegin:
    """A tool call begins: its place among the calls of this answer, its id and the tool's name."""

    index: int
    id: str
    name: str


@dataclass(frozen=True, slots=True)
class ToolArguments:
    """A piece of a call's arguments; the pieces of one index together are JSON text."""

    index: int
    text: str


@dataclass(frozen=True, slots=True)
class ToolEnd:
    """A call has ended; is_complete: its arguments are whole, as the form writes them."""

    index: int
    is_complete: bool = True


@dataclass(frozen=True, slots=True)
class Finished:
    """The answer has ended. stop: the stop string, or the id of the `stop_token_ids`, that ended it."""

    reason: EndReason
    stop: str | int | None = None


Event = Reasoning | Content | ToolBegin | ToolArguments | ToolEnd | Finished


@dataclass(frozen=True, slots=True)
class TokenInfo:
    """One drawn token, with the most probable tokens at its place as (id, bytes, logprob)."""

    id: int
    text_bytes: bytes
    logprob: float  # nat, of the distribution that was sampled
    alternatives: tuple[tuple[int, bytes, float], ...]
    part: Part
    is_end: bool = False  # an end token: drawn and counted, but no text
