"""Guesses at the next tokens of a text that repeats itself: what followed the last time.

A guess is checked in one forward of several positions, which costs little more than one where few rows
decode; what was guessed wrong is forgotten, so a guess changes the time and never the text. Prompt lookup:
Saxena 2023; speculative decoding: arXiv 2211.17192. Leaves out the check (`engine.py`).
"""

from collections.abc import Iterable

FEW_ROWS = 4  # above, the rows of a step already fill the arithmetic that a guess would use
_LENGTHS = (4, 3, 2)  # of the tokens that must agree, the longest first
# Two rows cost a tenth more than one, four rows two thirds, six rows as much again (a 0.5B model, AVX2).
_FIRST_WIDTH = 3
_PATIENCE = 3  # guesses without a hit in a row, then a rest
_LEAST_REST, _MOST_REST = 16, 256  # tokens


class Lookup:
    """The text of one sequence, by what followed each run of two to four tokens.

    limit: the most tokens of one guess. Costs about 2 us for each token.
    """

    def __init__(self, limit: int) -> None:
        self._limit, self._width = limit, min(limit, _FIRST_WIDTH)
        self._ids: list[int] = []
        self._after: dict[tuple[int, ...], int] = {}  # where the newest text after these tokens begins
        self._misses, self._rest, self._resumes = 0, _LEAST_REST, 0

    @property
    def num_tokens(self) -> int:
        """Tokens taken so far."""
        return len(self._ids)

    def extend(self, token_ids: Iterable[int]) -> None:
        """Take the tokens that came since the last time."""
        for token_id in token_ids:
            for length in _LENGTHS:
                if len(self._ids) >= length:
                    self._after[tuple(self._ids[-length:])] = len(self._ids)
            self._ids.append(token_id)

    def guess(self, most: int) -> list[int]:
        """Up to `most` tokens, or none: nothing was found, or guessing has not paid lately.

        What repeats with a period shorter than the guess is repeated further.
        """
        count = min(most, self._width)
        if count < 1 or len(self._ids) < self._resumes:
            return []
        for length in _LENGTHS:
            start = self._after.get(tuple(self._ids[-length:])) if len(self._ids) >= length else None
            if start is not None:
                period = len(self._ids) - start
                return [self._ids[start + i % period] for i in range(count)]
        return []

    def learn(self, num_guessed: int, num_right: int) -> None:
        """How much of the last guess was right: the next ones are longer, shorter or put off."""
        if num_right:
            self._misses, self._rest = 0, _LEAST_REST
            self._width = min(self._limit, 2 * num_right + 1 if num_right == num_guessed else num_right)
            return
        self._width, self._misses = 1, self._misses + 1
        if self._misses >= _PATIENCE:
            self._resumes = len(self._ids) + self._rest
            self._misses, self._rest = _PATIENCE - 1, min(2 * self._rest, _MOST_REST)
