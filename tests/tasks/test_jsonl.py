"""JSONL files, and tasks made of them: what is read, and what is refused with a sentence."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from groschen.errors import GroschenError
from groschen.records import Split
from groschen.tasks.jsonl import read_jsonl, reading_in
from groschen.tasks.load import load_task
from groschen.tasks.task import Task, judge


def write(folder: Path, *rows: object, toml: str | None = None) -> Path:
    path = folder / "sums.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    if toml is not None:
        (folder / "sums.toml").write_text(toml)
    return path


def sums(count: int = 60, **more: object) -> Iterator[dict[str, object]]:
    for number in range(count):
        yield {"question": f"{number} + 1 = ?", "answer": number + 1, "checker": "number", **more}


def problems(task: Task) -> list:
    return [problem for split in Split for problem in task.problems[split]]


def test_the_objects_of_a_file_come_one_by_one_and_empty_lines_do_not_count(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n\n  \n{"b": "x\xe2\x80\xa8y"}')
    assert list(read_jsonl(path)) == [{"a": 1}, {"b": "x\u2028y"}]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b'{"a": 1', "line 2 is not JSON"),
        (b"[1, 2]", "line 2 holds a list; expected one object"),
        (b"3", "line 2 holds a number"),
        (b'{"a": NaN}', "line 2 is not JSON that can be used: NaN"),
        (b'{"a": "\xff"}', "line 2 is not UTF-8: byte 8 is 0xff"),
        (b'{"a": ' + b"[" * 100_000, "line 2 is not JSON"),
        (b'{"a": 1e999}', "1e999 is too large a number"),
        (b'{"a": ' + b"9" * 5000 + b"}", "line 2 is not JSON that can be used"),
        (b'{"a": 1, "b": 2, "a": 1}', "line 2 has the key 'a' twice in one object"),
        (b'{"answer": {"x": 1, "x": 2}}', "line 2 has the key 'x' twice in one object"),
    ],
)
def test_a_bad_line_is_named_by_its_number(tmp_path: Path, line: bytes, said: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"fine": true}\n' + line + b"\n")
    with pytest.raises(GroschenError) as caught:
        list(read_jsonl(path))
    assert said in str(caught.value) and "rows.jsonl" in str(caught.value)


def test_a_relative_path_starts_in_the_folder_of_the_task(tmp_path: Path) -> None:
    write(tmp_path, {"a": 1})
    with reading_in(tmp_path) as reading:
        assert list(read_jsonl("sums.jsonl")) == [{"a": 1}]
    assert [path.name for path in reading.digests] == ["sums.jsonl"]
    with pytest.raises(GroschenError, match=r"sums\.jsonl is missing"):
        read_jsonl("sums.jsonl")


def test_a_row_becomes_a_problem_with_what_is_left_over_in_meta(tmp_path: Path) -> None:
    rows = list(sums())
    rows[0] |= {"id": 17, "split": "test", "page": 3}
    task = load_task(str(write(tmp_path, *rows)))
    (found,) = [problem for problem in problems(task) if problem.key == "17"]
    assert found.messages == ({"role": "user", "content": "0 + 1 = ?"},)
    assert (found.answer, found.meta, found.split) == (1, {"page": 3}, Split.TEST)
    assert found in task.problems[Split.TEST]


def test_messages_and_prompt_may_be_lists_of_messages(tmp_path: Path) -> None:
    turns = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "2 + 2"}]
    rows = [{"messages": turns, "answer": 4, "id": "a"}, {"prompt": turns[1:], "answer": 4, "id": "b"}]
    for row in rows:
        row |= {"checker": "number", "split": "train"}
    found = {problem.key: problem for problem in problems(load_task(str(write(tmp_path, *rows))))}
    assert found["a"].messages == tuple(turns)
    assert found["b"].messages == tuple(turns[1:])


def test_a_row_without_an_id_keeps_its_key_when_others_are_added(tmp_path: Path) -> None:
    rows = list(sums())
    before = {p.messages[0]["content"]: p.key for p in problems(load_task(str(write(tmp_path, *rows))))}
    rows = [{"question": "Quite new?", "answer": 1, "checker": "number"}, *rows]
    after = {p.messages[0]["content"]: p.key for p in problems(load_task(str(write(tmp_path, *rows))))}
    assert before.items() <= after.items()


def test_the_toml_beside_the_rows_names_the_checker_and_the_wording(tmp_path: Path) -> None:
    toml = """
        [checker]
        kind = "number"
        locale = "de"
        [prompt]
        system = "Rechne."
        instruction = "Antworte in <answer>."
        instructions = ["Schritt für Schritt."]
        [splits]
        dev = 0.3
    """
    rows = [{"question": f"{n},5 + 1 = ?", "answer": f"{n + 1},5"} for n in range(60)]
    task = load_task(str(write(tmp_path, *rows, toml=toml)))
    (*_, problem) = problems(task)
    number = problem.messages[-1]["content"].split(",")[0]
    assert problem.messages[0] == {"role": "system", "content": "Rechne."}
    assert problem.messages[1]["content"] == f"{number},5 + 1 = ?\n\nAntworte in <answer>."
    assert task.instructions == ("Schritt für Schritt.",)
    assert judge(task, problem, f"<answer>{problem.answer}</answer>").passed
    assert not judge(task, problem, f"<answer>{problem.answer}0 oder 3</answer>").passed
    assert len(task.problems[Split.DEV]) > 9  # 18 expected; one tenth would be 6


def test_another_instruction_moves_no_problem_and_renames_none(tmp_path: Path) -> None:
    places = []
    for wording in ("Short, please.", "Think step by step."):
        task = load_task(str(write(tmp_path, *sums(), toml=f'[prompt]\ninstruction = "{wording}"')))
        places.append({problem.key: split for split in Split for problem in task.problems[split]})
        assert problems(task)[0].messages[-1]["content"].endswith(wording)
    assert places[0] == places[1]


def test_the_checker_of_a_row_beats_that_of_the_file(tmp_path: Path) -> None:
    rows = list(sums())
    rows[0] |= {"checker": {"kind": "exact"}, "answer": "one", "id": "odd"}
    task = load_task(str(write(tmp_path, *rows, toml='[checker]\nkind = "number"')))
    odd = next(problem for problem in problems(task) if problem.key == "odd")
    assert judge(task, odd, "<answer>one</answer>").passed


def test_the_digest_follows_the_rows_and_the_settings(tmp_path: Path) -> None:
    digests = [
        load_task(str(write(tmp_path, *rows, toml=toml))).digest
        for rows, toml in [
            (list(sums()), ""),
            (list(sums()), ""),
            (list(sums(61)), ""),
            (list(sums()), "[splits]\ndev = 0.2"),
        ]
    ]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3


ANSWERED = [{"role": "user", "content": "1"}, {"role": "assistant", "content": "2"}]
SYSTEM = {"role": "system", "content": "Be brief."}
ROW = {"question": "1 + 1", "answer": 2, "checker": "number"}


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"answer": 2}, "no prompt, only 'answer'; expected exactly one of"),
        ({}, "has nothing in its object; expected exactly one of 'messages', 'prompt', 'question'"),
        ({**ROW, "question": [{"role": "usr", "content": "1"}]}, "the role 'usr'; expected one of system"),
        ({**ROW, "question": [SYSTEM, SYSTEM, *ANSWERED[:1]]}, "has two system messages"),
        ({**ROW, "prompt": "2 + 2"}, "'prompt' and 'question'"),
        ({**ROW, "question": 5}, "neither a text nor a list of messages"),
        ({**ROW, "question": "  \n"}, "empty prompt"),
        ({**ROW, "split": "validation"}, "its name here is dev"),
        ({**ROW, "split": "tset"}, "expected 'train', 'dev' or 'test'"),
        ({**ROW, "id": [1]}, "expected one text or whole number"),
        ({**ROW, "id": "r0"}, "has the id 'r0' of an earlier line"),
        ({**ROW, "checker": "nmber"}, "did you mean 'number'?"),
        ({**ROW, "checker": {"locale": "de"}}, "has no kind"),
        ({**ROW, "checker": {"kind": "number", "lokale": "de"}}, "did you mean 'locale'?"),
        ({"question": "1 + 1", "answer": 2}, 'names no checker; give each row one'),
        ({**ROW, "answer": "many"}, "'many'"),
        ({"messages": ANSWERED, "checker": "number", "answer": 1}, "ends with the assistant's message"),
    ],
)  # fmt: skip
def test_a_row_that_can_not_be_used_is_named_with_its_fault(tmp_path: Path, row: dict, said: str) -> None:
    rows = [{**one, "id": f"r{number}"} for number, one in enumerate(sums())]
    with pytest.raises(GroschenError) as caught:
        load_task(str(write(tmp_path, *rows, row)))
    assert said in str(caught.value)
    assert "line 61" in str(caught.value) or "problem" in str(caught.value)


@pytest.mark.parametrize(
    ("toml", "said"),
    [
        ("[checker", "is not TOML"),
        ("x = " + "9" * 5000, "is not TOML"),
        ("x = " + "[" * 5000 + "]" * 5000, "is not TOML"),
        ("[cheker]\nkind = 'number'", "did you mean 'checker'?"),
        ("checker = 'number'", "expected a table, [checker]"),
        ("[prompt]\ninstuction = 'x'", "did you mean 'instruction'?"),
        ("[prompt]\ninstruction = 3", "expected a text"),
        ("[prompt]\ninstructions = 'x'", "expected a list of texts"),
        ("[splits]\ndev = 2", "not possible"),
        ("[checker]\nlocale = 'de'", "has no kind"),
    ],
)
def test_settings_that_mean_nothing_are_refused(tmp_path: Path, toml: str, said: str) -> None:
    rows = [{"question": f"{n}", "answer": n} for n in range(60)]
    with pytest.raises(GroschenError) as caught:
        load_task(str(write(tmp_path, *rows, toml=toml)))
    assert said in str(caught.value)


def test_a_system_message_for_all_rows_is_not_added_to_one_of_a_row(tmp_path: Path) -> None:
    own = {**ROW, "question": [SYSTEM, {"role": "user", "content": "1 + 1"}]}
    toml = '[prompt]\nsystem = "Think."'
    with pytest.raises(GroschenError, match=r"line 61 has a system message of its own, and sums\.toml gives"):
        load_task(str(write(tmp_path, *sums(), own, toml=toml)))
    added = problems(load_task(str(write(tmp_path, *sums(), toml=toml))))
    assert all([turn["role"] for turn in each.messages] == ["system", "user"] for each in added)


def test_a_pipe_in_the_place_of_rows_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "rows.jsonl")
    with pytest.raises(GroschenError, match=r"rows\.jsonl is no regular file"):
        load_task(str(tmp_path / "rows.jsonl"))
