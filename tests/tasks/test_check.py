"""A task that fails its own key is refused before anything is trained on it."""

import io
import json
from collections.abc import Callable
from dataclasses import replace
from itertools import count

import pytest
from rich.console import Console

from groschen.errors import BadRequest
from groschen.records import Problem, Split, Verdict
from groschen.tasks.check import Checked, check_task, refuse_broken
from groschen.tasks.check_table import as_json, as_table, check_with_bar
from groschen.tasks.splits import split_problems
from groschen.tasks.task import Task
from groschen.tasks.trials import Probe, hedged
from groschen.tasks.usual import usual_answers
from groschen.tasks.verifiers import Exact, Expression, Json, Number, Slot, Verifier

NUMBER = Number()


def problems(number: int = 40) -> list[Problem]:
    return [
        Problem(key=f"p{n}", messages=({"role": "user", "content": f"{n} + {n} = ?"},), answer=2 * n)
        for n in range(10, 10 + number)
    ]


def task(verify: Callable[[Problem, str], Verdict] = NUMBER, **more: object) -> Task:
    known = {"gold": NUMBER.gold, "wrong": NUMBER.wrong, "problems": split_problems(problems()), **more}
    return Task(name="sums", digest="0", verify=verify, **known)


def verdict(passed: bool, reward: float | None = None, **parts: object) -> Verdict:
    return Verdict(reward=float(passed) if reward is None else reward, passed=passed, parts=parts)


def right(problem: Problem, text: str) -> bool:
    return NUMBER(problem, text).passed


def faults(checked: Checked, probe: Probe) -> list[str]:
    return [failure.fault for failure in checked.failures if failure.probe == probe]


def test_a_sound_task_passes() -> None:
    checked = check_task(task())
    refuse_broken(checked)
    assert checked.ok and checked.failures == () and checked.warnings == ()
    counts = [checked.splits[split] for split in Split]
    assert sum(split.tried for split in counts) == 40
    for split in counts:
        assert split.answers == split.right
        assert split.answers[Probe.GOLD] == split.answers[Probe.EMPTY] == split.tried
        assert split.answers[Probe.HEDGED] > 0 and split.errors == 0


def test_a_gold_answer_that_does_not_pass_is_a_failure_with_its_reason() -> None:
    checked = check_task(task(gold=lambda problem: f"<answer>{problem.answer} or so</answer>"))
    assert len(faults(checked, Probe.GOLD)) == 40
    assert (
        "the gold answer '<answer>20 or so</answer>' did not pass (not one number"
        in checked.failures[0].fault
    )
    with pytest.raises(BadRequest, match="task sums fails its own key in 40 of ") as caught:
        refuse_broken(checked)
    assert str(caught.value).count("did not pass") == 3


def test_a_wrong_an_empty_and_a_senseless_answer_that_pass_are_failures() -> None:
    generous = check_task(task(lambda problem, text: verdict(True)))
    for probe in (Probe.WRONG, Probe.EMPTY, Probe.NONSENSE):
        assert faults(generous, probe), probe
    assert "an empty answer passes" in faults(generous, Probe.EMPTY)
    assert faults(generous, Probe.GOLD) == []


def test_a_verifier_that_always_rewards_the_same_is_a_failure_though_passed_is_right() -> None:
    checked = check_task(task(lambda problem, text: verdict(right(problem, text), reward=0.5)))
    assert "an empty answer earns 0.5, as much as the gold answer or more" in faults(checked, Probe.EMPTY)
    assert any("a constant reward teaches nothing" in warning for warning in checked.warnings)


def test_a_verifier_that_gives_every_answer_nothing_is_a_failure() -> None:
    checked = check_task(task(lambda problem, text: verdict(False)))
    assert len(faults(checked, Probe.GOLD)) == 40


def test_an_exception_of_the_verifier_is_told_as_an_error() -> None:
    def verify(problem: Problem, text: str) -> Verdict:
        return verdict(int(text.split(">")[1].split("<")[0]) == problem.answer)

    checked = check_task(task(verify, wrong=lambda problem: ()))
    assert (
        "the verifier broke on an empty answer: IndexError: list index out of range (test_check.py:"
        in (faults(checked, Probe.EMPTY)[0])
    )
    assert sum(split.errors for split in checked.splits.values()) >= 80


def test_an_error_in_a_verdict_is_told_as_an_error() -> None:
    checked = check_task(
        task(lambda problem, text: replace(verdict(right(problem, text)), error="no sandbox here"))
    )
    assert "no sandbox here" in faults(checked, Probe.GOLD)[0]


