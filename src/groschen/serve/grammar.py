"""A JSON schema, a regular expression or a grammar as a guide: which tokens may come next.

llguidance does the work (arXiv 2501.10868 compares it with others); it gets the bytes of our own vocabulary,
so a model from a GGUF file is served like one from a folder. Compiling takes milliseconds, for a large schema
up to a second, and the first one about a second more for the vocabulary: `Grammars.prepare` does that while
the model is loading, and a server calls `Grammars.guide` through `Host.prepare`. Leaves out when a
grammar begins (`budget.py`: not before the reasoning has ended).
"""

import json
import re
import threading
from collections import OrderedDict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Protocol, Self

import llguidance

from groschen.errors import BadRequest, Unsupported
from groschen.text.tokenizer import Tokenizer

# Between two signs at most one space, or one line break with up to 20 spaces: as people write JSON. Where any
# white space is allowed, small models go on with it until their tokens are used up.
WHITE_SPACE = r"(?: |\n {0,20})?"
_MOST_COMPILED = 64  # grammars that are kept
_LONGEST_REASON = 300  # characters of a compiler's complaint that are passed on
_MOST_STATES = 50_000  # of the lexer of one text, 1 to 2 kB each


@dataclass(frozen=True, slots=True)
class JsonSchema:
    """JSON that a schema describes. Properties come in the schema's order."""

    schema: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class JsonObject:
    """Any JSON object."""


@dataclass(frozen=True, slots=True)
class Regex:
    """A text that a regular expression matches as a whole; Rust's syntax, without look-around."""

    pattern: str


@dataclass(frozen=True, slots=True)
class Grammar:
    """A text that a context-free grammar derives from `start`, in llguidance's Lark syntax."""

    lark: str


Format = JsonSchema | JsonObject | Regex | Grammar


def json_rule(schema: Mapping[str, object]) -> str:
    """What stands for JSON of this schema within the text of a `Grammar`, say for the arguments of a tool."""
    return "%json " + json.dumps({**schema, "x-guidance": {"whitespace_pattern": WHITE_SPACE}})


class _Matcher(Protocol):
    """What is used of llguidance's LLMatcher."""

    def compute_bitmask(self) -> bytes: ...

    def consume_token(self, sampled_token: int) -> bool: ...

    def is_error(self) -> bool: ...

    def get_error(self) -> str: ...

    def deep_copy(self) -> Self: ...


class GrammarGuide:
    """One text on its way through a grammar. See `records.Guide`."""

    def __init__(self, matcher: _Matcher, end_ids: frozenset[int]) -> None:
        self._matcher, self._end_ids = matcher, end_ids
        self._has_ended = False

    def allowed(self) -> bytes:
        """See `records.Guide`. Raises BadRequest if the grammar turns out to be too complex."""
        if self._has_ended:
            return mask_of(self._end_ids)
        mask = self._matcher.compute_bitmask()
        if self._matcher.is_error():
            reason = _reason(self._matcher.get_error())
            raise BadRequest(f"the grammar cannot be followed any further: {reason}; simplify it")
        return mask

    def accept(self, token_id: int) -> None:
        """See `records.Guide`."""
        if token_id in self._end_ids:
            self._has_ended = True
        else:
            self._matcher.consume_token(token_id)  # if it fails, `allowed` says so

    def fork(self) -> "GrammarGuide":
        """See `records.Guide`. Takes about 0.02 ms."""
        copy = GrammarGuide(self._matcher.deep_copy(), self._end_ids)
        copy._has_ended = self._has_ended
        return copy


