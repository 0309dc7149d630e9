"""The answers of the endpoints as records, for the OpenAPI document alone.

The endpoints write their JSON themselves; a test holds what they write against these. Leaves out what an
endpoint's own file has as a record already (`responses.py`, `embeddings.py`, `health.py`).
"""

from typing import Any, Literal

import msgspec

Json = dict[str, Any]  # JSON of any shape


class Usage(msgspec.Struct):
    """Tokens read and drawn."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: dict[str, int] | None = None
    completion_tokens_details: dict[str, int] | None = None


class CalledFunction(msgspec.Struct):
    """A function's name and its arguments as JSON text."""

    name: str
    arguments: str


class Call(msgspec.Struct):
    """A call that the model wants made."""

    id: str
    function: CalledFunction
    type: Literal["function"] = "function"


class AnswerMessage(msgspec.Struct):
    """What the model said, and under both names what it thought before."""

    role: Literal["assistant"]
    content: str | None
    refusal: None = None
    reasoning_content: str | msgspec.UnsetType = msgspec.UNSET
    reasoning: str | msgspec.UnsetType = msgspec.UNSET
    tool_calls: list[Call] | msgspec.UnsetType = msgspec.UNSET


class ChatChoice(msgspec.Struct):
    """One sample. stop_reason: the stop string, or the id of the `stop_token_ids`, that ended it.

    logprobs: in nat, of what was sampled from.
    """

    index: int
    message: AnswerMessage
    finish_reason: Literal["stop", "length", "tool_calls"]
    stop_reason: str | int | None = None
    logprobs: Json | None = None


class ChatCompletion(msgspec.Struct):
    """The answer of /v1/chat/completions. With seed and system_fingerprint, the same request gives the same
    texts again.
    """

    id: str
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage
    seed: int
    system_fingerprint: str
    object: Literal["chat.completion"] = "chat.completion"
    service_tier: str | None = None


class CompletionChoice(msgspec.Struct):
    """One sample. stop_reason: as in a chat. seed: of its prompt."""

    index: int
    text: str
    finish_reason: Literal["stop", "length"]
    seed: int
    stop_reason: str | int | None = None
    logprobs: Json | None = None


class Completion(msgspec.Struct):
    """The answer of /v1/completions. seed: of all prompts; null where each has drawn its own."""

    id: str
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: Usage
    system_fingerprint: str
    seed: int | None
    object: Literal["text_completion"] = "text_completion"


class Model(msgspec.Struct):
    """A model that is served. max_model_len: tokens of prompt and completion together."""

    id: str
    created: int
    owned_by: str
    max_model_len: int
    groschen: Json
    object: Literal["model"] = "model"


class Models(msgspec.Struct):
    """The answer of /v1/models."""

    data: list[Model]
    object: Literal["list"] = "list"
