import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from groschen.tasks.lines import Closed, Lines, TimeUp, TooLong
from groschen.tasks.workers import Broke, Refused, TookTooLong, Workers

# A worker that does what its job says.
WORKER = """
import os, time
from groschen.tasks.worker_loop import Refused, serve

def judge(job):
    if "note" in job:
        open(job["note"], "w").write(str(os.getpid()))
    if "sleep" in job:
        time.sleep(job["sleep"])
    if "end" in job:
        os._exit(3)
    if "raise" in job:
        raise ValueError(job["raise"])
    if "refuse" in job:
        raise Refused(job["refuse"])
    if "memory" in job:
        return len(bytearray(job["memory"]))
    if "deep" in job:
        def down(): return down() + 1
        return down()
    if "print" in job:
        print(job["print"], flush=True)
    return [os.getpid(), job.get("say")]

serve(judge)
"""


@pytest.fixture
def workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workers]:
    (tmp_path / "obedient_worker.py").write_text(WORKER)
    monkeypatch.syspath_prepend(tmp_path)
    pool = Workers("obedient_worker", most=2)
    yield pool
    pool.close()


def said(answer: object) -> list[object]:
    assert isinstance(answer, list)
    return answer


def test_a_worker_is_kept_and_asked_again(workers: Workers) -> None:
    first, second = (said(workers.ask({"say": word}, 5)) for word in ("a", "b"))
    assert first[0] == second[0] and first[1:] + second[1:] == ["a", "b"]


def test_a_late_worker_is_killed_and_the_next_job_gets_a_new_one(workers: Workers) -> None:
    first = said(workers.ask({}, 5))[0]
    start = time.monotonic()
    with pytest.raises(TookTooLong, match=r"longer than 0\.3 s"):
        workers.ask({"sleep": 60}, 0.3)
    assert time.monotonic() - start < 30  # not the 60 it would sleep
    assert said(workers.ask({}, 5))[0] != first
    assert isinstance(first, int)
    with pytest.raises(ProcessLookupError):
        os.kill(first, 0)


def test_a_worker_that_was_killed_from_outside_does_not_fail_the_next_job(workers: Workers) -> None:
    first = said(workers.ask({}, 5))[0]
    assert isinstance(first, int)
    os.kill(first, signal.SIGKILL)
    assert said(workers.ask({"say": "still"}, 5))[1] == "still"


def test_a_job_that_ends_its_worker_twice_is_an_error(workers: Workers) -> None:
    with pytest.raises(Broke, match="ended twice"):
        workers.ask({"end": True}, 5)
    assert said(workers.ask({"say": "on"}, 5))[1] == "on"


def test_an_exception_is_an_error_and_a_limit_is_not(workers: Workers) -> None:
    with pytest.raises(Broke, match="ValueError: oh"):
        workers.ask({"raise": "oh"}, 5)
    with pytest.raises(Refused, match="too big"):
        workers.ask({"refuse": "too big"}, 5)
    with pytest.raises(Refused, match="memory"):
        workers.ask({"memory": 1 << 40}, 5)
    with pytest.raises(Refused, match="deep"):
        workers.ask({"deep": True}, 5)


@pytest.mark.parametrize("job", [{"end": True}, {"raise": "oh"}])
def test_a_job_that_breaks_where_its_control_does_not_is_refused_and_no_error(
    workers: Workers, job: dict[str, object]
) -> None:
    with pytest.raises(Refused, match="the check of it breaks"):
        workers.judge(job, {"say": "control"}, 5)
    with pytest.raises(Broke, match="oh"):
        workers.judge(job, {"raise": "oh"}, 5)
    with pytest.raises(Broke):  # a control that does not end says nothing about the job
        workers.judge(job, {"sleep": 60}, 0.5)
    assert said(workers.judge({"say": "on"}, {"raise": "not asked"}, 5))[1] == "on"


def test_what_a_library_prints_is_no_answer(workers: Workers) -> None:
    assert said(workers.ask({"print": '{"value": "forged"}', "say": "true"}, 5))[1] == "true"


def test_many_threads_get_their_own_answers_from_few_workers(workers: Workers) -> None:
    found: dict[int, list[object]] = {}

    def ask(number: int) -> None:
        found[number] = said(workers.ask({"say": number, "sleep": 0.01}, 20))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {number: answer[1] for number, answer in found.items()} == {number: number for number in range(12)}
    assert len({answer[0] for answer in found.values()}) <= 2


def test_a_module_that_does_not_start_is_an_error() -> None:
    with pytest.raises(Broke, match="did not start"):
        Workers("no_such_module_anywhere", most=1).ask({}, 5)


def test_a_worker_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    (tmp_path / "obedient_worker.py").write_text(WORKER)
    code = (
        "from groschen.tasks.workers import Workers; import os, signal\n"
        "print(Workers('obedient_worker', 1).ask({}, 60)[0], flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, sys.path)])}
    parent = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True)
    worker = int(parent.stdout)
    for _ in range(100):
        if not Path(f"/proc/{worker}").exists() or "Z" in Path(f"/proc/{worker}/stat").read_text().split()[2]:
            return
        time.sleep(0.05)
    raise AssertionError("the worker outlives its parent")


def talk(code: str, max_bytes: int = 1000) -> tuple[subprocess.Popen[bytes], Lines]:
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None and process.stdout is not None
    return process, Lines(process.stdin, process.stdout, max_bytes)


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("import time; time.sleep(60)", TimeUp),
        ("print('a line that does not end', end='', flush=True); import time; time.sleep(60)", TimeUp),
        ("print('x' * 100_000)", TooLong),
        ("print('half', end='')", Closed),
    ],
)
def test_a_process_that_does_not_keep_to_lines_is_noticed(code: str, error: type[Exception]) -> None:
    process, lines = talk(code)
    with process:
        with pytest.raises(error):
            lines.receive(time.perf_counter() + 1.0)
        process.kill()


def test_a_process_that_reads_nothing_does_not_block_its_writer() -> None:
    process, lines = talk("import time; time.sleep(60)")
    with process:
        with pytest.raises(TimeUp):
            lines.send("x" * 10_000_000, time.perf_counter() + 0.5)
        process.kill()


def test_lines_come_one_by_one_however_they_were_written() -> None:
    process, lines = talk("print('a'); print('b')\nfor c in 'cd\\n': print(c, end='', flush=True)")
    with process:
        assert [lines.receive(time.perf_counter() + 5) for _ in range(3)] == [b"a", b"b", b"cd"]


ASKS = """
import sys
from groschen.tasks.workers import Workers
Workers("obedient_worker", most=1).ask({"note": sys.argv[1], "sleep": 1000}, 1000)
"""


@pytest.mark.usefixtures("workers")
def test_a_worker_ends_with_its_parent_in_the_midst_of_a_job(tmp_path: Path) -> None:
    note = tmp_path / "note"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    parent = subprocess.Popen([sys.executable, "-c", ASKS, str(note)], env=environment)
    while not (note.exists() and note.read_text()):
        assert parent.poll() is None
        time.sleep(0.02)
    parent.kill()
    parent.wait()
    stat = Path(f"/proc/{note.read_text()}/stat")
    for _ in range(500):
        if not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z":
            return
        time.sleep(0.02)
    pytest.fail("it still runs")
