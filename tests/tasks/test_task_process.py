"""A task's own code in a process of its own: whatever it does there is an error verdict, or works."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from groschen import cli
from groschen.errors import BadFile, BadRequest
from groschen.records import Problem, Split, Verdict
from groschen.tasks.load import load_task
from groschen.tasks.task import Task, judge, with_instruction

START = """
import multiprocessing, os, subprocess, sys, time
from groschen import Problem, Verdict
def work(number): return number + 1
def load():
    for number in range(60):
        prompt = {"role": "user", "content": f"{number} + 1"}
        yield Problem(key=f"p{number}", messages=[prompt], answer=(number, {"pair": (number, 1)}))
def right(problem, text): return Verdict(reward=1.0, passed=text == str(problem.answer[0] + 1))
def gold(problem): return str(problem.answer[0] + 1)
"""
FIRST_LINE = START.count("\n") + 2  # of the body of `verify`


def task_of(folder: Path, body: str, seconds: float = 60.0, more: str = "") -> Task:
    """A task whose `verify` has this body."""
    (folder / "task.py").write_text(f"{START}def verify(problem, text):\n    {body}\n{more}")
    return load_task(str(folder / "task.py"), seconds)


def verdict_of(task: Task, text: str = "5", index: int = 0) -> Verdict:
    return judge(task, task.problems[Split.TRAIN][index], text)


@pytest.mark.parametrize(
    "body",
    [
        "while True: pass",
        "time.sleep(1000)",
        "try:\n        time.sleep(1000)\n    except BaseException:\n        time.sleep(1000)",
        "while True:\n        try: time.sleep(1)\n        except BaseException: pass",
        "return 3 ** 10 ** 10",  # C code that holds the interpreter's lock for hours
        "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65)); time.sleep(1000)",
    ],
    ids=["loop", "sleep", "catches", "catches-all", "holds-the-lock", "blocks-signals"],
)
def test_a_verifier_that_never_returns_is_an_error_that_names_the_problem(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], body: str
) -> None:
    task = task_of(tmp_path, f"if text != 'hang': return right(problem, text)\n    {body}", seconds=0.5)
    hung = task.problems[Split.TRAIN][0]
    started = time.monotonic()
    found = verdict_of(task, "hang")
    assert time.monotonic() - started < 20
    assert found.error is not None and not found.passed
    for words in (repr(hung.key), "longer than 0.5 s", f"task.py:{FIRST_LINE - 1}"):
        assert words in found.error
    assert repr(hung.key) in capfd.readouterr().err
    assert verdict_of(task, str(task.gold(hung))).passed, "the next call has a process again"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("os._exit(0)", "with exit status 0"),
        ("os.kill(os.getpid(), 11)", "by SIGSEGV"),
        ("import ctypes; ctypes.string_at(0)", "by SIGSEGV"),
        ("os.closerange(3, 100)", "ended its process"),
    ],
    ids=["_exit", "signal", "crash", "closed-descriptors"],
)
def test_a_verifier_that_ends_its_process_is_an_error(tmp_path: Path, body: str, said: str) -> None:
    task = task_of(tmp_path, f"if text != 'die': return right(problem, text)\n    {body}")
    error = verdict_of(task, "die").error
    assert error is not None and said in error and "task.py:" in error, error
    assert verdict_of(task, str(task.gold(task.problems[Split.TRAIN][0]))).passed


def test_somebody_who_waits_is_told_once_a_minute_what_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    task = task_of(tmp_path, "time.sleep(1); return right(problem, text)")
    monkeypatch.setattr("groschen.tasks.task_process.MINUTE_SECONDS", 0.3)
    assert verdict_of(task).error is None
    key = task.problems[Split.TRAIN][0].key
    said = capsys.readouterr().err.splitlines()
    assert 1 <= len(said) <= 4 and all(f"on problem {key!r} has not ended after" in line for line in said)


@pytest.mark.parametrize("call", ["gold", "wrong"])
def test_gold_and_wrong_have_the_same_limits(tmp_path: Path, call: str) -> None:
    body = "return right(problem, text)"
    for fault in ("exit()", "os._exit(3)", "time.sleep(1000)", "return 3", "raise BaseException('no')"):
        task = task_of(tmp_path, body, 0.5, f"def {call}(problem):\n    {fault}\n")
        with pytest.raises(Exception, match=r"task\.py:\d+|p\d+"):
            getattr(task, call)(task.problems[Split.TRAIN][0])


@pytest.mark.parametrize(
    "output",
    [
        "print('noise')",
        "os.write(1, b'noise\\n' * 100_000)",
        "subprocess.run(['echo', 'noise'])",
        "sys.__stdout__.write('noise'); sys.stdout.flush()",
        "print('half \\ud800 character')",
    ],
    ids=["print", "descriptor-flood", "child", "original-stdout", "half-character"],
)
def test_what_a_task_prints_never_reaches_standard_output(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], output: str
) -> None:
    loud = START.replace("def load():\n", f"print('noise at the top')\ndef load():\n    {output}\n")
    loud += f"def verify(problem, text):\n    {output}\n    return right(problem, text)\n"
    (tmp_path / "task.py").write_text(loud)
    cli.run(["check", str(tmp_path / "task.py"), "--limit", "1", "--json"])
    out, err = capfd.readouterr()
    assert json.loads(out)["task"] == tmp_path.name
    assert "noise" in err


def test_a_task_that_asks_at_the_keyboard_is_an_error(tmp_path: Path) -> None:
    error = verdict_of(task_of(tmp_path, "input('which? ')")).error
    assert error is not None and error.startswith(f"EOFError: EOF when reading a line (task.py:{FIRST_LINE})")


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_verifier_may_use_multiprocessing(tmp_path: Path, method: str) -> None:
    body = f"""with multiprocessing.get_context({method!r}).Pool(1) as pool:
        return Verdict(reward=1.0, passed=str(pool.apply(work, (problem.answer[0],))) == text)"""
    task = task_of(tmp_path, body)
    error = verdict_of(task, str(task.gold(task.problems[Split.TRAIN][0])))
    assert error.error is None and error.passed


def test_a_copy_of_the_process_that_comes_back_says_nothing(tmp_path: Path) -> None:
    task = task_of(tmp_path, "os.fork(); return right(problem, text)")
    for index in range(3):
        problem = task.problems[Split.TRAIN][index]
        assert judge(task, problem, str(task.gold(problem))).passed
        assert not judge(task, problem, "no").passed


def test_what_a_module_keeps_stays_from_call_to_call(tmp_path: Path) -> None:
    body = "calls.append(text)\n    return Verdict(reward=len(calls), passed=False)"
    task = task_of(tmp_path, body, more="calls = []\n")
    assert [verdict_of(task).reward for _ in range(3)] == [1.0, 2.0, 3.0]


def test_the_verifier_sees_its_own_objects_and_the_prompt_that_was_asked(tmp_path: Path) -> None:
    body = """return Verdict(reward=0.0, passed=True, parts={
        "answer": repr(problem.answer), "prompt": problem.messages[-1]["content"]})"""
    task = task_of(tmp_path, body)
    problem = next(each for each in task.problems[Split.TRAIN] if each.key == "p3")
    parts = judge(task, with_instruction(problem, "Think."), "5").parts
    assert parts == {"answer": "(3, {'pair': (3, 1)})", "prompt": "3 + 1\n\nThink."}
    other = Problem(key="new", messages=problem.messages, answer=[8, {}])
    assert judge(task, other, "9").parts["answer"] == "[8, {}]"


def test_children_of_a_verifier_that_was_ended_are_ended_too(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    body = f"subprocess.Popen(['sh', '-c', 'echo $$ > {pid}; sleep 1000']); time.sleep(1000)"
    task = task_of(tmp_path, body, seconds=1.0)
    assert verdict_of(task).error is not None
    assert has_ended(int(pid.read_text()))


def test_a_process_whose_load_gives_other_problems_is_not_gone_on_with(tmp_path: Path) -> None:
    body = "os._exit(0) if text == 'die' else None\n    return right(problem, text)"
    task = task_of(tmp_path, body)
    (tmp_path / "task.py").write_text((tmp_path / "task.py").read_text().replace("range(60)", "range(61)"))
    assert "ended its process" in str(verdict_of(task, "die").error)
    assert "gave other problems" in str(verdict_of(task).error)


@pytest.mark.parametrize(
    ("load", "said"),
    [
        ("exit()", r"task\.py:\d+: SystemExit"),
        ("raise BaseException('no')", r"task\.py:\d+: BaseException: no"),
        ("os._exit(7)", r"load\(\) of .*task\.py ended its process with exit status 7"),
        ("os.kill(os.getpid(), 9)", r"ended its process by SIGKILL"),
    ],
)
def test_a_load_that_leaves_is_told_in_a_sentence(tmp_path: Path, load: str, said: str) -> None:
    text = START.replace("def load():\n", f"def load():\n    {load}\n") + "verify = right\n"
    (tmp_path / "task.py").write_text(text)
    with pytest.raises(BadFile, match=said):
        load_task(str(tmp_path / "task.py"))


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf")])
def test_a_limit_that_is_none_is_refused(tmp_path: Path, seconds: float) -> None:
    with pytest.raises(BadRequest, match="the limit of one verdict"):
        task_of(tmp_path, "return right(problem, text)", seconds)


WAITS = """
import sys
from groschen.tasks.load import load_task
from groschen.records import Split
from groschen.tasks.task import judge
task = load_task(sys.argv[1])
judge(task, task.problems[Split.TRAIN][0], "5")
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["ctrl-c", "kill-9"])
def test_the_process_ends_with_the_one_that_started_it(tmp_path: Path, number: signal.Signals) -> None:
    pid = tmp_path / "pid"
    body = f"open({str(pid)!r}, 'w').write(str(os.getpid()))\n    while True: pass"
    (tmp_path / "task.py").write_text(f"{START}def verify(problem, text):\n    {body}\n")
    command = [sys.executable, "-c", WAITS, str(tmp_path / "task.py")]
    parent = subprocess.Popen(command, stderr=subprocess.PIPE)
    while not (pid.exists() and pid.read_text()):
        assert parent.poll() is None
        time.sleep(0.02)
    parent.send_signal(number)
    _, err = parent.communicate(timeout=20)
    assert parent.returncode != 0
    assert number != signal.SIGINT or b"KeyboardInterrupt" in err
    assert has_ended(int(pid.read_text()))


def has_ended(pid: int) -> bool:
    """Whether the process ends within some seconds; one that nobody waits for counts as ended."""
    for _ in range(500):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
            os.kill(pid, 0)
        except (ProcessLookupError, FileNotFoundError):
            return True
        time.sleep(0.02)
    return False
