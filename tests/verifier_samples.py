"""Helpers for the tests of verifiers."""

from groschen.records import Problem, Verdict
from groschen.tasks.judging import Verifier


def problem(answer: object, **meta: object) -> Problem:
    return Problem(key="p1", messages=({"role": "user", "content": "?"},), answer=answer, meta=meta)


def inside(content: str) -> str:
    return f"<answer>{content}</answer>"


def passes(verifier: Verifier, answer: object, content: str) -> bool:
    verdict = verifier(problem(answer), inside(content))
    assert verdict.error is None
    assert verdict.reward == float(verdict.passed)
    return verdict.passed


def assert_keeps_its_own_key(verifier: Verifier, one: Problem) -> None:
    """The gold text passes and every text that it calls wrong fails, none with an error."""
    gold = verifier.gold(one)
    assert gold is not None
    verdict = verifier(one, gold)
    assert verdict.passed, (gold, verdict)
    assert verdict.parts["lenient"] is True
    assert verifier.wrong(one)
    for text in verifier.wrong(one):
        failed: Verdict = verifier(one, text)
        assert not failed.passed and failed.error is None and failed.reward == 0.0, (text, failed)
