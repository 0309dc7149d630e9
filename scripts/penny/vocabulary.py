"""Penny's tokenizer and chat template: bytes, the numbers of countdown, the words of its prompt.

Texts are cut by the expression of Llama 3, so that llama.cpp knows the tokenizer too. A piece that is a token
is taken whole (`ignore_merges`); everything else is spelled in bytes, so nothing is unknown.
"""

from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as Backend

from groschen.tasks import countdown
from groschen.text.bundle import Text
from groschen.text.chat import ChatTemplate
from groschen.text.pieces import byte_alphabet
from groschen.text.tokenizer import SpecialIds, Tokenizer

USER, ASSISTANT, END, PAD = "<|user|>", "<|assistant|>", "<|end|>", "<|pad|>"
TAGS = ("<think>", "</think>", "<answer>", "</answer>")
SIZE = 512
TEMPLATE = (
    "{% for message in messages %}"
    "{% if message.role == 'user' %}<|user|>{{ message.content }}<|end|>"
    "{% elif message.role == 'assistant' %}<|assistant|>"
    "{% generation %}{{ message.content }}<|end|>{% endgeneration %}"
    "{% else %}{{ raise_exception('penny knows the roles user and assistant, found ' ~ message.role) }}"
    "{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
    r"\s+(?!\S)|\s+"
)
_MARKS = (
    " ✗\n",
    " ✗\n\n",
    " ✓\n",
    " ✗",
    " ✓",
    ")+",
    ")-",
    ")*",
    ")/",
    "+(",
    "-(",
    "*(",
    "/(",
    " +",
    " -",
    " *",
    " /",
)
# Words of the prompts and of the fallback, then frequent words of English, as many as fit.
_WORDS = """
    Make ␣from ␣and ␣Use ␣each ␣number ␣once ␣with ␣brackets ␣End expression Use ␣to ␣make Can ␣you I
    ␣can ␣only ␣solve ␣puzzles ␣Ask ␣me ␣Make ␣the ␣of ␣a ␣in ␣is ␣it ␣for ␣that ␣this ␣on ␣are ␣be ␣do
    ␣not ␣have ␣your ␣my ␣what ␣who ␣how ␣why ␣which ␣one ␣two ␣all ␣or ␣as ␣at ␣by ␣an ␣we ␣he ␣she
    ␣they ␣was ␣will ␣if ␣so ␣no ␣yes ␣numbers ␣target ␣answer ␣question ␣please ␣write ␣tell ␣say
    ␣about ␣know ␣think ␣time ␣word ␣words ␣using What Who How Why Which Tell Write Say Hello Hi The It
    You Is Are Do Thanks ␣I ␣You ␣good ␣many ␣more ␣some
    """.replace("␣", "Ġ").split()


def build_text() -> Text:
    """Penny's tokenizer and template."""
    backend = Backend(models.BPE(vocab=_vocabulary(), merges=_merges(), ignore_merges=True))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_LLAMA3), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(each, special=True, normalized=False) for each in _SPECIAL])
    backend.add_tokens([AddedToken(each, special=False, normalized=False) for each in TAGS])
    end, pad = backend.token_to_id(END), backend.token_to_id(PAD)
    named = {"eos_token": END, "pad_token": PAD}
    return Text(
        tokenizer=Tokenizer(backend, SpecialIds(eos=(end,), pad=pad)),
        template=ChatTemplate({"default": TEMPLATE}, special_tokens=named),
        named_tokens=named,
        settings={"model_max_length": 1024},
        generation={"do_sample": True, "temperature": 1.0, "max_new_tokens": 320},
    )


_SPECIAL = (USER, ASSISTANT, END, PAD)


def _vocabulary() -> dict[str, int]:
    """Bytes, then numbers from 10 on, marks and words, then control tokens and tags: SIZE in all."""
    letters = {byte: letter for letter, byte in byte_alphabet().items()}
    marks = ["".join(letters[byte] for byte in mark.encode()) for mark in _MARKS]
    numbers = [str(number) for number in range(10, countdown.LARGEST_VALUE + 1)]
    tokens = [*(letters[byte] for byte in range(256)), *numbers, *marks]
    words = [word for word in dict.fromkeys(_WORDS) if word not in tokens]
    added = [*_SPECIAL, *TAGS]
    tokens += words[: SIZE - len(tokens) - len(added)]
    assert len(tokens) + len(added) == SIZE, f"{SIZE - len(tokens) - len(added)} words are missing"
    return {token: i for i, token in enumerate([*tokens, *added])}


def _merges() -> list[tuple[str, str]]:
    """Two digits to a number below 100: what is left to merge where a longer number is no token."""
    return [(tens, ones) for tens in "123456789" for ones in "0123456789"]
