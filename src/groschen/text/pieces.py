"""The true bytes behind every token of a tokenizer.

Reads how the tokenizer's decoder spells bytes: the byte alphabet of GPT-2 (256 printable characters, one for
each byte), or SentencePiece's spelling (a metaspace for a space, `<0x0A>` for a byte). Leaves out: decoders
that cannot be undone token by token (WordPiece, CTC); they are refused by name.
"""

import json
from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer as Backend

from groschen.errors import Unsupported

METASPACE = "\u2581"


def byte_alphabet() -> dict[str, int]:
    """The character that stands for each byte in a byte-level vocabulary, to that byte.

    Printable Latin-1 characters stand for themselves; the other 68 bytes take the code points from 256 on in
    order (GPT-2, `encoder.py`).
    """
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = [byte for byte in range(256) if byte not in printable]
    alphabet = {chr(byte): byte for byte in printable}
    alphabet.update({chr(256 + index): byte for index, byte in enumerate(others)})
    return alphabet


@dataclass(frozen=True, slots=True, kw_only=True)
class Spelling:
    """How a decoder spells bytes as token text."""

    byte_level: bool  # each character of a token is one byte of the alphabet
    replacements: tuple[tuple[str, str], ...]  # (found, put) in order, in every token
    byte_tokens: bool  # <0x00> to <0xFF> are bytes
    strips_first_space: bool  # one space at the very start of a decoded text is the encoder's, not the text's


def read_spelling(backend: Backend) -> Spelling:
    """How the tokenizer's decoder spells bytes; Unsupported names a decoder that is not undone here."""
    if backend.decoder is None:
        raise Unsupported(
            "the tokenizer has no decoder, so its tokens have no exact bytes; use a tokenizer.json with a "
            "ByteLevel, Metaspace or ByteFallback decoder"
        )
    byte_level = byte_tokens = strips = False
    replacements: list[tuple[str, str]] = []
    for part in _flat(json.loads(backend.decoder.__getstate__())):
        kind = part["type"]
        if kind == "ByteLevel":
            byte_level = True
        elif kind == "Metaspace":
            replacements.append((part.get("replacement", METASPACE), " "))
            scheme = part.get("prepend_scheme", "always" if part.get("add_prefix_space", True) else "never")
            strips = strips or scheme != "never"
        elif kind == "Replace" and "String" in part["pattern"]:
            replacements.append((part["pattern"]["String"], part["content"]))
        elif kind == "ByteFallback":
            byte_tokens = True
        elif kind == "Strip" and (part["content"], part["start"], part["stop"]) == (" ", 1, 0):
            strips = True
        elif kind != "Fuse":
            raise Unsupported(
                f"the tokenizer's decoder has the part {json.dumps(part)}, which is not undone here; known "
                "are ByteLevel, Metaspace, Replace, ByteFallback, Fuse and Strip of one leading space"
            )
    return Spelling(
        byte_level=byte_level,
        replacements=tuple(replacements),
        byte_tokens=byte_tokens,
        strips_first_space=strips,
    )


def piece_bytes(spelling: Spelling, vocabulary: dict[str, int], added: dict[int, str]) -> list[bytes]:
    """The bytes of every token id, in order of the ids; an id without a token is b"".

    vocabulary: token text to id, the model's and the added tokens'. added: id to the text of an added token,
    which stands for itself in a byte-level vocabulary.
    """
    alphabet = byte_alphabet()
    table = [b""] * (max([*vocabulary.values(), *added], default=-1) + 1)
    for piece, token_id in vocabulary.items():
        table[token_id] = _bytes_of(piece, spelling, alphabet, is_added=token_id in added)
    for token_id, piece in added.items():
        table[token_id] = _bytes_of(piece, spelling, alphabet, is_added=True)
    return table


def _bytes_of(piece: str, spelling: Spelling, alphabet: dict[str, int], *, is_added: bool) -> bytes:
    if spelling.byte_level:
        if not is_added and all(character in alphabet for character in piece):
            return bytes(alphabet[character] for character in piece)
        return piece.encode()
    if spelling.byte_tokens and len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">"):
        try:
            return bytes([int(piece[3:5], 16)])
        except ValueError:
            pass  # an ordinary token that merely looks like a byte, e.g. <0xyz>
    for found, put in spelling.replacements:
        piece = piece.replace(found, put)
    return piece.encode()


def _flat(decoder: dict[str, Any]) -> list[dict[str, Any]]:
    if decoder["type"] != "Sequence":
        return [decoder]
    return [part for child in decoder["decoders"] for part in _flat(child)]
