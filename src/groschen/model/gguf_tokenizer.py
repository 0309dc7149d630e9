"""Say a Hugging Face tokenizer in GGUF's metadata, for llama.cpp.

Leaves out reading such metadata (`text/`) and tokenizers other than byte-level BPE and BPE with byte fallback
(SentencePiece). llama.cpp splits text before BPE by rules that it only knows by name; a tokenizer whose rules
have no such name is refused, since a wrong name gives other tokens without any error.
Sources: llama.cpp's llama-vocab.cpp, gguf-py's constants.py (keys, token types).
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from groschen.errors import BadFile, Unsupported
from groschen.model.gguf_format import MetadataValue, ValueKind
from groschen.model.gguf_splits import GPT2, SPLITS
from groschen.model.gguf_writer import array, boolean, integer, text

Json = Mapping[str, Any]

_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE = 1, 2, 3, 4, 5, 6  # llama.cpp's token types
_SPACE = "\u2581"  # SentencePiece's visible space
_BYTE_TOKEN = re.compile(r"<0x[0-9A-F]{2}>")

# Rules that split the text, and whether a word that is a token skips BPE: llama.cpp's name for both. Of names
# with the same rules the first stands.
_PRE_TOKENIZERS = {(split.rules, split.keeps_words): name for name, split in reversed(SPLITS.items())}


@dataclass(slots=True)
class _Vocabulary:
    """Tokens by id; ids without one stay unused, so that there are as many as the embedding has rows."""

    tokens: list[str]
    kinds: list[int]
    ids: dict[str, int] = field(default_factory=dict)

    def put(self, token: str, number: int, kind: int) -> None:
        if not 0 <= number < len(self.tokens):
            raise BadFile(
                f"the token {token!r} has the id {number}, but the embedding has {len(self.tokens):,} rows"
            )
        self.tokens[number], self.kinds[number], self.ids[token] = token, kind, number


def tokenizer_metadata(tokenizer: Json, tokenizer_config: Json, vocab_size: int) -> dict[str, MetadataValue]:
    """The `tokenizer.*` fields of a GGUF file.

    tokenizer, tokenizer_config: tokenizer.json and tokenizer_config.json, the latter with `chat_template` if
    there is one. vocab_size: rows of the embedding; ids beyond the tokenizer's become unused tokens.
    Raises Unsupported if llama.cpp has no name for what the tokenizer does, BadFile if the files contradict
    themselves.
    """
    model = tokenizer.get("model")
    if not isinstance(model, dict) or model.get("type") not in ("BPE", None) or "merges" not in model:
        kind = model.get("type") if isinstance(model, dict) else model
        raise Unsupported(f"a tokenizer of type {kind!r} is not written to GGUF; only BPE is")
    is_byte_level = any(part.get("type") == "ByteLevel" for part in _parts(tokenizer.get("pre_tokenizer")))
    vocabulary = _read_vocabulary(tokenizer, model, vocab_size, is_byte_level)
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    if is_byte_level:
        fields = {
            "tokenizer.ggml.model": text("gpt2"),
            "tokenizer.ggml.pre": text(_pre_tokenizer_name(tokenizer, bool(model.get("ignore_merges")))),
        }
    elif model.get("byte_fallback"):
        fields = {
            "tokenizer.ggml.model": text("llama"),
            "tokenizer.ggml.pre": text("default"),
            "tokenizer.ggml.scores": array(ValueKind.FLOAT32, _scores(vocabulary, merges)),
            "tokenizer.ggml.add_space_prefix": boolean(_adds_space(tokenizer)),
        }
    else:
        raise Unsupported(
            "a BPE tokenizer that is neither byte-level nor falls back to bytes is not written to GGUF"
        )
    fields["tokenizer.ggml.tokens"] = array(ValueKind.STRING, vocabulary.tokens)
    fields["tokenizer.ggml.token_type"] = array(ValueKind.INT32, vocabulary.kinds)
    if is_byte_level:
        fields["tokenizer.ggml.merges"] = array(ValueKind.STRING, merges)
    return (
        fields | _special_fields(tokenizer, tokenizer_config, vocabulary) | _template_fields(tokenizer_config)
    )


def _parts(component: Any) -> Iterator[Json]:
    """The members of a pre-tokenizer, normalizer or post-processor, nested sequences unrolled."""
    if not isinstance(component, dict):
        return
    members = [
        item for key in ("pretokenizers", "normalizers", "processors") for item in component.get(key) or ()
    ]
    if component.get("type") != "Sequence":
        yield component
    for member in members:
        yield from _parts(member)


def _read_vocabulary(tokenizer: Json, model: Json, vocab_size: int, is_byte_level: bool) -> _Vocabulary:
    vocabulary = _Vocabulary([f"[PAD{number}]" for number in range(vocab_size)], [_UNUSED] * vocab_size)
    for token, number in model["vocab"].items():
        is_byte = not is_byte_level and _BYTE_TOKEN.fullmatch(token) is not None
        kind = _UNKNOWN if token == model.get("unk_token") and not is_byte_level else _NORMAL
        vocabulary.put(token, number, _BYTE if is_byte else kind)
    for added in tokenizer.get("added_tokens") or ():
        number, token = added["id"], added["content"]
        is_known_unknown = 0 <= number < vocab_size and vocabulary.kinds[number] == _UNKNOWN
        if not is_known_unknown:
            vocabulary.put(token, number, _CONTROL if added.get("special") else _USER_DEFINED)
    return vocabulary


def _pre_tokenizer_name(tokenizer: Json, ignores_merges: bool) -> str:
    for part in _parts(tokenizer.get("normalizer")):
        if (
            part.get("type") != "NFC"
        ):  # llama.cpp normalises nothing; on text that is NFC already it is the same
            raise Unsupported(
                f"the normalizer '{part.get('type')}' of a byte-level tokenizer cannot be said in GGUF"
            )
    rules = tuple(rule for part in _parts(tokenizer.get("pre_tokenizer")) for rule in _rules(part))
    name = _PRE_TOKENIZERS.get((rules, ignores_merges))
    if name is None:
        known = ", ".join(sorted(_PRE_TOKENIZERS.values()))
        raise Unsupported(
            f"llama.cpp has no known name for how this tokenizer splits text, {json.dumps(rules)[:200]} with "
            f"ignore_merges {ignores_merges}; known are {known}"
        )
    return name


def _rules(part: Json) -> Iterator[str]:
    """The expressions by which one pre-tokenizer splits."""
    kind = part.get("type")
    if part.get("add_prefix_space"):
        raise Unsupported("a byte-level tokenizer that adds a space in front cannot be said in GGUF")
    if kind == "Split":
        pattern = part.get("pattern") or {}
        expression = pattern.get("Regex")
        keeps_all = (part.get("behavior"), bool(part.get("invert"))) in (
            ("Isolated", False),
            ("Removed", True),
        )
        yield str(expression) if keeps_all and expression is not None else json.dumps(part)
    elif kind == "Digits":
        yield r"\p{N}" if part.get("individual_digits") else r"\p{N}+"
    elif kind != "ByteLevel":
        yield json.dumps(part)
    elif part.get("use_regex", True):
        yield GPT2


def _scores(vocabulary: _Vocabulary, merges: list[str]) -> list[float]:
    """SentencePiece scores that make its greedy merging choose as the ranks of the merges do.

    SentencePiece joins the neighbours whose result scores highest. A converted tokenizer lists, for each
    result in the order of its score, all pairs that give it, so the number of the result is its score with
    the sign turned.
    """
    numbers: dict[str, int] = {}
    last = ""
    for merge in merges:
        left, _, right = merge.partition(" ")
        result = left + right
        if result != last and result in numbers:
            raise Unsupported(
                "the merges of this tokenizer are not ordered by their results; it cannot be said in GGUF"
            )
        numbers.setdefault(result, len(numbers))
        last = result
    lowest = -float(len(numbers))
    return [
        -float(numbers[token]) if token in numbers else (lowest if kind == _NORMAL else 0.0)
        for token, kind in zip(vocabulary.tokens, vocabulary.kinds, strict=True)
    ]


def _adds_space(tokenizer: Json) -> bool:
    for part in (*_parts(tokenizer.get("normalizer")), *_parts(tokenizer.get("pre_tokenizer"))):
        if part.get("type") == "Prepend" and part.get("prepend") == _SPACE:
            return True
        if part.get("type") == "Metaspace":
            scheme = part.get("prepend_scheme", "always" if part.get("add_prefix_space", True) else "never")
            return bool(scheme != "never")
    return False


def _special_fields(tokenizer: Json, config: Json, vocabulary: _Vocabulary) -> dict[str, MetadataValue]:
    fields: dict[str, MetadataValue] = {}
    texts: dict[str, str] = {}
    for name, key in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding")):
        value = config.get(f"{name}_token")
        token = value.get("content") if isinstance(value, dict) else value
        if token is None:
            continue
        if token not in vocabulary.ids:
            raise BadFile(
                f"tokenizer_config.json names {token!r} as {name}_token, which tokenizer.json does not have"
            )
        texts[name] = token
        fields[f"tokenizer.ggml.{key}_token_id"] = integer(vocabulary.ids[token])
    if "eos" not in texts:
        raise BadFile(
            "tokenizer_config.json names no eos_token, for which llama.cpp would take token 11; add it"
        )
    fields["tokenizer.ggml.add_bos_token"] = boolean(_adds(tokenizer, config, "bos", texts.get("bos"), 0))
    fields["tokenizer.ggml.add_eos_token"] = boolean(_adds(tokenizer, config, "eos", texts["eos"], -1))
    return fields


def _adds(tokenizer: Json, config: Json, name: str, token: str | None, place: int) -> bool:
    """Whether an encoded text begins (place 0) or ends (place -1) with `token`."""
    for part in _parts(tokenizer.get("post_processor")):
        if part.get("type") == "TemplateProcessing" and part.get("single"):
            item = part["single"][place].get("SpecialToken")
            return item is not None and item.get("id") == token
    return token is not None and bool(config.get(f"add_{name}_token", False))


def _template_fields(config: Json) -> dict[str, MetadataValue]:
    template = config.get("chat_template")
    if isinstance(template, str):
        return {"tokenizer.chat_template": text(template)}
    fields: dict[str, MetadataValue] = {}
    for named in template or ():
        key = (
            "tokenizer.chat_template"
            if named["name"] == "default"
            else f"tokenizer.chat_template.{named['name']}"
        )
        fields[key] = text(named["template"])
    return fields
