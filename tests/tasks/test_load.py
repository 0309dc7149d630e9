"""What a user may give as a task, and the gate that every task passes."""

from pathlib import Path

import pytest

from groschen.errors import BadRequest, GroschenError
from groschen.records import Problem, Split
from groschen.tasks.load import load_task
from groschen.tasks.task import judge, with_instruction

GSM8K = Path(__file__).parent.parent.parent / "examples" / "gsm8k"
INVOICES = Path(__file__).parent.parent.parent / "examples" / "invoices" / "invoices.jsonl"


def test_the_built_in_task_has_all_three_splits_and_passes_its_own_answers() -> None:
    task = load_task("countdown")
    for split in Split:
        for problem in task.of(split)[:20]:
            gold = task.gold(problem)
            assert gold is not None and judge(task, problem, gold).passed
            assert not any(judge(task, problem, text).passed for text in task.wrong(problem))


def test_settings_of_a_built_in_task_stand_behind_a_question_mark() -> None:
    plain, other = load_task("countdown"), load_task("countdown?seed=5")
    assert plain.digest != other.digest
    assert plain.digest == load_task("countdown?seed=0&numbers=3").digest
    assert plain.problems[Split.TEST] != other.problems[Split.TEST]


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("countdwn", "did you mean countdown?"),
        ("nonsense-of-all-kinds", "a task is a built-in name (countdown)"),
        ("there/is/no/task.py", "there/is/no/task.py is not there"),
        ("gone.jsonl", "gone.jsonl is not there"),
        (str(Path(__file__).parent), "task.py is not there"),
        ("pyproject.toml", "no file of this name"),
        ("countdown?numbers=5", "3 or 4"),
        ("countdown?numbres=4", "has no setting numbres=4"),
        ("countdown?seed=-1", "has no setting seed=-1"),
        ("countdown?seed", "expected ?name=value"),
        ("countdown?seed=1&seed=2", "seed is set 2 times"),
    ],
)
def test_a_wrong_source_is_told_in_one_sentence(
    source: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(GroschenError) as caught:
        load_task(source)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("a,b\n")
    with pytest.raises(GroschenError, match=r"expected a name that ends in \.py or \.jsonl"):
        load_task(str(tmp_path / "rows.csv"))


def test_a_text_that_stands_in_two_splits_is_refused_with_its_keys(tmp_path: Path) -> None:
    rows = [f'{{"id": "{n}", "question": "{n} + 1", "answer": 2, "split": "train"}}' for n in range(40)]
    rows.append('{"id": "leak", "question": "7  + 1", "answer": 8, "split": "test"}')
    (tmp_path / "rows.jsonl").write_text("\n".join(rows))
    (tmp_path / "rows.toml").write_text('[checker]\nkind = "number"')
    with pytest.raises(BadRequest, match=r"'leak' \(test\) is '7' \((train|dev)\)"):
        load_task(str(tmp_path / "rows.jsonl"))


def test_a_task_may_name_test_problems_alone_and_says_so_when_asked_for_others(tmp_path: Path) -> None:
    rows = [f'{{"question": "{n} + 1", "answer": {n + 1}, "split": "test"}}' for n in range(3)]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows))
    (tmp_path / "rows.toml").write_text('[checker]\nkind = "number"')
    task = load_task(str(tmp_path / "rows.jsonl"))
    assert len(task.of(Split.TEST)) == 3
    with pytest.raises(BadRequest, match="no problems in the split train"):
        task.of(Split.TRAIN)


def test_an_instruction_is_appended_to_the_last_message_of_the_user() -> None:
    turns = (
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
    )
    problem = Problem(key="k", messages=turns, answer=1)
    asked = with_instruction(problem, "Think.")
    assert [turn["content"] for turn in asked.messages] == ["a", "b", "c\n\nThink."]
    assert problem.messages[2]["content"] == "c"
    with pytest.raises(BadRequest, match="no user message with a text"):
        with_instruction(
            Problem(key="k", messages=({"role": "user", "content": [{"type": "text"}]},)), "Think."
        )


def test_the_example_with_invoices_reads_both_notations() -> None:
    task = load_task(str(INVOICES))
    found = {problem.key: problem for split in Split for problem in task.problems[split]}
    german, english = found["de-01"], found["en-02"]
    assert (german.answer, english.answer) == ("3.687,20", "5,928.00")
    assert judge(task, german, "<answer>3687,20 €</answer>").passed
    assert not judge(task, german, "<answer>3,687.20</answer>").passed
    assert judge(task, english, "<answer>£5,928.00</answer>").passed


def test_the_gsm8k_example_takes_the_answer_from_the_slot_that_each_wording_asks_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = '{"question": "How many times %d?", "answer": "Step <<2*3=6>>6.\\n#### 1,2%02d"}\n'
    (tmp_path / "train.jsonl").write_text("".join(row % (n, n) for n in range(200)))
    (tmp_path / "test.jsonl").write_text("".join(row % (n, n - 900) for n in range(900, 903)))
    monkeypatch.setenv("GSM8K_DIR", str(tmp_path))
    task = load_task(str(GSM8K))
    problem = task.of(Split.TEST)[1]
    assert (problem.answer, problem.meta["solution"]) == ("1,201", "Step 6.")
    assert task.gold(problem) == "Step 6.\n\\boxed{1201}"
    right = ("\\boxed{1,201}", "So \\boxed{\\$1201}.", "#### 1201", "<answer>1201 clips</answer>")
    assert all(judge(task, problem, text).passed for text in (*right, task.gold(problem)))
    for text in (
        "1201",
        "\\boxed{12} #### 1201",
        "\\boxed{1201 or 12}",
        "\\boxed{1201}\\boxed{12}",
        *task.wrong(problem),
    ):
        assert not judge(task, problem, text).passed, text
    assert judge(task, problem, "The answer is 1201.").parts["lenient"]
