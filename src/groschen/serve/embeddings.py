"""`POST /v1/embeddings`: texts as vectors.

A vector is the mean, over all tokens of a text, of the decoder's last hidden states after the final norm, and
is scaled to length 1. A model that was trained to write is no trained embedder: such vectors tell topics
apart, and lag behind models made for search. A text's vector has the same bits alone and among others. Leaves
out the length of the queue (`limits.py`). Source: the OpenAI API reference, "Embeddings".
"""

import base64
from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec
import torch
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from groschen.engine.blocks import blocks_for
from groschen.engine.engine import Engine
from groschen.model.kvcache import KeyValueCache, Rows, Run
from groschen.serve import faults, fields
from groschen.serve.fields import CHANGES_NOTHING, Form, Other, Strict
from groschen.serve.host import Host, host_of
from groschen.serve.lengths import check_texts
from groschen.serve.served import Served
from groschen.serve.wire import json_response, unless_gone

PATH = "/v1/embeddings"
MOST_INPUTS, MOST_TOKENS = 2048, 300_000  # of one request, as at OpenAI


class EmbeddingsRequest(Strict):
    """POST /v1/embeddings. input: one text or several, each as a string or as token ids."""

    model: str
    input: str | list[str | int | list[int]]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Annotated[int, Meta(ge=1)] | None = None


class Embedding(msgspec.Struct):
    """One vector: numbers, or little-endian float32 in base64."""

    index: int
    embedding: list[float] | str
    object: str = "embedding"


class EmbeddingsUsage(msgspec.Struct):
    """Tokens read."""

    prompt_tokens: int
    total_tokens: int


class Embeddings(msgspec.Struct):
    """The answer."""

    data: list[Embedding]
    model: str
    usage: EmbeddingsUsage
    object: str = "list"


FORM: Form[EmbeddingsRequest] = Form(
    EmbeddingsRequest,
    {
        "user": CHANGES_NOTHING,
        "truncate_prompt_tokens": Other("nothing is cut off in silence; shorten the input yourself"),
        "input_type": Other("queries and documents are treated alike"),
        "messages": Other("send 'input'"),
    },
)


def route() -> Route:
    """The route; the host is the application's."""
    return Route(PATH, answer, methods=["POST"])


async def answer(request: Request) -> Response:
    """The endpoint."""
    body = await fields.read(request, FORM)
    return json_response(await unless_gone(request, _embed(host_of(request), body)))


async def _embed(host: Host, body: EmbeddingsRequest) -> Embeddings:
    served = host.served(body.model)
    width = served.opened.engine.model.config.width
    if body.dimensions not in (None, width):
        raise faults.not_honoured("dimensions", f"the vectors of {body.model!r} have {width}; leave it out")
    with host.working():
        texts = await host.prepare(_token_ids, served, body.input)
        vectors = await _vectors(host, body.model, texts)
    is_text = body.encoding_format == "base64"
    data = [Embedding(i, _base64(each) if is_text else each.tolist()) for i, each in enumerate(vectors)]
    count = sum(map(len, texts))
    return Embeddings(data, body.model, EmbeddingsUsage(count, count))


async def _vectors(host: Host, name: str, texts: Sequence[Sequence[int]]) -> list[torch.Tensor]:
    """A vector for each text, all of the same weights. Between any two chunks, the engine makes a step for
    everybody else; of all texts on the server, one at a time is read.
    """
    while True:
        pooled: list[torch.Tensor] = []
        versions = set()
        for ids in texts:
            mean = Mean(ids)
            async with host.reading:
                while not mean.is_whole:
                    versions.add(await host.run(name, mean.go_on))
            pooled.append(mean.vector())
        if len(versions) == 1:
            return pooled


