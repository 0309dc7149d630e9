"""Small tokenizers made with the tokenizers library, for several of the ways that GGUF can name."""

import json
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

TEXT = [
    "The quick brown fox jumps over the lazy dog, and it's 12345 times better than we'll ever know.",
    "def f(x):\n    return x + 1  # add\n\n\nprint(f(41))",
    "Größe und Maß: 3,14 m² — \u4f60\u597d\u4e16\u754c, caf\u00e9 na\u00efve \U0001f600!",
    "the there then these those this that thank think thing 7 77 777 7777",
    "  leading and trailing   spaces \t tabs \r\n lines  ",
] * 3
SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def _byte_level(expressions: list[str], *, digits: bool = False, regex: bool = False) -> Any:
    parts: list[Any] = [pre_tokenizers.Split(Regex(expression), "isolated") for expression in expressions]
    parts += [pre_tokenizers.Digits(individual_digits=True)] if digits else []
    parts.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=regex))
    return pre_tokenizers.Sequence(parts) if len(parts) > 1 else parts[0]


PRE_TOKENIZERS = {
    "qwen2": _byte_level([QWEN2]),
    "llama-bpe": _byte_level([QWEN2.replace(r"\p{N}| ", r"\p{N}{1,3}| ")]),
    "gpt-2": _byte_level([], regex=True),
    "smollm": pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    ),
    "deepseek-coder": _byte_level(
        [r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"], digits=True
    ),
}


def byte_level(name: str, vocab_size: int = 400) -> Tokenizer:
    """A byte-level BPE tokenizer that splits text as `name` says."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=name == "llama-bpe"))
    tokenizer.pre_tokenizer = PRE_TOKENIZERS[name]
    tokenizer.decoder = decoders.ByteLevel()
    if name == "qwen2":
        tokenizer.normalizer = normalizers.NFC()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - 4, initial_alphabet=alphabet, show_progress=False, special_tokens=SPECIALS
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    tokenizer.add_tokens([AddedToken("<tool>", special=False, normalized=False)])
    return tokenizer


def sentencepiece_like(*, prepends_space: bool) -> Tokenizer:
    """A BPE tokenizer with byte fallback with merges in the order of a conversion from SentencePiece."""
    learner = Tokenizer(models.BPE())
    replace = normalizers.Replace(" ", "\u2581")
    learner.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), replace])
    learner.pre_tokenizer = pre_tokenizers.Split(Regex("(?=\u2581)"), "merged_with_next")
    learner.train_from_iterator(TEXT, trainers.BpeTrainer(vocab_size=260, show_progress=False))
    state = json.loads(learner.to_str())["model"]
    characters = sorted({character for text in TEXT for character in text.replace(" ", "\u2581")})
    joined = ["".join(merge) for merge in state["merges"]]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *joined, *characters]
    vocab = {token: number for number, token in enumerate(dict.fromkeys(tokens))}
    merges = [
        (token[:cut], token[cut:])
        for token in joined
        for cut in range(1, len(token))
        if token[:cut] in vocab and token[cut:] in vocab
    ]
    tokenizer = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = (
        normalizers.Sequence([normalizers.Prepend("\u2581"), replace]) if prepends_space else replace
    )
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in tokens[:3]])
    return tokenizer
