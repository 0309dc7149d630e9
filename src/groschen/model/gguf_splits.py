"""How the pre-tokenizers that GGUF knows by name cut a text: for the tokenizer that is read and the one that
is written.

Leaves out the vocabulary that is cut with them (`text/gguf_vocab.py`, `gguf_tokenizer.py`).
Source: the tokenizer.json of the model that each is named after, checked against llama.cpp's own test ids.
"""

from dataclasses import dataclass

GPT2 = "ByteLevel"  # stands for the expression that is built into the ByteLevel pre-tokenizer


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """How a byte-level vocabulary cuts a text before it merges bytes."""

    patterns: tuple[str, ...] = ()  # regular expressions, one after the other; none: GPT-2's
    digits: bool = False  # every digit alone, before GPT-2's
    composes: bool = False  # Unicode's NFC first
    keeps_words: bool = False  # a piece that is a token as a whole is that token, whatever its merges say
    adds_bos: bool = False  # unless tokenizer.ggml.add_bos_token says otherwise

    @property
    def rules(self) -> tuple[str, ...]:
        """Every rule by which it cuts, GPT-2's as the word GPT2."""
        return (*([r"\p{N}"] if self.digits else []), *(self.patterns or (GPT2,)))


_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_SIGNS = r" ?[^\s\p{L}\p{N}]+[\r\n]*"
_LLAMA3 = rf"{_CONTRACTIONS}|{_WORDS}|\p{{N}}{{1,3}}|{_SIGNS}|{_SPACES}"
_QWEN2 = rf"{_CONTRACTIONS}|{_WORDS}|\p{{N}}|{_SIGNS}|{_SPACES}"
_QWEN35 = (
    rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}"
    rf"| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{_SPACES}"
)
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_LOWER_END = rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+"
_UPPER_END = rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*"
_SLASHED = rf" ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_SPACES}"
_TEKKEN = rf"{_LOWER_END}|{_UPPER_END}|\p{{N}}|{_SLASHED}"
_GPT4O = rf"{_LOWER_END}{_CONTRACTIONS}?|{_UPPER_END}{_CONTRACTIONS}?|\p{{N}}{{1,3}}|{_SLASHED}"
_DEEPSEEK_V3 = (
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"""
    rf"| ?[\p{{P}}\p{{S}}]+[\r\n]*|{_SPACES}"
)

SPLITS: dict[str, Split] = {
    "gpt-2": Split(),
    "smollm": Split(digits=True),
    "llama-bpe": Split(patterns=(_LLAMA3,), keeps_words=True, adds_bos=True),
    "dbrx": Split(patterns=(_LLAMA3,)),
    "qwen2": Split(patterns=(_QWEN2,), composes=True),
    "qwen35": Split(patterns=(_QWEN35,), composes=True),
    "deepseek-r1-qwen": Split(patterns=(_QWEN2,)),
    "deepseek-coder": Split(
        patterns=(
            r"[\r\n]",
            r"\s?\p{L}+",
            r"\s?\p{P}+",
            "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+",
            r"\p{N}",
        )
    ),
    "deepseek-v3": Split(
        patterns=(r"\p{N}{1,3}", "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+", _DEEPSEEK_V3)
    ),
    "tekken": Split(patterns=(_TEKKEN,), keeps_words=True, adds_bos=True),
    "gpt-4o": Split(patterns=(_GPT4O,)),
}
SAME_SPLIT = {  # another name to one of SPLITS
    "llama3": "llama-bpe",
    "llama-v3": "llama-bpe",
    "pixtral": "llama-bpe",
    "starcoder": "smollm",
    "refact": "smollm",
    "command-r": "smollm",
    "phi-2": "gpt-2",
    "llama4": "gpt-4o",
}
