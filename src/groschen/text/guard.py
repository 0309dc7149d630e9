"""Keeps control tokens that stand in message contents from becoming control ids.

A user who writes `<|im_end|>` writes ten characters; read as the token, they would end the turn and speak for
the system. So before a template renders, an unused private character is put inside each control token that
any content spells (and behind the beginning of one at a content's end, which the next content could
complete). In the rendered text only the template's own control tokens are whole. If the private characters
made no difference, the text without them is encoded in one piece, as transformers does it: the ids are equal.
If they did, it is encoded in sections between the template's control tokens, each by a tokenizer that is
blind for control tokens.

Leaves out: tags such as <tool_call> or <think>, which models read and write as ordinary text; a control token
of a single character; and what plain words can do.
"""

import json
import re
from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import NamedTuple

from tokenizers import Encoding

from groschen.errors import BadRequest
from groschen.text.tokenizer import Tokenizer, check_unicode, encoding_of


class Encoded(NamedTuple):
    """Token ids, and for each the index of its first character in the text."""

    ids: list[int]
    starts: list[int]


def unused_characters(texts: Iterable[str], count: int) -> str:
    """Private characters that no text holds."""
    used = set().union(*map(set, texts))
    free = [chr(code) for code in range(0xE000, 0xF900) if chr(code) not in used]
    if len(free) < count:
        raise BadRequest(
            "the messages use every private character (U+E000 to U+F8FF), as no text does; shorten them"
        )
    return "".join(free[:count])


class Guard:
    """Marks contents before a template renders, and encodes what it rendered, for one tokenizer."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        added = tokenizer.backend.get_added_tokens_decoder()
        self.tokenizer = tokenizer
        self._control = {text: i for text, i in tokenizer.control.items() if len(text) > 1}
        self._control_ids = frozenset(self._control.values())
        longest_first = sorted(self._control, key=len, reverse=True)
        self._any = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")
        # A token may take the white space beside it, as its vocabulary says; what stands before it is matched
        # from where it begins, since to try each of its places takes time by the square of its length.
        self._borders = re.compile(
            "|".join(
                (r"(?:(?<!\s)\s+)?" if added[self._control[text]].lstrip else "")
                + re.escape(text)
                + (r"\s*" if added[self._control[text]].rstrip else "")
                for text in longest_first
            )
            or r"(?!)"
        )
        self._beginnings = frozenset(
            text[:length] for text in self._control for length in range(1, len(text))
        )
        self._longest = max(map(len, self._control), default=1)

    def mark(self, text: str, mark: str) -> str:
        """The content with the mark inside every control token, and behind the beginning of one at its
        end.
        """
        while self._any.search(text):  # again where two tokens overlap: as often as a token is long, at most
            text = self._any.sub(lambda found: found[0][0] + mark + found[0][1:], text)
        bare = text.rstrip()  # a template may strip the rest
        if any(bare[-length:] in self._beginnings for length in range(1, min(self._longest, len(bare) + 1))):
            return bare + mark + text[len(bare) :]
        return text

    def encode(self, rendered: str, mark: str) -> Encoded:
        """The ids of a rendered text whose contents were marked; the text is the one without marks."""
        text = rendered.replace(mark, "")
        check_unicode(text)
        genuine = self._any.findall(rendered)
        if self._any.findall(text) == genuine:
            whole = _encoded(encoding_of(self.tokenizer.backend, text))
            # A normalizer may make a control token of what was none (e.g. of full-width brackets).
            if sum(i in self._control_ids for i in whole.ids) == len(genuine):
                return whole
        return self._encode_sections(rendered, mark)

    def realigned(self, plain: str, rendered: str, mark: str) -> str:
        """`plain`, what a template makes of contents without marks, with the marks of `rendered` put in.

        For templates that measure or escape their contents, whose text the marks change. Both must hold the
        same control tokens in the same order. Raises BadRequest if they do not.
        """
        pieces = re.split(f"{re.escape(mark)}|{re.escape(json.dumps(mark)[1:-1])}", rendered)
        marks_at = list(accumulate(map(len, pieces)))[:-1]
        spoken = [
            (found[0], any(found.start() < at < found.end() for at in marks_at))
            for found in self._any.finditer("".join(pieces))
        ]
        tokens = list(self._any.finditer(plain))
        if [found[0] for found in tokens] != [text for text, _ in spoken]:
            raise BadRequest(
                "a message spells a control token, and the chat template changes the text so that it cannot "
                "be told from the template's own; remove the token from the message"
            )
        parts, at = [], 0
        for found, (text, is_content) in zip(tokens, spoken, strict=True):
            parts += [plain[at : found.start()], text[0] + mark + text[1:] if is_content else text]
            at = found.end()
        return "".join([*parts, plain[at:]])

    def _encode_sections(self, rendered: str, mark: str) -> Encoded:
        ids: list[int] = []
        starts: list[int] = []
        at = 0  # in the text without marks
        for section, control in self._sections(rendered):
            text = section.replace(mark, "")
            encoded = _encoded(self.tokenizer.spell_out(text, is_first=at == 0))
            ids += encoded.ids
            starts += [at + start for start in encoded.starts]
            at += len(text)
            if control:
                ids.append(self._control[control.strip()])
                starts.append(at + len(control) - len(control.lstrip()))
                at += len(control)
        return Encoded(ids, starts)

    def _sections(self, rendered: str) -> Iterator[tuple[str, str]]:
        """(text, the control token behind it with the white space it takes); the last control token is
        empty.
        """
        at = 0
        for border in self._borders.finditer(rendered):
            yield rendered[at : border.start()], border[0]
            at = border.end()
        yield rendered[at:], ""


def _encoded(encoding: Encoding) -> Encoded:
    return Encoded(encoding.ids, [start for start, _ in encoding.offsets])
