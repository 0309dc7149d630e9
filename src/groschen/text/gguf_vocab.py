"""A tokenizer from the metadata of a GGUF file, equal to the model's own tokenizer.json.

Two kinds: `gpt2`, byte-level BPE with its merges and the name of its pre-tokenizer; and `llama`, a
SentencePiece vocabulary with scores. SentencePiece joins the neighbours whose union has the best score, so
the same is said as BPE with the merges in the order of the scores. Keys and token types: the GGUF
specification. What each pre-tokenizer's name means: `groschen.model.gguf_splits`.

Leaves out: reading the file, WordPiece, Unigram and RWKV vocabularies, and every pre-tokenizer that is not in
the table: they are refused by name, because a wrong split gives other ids without any error.
"""

from collections.abc import Mapping
from enum import IntEnum
from typing import TypeVar

from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers import Tokenizer as Backend

from groschen.errors import BadFile, Unsupported
from groschen.model.gguf_splits import SAME_SPLIT, SPLITS
from groschen.model.values import shown
from groschen.text.pieces import METASPACE
from groschen.text.tokenizer import SpecialIds, Tokenizer

Metadata = Mapping[str, object]
_Item = TypeVar("_Item")


class TokenType(IntEnum):
    """`tokenizer.ggml.token_type` (GGUF specification)."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


# Texts with which chat models end a turn; a file names only one of them as its end token.
_ENDS = (
    "<|im_end|>",
    "<|endoftext|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end_of_text|>",
    "<|end|>",
    "<end_of_turn>",
)


_MOST_CUTS = 1 << 31  # letters that are looked at to find all cuts of all tokens; real ones take some million


def tokenizer_from_gguf(metadata: Metadata) -> Tokenizer:
    """The tokenizer of a GGUF file. metadata: its key-value pairs, arrays as lists.

    Raises Unsupported for a kind or a pre-tokenizer that is not known here, BadFile for a vocabulary that is
    incomplete.
    """
    kind = metadata.get("tokenizer.ggml.model")
    tokens = _list(metadata, "tokenizer.ggml.tokens", str)
    types = _list(metadata, "tokenizer.ggml.token_type", int) or [TokenType.NORMAL] * len(tokens)
    if not tokens or len(types) != len(tokens):
        raise BadFile(
            f"the GGUF file has {len(tokens)} tokens and {len(types)} token types; expected as many of each, "
            "at least one; convert the model again"
        )
    # The converter fills the rows of a padded embedding with [PAD<id>]: they are no tokens.
    real = {i: token for i, token in enumerate(tokens) if token != f"[PAD{i}]"}
    _check_texts(real)
    if kind == "gpt2":
        backend, adds_bos = _byte_level(metadata, real, types)
    elif kind == "llama":
        backend, adds_bos = _sentencepiece(metadata, real, types)
    else:
        raise Unsupported(
            f"the GGUF file has a vocabulary of the kind {shown(kind)} (tokenizer.ggml.model); known are "
            "'gpt2' and 'llama'; use the model's Hugging Face folder instead"
        )
    special = _special_ids(metadata, real, types)
    _add_around(backend, metadata, real, special, adds_bos=adds_bos)
    return Tokenizer(backend, special)


def _check_texts(real: Mapping[int, str]) -> None:
    """Raises BadFile for two tokens of one text, and for texts whose cutting would take minutes."""
    seen: dict[str, int] = {}
    for i, token in real.items():
        other = seen.setdefault(token, i)
        if other != i and token:
            raise BadFile(
                f"the GGUF file's tokens {other} and {i} have one text, {token[:80]!r}; convert it again"
            )
    if sum(len(token) ** 2 for token in real.values()) > _MOST_CUTS:
        raise BadFile("the GGUF file has tokens of many thousand letters; convert it again")


def _byte_level(metadata: Metadata, real: dict[int, str], types: list[int]) -> tuple[Backend, bool]:
    name = metadata.get("tokenizer.ggml.pre", "default")
    split = SPLITS.get(SAME_SPLIT.get(str(name), str(name)))
    if split is None:
        raise Unsupported(
            f"the GGUF file's vocabulary is cut by the pre-tokenizer {shown(name)} (tokenizer.ggml.pre), "
            f"which is not known here; known are {', '.join(sorted({*SPLITS, *SAME_SPLIT}))}; use the "
            "model's Hugging Face folder instead"
        )
    pairs = [merge.partition(" ") for merge in _list(metadata, "tokenizer.ggml.merges", str)]
    merges = [(left, right) for left, _, right in pairs]
    backend = _bpe({token: i for i, token in real.items()}, merges, ignore_merges=split.keeps_words)
    if split.composes:
        backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            *([pre_tokenizers.Digits(individual_digits=True)] if split.digits else []),
            *(pre_tokenizers.Split(Regex(pattern), behavior="isolated") for pattern in split.patterns),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not split.patterns),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    _add_tokens(backend, list(real.items()), types)
    return backend, split.adds_bos


def _sentencepiece(metadata: Metadata, real: dict[int, str], types: list[int]) -> tuple[Backend, bool]:
    if metadata.get("tokenizer.ggml.remove_extra_whitespaces", False):
        raise Unsupported(
            "the GGUF file's vocabulary removes extra spaces (tokenizer.ggml.remove_extra_whitespaces), "
            "which is not done here; use the model's Hugging Face folder instead"
        )
    scores = _list(metadata, "tokenizer.ggml.scores", float)
    if len(scores) != len(types):
        raise BadFile(
            f"the GGUF file has {len(types)} tokens and {len(scores)} scores; expected as many of each; "
            "convert it again"
        )
    if str(metadata.get("general.architecture", "")).startswith("gemma"):
        # Gemma's scores do not follow the order in which its merges were learned; its token ids do. Its runs
        # of spaces are stored as spaces, but are merged like any other piece.
        real = {i: METASPACE * len(t) if t.strip(" ") == "" and len(t) > 1 else t for i, t in real.items()}
        scores = [-float(i) for i in range(len(scores))]
    vocabulary = {token: i for i, token in real.items()}
    merges = _merges_by_score(vocabulary, scores, types)
    unknown = next((real[i] for i in real if types[i] == TokenType.UNKNOWN), "<unk>")
    backend = _bpe(
        vocabulary,
        merges,
        byte_fallback=True,
        fuse_unk=True,
        unk_token=unknown if unknown in vocabulary else None,
    )
    has_prefix = bool(metadata.get("tokenizer.ggml.add_space_prefix", True))
    spaces = normalizers.Replace(" ", METASPACE)
    backend.normalizer = (
        normalizers.Sequence([normalizers.Prepend(METASPACE), spaces]) if has_prefix else spaces
    )
    undo = [decoders.Replace(METASPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    backend.decoder = decoders.Sequence([*undo, decoders.Strip(" ", 1, 0)] if has_prefix else undo)
    _add_tokens(backend, [(i, token) for i, token in real.items() if not _is_spaces(token)], types)
    return backend, True


def _merges_by_score(
    vocabulary: dict[str, int], scores: list[float], types: list[int]
) -> list[tuple[str, str]]:
    """All ways to join two tokens into a third, the best score of the third first."""
    found = []
    for piece, i in vocabulary.items():
        if types[i] in (TokenType.NORMAL, TokenType.USER_DEFINED, TokenType.UNUSED):
            for cut in range(1, len(piece)):
                left, right = vocabulary.get(piece[:cut]), vocabulary.get(piece[cut:])
                if left is not None and right is not None:
                    found.append((-scores[i], i, left, right, (piece[:cut], piece[cut:])))
    return [pair for *_, pair in sorted(found)]


def _bpe(vocabulary: dict[str, int], merges: list[tuple[str, str]], **settings: object) -> Backend:
    for left, right in merges:
        if left not in vocabulary or right not in vocabulary or left + right not in vocabulary:
            raise BadFile(
                f"the GGUF file merges {shown(left)} and {shown(right)}, but not both and their union are "
                "tokens; convert it again"
            )
    try:
        return Backend(models.BPE(vocabulary, merges, **settings))
    except Exception as error:  # the library raises bare Exception
        raise BadFile(f"the GGUF file's vocabulary is not one: {error!s:.200}; convert it again") from error


def _add_tokens(backend: Backend, tokens: list[tuple[int, str]], types: list[int]) -> None:
    """Tell the tokenizer which of its tokens are found in a text before anything else."""
    added = [
        AddedToken(token, special=types[i] == TokenType.CONTROL, normalized=False)
        for i, token in tokens
        if types[i] in (TokenType.CONTROL, TokenType.USER_DEFINED) and token
    ]
    backend.add_tokens(added)
    backend.add_special_tokens([token for token in added if token.special])


def _special_ids(metadata: Metadata, real: dict[int, str], types: list[int]) -> SpecialIds:
    def named(name: str) -> int | None:
        i = metadata.get(f"tokenizer.ggml.{name}_token_id")
        if not isinstance(i, int) or (name in ("padding", "unknown") and i not in real):
            return None  # llama.cpp drops them too: nothing here is padded, and bytes stand for the unknown
        if i not in real:
            raise BadFile(
                f"the GGUF file's {name} token is {i}, which is not in its vocabulary; convert it again"
            )
        return i

    ends = [i for i in (named("eos"), named("eot"), named("eom")) if i is not None]
    ends += [i for i, token in real.items() if types[i] == TokenType.CONTROL and token in _ENDS]
    return SpecialIds(
        eos=tuple(dict.fromkeys(ends)), bos=named("bos"), pad=named("padding"), unk=named("unknown")
    )


def _add_around(
    backend: Backend, metadata: Metadata, real: dict[int, str], special: SpecialIds, *, adds_bos: bool
) -> None:
    """What encode(add_special=True) puts around a text."""
    bos = special.bos if metadata.get("tokenizer.ggml.add_bos_token", adds_bos) else None
    eos = (
        metadata.get("tokenizer.ggml.eos_token_id") if metadata.get("tokenizer.ggml.add_eos_token") else None
    )
    around = [(real[i], i) for i in (bos, eos) if isinstance(i, int)]
    if around:
        before = [real[bos]] if isinstance(bos, int) else []
        behind = [real[eos]] if isinstance(eos, int) else []
        backend.post_processor = processors.TemplateProcessing(
            single=[*before, "$A", *behind], special_tokens=around
        )


def _is_spaces(token: str) -> bool:
    return token.strip(METASPACE) == ""


def _list(metadata: Metadata, key: str, kind: type[_Item]) -> list[_Item]:
    values = metadata.get(key, [])
    if not isinstance(values, list | tuple):
        raise BadFile(f"{key} in the GGUF file is of the type {type(values).__name__}; expected a list")
    for value in values:
        if not isinstance(value, kind):
            raise BadFile(
                f"{key} in the GGUF file holds {shown(value)}, expected {kind.__name__}; convert it again"
            )
    return list(values)
