"""From what is asked to what comes: one prompt, its samples, and the text of each as events with its tokens.

Every endpoint is a view of a `Generation`. Leaves out the fields of an endpoint and the shape of its answers.
"""

import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from typing import Literal

from groschen.engine.engine import Progress
from groschen.engine.sampling import check
from groschen.errors import GroschenError
from groschen.records import Alternatives, Completion, FinishReason, Request, SamplingParams
from groschen.serve import faults
from groschen.serve.events import Content, Event, Finished, Part, Thinks, TokenInfo, ToolEnd
from groschen.serve.forms.form import Form
from groschen.serve.guides import FormatAsk, Hold, functions_of, guide_for, reading_form, thinks
from groschen.serve.host import Host
from groschen.serve.lengths import check_length
from groschen.serve.logs import note
from groschen.serve.parser import Parser, merged
from groschen.serve.prompt import Reasoning, prompt_of, template_settings
from groschen.serve.served import Served
from groschen.serve.stops import ContentSearch, Stops, stops_of
from groschen.serve.ticket import Ticket
from groschen.text.messages import Message
from groschen.text.stream import TextStream

_SEEDS = 1 << 53  # so that a program that keeps numbers as float64 can tell it back


@dataclass(frozen=True, kw_only=True)
class Ask:
    """What a client wants of a model: messages, or a prompt as token ids whose text is not looked into.

    tools: as OpenAI's chat API has them, `{"type": "function", "function": {...}}`. tool_choice: "auto",
    "none", "required" or the name of a tool. sampling: begin with `Served.defaults`. is_whole: nothing is
    sent before a sample has ended.
    """

    model: str
    messages: Sequence[Message] | None = None
    prompt_ids: Sequence[int] | None = None
    tools: Sequence[Message] = ()
    tool_choice: str = "auto"
    parallel_tool_calls: bool = True
    format: FormatAsk | None = None
    sampling: SamplingParams = field(default_factory=SamplingParams)
    n: int = 1
    reasoning_effort: str | None = None
    thinking_budget: int | None = None  # tokens of reasoning, then it is closed by force
    template_arguments: Mapping[str, object] = field(default_factory=dict)
    is_whole: bool = False
    wants_tokens: bool = True  # False: pieces come without them, which is cheaper