def test_an_exception_of_gold_or_wrong_is_a_failure() -> None:
    checked = check_task(task(wrong=lambda problem: (problem.meta["nothing"],)))
    assert "its gold or wrong answers can't be made: KeyError: 'nothing'" in faults(checked, Probe.GOLD)[0]


def test_a_verifier_that_changes_its_mind_is_a_failure() -> None:
    calls = count()
    checked = check_task(task(lambda problem, text: verdict(right(problem, text), calls=str(next(calls)))))
    assert (
        "got two verdicts, passed with reward 1 and then passed with reward 1"
        in faults(checked, Probe.GOLD)[0]
    )
    assert len(faults(checked, Probe.EMPTY)) == 40


def test_a_verifier_that_takes_hedges_is_warned_of_and_not_refused() -> None:
    checked = check_task(
        task(
            lambda problem, text: verdict(str(problem.answer) in text),
            wrong=lambda p: ("<answer>7</answer>",),
        )
    )
    assert faults(checked, Probe.HEDGED) == [] and checked.ok
    assert any("in one breath passes (80 times, as for 'p" in warning for warning in checked.warnings)


def test_a_verifier_that_takes_the_prompt_for_an_answer_is_warned_of() -> None:
    checked = check_task(task(lambda problem, text: verdict(text.endswith("?") or right(problem, text))))
    assert checked.ok
    assert any(
        "the prompt itself, repeated as the answer, passes (40 times" in each for each in checked.warnings
    )


def test_what_can_not_be_tested_is_said() -> None:
    checked = check_task(task(gold=lambda problem: None, wrong=lambda problem: ()))
    assert checked.ok
    assert sum(split.without_gold for split in checked.splits.values()) == 40
    assert any("40 of 40 problems have no gold answer" in warning for warning in checked.warnings)
    assert any("no wrong answers are known" in warning for warning in checked.warnings)
    assert any("every answer that was tried earned 0" in warning for warning in checked.warnings)


def test_a_wrong_answer_that_is_the_gold_one_is_noticed() -> None:
    checked = check_task(task(wrong=lambda problem: (f"<answer>{problem.answer}</answer>",)))
    assert len(faults(checked, Probe.WRONG)) == 40


def test_the_limit_bounds_the_problems_of_each_split_and_the_rest_is_not_tried() -> None:
    seen = set()

    def verify(problem: Problem, text: str) -> Verdict:
        seen.add(problem.key)
        return NUMBER(problem, text)

    told = []
    checked = check_task(task(verify), 2, lambda done, total: told.append((done, total)))
    assert [checked.splits[split].tried for split in Split] == [2, 2, 2]
    assert len(seen) == 6
    assert told == [(n, 6) for n in range(1, 7)]
    with pytest.raises(BadRequest, match="the limit is 0"):
        check_task(task(), 0)


def test_near_copies_and_repetitions_are_warned_of() -> None:
    text = " ".join(f"word{n}" for n in range(60))
    texts = {f"t{n}": " ".join(f"other{n}x{m}" for m in range(60)) for n in range(20)}
    texts |= {"a": text, "b": text, "c": f"{text} more"}
    made = [
        Problem(
            key=key,
            messages=({"role": "user", "content": words},),
            answer=1,
            split=Split.TEST if key == "c" else Split.TRAIN,
        )
        for key, words in texts.items()
    ]
    checked = check_task(replace(task(), problems=split_problems(made)))
    assert any(
        "1 of 2 held-out problems stand nearly word for word in train, as 'c'" in w for w in checked.warnings
    )
    assert any("1 problem(s) repeat another one of their split word for word" in w for w in checked.warnings)


@pytest.mark.parametrize(
    ("gold", "wrong", "expected"),
    [
        (
            "<answer>42</answer>",
            "<answer>41</answer>",
            ("<answer>42 or 41</answer>", "<answer>41 or 42</answer>"),
        ),
        ("\\boxed{3.5}", "\\boxed{3.6}", ("\\boxed{3.5 or 3.6}", "\\boxed{3.6 or 3.5}")),
        (
            "<answer>-5</answer>",
            "<answer>5</answer>",
            ("<answer>-5 or 5</answer>", "<answer>5 or -5</answer>"),
        ),
        ("42", "41", ()),
        ("<answer>42</answer>", "<answer></answer>", ()),
        ("<answer>42</answer>", "", ()),
        ("x", "x", ()),
    ],
)
def test_a_hedge_names_both_results_in_the_slot(gold: str, wrong: str, expected: tuple[str, ...]) -> None:
    assert hedged(gold, wrong) == expected


