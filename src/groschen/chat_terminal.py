"""`groschen chat MODEL`: talk with a model in the terminal and see it think.

Text appears as it is drawn; what stands between <think> tags is dim. After each answer one line says how many
tokens it took and how fast they came. Commands begin with a slash. Leaves out saving conversations (the page
of `groschen serve` is for that).
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TextIO

from rich.console import Console
from rich.text import Text as Styled

from groschen import machine
from groschen.engine.engine import Engine
from groschen.engine.open import Opened, open_engine
from groschen.errors import BadRequest, GroschenError
from groschen.model.quantized import weights_of
from groschen.records import Completion, FinishReason, Request, SamplingParams

_HELP = """\
/reset            forget the conversation
/system TEXT      begin anew with this system message
/set NAME VALUE   temperature, top_p, top_k, min_p, max_tokens or seed; without a name, show them
/retry            draw the last answer again
/help             this list
/quit             leave (Ctrl-D does too); Ctrl-C stops an answer"""
_SETTINGS = {
    "temperature": float,
    "top_p": float,
    "top_k": int,
    "min_p": float,
    "max_tokens": int,
    "seed": int,
}


@dataclass(slots=True)
class Conversation:
    """Messages so far and how the next answer is drawn."""

    messages: list[dict[str, str]] = field(default_factory=list)
    sampling: SamplingParams = field(default_factory=lambda: SamplingParams(temperature=0.7, top_p=0.95))


def chat(
    model: str, *, weights: str = "bf16", console: Console | None = None, lines: TextIO | None = None
) -> None:
    """Open the model and talk until the input ends.

    weights: how those of the products are kept, "bf16", "int8" or "int4". lines: where questions come from
    (standard input). Raises what `open_engine` raises; a request that cannot be honoured is said in one
    sentence and the talk goes on.
    """
    console, lines = console or Console(highlight=False), lines or sys.stdin
    started = machine.seconds()
    with Console(stderr=True).status(f"loading {model}"):
        opened = open_engine(model, weights=weights_of(weights))
        opened.text.chat_template()  # a model without a template is refused before anything is asked
    config = opened.engine.model.config
    console.print(
        f"{config.family}, context {config.max_context:,} tokens, {weights}, loaded in "
        f"{machine.seconds() - started:.1f} s; /help lists what can be typed",
        style="dim",
    )
    conversation = Conversation()
    for line in _questions(console, lines):
        try:
            _answer_line(line, conversation, opened, console)
        except GroschenError as error:
            console.print(f"groschen: {error}", style="red")


def _questions(console: Console, lines: TextIO) -> Iterator[str]:
    """Lines until the end of the input, Ctrl-D or /quit."""
    while True:
        try:
            line = (
                console.input("[bold]you:[/] ") if lines is sys.stdin and lines.isatty() else lines.readline()
            )
        except (EOFError, KeyboardInterrupt):
            break
        if (line == "" and not lines.isatty()) or line.strip() == "/quit":
            break
        if line.strip():
            yield line.strip()
    console.print()


def _answer_line(line: str, conversation: Conversation, opened: Opened, console: Console) -> None:
    command, _, rest = line.partition(" ")
    if command == "/help":
        console.print(_HELP, markup=False)
    elif command == "/reset":
        conversation.messages.clear()
    elif command == "/system":
        conversation.messages[:] = [{"role": "system", "content": rest}] if rest.strip() else []
    elif command == "/set":
        _set(rest.split(), conversation, console)
    elif command == "/retry":
        if not conversation.messages or conversation.messages[-1]["role"] != "assistant":
            raise BadRequest("there is no answer to draw again")
        conversation.messages.pop()
        _answer(conversation, opened, console)
    elif command.startswith("/"):
        raise BadRequest(f"{command} is no command; /help lists them")
    else:
        conversation.messages.append({"role": "user", "content": line})
        try:
            _answer(conversation, opened, console)
        except GroschenError:
            conversation.messages.pop()
            raise


def _set(words: list[str], conversation: Conversation, console: Console) -> None:
    if not words:
        console.print(
            ", ".join(f"{name} {getattr(conversation.sampling, name)}" for name in _SETTINGS), style="dim"
        )
        return
    if len(words) != 2 or words[0] not in _SETTINGS:
        raise BadRequest(f"/set needs one of {', '.join(_SETTINGS)} and a value")
    try:
        value = _SETTINGS[words[0]](words[1])
    except ValueError as error:
        raise BadRequest(f"{words[0]} must be a number, found {words[1]!r}") from error
    conversation.sampling = replace(conversation.sampling, **{words[0]: value})


def _answer(conversation: Conversation, opened: Opened, console: Console) -> None:
    prompt_ids = opened.text.chat_template().encode(opened.text.tokenizer, conversation.messages)
    request = Request(prompt_ids=tuple(prompt_ids), sampling=conversation.sampling)
    started, first, text, completion = machine.seconds(), 0.0, "", None
    try:
        for piece, ended in _pieces(opened.engine, request):
            first = first or machine.seconds()
            _show(piece, text, console)
            text, completion = text + piece, ended
    except KeyboardInterrupt:
        text += " ..."
    conversation.messages.append({"role": "assistant", "content": text})
    console.print()
    if completion is None:
        console.print("stopped", style="dim")
        return
    console.print(_summary(completion, first - started, machine.seconds() - first), style="dim")


def _pieces(engine: Engine, request: Request) -> Iterator[tuple[str, Completion | None]]:
    for progress in engine.stream(request):
        yield progress.text, progress.completion


def _show(piece: str, before: str, console: Console) -> None:
    is_thought = before.count("<think>") > before.count("</think>")
    console.print(Styled(piece, style="dim italic" if is_thought else ""), end="", soft_wrap=True)


def _summary(completion: Completion, wait_s: float, decode_s: float) -> str:
    count = len(completion.token_ids)
    speed = f"{(count - 1) / decode_s:.1f} tokens/s" if count > 1 and decode_s > 0 else "one token"
    ending = " (cut at max_tokens)" if completion.finish_reason is FinishReason.LENGTH else ""
    cached = f", {completion.cached_tokens} of them cached" if completion.cached_tokens else ""
    return (
        f"{count} token{'' if count == 1 else 's'}{ending}, {speed}, first after {wait_s:.2f} s; "
        f"prompt {len(completion.prompt_ids)} tokens{cached}; seed {completion.seed}"
    )
