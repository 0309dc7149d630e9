"""Text to token ids and back, exactly: the ids are those of the model's own tokenizer, the bytes are the true
ones.

Wraps the `tokenizers` library, which encodes. Decoding is done here from a table of bytes, so that a token
has the same bytes alone, in a stream and in a whole text. Leaves out: what transformers calls cleaning up
spaces (it cannot be undone), truncation and padding (a tokenizer.json that asks for them is not obeyed: ids
are never dropped silently).
"""

import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from tokenizers import AddedToken, Encoding
from tokenizers import Tokenizer as Backend

from groschen.errors import BadRequest
from groschen.text.pieces import piece_bytes, read_spelling

_SHORT_CHARS = 4096  # encoded in about a millisecond
_SPACE_BEFORE_FIRST = '"prepend_scheme":"first"'  # as a serialised tokenizer writes it
# Markers such as <|im_end|> and <｜User｜> steer a conversation, also where a vocabulary does not call them
# special.
_LOOKS_LIKE_CONTROL = re.compile(r"<[|｜].+[|｜]>", re.DOTALL)
# Tags that models read and write as ordinary text, even where a vocabulary calls them special.
_PLAIN_TAGS = frozenset(
    {"<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecialIds:
    """The ids with a duty, as the files beside the tokenizer name them."""

    eos: tuple[int, ...]  # each one ends a completion
    bos: int | None = None
    pad: int | None = None  # None: the first of eos, or 0 where there is none
    unk: int | None = None


class Tokenizer:
    """A model's vocabulary.

    vocab_size: one more than the highest token id (a model's embedding may have more rows, for padding).
    eos_ids, bos_id, pad_id: the ids with a duty. special_ids: ids that `skip_special` leaves out of a text.
    control: text to id of the tokens that steer a conversation; `parse_special=False` never produces one.
    """

    def __init__(self, backend: Backend, special: SpecialIds) -> None:
        backend.no_truncation()
        backend.no_padding()
        added = backend.get_added_tokens_decoder()
        self.backend = backend
        self.spelling = read_spelling(backend)
        self.bytes_by_id = piece_bytes(
            self.spelling,
            backend.get_vocab(with_added_tokens=True),
            {token_id: token.content for token_id, token in added.items()},
        )
        self.vocab_size = len(self.bytes_by_id)
        named = {*special.eos, special.bos, special.pad, special.unk}
        self.eos_ids = special.eos
        self.bos_id = special.bos
        self.pad_id = special.pad if special.pad is not None else (*special.eos, 0)[0]
        self.unk_id = special.unk
        self.special_ids = frozenset(
            i
            for i, token in added.items()
            if i in named or (token.special and token.content not in _PLAIN_TAGS)
        )
        self.control: dict[str, int] = {
            token.content: i
            for i, token in added.items()
            if token.content not in _PLAIN_TAGS
            and (i in self.special_ids or _LOOKS_LIKE_CONTROL.fullmatch(token.content))
        }
        self._control_ids = frozenset(self.control.values())
        self._plain: dict[bool, Backend] = {}
        self._building = threading.Lock()

    def encode(self, text: str, *, add_special: bool = False, parse_special: bool = True) -> list[int]:
        """The token ids of a text.

        add_special: with what the model puts around a single text (usually its begin token).
        parse_special: text such as `<|im_end|>` becomes that token; False spells it out, as ordinary text.
        Raises BadRequest for text that is not Unicode (half a surrogate pair).
        """
        check_unicode(text)
        if parse_special:
            ids: list[int] = encoding_of(self.backend, text, add_special=add_special).ids
            return ids
        ids = self.spell_out(text).ids
        if add_special:
            ids = self.backend.post_process(self.spell_out(text)).ids
        return ids

    def num_tokens(self, text: str) -> int:
        """How many tokens `encode` makes of a text, for less: nothing but their number is kept."""
        check_unicode(text)
        with _readable_faults():
            return len(self.backend.encode_batch_fast([text], add_special_tokens=False)[0])

    def decode(self, ids: Sequence[int], *, skip_special: bool = False) -> str:
        """The text of token ids; bytes that are no UTF-8 become U+FFFD, one for each maximal broken sequence.

        skip_special: leave out special_ids. An id above the vocabulary (a padding row of the embedding) has
        no text.
        """
        skipped = self.special_ids if skip_special else frozenset()
        text = b"".join([self.token_bytes(i) for i in ids if i not in skipped]).decode("utf-8", "replace")
        if self.spelling.strips_first_space and text.startswith(" "):
            return text[1:]
        return text

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes that one token stands for; b"" for an id above the vocabulary. BadRequest for a
        negative id.
        """
        if token_id < 0:
            raise BadRequest(f"{token_id} is not a token id; token ids go from 0 to {self.vocab_size - 1}")
        return self.bytes_by_id[token_id] if token_id < self.vocab_size else b""

    def token_text(self, token_id: int) -> str:
        """The token as the vocabulary spells it, e.g. `Ġthe`, `▁the` or `<|im_end|>`; BadRequest where
        there is none.
        """
        piece: str | None = self.backend.id_to_token(token_id) if token_id >= 0 else None
        if piece is None:
            raise BadRequest(f"{token_id} is not a token id; token ids go from 0 to {self.vocab_size - 1}")
        return piece

    def spell_out(self, text: str, *, is_first: bool = True) -> Encoding:
        """The text encoded blind for control tokens: what spells one is written in ordinary tokens.

        is_first: whether the text begins a text; some encoders put a space before that one alone. The blind
        copy of the vocabulary is built at the first call (about a second and 100 MB for 150,000 tokens) and
        kept. Raises BadRequest where the vocabulary has no other way to write a control token than the token.
        """
        with self._building:
            if not self._plain:
                self._plain = self._build_plain()
        encoding = encoding_of(self._plain[is_first], text)
        for token_id in encoding.ids:
            if token_id in self._control_ids:
                raise BadRequest(
                    f"the text spells the control token {self.token_text(token_id)!r}, and this vocabulary "
                    "has no other way to write it; remove it"
                )
        return encoding

    def _build_plain(self) -> dict[bool, Backend]:
        """The blind copies: for a text's beginning (True) and for what follows."""
        source = self.backend.to_str()
        following = source.replace(_SPACE_BEFORE_FIRST, '"prepend_scheme":"never"')
        first = self._blind_copy(source)
        return {True: first, False: first if following == source else self._blind_copy(following)}

    def _blind_copy(self, source: str) -> Backend:
        copy = Backend.from_str(source)
        added = self.backend.get_added_tokens_decoder()
        # encode_special_tokens spells out what is special, so each control token is made special in the copy.
        copy.add_special_tokens([_as_special(added[i]) for i in self.control.values()])
        copy.encode_special_tokens = True
        return copy


@contextmanager
def _readable_faults() -> Iterator[None]:
    """What the library cannot encode, as an error of the request."""
    try:
        yield
    except Exception as error:  # the library raises bare Exception, for a text without tokens for example
        reason = " ".join(str(error).split())[:200]
        raise BadRequest(f"the tokenizer of this model cannot encode the text: {reason}") from error
    except BaseException as error:
        if is_panic(error):
            raise BadRequest("the tokenizer of this model fails on the text; use another model") from error
        raise


def encoding_of(backend: Backend, text: str, *, add_special: bool = False) -> Encoding:
    """What the backend makes of a text. Other threads run while it works on a long one: `encode` holds them
    up (3.4 s for a text of 1 MB), `encode_batch` does not.
    """
    with _readable_faults():
        if len(text) <= _SHORT_CHARS:
            return backend.encode(text, add_special_tokens=add_special)
        return backend.encode_batch([text], add_special_tokens=add_special)[0]


def is_panic(error: BaseException) -> bool:
    """Whether the library, which is written in Rust, gave up; pyo3 exports no class to catch."""
    return type(error).__name__ == "PanicException"


def check_unicode(text: str) -> None:
    """BadRequest if a text holds half a surrogate pair: it has no UTF-8 form, so no tokens."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BadRequest(
            f"the text holds half of a surrogate pair at character {error.start}, which is no Unicode text; "
            "remove it"
        ) from error


def _as_special(token: AddedToken) -> AddedToken:
    return AddedToken(
        token.content,
        single_word=token.single_word,
        lstrip=token.lstrip,
        rstrip=token.rstrip,
        normalized=token.normalized,
        special=True,
    )
