"""A user's task.py: what it may do, and how its mistakes are told."""

import random
import sys
from pathlib import Path

import msgspec
import pytest

from groschen.errors import GroschenError
from groschen.records import Split, Verdict
from groschen.tasks.load import load_task
from groschen.tasks.task import judge

START = """
from groschen import Problem, Verdict, read_jsonl
# A second line, so that numbers of lines below can be told from each other.
"""
LOAD = """
def load():
    for number in range(60):
        prompt = {"role": "user", "content": f"{number} + 1"}
        yield Problem(key=f"p{number}", messages=[prompt], answer=number + 1)
"""
VERIFY = """
def verify(problem, text):
    right = text.strip() == str(problem.answer)
    return Verdict(reward=float(right), passed=right)
"""
TASK = START + LOAD + VERIFY


def write(folder: Path, text: str, name: str = "task.py") -> str:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
    return str(folder / name)


def test_a_task_of_two_functions_is_enough(tmp_path: Path) -> None:
    task = load_task(write(tmp_path / "sums", TASK))
    problem = task.problems[Split.TRAIN][0]
    assert task.name == "sums"
    assert sum(map(len, task.problems.values())) == 60
    assert isinstance(problem.messages, tuple)
    assert judge(task, problem, str(problem.answer)).passed
    assert task.gold(problem) == str(problem.answer)
    assert not judge(task, problem, task.wrong(problem)[0]).passed


def test_gold_wrong_instructions_and_shares_of_the_file_are_used(tmp_path: Path) -> None:
    more = """
INSTRUCTIONS = ("Think.", "Do not think.")
SHARES = {"dev": 0.5, "test": 0}
def gold(problem): return f"  {problem.answer}"
def wrong(problem): return ("0", "x")
"""
    task = load_task(write(tmp_path, TASK + more))
    problem = task.problems[Split.DEV][0]
    assert task.instructions == ("Think.", "Do not think.")
    assert (task.gold(problem), task.wrong(problem)) == (f"  {problem.answer}", ("0", "x"))
    assert len(task.problems[Split.DEV]) > 15 and not task.problems[Split.TEST]
    assert task.notes == ()


def test_the_file_may_import_neighbours_and_read_files_beside_it(tmp_path: Path) -> None:
    load = """
from helper import WORD
def load():
    for row in read_jsonl("rows.jsonl"):
        prompt = {"role": "user", "content": f"{WORD} {row['n']}"}
        yield Problem(key=str(row["n"]), messages=[prompt], answer=1)
"""
    write(tmp_path, "WORD = 'first'", "helper.py")
    write(tmp_path, "".join(f'{{"n": {n}}}\n' for n in range(60)), "rows.jsonl")
    source = write(tmp_path, START + load + VERIFY)
    before = list(sys.path)
    tasks = [load_task(source)]
    write(tmp_path, "WORD = 'second'", "helper.py")
    tasks.append(load_task(source))
    write(tmp_path, "".join(f'{{"n": {n}}}\n' for n in range(61)), "rows.jsonl")
    tasks.append(load_task(source))
    texts = [task.problems[Split.TRAIN][0].messages[0]["content"] for task in tasks]
    assert [text.split()[0] for text in texts] == ["first", "second", "second"]
    assert len({task.digest for task in tasks}) == 3
    assert load_task(source).digest == tasks[-1].digest
    assert sys.path == before and "helper" not in sys.modules


def test_two_tasks_may_have_neighbours_of_one_name(tmp_path: Path) -> None:
    answers = []
    for folder in ("one", "two"):
        write(tmp_path / folder, f"ANSWER = '{folder}'", "helper.py")
        verify = VERIFY.replace("str(problem.answer)", "helper.ANSWER")
        task = load_task(write(tmp_path / folder, "import helper\n" + START + LOAD + verify))
        answers.append((task, task.problems[Split.TRAIN][0], folder))
    assert all(judge(task, problem, folder).passed for task, problem, folder in answers)


