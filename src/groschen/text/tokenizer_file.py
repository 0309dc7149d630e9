"""Build a tokenizer of the `tokenizers` library from a tokenizer.json that may come from anybody.

The library is built in Rust: what it does not expect ends in a panic, in an allocation that ends the process,
or in a search without end, so the file is looked at before it is built. Kinds of parts that are known to take
time and room in proportion to the text are let in, with limits on what they may add; others are refused by
name. A process of its own for trying it out would not help: what a text does to it shows with that text.

Leaves out which tokens have a duty (`load.py`).
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as Backend

from groschen.errors import BadFile, Unsupported
from groschen.model.values import shown
from groschen.text.regular_expressions import is_bounded
from groschen.text.tokenizer import is_panic

Json = dict[str, Any]

_KINDS: dict[str, frozenset[str]] = {
    "normalizer": frozenset(
        "Sequence NFC NFD NFKC NFKD Nmt Lowercase Strip StripAccents Prepend Replace ByteLevel "
        "BertNormalizer".split()
    ),
    "pre_tokenizer": frozenset(
        "Sequence ByteLevel Split Digits Metaspace Whitespace WhitespaceSplit Punctuation "
        "BertPreTokenizer UnicodeScripts CharDelimiterSplit".split()
    ),
    "decoder": frozenset("Sequence ByteLevel Metaspace Replace ByteFallback Fuse Strip".split()),
    "post_processor": frozenset(
        "Sequence TemplateProcessing ByteLevel BertProcessing RobertaProcessing".split()
    ),
    "model": frozenset({"BPE", "Unigram", "WordPiece", "WordLevel"}),
}
_INSIDE = ("normalizers", "pretokenizers", "decoders", "processors")  # the parts of a Sequence
_MOST_PARTS = 32
_LONGEST_PART = 1000  # characters of a text that a part inserts or looks for
_MOST_GROWTH = 16  # times that the normalizers, or the decoders, may make a text longer
_MOST_TOKENS = 1 << 22
_TRIAL = "Hello, 12 w\u00f6rlds!\n\n  \u4f60\u597d <|end|>"


def build(parsed: Json, content: str, path: Path) -> Backend:
    """The tokenizer that `content`, the text of `path`, describes; `parsed` is the same as an object.

    Raises BadFile for what is damaged, Unsupported for a part that is not honoured.
    """
    for place in ("normalizer", "pre_tokenizer", "decoder", "post_processor", "model"):
        _check_parts(place, parsed.get(place), path)
    _check_vocabulary(parsed.get("model") or {}, parsed.get("added_tokens"), path)
    try:
        backend = Backend.from_str(content)
        backend.no_truncation()
        backend.no_padding()
        ids = backend.encode(_TRIAL).ids
    except Exception as error:  # the library raises bare Exception for every fault in a file
        raise _refusal(path, error) from error
    except BaseException as error:
        if is_panic(error):
            raise _refusal(path, error) from error
        raise
    beyond = [i for i in ids if backend.id_to_token(i) is None]
    if beyond:
        raise BadFile(
            f"{path} puts the token {beyond[0]} around a text, which its vocabulary does not have; get "
            "it again"
        )
    return backend


def _refusal(path: Path, error: BaseException) -> BadFile:
    reason = " ".join(str(error).split())[:300]
    return BadFile(f"{path} is no tokenizer that the tokenizers library reads: {reason}; get it again")


def _check_parts(place: str, part: Any, path: Path) -> None:
    """Raises for a part of an unknown kind, one without bounds, or parts that blow a text up."""
    parts = list(_flat(part, path))
    growth = 1.0
    for each in parts:
        kind = each.get("type", "BPE" if place == "model" else None)
        if not isinstance(kind, str) or kind not in _KINDS[place]:
            raise Unsupported(
                f"{path} has a {place} of the type {shown(kind)}, which is not used here; known are "
                f"{', '.join(sorted(_KINDS[place]))}"
            )
        if kind == "Replace":
            growth *= _growth(each, path)
        if kind == "Split":
            _pattern(each, path)
        texts = [value for name, value in each.items() if isinstance(value, str) and name != "type"]
        if place != "model" and any(len(text) > _LONGEST_PART for text in texts):
            raise BadFile(f"{path} has a {place} with a text of more than {_LONGEST_PART:,} characters")
    if growth > _MOST_GROWTH:
        raise BadFile(
            f"{path} has a {place} that makes a text up to {growth:,.0f} times as long, expected at most "
            f"{_MOST_GROWTH}; get it again"
        )


def _flat(part: Any, path: Path, depth: int = 0) -> Iterator[Json]:
    """The part and all parts below it, at most so many. Raises BadFile."""
    if part is None:
        return
    if not isinstance(part, dict) or depth > 4:
        raise BadFile(f"{path} has a part {shown(part)}, expected an object with a type; get it again")
    yield part
    inside = [item for name in _INSIDE for item in _list(part, name, path)]
    if len(inside) > _MOST_PARTS:
        raise BadFile(f"{path} has a sequence of {len(inside):,} parts, expected at most {_MOST_PARTS}")
    for item in inside:
        yield from _flat(item, path, depth + 1)


def _list(owner: Json, name: str, path: Path) -> list[Any]:
    value = owner.get(name, [])
    if not isinstance(value, list):
        raise BadFile(f"{path} has {name!r} = {shown(value)}, expected a list; get it again")
    return value


def _pattern(part: Json, path: Path) -> str:
    """The literal text that a part looks for, empty for an expression. Raises for one without bounds."""
    pattern = part.get("pattern")
    fields = pattern if isinstance(pattern, dict) else {}
    text, expression = fields.get("String"), fields.get("Regex")
    if isinstance(text, str) and text:
        return text
    if not isinstance(expression, str):
        raise BadFile(f"{path} has the pattern {shown(pattern)}, expected a String or a Regex; get it again")
    if not is_bounded(expression):
        raise Unsupported(
            f"{path} has the expression {shown(expression)}, which may take time without bound; expected "
            "repeats of single characters or classes, not nested"
        )
    return ""


def _growth(part: Json, path: Path) -> float:
    """By how much a replacement may multiply the length of a text."""
    content = part.get("content")
    if not isinstance(content, str):
        raise BadFile(f"{path} replaces by {shown(content)}, expected a text; get it again")
    found = _pattern(part, path)
    if (
        not found
    ):  # an expression may match nothing at every place, and its text is put beside what stands there
        return 1.0 if len(content) <= 1 else 1.0 + len(content)
    return max(len(content) / len(found), 1.0)


def _check_vocabulary(model: Json, added: Any, path: Path) -> None:
    """Raises BadFile for ids of which a table cannot be made, and for a model that draws lots."""
    if model.get("dropout") not in (None, 0, 0.0):
        raise Unsupported(
            f"{path} has 'dropout', by which one text has other tokens each time; set it to null"
        )
    vocabulary = model.get("vocab")
    ids = list(vocabulary.values()) if isinstance(vocabulary, dict) else []
    if added is not None and not (
        isinstance(added, list)
        and all(isinstance(token, dict) and isinstance(token.get("content"), str) for token in added)
    ):
        raise BadFile(f"{path} has added_tokens that are no list of objects with a content; get it again")
    ids += [token.get("id") for token in added or ()]
    for number in ids:
        if type(number) is not int or not 0 <= number < _MOST_TOKENS:
            raise BadFile(
                f"{path} gives a token the id {shown(number)}, expected a whole number from 0 to "
                f"{_MOST_TOKENS - 1:,}; get it again"
            )
    if isinstance(vocabulary, dict) and len(set(vocabulary.values())) != len(vocabulary):
        raise BadFile(f"{path} gives two tokens of its vocabulary one id; get it again")
    prefix = model.get("continuing_subword_prefix")
    if isinstance(prefix, str) and re.search(r".{100}", prefix):
        raise BadFile(f"{path} has a continuing_subword_prefix of {len(prefix):,} characters; get it again")