@dataclass(frozen=True, slots=True)
class Piece:
    """What is new of one sample."""

    sample: int
    events: tuple[Event, ...]
    tokens: tuple[TokenInfo, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens of a generation up to now; generated ones of all samples together."""

    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    reasoning_tokens: int


class Generation:
    """The samples of one request while they are drawn; iterate over it once, and close it in every case.

    seed: of all samples; asking again with it gives the same texts. fingerprint: of the weights. completions:
    by sample, of those that have ended (with the prompt's logprobs if they were asked for).
    """

    def __init__(self, served: Served, ask: Ask, ticket: Ticket, prepared: "_Prepared") -> None:
        self.served, self.ask = served, ask
        self.seed = ticket.request.sampling.seed
        self.continues_text = ticket.request.continues_text
        self.prompt_ids = ticket.request.prompt_ids
        self.prompt_tokens = len(self.prompt_ids)
        self.fingerprint = ticket.fingerprint
        self.completions: dict[int, Completion] = {}
        self._ticket = ticket
        self._samples = [_Sample(served, ask, prepared) for _ in range(ask.n)]

    @property
    def cached_tokens(self) -> int:
        """Tokens of the prompt that were found in the cache; known once a sample has ended."""
        return max((each.cached_tokens for each in self.completions.values()), default=0)

    @property
    def usage(self) -> Usage:
        """What was read and drawn so far."""
        return Usage(
            prompt_tokens=self.prompt_tokens,
            cached_tokens=self.cached_tokens,
            completion_tokens=sum(each.num_tokens for each in self._samples),
            reasoning_tokens=sum(each.num_reasoning for each in self._samples),
        )

    async def __aiter__(self) -> AsyncIterator[Piece]:
        """Pieces as they come, each with all that is new of its sample. Raises ApiFault if it can't go on."""
        while drawn := await self._ticket.take():
            for sample, progress in _by_sample(drawn):
                state = self._samples[sample]
                if state.has_ended:
                    continue
                for each in progress:
                    if each.completion is not None:
                        self.completions[sample] = each.completion
                events, tokens = state.take(progress)
                if events or tokens:
                    yield Piece(sample, tuple(merged(events)), tuple(tokens))
            if all(each.has_ended for each in self._samples):
                break
        self._ticket.leave()  # a stop that only we saw leaves the engine drawing

    async def close(self) -> None:
        """Give up what has not ended, wherever it is."""
        self._ticket.cancel()


async def generate(host: Host, ask: Ask) -> Generation:
    """Render, encode, check and submit. Raises ApiFault before anything is queued."""
    served = host.served(ask.model)
    with host.working():
        prepared = await host.prepare(_prepare, served, ask)
        ticket = await host.submit(ask.model, prepared.request, is_whole=ask.is_whole and not _ends_here(ask))
    note(ticket)
    try:
        return Generation(served, ask, ticket, prepared)
    except BaseException:
        ticket.cancel()
        raise


def new_call_id() -> str:
    """The id of a tool call."""
    return f"call_{secrets.token_hex(12)}"


# -- before it is queued
# --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Prepared:
    request: Request
    reasoning: Reasoning
    thinks: Thinks
    stops: Stops
    form: Form  # how this answer is read


def _ends_here(ask: Ask) -> bool:
    """Whether something may end an answer that only its text tells, so that it has to be read as it comes."""
    return ask.messages is not None and (bool(ask.sampling.stop) or not ask.parallel_tool_calls)


def _prepare(served: Served, ask: Ask) -> _Prepared:
    """Everything that may take long, outside of the event loop."""
    reasoning: Reasoning
    tools = [] if ask.tool_choice == "none" else list(ask.tools)
    if ask.messages is not None:
        settings = template_settings(
            served,
            effort=ask.reasoning_effort,
            arguments=ask.template_arguments,
            has_tools=bool(tools),
        )
        prompt = prompt_of(served, ask.messages, tools, settings)
        ids, reasoning, param = prompt.ids, prompt.reasoning, "messages"
    else:
        ids, reasoning, param = tuple(ask.prompt_ids or ()), "closed", "prompt"
    max_tokens = check_length(served, len(ids), ask.sampling.max_tokens, param)
    seed = secrets.randbelow(_SEEDS) if ask.sampling.seed is None else ask.sampling.seed
    is_chat = ask.messages is not None
    stops = stops_of(served, ask.sampling.stop, is_chat=is_chat, has_tools=is_chat and bool(tools))
    sampling = replace(
        ask.sampling, max_tokens=max_tokens, seed=seed, stop=() if is_chat else stops.strings,
        stop_token_ids=(*ask.sampling.stop_token_ids, *stops.tokens),
    )  # fmt: skip
    _check_sampling(served, sampling)
    hold = Hold(
        format=ask.format, tools=tools, tool_choice=ask.tool_choice, parallel=ask.parallel_tool_calls,
        thinking_budget=ask.thinking_budget,
    )  # fmt: skip
    guide = guide_for(served, hold, reasoning)
    special = served.opened.text.tokenizer.special_ids
    request = Request(
        prompt_ids=ids, sampling=sampling, num_completions=ask.n, guide=guide,
        continues_text=not is_chat and not special.issuperset(ids),
    )  # fmt: skip
    return _Prepared(request, reasoning, thinks(hold, reasoning), stops, reading_form(served.form, hold))


def _check_sampling(served: Served, sampling: SamplingParams) -> None:
    """What the engine would refuse, before it is asked."""
    try:
        check(sampling, served.opened.engine.model.config.vocab_size)
    except GroschenError as error:
        raise faults.fault_of(error) from error


# -- while it is drawn
# --------------------------------------------------------------------------------------------------------


class _Plain:
    """Stands in for the parser where text is not looked into."""

    part: Literal["content"] = "content"

    def push(self, text: str) -> list[Event]:
        return [Content(text)] if text else []

    def finish(self, reason: FinishReason, stop: str | int | None = None) -> list[Event]:
        return [Finished("length" if reason is FinishReason.LENGTH else "stop", stop)]


class _Sample:
    """One sample's way from token ids to events."""

    def __init__(self, served: Served, ask: Ask, prepared: "_Prepared") -> None:
        self._tokenizer = served.opened.text.tokenizer
        self._stream = TextStream(
            self._tokenizer, skip_special=False, continues=prepared.request.continues_text
        )
        self._search = ContentSearch(prepared.stops.strings)
        self._parser: Parser | _Plain
        if ask.messages is None:
            self._parser, self._hidden = _Plain(), self._tokenizer.special_ids
        else:
            has_tools = bool(ask.tools) and ask.tool_choice != "none"
            self._parser = Parser(
                prepared.form, in_reasoning=prepared.reasoning == "open", has_tools=has_tools,
                call_id=new_call_id, functions=functions_of(ask.tools), thinks=prepared.thinks,
            )  # fmt: skip
            self._hidden = served.hidden_ids
        self._wants_tokens = ask.wants_tokens
        self._is_one_call = not ask.parallel_tool_calls
        self._stop_ids: dict[int, str | int] = {i: i for i in ask.sampling.stop_token_ids}
        self._stop_ids |= prepared.stops.tokens
        self.num_tokens = self.num_reasoning = 0
        self.has_ended = False

    def take(self, drawn: Sequence[Progress]) -> tuple[list[Event], list[TokenInfo]]:
        """Events and tokens of what was drawn."""
        events: list[Event] = []
        tokens: list[TokenInfo] = []
        for progress in drawn:
            ending = progress.completion
            by_token = (
                ending is not None and ending.finish_reason is FinishReason.STOP and ending.stop is None
            )
            last = len(progress.token_ids) - 1
            told = zip_longest(progress.token_ids, progress.logprobs, progress.alternatives)
            for index, (token_id, logprob, alternatives) in enumerate(told):
                is_end = by_token and index == last
                part = self._push(token_id, is_end, events)
                if self._wants_tokens:
                    tokens.append(self._info(token_id, logprob, alternatives, part, is_end))
                if self._has_to_end(events):
                    return events, tokens
            if ending is not None:
                self._say(self._parser.push(self._stream.finish()), events)
                stop = self._stop_ids.get(progress.token_ids[-1]) if by_token else ending.stop
                if not self._has_to_end(events):
                    self._say(self._parser.finish(ending.finish_reason, stop), events)
                    self._has_to_end(events)
                self.has_ended = True
        return events, tokens

    def _push(self, token_id: int, is_end: bool, events: list[Event]) -> Part:
        """Take one token; which part of the answer it belongs to."""
        before: Part = self._parser.part
        if not is_end and token_id not in self._hidden:
            text = self._stream.push([token_id])
            if text:
                self._say(self._parser.push(text), events)
        after: Part = self._parser.part
        part = next((each for each in (before, after) if each != "content"), after)
        self.num_tokens += 1
        self.num_reasoning += part == "reasoning"
        return part

    def _say(self, new: list[Event], events: list[Event]) -> None:
        """Add what the parser tells, up to a stop string."""
        events += self._search.pass_on(new)

    def _has_to_end(self, events: list[Event]) -> bool:
        """Whether the answer ends here though the engine goes on: a stop string in its content, or the first
        of calls that may not be several. A broken call ends nothing: its text goes out.
        """
        if self._search.stopped is not None:
            *_, finished = self._parser.finish(FinishReason.STOP, self._search.stopped)
            events.append(finished)
        elif self._is_one_call and (ends := [i for i, each in enumerate(events) if _is_whole_call(each)]):
            del events[ends[0] + 1 :]
            events.append(Finished("tool_calls"))
        else:
            return False
        self.has_ended = True
        return True

    def _info(
        self, token_id: int, logprob: float, alternatives: Alternatives | None, part: Part, is_end: bool
    ) -> TokenInfo:
        others: tuple[tuple[int, bytes, float], ...] = ()
        if alternatives is not None:
            others = tuple(
                (other, self._tokenizer.token_bytes(other), value)
                for other, value in zip(alternatives.token_ids, alternatives.logprobs, strict=True)
            )
        return TokenInfo(token_id, self._tokenizer.token_bytes(token_id), logprob, others, part, is_end)


def _is_whole_call(event: Event) -> bool:
    return isinstance(event, ToolEnd) and event.is_complete


def _by_sample(drawn: Sequence[Progress]) -> Sequence[tuple[int, list[Progress]]]:
    found: dict[int, list[Progress]] = {}
    for progress in drawn:
        found.setdefault(progress.sample, []).append(progress)
    return list(found.items())
