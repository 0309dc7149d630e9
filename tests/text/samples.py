"""Texts, conversations and small vocabularies for the text tests; all made here."""

import json
import re

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from groschen.text.tokenizer import SpecialIds
from groschen.text.tokenizer import Tokenizer as OurTokenizer

CORPUS = [
    "The quick brown fox jumps over the lazy dog. Ein Groschen ist gefallen, äöüß, 12 345 678.",
    "def add(a, b):\n    return a + b\n\n\nprint(add(1, 2))  # 3\n",
    "system user assistant tool content role messages function name arguments weather city Berlin",
    "If a train travels 60 km in 1.5 hours, how many kilometres per hour is that? It's 40.",
    "日本語のテキストと中文文本, русский текст, ελληνικά, עברית, العربية, हिन्दी 😀👍🏽",
] * 3

NASTY = [
    "",
    " ",
    "   ",
    "\n",
    "\t\r\n \n\n",
    " leading",
    "trailing ",
    "  two  spaces   three",
    "Hello, world! It's 3.14159 or 1,000,000?",
    "don't DON'T we'Ll",
    "naïve café e\u0301 \u212b ﬁ Ⅷ ½",
    "日本語のテキスト 中文，标点。한국어 ไทย हिन्दी עברית العربية",
    "😀👍🏽👨‍👩‍👧‍👦🏳️‍🌈 \u200d\u200b\ufeff",
    "a\u0000b\u0001\x7f\x80\xa0\xad",
    "<0x0A> <s> </s> ▁▁ Ġ Ċ",
    "x" * 300,
    "    def f():\n\t\treturn {'a': [1, 2, 3]}\r\n\r\n",
    "C++ && ||| *** ---- #### \\n \\\\ `code` $x^2$",
    "\U0010ffff\ue000\ufffd",
]

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": 'The weather in a city, <b>now</b> & "soon" äöü.',
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string", "description": "name"},
                    "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
                },
                "required": ["city"],
            },
        },
    }
]
_CALL = {
    "type": "function",
    "id": "call12345",
    "function": {"name": "get_weather", "arguments": {"city": "Köln"}},
}

# name to (messages, tools)
CONVERSATIONS: dict[str, tuple[list[dict[str, object]], list[dict[str, object]] | None]] = {
    "one question": ([{"role": "user", "content": "How many feet has a dog?"}], None),
    "system": (
        [
            {"role": "system", "content": "Answer in <think> and </think> tags."},
            {"role": "user", "content": "Hi"},
        ],
        None,
    ),
    "several turns": (
        [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "1+1?"},
            {"role": "assistant", "content": "2"},
            {"role": "user", "content": "And  twice that?\n\n"},
            {"role": "assistant", "content": " 4 "},
            {"role": "user", "content": "Thanks!"},
        ],
        None,
    ),
    "ends with the assistant": (
        [{"role": "user", "content": "Say A."}, {"role": "assistant", "content": "A"}],
        None,
    ),
    "tools": ([{"role": "user", "content": "Weather in Köln?"}], TOOLS),
    "tools and system": (
        [{"role": "system", "content": "Use tools."}, {"role": "user", "content": "Weather in Köln?"}],
        TOOLS,
    ),
    "tool call": (
        [
            {"role": "user", "content": "Weather in Köln?"},
            {"role": "assistant", "content": "", "tool_calls": [_CALL]},
            {
                "role": "tool",
                "name": "get_weather",
                "content": '{"celsius": 21}',
                "tool_call_id": "call12345",
            },
            {"role": "assistant", "content": "21 degrees."},
            {"role": "user", "content": "Thanks"},
        ],
        TOOLS,
    ),
    "two tool results": (
        [
            {"role": "user", "content": "Weather?"},
            {"role": "assistant", "content": "Let me look.", "tool_calls": [_CALL, _CALL]},
            {"role": "tool", "content": "rain"},
            {"role": "tool", "content": "sun"},
        ],
        TOOLS,
    ),
    "reasoning": (
        [
            {"role": "user", "content": "17 * 3?"},
            {"role": "assistant", "reasoning_content": "10*3+7*3", "content": "51"},
            {"role": "user", "content": "minus 1?"},
            {"role": "assistant", "content": "<think>\n51-1\n</think>\n\n50"},
            {"role": "user", "content": "ok"},
        ],
        None,
    ),
    "unicode": ([{"role": "user", "content": "日本語 äöü 👨‍👩‍👧‍👦 e\u0301 <>&\"' \\ {{ }} {% %}"}], None),
    "empty content": ([{"role": "user", "content": ""}, {"role": "assistant", "content": ""}], None),
    "wrong order": (
        [
            {"role": "user", "content": "a"},
            {"role": "user", "content": "b"},
            {"role": "system", "content": "c"},
        ],
        None,
    ),
    "ends like a marker": ([{"role": "user", "content": "is a < b or a <| b <"}], None),
}


def byte_level(
    special: tuple[str, ...] = ("<|im_start|>", "<|im_end|>", "<|endoftext|>"), plain: tuple[str, ...] = ()
) -> Tokenizer:
    """A small byte-level BPE vocabulary with added tokens, as Qwen and Llama 3 have a large one."""
    tokenizer = Tokenizer(models.BPE())
    split = Regex(r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(split, behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in plain])
    return tokenizer


def sentencepiece_like(space: str = "prepend") -> Tokenizer:
    """A small vocabulary with metaspaces and byte fallback.

    space: "prepend" as Llama 2's tokenizer.json, "first" as newer ones, "none" as Gemma's.
    """
    trained = Tokenizer(models.BPE(unk_token="<unk>"))
    trained.normalizer = normalizers.Replace(" ", "▁")
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<unk>", "<s>", "</s>"], show_progress=False
    )
    trained.train_from_iterator([text.replace("😀", "").replace("日", "") for text in CORPUS], trainer)
    model = json.loads(trained.to_str())["model"]
    vocab = {
        token: i
        for i, token in enumerate(["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))])
    }
    for token in sorted(model["vocab"], key=lambda token: model["vocab"][token]):
        vocab.setdefault(token, len(vocab))
    vocab.setdefault("▁", len(vocab))
    tokenizer = Tokenizer(
        models.BPE(
            vocab,
            [tuple(merge) for merge in model["merges"]],
            unk_token="<unk>",
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    undo = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    if space == "prepend":
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    elif space == "first":
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace("▁", "first", split=False)
    else:
        tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence(undo if space == "none" else [*undo, decoders.Strip(" ", 1, 0)])
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in ("<s>", "</s>", "[INST]")]
    )
    return tokenizer


def ours(backend: Tokenizer, eos: str | None = None) -> OurTokenizer:
    end = backend.token_to_id(eos) if eos else None
    return OurTokenizer(backend, SpecialIds(eos=() if end is None else (end,)))


def markers_of(template: str) -> tuple[str, ...]:
    """What looks like a control token in the source of a template."""
    found = re.findall(
        r"<[|｜][^<>{}'\"\s]+[|｜]>|\[/?[A-Z_]{3,}\]|</?[a-z_]+>|<(?:start|end)_of_turn>", template
    )
    return tuple(dict.fromkeys(found))