class Mean:
    """The mean of one text's hidden states, chunk by chunk. `go_on` belongs to the engines' thread."""

    def __init__(self, token_ids: Sequence[int]) -> None:
        self._ids, self._done = token_ids, 0
        self._cache: KeyValueCache | None = None
        self._sum_D: torch.Tensor | None = None

    @property
    def is_whole(self) -> bool:
        """Whether every token was computed."""
        return self._done == len(self._ids)

    @torch.inference_mode()
    def go_on(self, engine: Engine) -> int:
        """Compute the next chunk. Returns the version of the weights that did it."""
        model, first = engine.model, self._done
        last = min(first + engine.chunk_tokens, len(self._ids))
        num_blocks = blocks_for(len(self._ids))
        if self._cache is None:
            self._cache = model.new_cache(num_blocks)
        positions = torch.arange(first, last)
        table = torch.arange(num_blocks, dtype=torch.int32)[None]
        row = torch.zeros(last - first, dtype=torch.int32)
        device = model.device
        rows = Rows.at(
            row.to(device), positions.to(device), table.to(device), num_single=int(last - first == 1),
            runs=() if last - first == 1 else (Run(0, last - first, 0, first),),
        )  # fmt: skip
        hidden_ND = model(torch.tensor(list(self._ids[first:last])).to(device), rows, self._cache)
        # In float64, in chunks that the text alone decides: the bits do not depend on the company.
        sum_D = hidden_ND.double().cpu().sum(0)
        self._sum_D = sum_D if self._sum_D is None else self._sum_D + sum_D
        self._done = last
        if self.is_whole:
            self._cache = None
        return engine.policy_version

    def vector(self) -> torch.Tensor:
        """[D] float32 of length 1."""
        assert self._sum_D is not None and self.is_whole
        return torch.nn.functional.normalize(self._sum_D, dim=0).float()


def _token_ids(served: Served, given: str | Sequence[str | int | Sequence[int]]) -> list[list[int]]:
    """The texts as token ids. Raises ApiFault for what can't be embedded."""
    inputs: list[str | list[int]]
    if isinstance(given, str):
        inputs = [given]
    elif given and all(isinstance(each, int) for each in given):
        inputs = [[each for each in given if isinstance(each, int)]]
    else:
        inputs = [each if isinstance(each, str) else _ids(each, index) for index, each in enumerate(given)]
    if not 1 <= len(inputs) <= MOST_INPUTS:
        raise faults.invalid(
            f"Invalid 'input': expected 1 to {MOST_INPUTS} texts; found {len(inputs)}.", "input"
        )
    tokenizer, vocabulary = served.opened.text.tokenizer, served.opened.engine.model.config.vocab_size
    texts = []
    for index, each in enumerate(inputs):
        param = "input" if len(inputs) == 1 else f"input[{index}]"
        if isinstance(each, str):
            check_texts(served, [each], param)
        ids = tokenizer.encode(each, add_special=True, parse_special=False) if isinstance(each, str) else each
        if not ids:
            raise faults.invalid(f"Invalid '{param}': a text without tokens has no vector.", param)
        if len(ids) > served.context:
            raise faults.invalid(
                f"This model's maximum context length is {served.context} tokens. However, '{param}' has "
                f"{len(ids)}. Please reduce its length.",
                param,
                "context_length_exceeded",
            )
        if not 0 <= min(ids) <= max(ids) < vocabulary:
            raise faults.invalid(f"Invalid '{param}': token ids must be from 0 to {vocabulary - 1}.", param)
        texts.append(ids)
    if (count := sum(map(len, texts))) > MOST_TOKENS:
        raise faults.invalid(f"Invalid 'input': {count:,} tokens; at most {MOST_TOKENS:,} at once.", "input")
    return texts


def _ids(given: int | Sequence[int], index: int) -> list[int]:
    if isinstance(given, int):
        raise faults.invalid(
            f"Invalid 'input[{index}]': expected all texts, all token ids, or all lists of token ids.",
            "input",
        )
    return list(given)


def _base64(vector_D: torch.Tensor) -> str:
    return base64.b64encode(vector_D.numpy().astype("<f4").tobytes()).decode()