def test_loading_leaves_no_bytecode_and_sees_every_change(tmp_path: Path) -> None:
    # Same length, same second: what Python's own cache takes for the same file.
    source = write(tmp_path, TASK.replace("+ 1)", "+ 1)"))
    first = load_task(source)
    write(tmp_path, TASK.replace("answer=number + 1", "answer=number + 2"))
    second = load_task(source)
    assert first.problems[Split.TRAIN][0].answer + 1 == second.problems[Split.TRAIN][0].answer
    assert not (tmp_path / "__pycache__").exists()


def test_a_dataclass_in_the_file_works(tmp_path: Path) -> None:
    text = "from __future__ import annotations\nimport dataclasses\n"
    text += "@dataclasses.dataclass\nclass Row:\n    n: int\n"
    assert load_task(write(tmp_path, text + TASK)).name


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def load(:\n", "task.py:1: this is not Python"),
        (START + "\n1 / 0\n", "task.py:5: ZeroDivisionError: division by zero"),
        ("import no_such_module\n", "task.py:1: ModuleNotFoundError"),
        ("raise SystemExit('enough')\n", "task.py:1: SystemExit: enough"),
        (START + LOAD, "defines no function verify(problem, text)"),
        (START + VERIFY, "defines no function load()"),
        (START + VERIFY + "load = 3", "has load = 3; expected a function"),
        (START + VERIFY + "def load():\n    return 1 / 0\n", "task.py:9: ZeroDivisionError"),
        (START + VERIFY + "def load():\n    yield {}['x']\n", "task.py:9: KeyError: 'x'"),
        (START + VERIFY + "def load():\n    yield 'one'\n", "item 1 of load() is 'one', of the type str"),
        (START + VERIFY + "def load():\n    pass\n", "load() returned None"),
        (START + VERIFY + "def load():\n    return []\n", "has no problems"),
        (TASK + "\ndef load():\n    yield Problem(key='a')\n", "TypeError"),
        (TASK.replace('key=f"p{number}"', 'key="same"'), "two problems with the key 'same'"),
        (TASK.replace('key=f"p{number}"', "key=number"), "expected a text as key"),
        (TASK.replace('f"{number} + 1"', '""'), "empty prompt"),
        (TASK.replace("[prompt]", "[]"), "empty prompt"),
        (TASK.replace("[prompt]", "'text'"), "no list of objects"),
        (TASK.replace("answer=number + 1", "answer=object()"), "can't be written as JSON"),
        (TASK.replace("range(60)", "range(3)"), "none of them falls into"),
        (TASK.replace("answer=number + 1", "split='valid'"), "has the split 'valid'"),
        (TASK + "\nINSTRUCTIONS = 'Think.'", "expected a tuple of texts"),
        (TASK + "\nSHARES = {'dev': 3}", "not possible"),
        (START + VERIFY + "def load():\n    return read_jsonl('gone.jsonl')\n", "gone.jsonl is missing"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_in_one_sentence(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(GroschenError) as caught:
        load_task(write(tmp_path, text))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_error_in_a_neighbour_is_told_with_the_neighbours_line(tmp_path: Path) -> None:
    write(tmp_path, "\n\nraise ValueError('broken')\n", "helper.py")
    with pytest.raises(GroschenError, match=r"helper\.py:3: ValueError: broken"):
        load_task(write(tmp_path, "import helper\n" + TASK))


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("return 1 / 0", "ZeroDivisionError: division by zero (task.py:15)"),
        ("return True", "verify returned True, expected a Verdict"),
        ("return Verdict(reward=1.0, passed=1)", "passed=1, expected True or False"),
        ("return Verdict(reward=float('nan'), passed=True)", "reward=nan, expected a finite number"),
        ("return Verdict(reward=True, passed=True)", "reward=True, expected a finite number"),
        ("return Verdict(reward=1, passed=True, parts={'a': [1, 2]})", "parts['a']=[1, 2], expected a"),
        ("return Verdict(reward=1, passed=True, parts={'a': __import__('numpy').ones(2)})", "parts['a']="),
        ("return Verdict(reward=float('inf'), passed=True)", "expected a finite number (task.py:14)"),
        ("return Verdict(reward=1, passed=__import__('numpy').float64(1))", "True or False (task.py:14)"),
        ("exit()", "SystemExit: None (task.py:15)"),
        ("__import__('sys').exit(3)", "SystemExit: 3 (task.py:15)"),
        ("try: exec('import sys; sys.exit(0)')\n    except Exception: pass", "SystemExit: 0 (task.py:15)"),
        ("raise type('TimedOut', (BaseException,), {})('late')", "TimedOut: late (task.py:15)"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("return __import__('json').loads('{')", "(task.py:15)"),
        ("raise type('Mute', (Exception,), {'__str__': lambda self: 1 / 0})", "Mute: its text can't be"),
        ("return Verdict(reward=1, passed=True, parts={3: 'three'})", "parts[3]='three', expected"),
        ("return Verdict(reward=1, passed=True, parts=['a'])", "parts=['a'], expected a mapping"),
        ("return Verdict(reward=1, passed=True, error=ValueError('no'))", "error=ValueError('no'), expected"),
    ],
)
def test_a_verifier_that_breaks_is_an_error_and_no_zero(tmp_path: Path, body: str, said: str) -> None:
    task = load_task(write(tmp_path, TASK + f"\ndef verify(problem, text):\n    {body}\n"))
    verdict = judge(task, task.problems[Split.TRAIN][0], "5")
    assert verdict.error is not None and said in verdict.error
    assert not verdict.passed and verdict.reward == 0.0


@pytest.mark.parametrize(
    "values",
    [
        ("numpy.float32(0.5)", "numpy.bool_(True)", "numpy.bool_(False)", "numpy.int64(3)"),
        ("torch.tensor(0.5)", "torch.tensor(True)", "torch.tensor(False)", "torch.tensor(3)"),
    ],
    ids=["numpy", "torch"],
)
def test_scalars_of_numpy_and_torch_count_as_the_numbers_in_them(
    tmp_path: Path, values: tuple[str, str, str, str]
) -> None:
    reward, passed, has_format, count = values
    body = f"return Verdict(reward={reward}, passed={passed}, parts={{'format': {has_format}, 'n': {count}}})"
    module = reward.partition(".")[0]
    task = load_task(write(tmp_path, f"import {module}\n{TASK}\ndef verify(problem, text):\n    {body}\n"))
    verdict = judge(task, task.problems[Split.TRAIN][0], "5")
    assert verdict.error is None and verdict.passed is True and verdict.reward == 0.5
    assert verdict.parts == {"format": False, "n": 3.0} and type(verdict.parts["format"]) is bool


PARTS = """{
    "count": 3, "long": 10 ** 30, "endless": 10 ** 400, "nan": float("nan"), "half": "a\\ud800",
    "numpy": numpy.float64(0.5), "none": None, "yes": True,
}"""


def test_a_verdict_is_what_will_be_read_again_from_its_file(tmp_path: Path) -> None:
    body = f"return Verdict(reward=numpy.float64(1), passed=True, parts={PARTS})"
    task = load_task(write(tmp_path, f"import numpy\n{TASK}\ndef verify(problem, text):\n    {body}\n"))
    verdict = judge(task, task.problems[Split.TRAIN][0], "5")
    assert verdict.error is None
    assert msgspec.json.decode(msgspec.json.encode(verdict), type=Verdict) == verdict
    assert verdict.parts["count"] == 3 and verdict.parts["half"] == "a?" and verdict.parts["endless"] is None


def test_the_verdicts_seconds_are_measured(tmp_path: Path) -> None:
    slow = VERIFY.replace("right =", "__import__('time').sleep(0.02); right =")
    task = load_task(write(tmp_path, TASK + slow))
    assert 0.02 <= judge(task, task.problems[Split.TRAIN][0], "5").seconds < 5


def test_loading_does_not_touch_the_global_generator(tmp_path: Path) -> None:
    random.seed(3)
    expected = random.random()
    random.seed(3)
    load_task(write(tmp_path, TASK))
    assert random.random() == expected
