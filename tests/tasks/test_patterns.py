import pytest

from groschen.errors import BadRequest
from groschen.tasks import workers
from groschen.tasks.patterns import Pattern
from verifier_samples import assert_keeps_its_own_key, inside, passes, problem


def test_the_whole_answer_must_match() -> None:
    verifier = Pattern(pattern=r"[A-Z]{2}\d+")
    assert passes(verifier, None, "DE42")
    assert not passes(verifier, None, "DE42 or so") and not passes(verifier, None, "de42")
    assert passes(Pattern(pattern=r"[A-Z]{2}\d+", ignore_case=True), None, "de42")


def test_the_reference_is_the_pattern_where_none_is_set() -> None:
    assert passes(Pattern(), r"a+", "aaa") and not passes(Pattern(), r"a+", "b")
    with pytest.raises(BadRequest, match="no regular expression"):
        Pattern().check(problem("("))
    with pytest.raises(BadRequest, match="expected a text"):
        Pattern().check(problem(None))


def test_a_pattern_that_is_none_is_refused_at_once() -> None:
    with pytest.raises(BadRequest, match="no regular expression"):
        Pattern(pattern="(")


def test_a_search_without_end_fails_the_answer_and_is_no_error() -> None:
    verdict = Pattern(pattern=r"(a+)+b", seconds=0.3)(problem(None), inside("a" * 60))
    assert not verdict.passed and verdict.error is None
    assert verdict.parts["why"] == "it takes longer than 0.3 s"


def test_a_pattern_keeps_the_key_that_its_author_gives() -> None:
    assert_keeps_its_own_key(Pattern(pattern=r"\d+"), problem(None, gold="12", wrong=["a", "1 2"]))


def test_a_broken_worker_is_an_error_and_no_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: object, job: object, seconds: float) -> object:
        raise workers.Broke("gone")

    monkeypatch.setattr(workers.Workers, "ask", broken)
    assert Pattern(pattern="a")(problem(None), inside("a")).error == "the search broke: gone"
