"""Answers that are one of some labels, as in a question of multiple choice.

Leaves out where the answer stands (slots.py).
"""

import re
from dataclasses import dataclass

from groschen.errors import BadRequest
from groschen.records import Problem
from groschen.tasks.judging import InSlot, reference_text

_MAX_OPTION = 2000  # characters of an option's text that is looked for in the prompt
_PREFIX = r"(?:(?:option|choice|answer|antwort)\b\s*:?\s*)?"
# What may stand between a label and its text: B) b, B. b, B: b, B - b, (B) b, and TeX's spaces.
_BEHIND_LABEL = r"(?:[).:\]]+(?=\s|\\|~|$)|\s+[-–—](?=\s))(?:\\[ ,;:!]|\\q?quad|~)*"
# "A polygenic score", "I think so": an article and a pronoun, where a word follows that is no verb of doubt.
_ARTICLE = re.compile(
    r"^\s*(?:A|I)\s+(?!(?:is|was|are|were|or|and|und|oder|nor|not|nicht|ist|war|wäre|would|could|may|might|seems|too|"
    r"also|auch)\b)(?=[a-zäöüß])"
)
_DRESSED = re.compile(r"\\(?:text|textbf|textrm|textit|mathrm|mathbf|mathsf|operatorname)\s*\{([^{}]*)\}")


@dataclass(frozen=True, kw_only=True)
class Choice(InSlot):
    r"""The answer is one of some labels, alone or before its text: B, (B), "B) a cat", \text{B}, "Option B".

    The text behind a label may hold another label only where it is the option's own, as the prompt has it, or
    where that label is the article "A" or the pronoun "I".
    """

    choices: tuple[str, ...] = ("A", "B", "C", "D")
    ignore_case: bool = True

    def __post_init__(self) -> None:
        """Raises BadRequest if there are not two different labels."""
        super().__post_init__()
        if len({self._plain(label) for label in self.choices if label.strip()}) < max(2, len(self.choices)):
            raise BadRequest(f"choices are {self.choices}; expected two or more different labels")

    def check(self, problem: Problem) -> None:
        """Raises BadRequest if the reference is none of the labels."""
        self._reference(problem)

    def refusal(self, problem: Problem, answer: str) -> str | None:
        """None if the answer is the right label and no other."""
        plain = _without_marks(answer)
        labels = "|".join(re.escape(label) for label in sorted(self.choices, key=len, reverse=True))
        flags = re.DOTALL | (re.IGNORECASE if self.ignore_case else 0)
        match = re.fullmatch(rf"{_PREFIX}[(\[]?({labels})(?:{_BEHIND_LABEL}(.*))?", plain, flags)
        if match is None:
            return "not one of the choices"
        label, text = self._plain(match[1]), match[2] or ""
        if not self._is_own_text(problem, match[1], text):
            named = {self._plain(other) for other in self._standing_alone(_ARTICLE.sub("", text, count=1))}
            if named - {label}:
                return "more than one of the choices"
        return None if label == self._plain(self._reference(problem)) else "another choice"

    def lenient(self, problem: Problem, text: str, tried: str | None) -> bool:
        """Whether the answer stands anywhere, or the last label that stands alone is the right one."""
        alone = self._standing_alone(text)
        right = bool(alone) and self._plain(alone[-1]) == self._plain(self._reference(problem))
        return right or super().lenient(problem, text, tried)

    def wrong_answers(self, problem: Problem) -> tuple[str, ...]:
        """The other labels, and the right one beside another."""
        right = self._reference(problem)
        others = [label for label in self.choices if self._plain(label) != self._plain(right)]
        return (*others, f"{right} or {others[0]}", f"{right}) not {others[0]}")

    def _reference(self, problem: Problem) -> str:
        given = reference_text(problem)
        for label in self.choices:
            if self._plain(label) == self._plain(given):
                return label
        raise BadRequest(
            f"problem {problem.key!r} has the reference {given!r}; expected one of {', '.join(self.choices)}"
        )

    def _is_own_text(self, problem: Problem, label: str, text: str) -> bool:
        """Whether the prompt has this text right behind this label, to the end of a line."""
        words = r"\s+".join(map(re.escape, text.strip().rstrip(".").split()))
        if not words or len(text) > _MAX_OPTION:
            return False
        option = re.compile(
            rf"(?<!\w)[(\[]?{re.escape(label)}{_BEHIND_LABEL}\s*{words}\.?[^\S\n]*$",
            re.MULTILINE | re.IGNORECASE,
        )
        prompts = (message.get("content") for message in problem.messages)
        return any(isinstance(prompt, str) and option.search(prompt) for prompt in prompts)

    def _standing_alone(self, text: str) -> list[str]:
        """Labels in running text, where case counts: the word "a" is no choice."""
        labels = "|".join(re.escape(label) for label in sorted(self.choices, key=len, reverse=True))
        return re.findall(rf"(?<!\w)(?:{labels})(?!\w)", text)

    def _plain(self, label: str) -> str:
        return label.strip().casefold() if self.ignore_case else label.strip()


def _without_marks(answer: str) -> str:
    """The answer without what sets its letters: TeX's commands for fonts, dollars, stars of emphasis."""
    plain = _DRESSED.sub(r"\1", answer.strip()).strip("*`$ ")
    plain = plain.removeprefix("\\(").removesuffix("\\)").strip()
    return plain[1:-1].strip() if plain.startswith("{") and plain.endswith("}") else plain.replace("**", "")
