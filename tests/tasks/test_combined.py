import pytest

from groschen.errors import BadRequest
from groschen.records import Problem, Verdict
from groschen.tasks.answers import Exact, Number
from groschen.tasks.combined import Part, Weighted
from groschen.tasks.patterns import Pattern
from verifier_samples import inside, problem

NUMBER = Part(name="value", verifier=Number(), weight=0.8)
STYLE = Part(name="style", verifier=Pattern(pattern=r"\d+ km"), weight=0.2, required=False)
BOTH = Weighted(parts=(NUMBER, STYLE))


class Broken(Number):
    """A verifier whose worker is gone."""

    def __call__(self, problem: Problem, text: str) -> Verdict:
        return Verdict(reward=0.0, passed=False, error=f"broke {self.absolute:g}")


@pytest.mark.parametrize(
    ("text", "reward", "passed"),
    [("5 km", 1.0, True), ("5", 0.8, True), ("6 km", 0.2, False), ("6", 0.0, False)],
)
def test_the_reward_is_the_weighted_sum_and_required_parts_decide(
    text: str, reward: float, passed: bool
) -> None:
    verdict = BOTH(problem(5), inside(text))
    assert verdict.reward == pytest.approx(reward)
    assert verdict.passed == passed
    assert verdict.parts["value.answer"] == text
    assert verdict.parts["style.format"] is True


def test_the_whole_format_is_that_of_the_required_parts() -> None:
    verdict = BOTH(problem(5), "it is 5")
    assert verdict.parts["format"] is False and verdict.parts["lenient"] is True
    assert verdict.parts["style.lenient"] is False


def test_the_first_error_is_the_error_of_the_whole() -> None:
    parts = (NUMBER, Part(name="b", verifier=Broken(absolute=1)), Part(name="c", verifier=Broken(absolute=2)))
    verdict = Weighted(parts=parts)(problem(5), inside("5"))
    assert verdict.error == "b: broke 1" and not verdict.passed and verdict.reward == 0.0


def test_a_part_that_is_not_required_still_breaks_the_whole() -> None:
    parts = (NUMBER, Part(name="b", verifier=Broken(), required=False))
    assert Weighted(parts=parts)(problem(5), inside("5")).error == "b: broke 0"


def test_it_keeps_its_own_key() -> None:
    parts = (Part(name="a", verifier=Number()), Part(name="b", verifier=Exact()))
    both = Weighted(parts=parts)
    assert both(problem("7"), both.gold(problem("7")) or "").passed
    assert both.wrong(problem("7"))
    assert not any(both(problem("7"), text).passed for text in both.wrong(problem("7")))


def test_the_gold_is_one_that_the_whole_passes() -> None:
    verifier = Weighted(
        parts=(Part(name="value", verifier=Number()), Part(name="style", verifier=Pattern(pattern=r"7\.0")))
    )
    assert verifier.gold(problem(7, completion=inside("7.0"))) == inside("7.0")


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ((), "at least one required"),
        ((STYLE,), "at least one required"),
        ((NUMBER, NUMBER), "different names"),
        ((Part(name="a", verifier=Number(), weight=float("nan")),), "finite"),
    ],
)
def test_parts_that_make_no_sense_together_are_refused(parts: tuple[Part, ...], words: str) -> None:
    with pytest.raises(BadRequest, match=words):
        Weighted(parts=parts)


def test_every_part_checks_the_reference() -> None:
    with pytest.raises(BadRequest, match="not one number"):
        BOTH.check(problem("seven"))
