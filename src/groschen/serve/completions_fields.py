"""The body of a completion request, and what each of its prompts asks for.

Leaves out the answer (`completions.py`).
"""

from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from groschen.errors import GroschenError
from groschen.serve import faults
from groschen.serve.fields import Form, Other
from groschen.serve.formats import GuidedFields, format_of
from groschen.serve.generation import Ask
from groschen.serve.lengths import check_texts
from groschen.serve.sampling_fields import HARMLESS, sampling_of
from groschen.serve.served import Served

MOST_PROMPTS = 1024  # and samples of all of them: each waits by itself, and all are in one answer
_DEFAULT_TOKENS = 16  # as OpenAI's API has it

Ids = list[int]


class CompletionRequest(GuidedFields, kw_only=True):
    """POST /v1/completions."""

    prompt: str | list[str | int | Ids]
    echo: bool | None = None
    logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    add_special_tokens: bool | None = None  # vLLM's: put the model's begin token before a text; true


FORM: Form[CompletionRequest] = Form(
    CompletionRequest,
    {
        **HARMLESS,
        "suffix": Other("these models only go on with a text, they don't fill gaps", ("",)),
        "best_of": Other("every sample is returned; send 'n' and choose", (1,)),
    },
)


@dataclass(frozen=True, slots=True)
class PromptAsk:
    """One prompt of a request. text: what an echo repeats."""

    ask: Ask
    text: str


def prompts_of(request: CompletionRequest) -> list[str | Ids]:
    """The prompts: one text, one list of token ids, or a list of either. Raises ApiFault."""
    given = request.prompt
    prompts: list[str | Ids]
    if isinstance(given, str):
        prompts = [given]
    elif given and all(isinstance(each, int) for each in given):
        prompts = [[each for each in given if isinstance(each, int)]]
    else:
        prompts = [each for each in given if not isinstance(each, int)]
        if len(prompts) < len(given) or len({type(each) for each in prompts}) > 1:
            raise faults.invalid(
                "'prompt' mixes texts and token ids; send one kind", "prompt", "invalid_type"
            )
    if not 1 <= len(prompts) <= MOST_PROMPTS:
        raise faults.invalid(f"'prompt' has {len(prompts)} entries; expected 1 to {MOST_PROMPTS}", "prompt")
    if len(prompts) * (request.n or 1) > MOST_PROMPTS:
        raise faults.invalid(f"'prompt' times 'n' asks for more than {MOST_PROMPTS} samples; send less", "n")
    if request.max_tokens == 0 and not request.echo:
        raise faults.invalid("'max_tokens' 0 draws nothing; it is of use only with 'echo'", "max_tokens")
    if request.stream and request.echo and request.logprobs is not None:
        raise faults.not_honoured("stream", "with 'echo' and 'logprobs' the answer comes whole; send false")
    if (request.n or 1) > 1 and request.echo and request.logprobs is not None:
        why = "with 'echo' and 'logprobs' each sample would repeat the lists of its prompt; send 1"
        raise faults.not_honoured("n", why)
    return prompts


def ask_of(request: CompletionRequest, served: Served) -> list[PromptAsk]:
    """What is asked for each prompt; encodes texts, so it may take long. Raises ApiFault."""
    prompts = prompts_of(request)
    echo, wanted = bool(request.echo), _DEFAULT_TOKENS if request.max_tokens is None else request.max_tokens
    sampling = sampling_of(
        request, served.defaults, max_tokens=max(wanted, 1), top_logprobs=request.logprobs or 0,
        prompt_logprobs=echo and request.logprobs is not None,
    )  # fmt: skip
    tokenizer = served.opened.text.tokenizer
    found = []
    for prompt in prompts:
        if isinstance(prompt, str):
            check_texts(served, [prompt], "prompt")
        try:
            if isinstance(prompt, str):
                ids = tokenizer.encode(prompt, add_special=request.add_special_tokens is not False)
                text = prompt
            else:
                ids = prompt
                text = tokenizer.decode(ids) if echo else ""
        except GroschenError as error:
            raise faults.fault_of(error, "prompt") from error
        if not ids:
            raise faults.invalid("'prompt' is empty; give at least one token", "prompt")
        size = served.opened.engine.model.config.vocab_size
        if max(ids) >= size or min(ids) < 0:
            bad = next(i for i in ids if not 0 <= i < size)
            raise faults.invalid(f"token id {bad} is not in the vocabulary of {size}", "prompt")
        ask = Ask(
            model=request.model, prompt_ids=ids, format=format_of(None, request), sampling=sampling,
            n=request.n or 1, is_whole=not request.stream, wants_tokens=request.logprobs is not None,
        )  # fmt: skip
        found.append(PromptAsk(ask, text))
    return found
