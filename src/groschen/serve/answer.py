"""Parts of an answer that chat and completions share: one sample put together, tokens as JSON, the usage.

Leaves out the objects around them.
"""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from groschen.serve.events import (
    Content,
    Event,
    Finished,
    Reasoning,
    TokenInfo,
    ToolArguments,
    ToolBegin,
)
from groschen.serve.generation import Generation, Piece, Usage

Json = dict[str, object]


@dataclass(slots=True)
class Call:
    """One tool call as far as it is written."""

    id: str
    name: str
    arguments: str = ""


@dataclass(slots=True)
class Answer:
    """One sample, put together from its pieces."""

    content: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    calls: dict[int, Call] = field(default_factory=dict)
    tokens: list[TokenInfo] = field(default_factory=list)
    finished: Finished | None = None

    def take(self, events: Sequence[Event], tokens: Sequence[TokenInfo]) -> None:
        """Add what is new."""
        self.tokens += tokens
        for event in events:
            match event:
                case Content(text):
                    self.content.append(text)
                case Reasoning(text):
                    self.reasoning.append(text)
                case ToolBegin(index, call_id, name):
                    self.calls[index] = Call(call_id, name)
                case ToolArguments(index, text):
                    self.calls[index].arguments += text
                case Finished():
                    self.finished = event


async def whole_answers(generation: Generation) -> list[Answer]:
    """All samples of a generation, which is closed when this ends in whatever way."""
    answers = [Answer() for _ in range(generation.ask.n)]
    try:
        async for piece in generation:
            answers[piece.sample].take(piece.events, piece.tokens)
    finally:
        await generation.close()
    return answers


def answer_of(piece: Piece) -> Answer:
    """What one piece brings, all its events together."""
    answer = Answer()
    for event in piece.events:
        # A piece may go on with a call that began in an earlier one.
        if isinstance(event, ToolArguments) and event.index not in answer.calls:
            answer.calls[event.index] = Call("", "")
        answer.take((event,), ())
    answer.tokens += piece.tokens
    return answer


def new_id(kind: str) -> str:
    """The id of an answer, such as `chatcmpl-...`."""
    return f"{kind}-{secrets.token_hex(16)}"


def usage_json(usage: Usage) -> Json:
    """OpenAI's usage object."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": usage.reasoning_tokens,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def token_text(text: bytes) -> str:
    r"""A token as text; one that is no whole text is spelled `bytes:\xe2\x82`, so that two different ones
    stay different.
    """
    try:
        return text.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in text)


def logprob_json(token: TokenInfo) -> Json:
    """A token in chat's form."""
    return {
        **_token_json(token.text_bytes, token.logprob),
        "top_logprobs": [_token_json(text, logprob) for _, text, logprob in token.alternatives],
    }


def logprobs_json(tokens: Sequence[TokenInfo]) -> Mapping[str, object]:
    """Tokens by the part of the answer that they belong to; end tokens are no part of it."""
    found: dict[str, list[Json]] = {"content": [], "reasoning": [], "tool": []}
    for token in tokens:
        if not token.is_end:
            found[token.part].append(logprob_json(token))
    listed: Json = {"content": found["content"], "refusal": None}
    if found["reasoning"]:
        listed["reasoning"] = found["reasoning"]
    if found["tool"]:
        listed["tool_calls"] = found["tool"]
    return listed


def _token_json(text: bytes, logprob: float) -> Json:
    return {"token": token_text(text), "logprob": logprob, "bytes": list(text)}