def test_a_task_without_gold_is_tried_with_the_usual_ways_of_writing_its_answer() -> None:
    for form in ("<answer>{}</answer>", "\\boxed{{{}}}", "#### {}", "{}", "The answer is {}."):

        def verify(problem: Problem, text: str, form: str = form) -> Verdict:
            return verdict(text == form.format(problem.answer))

        usual = usual_answers(problems(), verify)
        checked = check_task(task(verify, gold=usual.gold, wrong=usual.wrong))
        assert checked.ok and not checked.warnings, form
        assert checked.splits[Split.TRAIN].right[Probe.WRONG] == checked.splits[Split.TRAIN].tried


def test_a_verifier_that_no_usual_way_gets_past_is_a_failure() -> None:
    usual = usual_answers(problems(), lambda problem, text: verdict(False))
    assert (
        len(
            faults(
                check_task(task(lambda p, t: verdict(False), gold=usual.gold, wrong=usual.wrong)), Probe.GOLD
            )
        )
        == 40
    )


def test_references_that_are_no_short_answers_have_no_usual_way() -> None:
    for answer in (None, True, ["a"], {"a": 1}, "two\nlines", "  "):
        problem = Problem(key="a", messages=({"role": "user", "content": "?"},), answer=answer)
        usual = usual_answers([problem], NUMBER)
        assert (usual.gold(problem), usual.wrong(problem)) == (None, ())


def test_the_json_holds_what_scripts_read() -> None:
    found = json.loads(as_json(check_task(task(), 3)))
    assert found["ok"] is True and found["task"] == "sums"
    assert set(found) == {
        "task", "digest", "ok", "splits", "failures", "warnings", "overlap", "median_s", "slowest_s",
        "unstable",
    }  # fmt: skip
    assert set(found["splits"]) == {"train", "dev", "test"}
    assert found["splits"]["test"]["answers"]["gold"] == found["splits"]["test"]["right"]["gold"] == 3


def test_the_table_shows_answers_with_brackets_as_they_are() -> None:
    console = Console(width=120, file=io.StringIO())
    console.print(as_table(check_task(task(gold=lambda problem: "[red]no[/red]"))))
    shown = console.file.getvalue()
    assert "gold answers that pass" in shown and "0 of " in shown
    assert "wrong: problem 'p" in shown and "[red]no[/red]" in shown
    assert "and 30 more" in shown


def test_no_bar_is_drawn_where_nobody_looks(capsys: pytest.CaptureFixture[str]) -> None:
    assert check_with_bar(task(), 2).ok
    assert capsys.readouterr() == ("", "")


def keyed(answer: object, verifier: Verifier) -> Checked:
    one = [replace(problem, answer=answer) for problem in problems(3)]
    return check_task(task(verifier, gold=verifier.gold, wrong=verifier.wrong, problems=split_problems(one)))


@pytest.mark.parametrize(
    ("answer", "verifier", "shown"),
    [
        (0.1 + 0.2, Number(), "<answer>0.3</answer>"),
        (1 / 3, Number(), "<answer>0.333333333333</answer>"),
        ("0.30000000000000004", Exact(), "<answer>0.3</answer>"),
        ("0.30000000000000004", Expression(slot=Slot.ANSWER, seconds=20), "<answer>0.3</answer>"),
        ({"total": 0.1 + 0.2}, Json(whole=True), '{"total": 0.3}'),
        ("Zü\u00adrich", Exact(), "<answer>Zürich</answer>"),
        ("Zürich\u200b", Exact(), "<answer>Zürich</answer>"),
        ({"name": "\ufeffTea"}, Json(fields=("name",)), '{"name": "Tea"}'),
        ("Tom &amp; Jerry", Exact(), "<answer>Tom & Jerry</answer>"),
        ("it\u2019s", Exact(), "<answer>it's</answer>"),
        ("\u201eja\u201c", Exact(), '<answer>"ja"</answer>'),
        ("1990\u20131995", Exact(), "<answer>1990-1995</answer>"),
        ("9 - 2 = 7\n#### 7", Exact(), "<answer>7</answer>"),
    ],
)
def test_a_key_that_no_model_would_write_is_told(answer: object, verifier: Verifier, shown: str) -> None:
    checked = keyed(answer, verifier)
    assert checked.ok
    (warning,) = [text for text in checked.warnings if "no model would write" in text]
    assert shown in warning and "'p1" in warning and "set a tolerance" in warning


@pytest.mark.parametrize(
    ("answer", "verifier"),
    [
        (0.1 + 0.2, Number(absolute=1e-9)),
        (0.3, Number()),
        (123456.789, Number()),
        ("3.14159265", Exact()),
        ("Zürich", Exact()),
        ("A & B", Exact()),
    ],
)
def test_a_key_that_a_model_would_write_is_not_told(answer: object, verifier: Verifier) -> None:
    assert not [text for text in keyed(answer, verifier).warnings if "no model would write" in text]
