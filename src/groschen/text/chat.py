"""Messages to the prompt of a model, by the chat template that came with it: the only renderer.

Templates are foreign code, so they run in `groschen.text.sandbox`. What they see is what transformers 5 shows
them (`messages`, `tools`, `documents`, `add_generation_prompt`, the special tokens by name, further
settings), so the ids are the same. Leaves out: parsing a completion back into a message, and guessing: what a
template refuses is refused here.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import NamedTuple

import jinja2

from groschen.errors import BadRequest, Unsupported
from groschen.text.guard import Encoded, Guard, unused_characters
from groschen.text.messages import Mark, Message, plain, plain_messages, texts
from groschen.text.sandbox import Sandbox, TemplateRefusal
from groschen.text.sandbox_limits import TemplateLimit
from groschen.text.tokenizer import Tokenizer


class Rendered(NamedTuple):
    """A rendered conversation and the character spans in it that are the assistant's own (`{% generation
    %}`).
    """

    text: str
    spans: tuple[tuple[int, int], ...]


class Trained(NamedTuple):
    """A conversation as token ids, and for each whether it begins inside what the assistant says (the loss
    mask).
    """

    ids: list[int]
    mask: list[bool]


class ChatTemplate:
    """The chat template of one model: one jinja2 source, or several by name ("default", "tool_use").

    special_tokens: name to text (`bos_token`, `eos_token`, ...), which templates use. clock: what
    strftime_now asks. Raises Unsupported if a source does not compile.
    """

    def __init__(
        self,
        sources: str | Mapping[str, str],
        *,
        special_tokens: Mapping[str, str] | None = None,
        clock: Callable[[], datetime] = datetime.now,
    ) -> None:
        named = {"default": sources} if isinstance(sources, str) else sources
        # A byte order mark belongs to the file; rendered, it would be the first token of every prompt.
        self.sources = {name: source.removeprefix("\ufeff") for name, source in named.items()}
        self.special_tokens = dict(special_tokens or {})
        self._sandbox = Sandbox(clock)
        self._compiled = {name: self._compile(name, source) for name, source in self.sources.items()}
        self._guard: Guard | None = None

    def render(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Message] | None = None,
        add_generation_prompt: bool = True,
        **settings: object,
    ) -> str:
        """The prompt as text. Use `encode` for ids: encoding this text would trust every content in it.

        settings: further variables of the template, e.g. `documents` or `enable_thinking`. Raises BadRequest
        if the messages are malformed or the template refuses them, with the template's own sentence.
        """
        chat = self._variables(messages, tools, settings)
        return self._render(chat, add_generation_prompt=add_generation_prompt)

    def encode(
        self,
        tokenizer: Tokenizer,
        messages: Sequence[Message],
        *,
        tools: Sequence[Message] | None = None,
        add_generation_prompt: bool = True,
        trusted_roles: frozenset[str] = frozenset(),
        **settings: object,
    ) -> list[int]:
        """The prompt as token ids, equal to those of transformers' `apply_chat_template`.

        With one exception, on purpose: a control token that a content spells stays ordinary text
        (`groschen.text.guard`) unless the message's role is in trusted_roles.
        """
        encoded, _ = self._encode(
            tokenizer, messages, tools, add_generation_prompt, trusted_roles, settings, ""
        )
        return encoded.ids

    def encode_for_training(
        self,
        tokenizer: Tokenizer,
        messages: Sequence[Message],
        *,
        tools: Sequence[Message] | None = None,
        trusted_roles: frozenset[str] = frozenset(),
        **settings: object,
    ) -> Trained:
        """A whole conversation as ids with its loss mask; the template has to say which parts are the
        assistant's.

        Raises Unsupported if the template has no `{% generation %}`: a mask that was guessed would train the
        wrong tokens.
        """
        marks = self._unused(3, messages, tools, settings)
        encoded, spans = self._encode(tokenizer, messages, tools, False, trusted_roles, settings, marks[1:])
        return Trained(encoded.ids, [any(start <= at < end for start, end in spans) for at in encoded.starts])

    def render_spans(
        self, messages: Sequence[Message], *, tools: Sequence[Message] | None = None, **settings: object
    ) -> Rendered:
        """A whole conversation as text, with the spans that are the assistant's; errors as in
        encode_for_training.
        """
        marks = self._unused(2, messages, tools, settings)
        chat = self._variables(messages, tools, settings)
        return self._render_spans(chat, marks)

    def _encode(
        self,
        tokenizer: Tokenizer,
        messages: Sequence[Message],
        tools: Sequence[Message] | None,
        add_generation_prompt: bool,
        trusted_roles: frozenset[str],
        settings: Mapping[str, object],
        span_marks: str,
    ) -> tuple[Encoded, tuple[tuple[int, int], ...]]:
        guard = self._guard_for(tokenizer)
        mark = self._unused(1, messages, tools, settings, span_marks)
        chat = self._variables(messages, tools, settings, lambda text: guard.mark(text, mark), trusted_roles)
        plain = self._variables(messages, tools, settings)
        if not span_marks:
            text = self._render(chat, add_generation_prompt=add_generation_prompt)
            if chat != plain:  # a content spells a control token, or the beginning of one
                own = self._render(plain, add_generation_prompt=add_generation_prompt)
                text = text if text.replace(mark, "") == own else guard.realigned(own, text, mark)
            return guard.encode(text, mark), ()
        rendered = self._render_spans(chat, span_marks)
        if chat != plain:
            bare = self._render_spans(plain, span_marks)
            if rendered.text.replace(mark, "") != bare.text:
                return guard.encode(guard.realigned(bare.text, rendered.text, mark), mark), bare.spans
        # The spans count the marked text; the ids belong to the text without marks.
        before = [rendered.text[:at].count(mark) for span in rendered.spans for at in span]
        flat = [at - num_marks for at, num_marks in zip(sum(rendered.spans, ()), before, strict=True)]
        return guard.encode(rendered.text, mark), tuple(zip(flat[::2], flat[1::2], strict=True))

    def _unused(
        self,
        count: int,
        messages: Sequence[Message],
        tools: Sequence[Message] | None,
        settings: Mapping[str, object],
        taken: str = "",
    ) -> str:
        """So many characters that neither these, nor the template, nor `taken` hold."""
        with _readable_errors("of this model"):
            return unused_characters(texts([messages, tools, settings, self._source(tools), taken]), count)

    def _variables(
        self,
        messages: Sequence[Message],
        tools: Sequence[Message] | None,
        settings: Mapping[str, object],
        mark: Mark = str,
        trusted_roles: frozenset[str] = frozenset(),
    ) -> dict[str, object]:
        """What the template sees: plain values only, contents marked."""
        if own := {"messages", "tools", "add_generation_prompt"}.intersection(settings):
            raise BadRequest(
                f"{min(own)!r} is not a setting of the template; give it as an argument of its own"
            )
        with _readable_errors("of this model"):
            return {
                "documents": None,
                **self.special_tokens,
                **{name: plain(value, mark, name) for name, value in settings.items()},
                "messages": plain_messages(messages, mark, trusted_roles),
                "tools": None if tools is None else plain(list(tools), mark, "tools"),
            }

    def _render(self, chat: dict[str, object], *, add_generation_prompt: bool) -> str:
        name = self._name(has_tools=chat["tools"] is not None)
        with _readable_errors(name):
            return self._sandbox.render(
                self._compiled[name], {**chat, "add_generation_prompt": add_generation_prompt}
            )

    def _render_spans(self, chat: dict[str, object], marks: str) -> Rendered:
        begin, end = marks[0], marks[1]
        plain = self._render(chat, add_generation_prompt=False)
        self._sandbox.state.span_marks = (begin, end)
        try:
            marked = self._render(chat, add_generation_prompt=False)
        finally:
            self._sandbox.state.span_marks = None
        if begin not in marked:
            raise Unsupported(
                "the chat template does not say which parts are the assistant's: it has no {% generation "
                "%} around them; train on a prompt and its completion instead, or add the tag to "
                "chat_template.jinja"
            )
        spans: list[tuple[int, int]] = []
        length, opened = 0, 0
        for part in _split_keeping(marked, begin, end):
            if part == begin:
                opened = length
            elif part == end:
                spans.append((opened, length))
            else:
                length += len(part)
        if marked.replace(begin, "").replace(end, "") != plain:
            raise Unsupported(
                "the chat template changes what stands inside {% generation %} after the tag, so the "
                "assistant's parts can't be told from the rest; put the tag around the final text"
            )
        return Rendered(plain, tuple(spans))

    def _guard_for(self, tokenizer: Tokenizer) -> Guard:
        guard = self._guard
        if guard is None or guard.tokenizer is not tokenizer:
            guard = self._guard = Guard(tokenizer)
        return guard

    def _source(self, tools: object) -> str:
        return self.sources[self._name(has_tools=tools is not None)]

    def _name(self, *, has_tools: bool) -> str:
        if has_tools and "tool_use" in self.sources:
            return "tool_use"
        if "default" in self.sources:
            return "default"
        names = ", ".join(sorted(self.sources))
        raise Unsupported(
            f"the model has chat templates named {names:.200}, but none named default; "
            "name one of them default in tokenizer_config.json"
        )

    def _compile(self, name: str, source: str) -> jinja2.Template:
        with _readable_errors(name):
            return self._sandbox.compile_template(source)


def _split_keeping(text: str, begin: str, end: str) -> Iterator[str]:
    """The text cut at both marks, the marks among the pieces."""
    return iter(re.split(f"([{begin}{end}])", text))


@contextmanager
def _readable_errors(which: str) -> Iterator[None]:
    """What may go wrong inside a template, as one sentence."""
    named = f"the chat template {which!r}"
    try:
        yield
    except TemplateRefusal as error:
        raise BadRequest(f"the chat template does not accept these messages: {error}") from error
    except TemplateLimit as error:
        raise Unsupported(f"{named} {error}, so it was stopped; use another chat template") from error
    except RecursionError as error:
        raise BadRequest("the messages or the chat template are nested too deeply; flatten them") from error
    except jinja2.TemplateSyntaxError as error:
        raise Unsupported(
            f"{named} can't be compiled: line {error.lineno}: {error.message}; repair it or use another one"
        ) from error
    except (
        jinja2.UndefinedError,
        TypeError,
        ValueError,
        LookupError,
        AttributeError,
        ArithmeticError,
    ) as error:
        raise BadRequest(
            f"{named} failed on these messages: {type(error).__name__}: {error}; check that each message has "
            "the fields that this model expects"
        ) from error
    except (jinja2.TemplateError, SyntaxError) as error:
        raise Unsupported(f"{named} failed: {error}; repair it or use another one") from error
