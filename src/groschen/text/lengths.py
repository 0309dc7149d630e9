"""Whether texts are too long for a model, found out without encoding them whole.

Encoding a text of 7 MB takes seconds and some hundred bytes for each character. So it is encoded in slices,
each forgotten at once, until it is certain that the limit is passed. Leaves out what is certain only when
the whole is encoded: a text within a percent of the limit.
"""

from collections.abc import Iterable

from groschen.text.tokenizer import Tokenizer

SLICE_CHARS = 16_384
# A cut in the middle of a word makes more tokens than the word has; so many more than any does.
_TOKENS_PER_CUT = 32
_MOST_BYTES = 4  # of a character in UTF-8: more tokens it does not become


def tokens_beyond(tokenizer: Tokenizer, texts: Iterable[str], most: int) -> int | None:
    """How many tokens the texts have at least, if that is more than `most`; None if they may have fewer.

    Stops as soon as it is certain. Raises BadRequest for text that is not Unicode.
    """
    listed = list(texts)
    if sum(map(len, listed)) * _MOST_BYTES <= most:
        return None
    count = 0
    for text in listed:
        for start in range(0, len(text), SLICE_CHARS):
            piece = text[start : start + SLICE_CHARS]
            count += max(tokenizer.num_tokens(piece) - _TOKENS_PER_CUT, 0)
            if count > most:
                return count
    return None