class Grammars:
    """The grammars of one model; may be used from several threads.

    end_ids: what may end a text (`Engine.end_ids`). Raises Unsupported if the model has no end token.
    """

    def __init__(self, tokenizer: Tokenizer, end_ids: Collection[int]) -> None:
        self._tokenizer = tokenizer
        # A config.json may name an end token that the vocabulary does not have: no text ends with it.
        self._end_ids = frozenset(i for i in end_ids if 0 <= i < tokenizer.vocab_size)
        if not self._end_ids:
            raise Unsupported("the model has no end token, so a text could not end where its grammar does")
        self._words: llguidance.LLTokenizer | None = None
        self._compiled: OrderedDict[str, _Matcher] = OrderedDict()
        self._lock = threading.Lock()

    def prepare(self) -> None:
        """Read the vocabulary: about a second for 150 k tokens, in which no other Python thread runs."""
        with self._lock:
            self._read_vocabulary()

    def guide(self, format_: Format) -> GrammarGuide:
        """A guide at the beginning of a text. Raises BadRequest that says what cannot be compiled."""
        source = self._source(format_)
        with self._lock:
            matcher = self._compiled.get(source)
            if matcher is None:
                matcher = self._compile(format_, source)
                self._compiled[source] = matcher
            self._compiled.move_to_end(source)
            if len(self._compiled) > _MOST_COMPILED:
                self._compiled.popitem(last=False)
            return GrammarGuide(matcher.deep_copy(), self._end_ids)

    def _read_vocabulary(self) -> None:
        if self._words is None:
            wrapper = llguidance.TokenizerWrapper(_Vocabulary(self._tokenizer, self._end_ids))
            self._words = llguidance.LLTokenizer(wrapper, eos_token=sorted(self._end_ids))

    def _source(self, format_: Format) -> str:
        """The grammar as llguidance reads it; also its name in the cache."""
        compiler = llguidance.LLMatcher
        match format_:
            case Regex(pattern):
                return compiler.grammar_from_regex(pattern)
            case Grammar(lark):
                return compiler.grammar_from_lark(lark)
            case JsonSchema(schema):
                text = json.dumps(schema)
            case JsonObject():
                text = '{"type": "object"}'
        return compiler.grammar_from_json_schema(text, overrides={"whitespace_pattern": WHITE_SPACE})

    def _compile(self, format_: Format, source: str) -> _Matcher:
        self._read_vocabulary()
        assert self._words is not None
        limits = llguidance.LLParserLimits(max_lexer_states=_MOST_STATES, verbose_errors=False)
        matcher = llguidance.LLMatcher(self._words, source, log_level=0, limits=limits)
        if matcher.is_error():
            raise BadRequest(_complaint(format_, matcher.get_error()))
        return matcher


class _Vocabulary:
    """What llguidance wants to know of a tokenizer."""

    def __init__(self, tokenizer: Tokenizer, end_ids: Collection[int]) -> None:
        self._tokenizer = tokenizer
        self.eos_token_id = min(end_ids)
        self.bos_token_id = tokenizer.bos_id
        self.tokens = tokenizer.bytes_by_id
        self.special_token_ids = sorted({*tokenizer.control.values(), *end_ids})
        special = frozenset(self.special_token_ids)
        self._ids = {word: i for i, word in enumerate(self.tokens) if word and i not in special}
        self._longest = max(map(len, self._ids), default=0)

    def __call__(self, text: str | bytes) -> list[int]:
        """Tokens of an ordinary text, which may be a piece of one: together they have exactly its bytes."""
        spelled = text.encode() if isinstance(text, str) else text
        ids = self._tokenizer.encode(spelled.decode())
        if b"".join(map(self._tokenizer.token_bytes, ids)) == spelled:
            return ids
        return self._longest_first(spelled)  # an encoder that puts a space before every text

    def _longest_first(self, text: bytes) -> list[int]:
        ids: list[int] = []
        while text:
            ends = range(min(self._longest, len(text)), 0, -1)
            end = next((end for end in ends if text[:end] in self._ids), 0)
            if not end:
                break  # the grammar finds out that the vocabulary can't write it
            ids.append(self._ids[text[:end]])
            text = text[end:]
        return ids


def mask_of(token_ids: Collection[int]) -> bytes:
    """The mask that allows these tokens alone."""
    mask = bytearray(max(token_ids, default=-1) // 8 + 1)
    for token_id in token_ids:
        mask[token_id // 8] |= 1 << token_id % 8
    return bytes(mask)


_NAMES = {
    JsonSchema: "JSON schema",
    JsonObject: "JSON schema",
    Regex: "regular expression",
    Grammar: "grammar",
}


def _complaint(format_: Format, error: str) -> str:
    """One sentence that names what the format asks for and cannot have."""
    name = _NAMES[type(format_)]
    if found := re.search(r"Unimplemented keys: \[(.*?)\]", error):
        return f"the {name} uses {found[1]}, which cannot be enforced while a text is generated; remove it"
    if "oneOf constraints are not supported" in error:
        return f'the {name} uses "oneOf" with alternatives that may overlap; use "anyOf", or keep them apart'
    # A regular expression stands in a grammar that llguidance writes: places in it tell its author nothing.
    return f"the {name} cannot be compiled: {_reason(error, has_place=not isinstance(format_, Regex))}"


def _reason(error: str, *, has_place: bool = True) -> str:
    """The compiler's complaint in one line, without its drawings."""
    lines = [line.strip() for line in error.splitlines() if line.strip()]
    first = lines[0] if lines else "llguidance gave no reason"
    place = re.match(r"(?:at )?(\d+)\((\d+)\): ", first)
    text = first[place.end() :] if place else first
    text = next((line.removeprefix("error: ") for line in lines if line.startswith("error: ")), text)
    if len(text) > _LONGEST_REASON:
        text = text[:_LONGEST_REASON] + " ..."
    return f"{text} (line {place[1]}, column {place[2]})" if place and has_place else text
