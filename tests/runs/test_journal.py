import json
import math
import os
import resource
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groschen.errors import BadFile
from groschen.records import EvalRecord, FinishReason
from groschen.runs.journal import Journal, read_journal


def lines(path: Path) -> list[object]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


@contextmanager
def files_end_at(num_bytes: int) -> Iterator[None]:
    """Files of this process end there, as on a full disk; pytest's own output must not be written within."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_every_appended_line_is_in_the_file_before_append_returns(tmp_path: Path) -> None:
    with Journal(tmp_path / "deep" / "m.jsonl") as journal:
        for step in range(3):
            journal.append({"step": step, "text": "ä\n\u2028"})
            assert lines(journal.path) == [{"step": n, "text": "ä\n\u2028"} for n in range(step + 1)]
        journal.sync()
        assert journal.read() == lines(journal.path)


def test_numbers_keep_their_bits_and_what_is_not_finite_becomes_null(tmp_path: Path) -> None:
    numbers = [
        struct.unpack("<d", struct.pack("<Q", bits))[0]
        for bits in (1, 0x3FB999999999999A, 0x7FEFFFFFFFFFFFFF)
    ]
    with Journal(tmp_path / "m.jsonl") as journal:
        journal.append({"x": [*numbers, -0.0, math.nan, math.inf]})
        (line,) = journal.read()
    *same, minus_zero, nan, infinite = line["x"]  # type: ignore[misc]
    assert same == numbers
    assert math.copysign(1, minus_zero) == -1
    assert (nan, infinite) == (None, None)


@pytest.mark.parametrize("torn", [b'{"step": 3, "x', b"\0" * 5000, b'{"step":3}', b" " * 200_000])
def test_a_torn_last_line_is_not_read_and_is_cut_before_the_next_one(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "m.jsonl"
    path.write_bytes(b'{"step":1}\n{"step":2}\n' + torn)
    assert read_journal(path) == [{"step": 1}, {"step": 2}]
    with Journal(path) as journal:
        journal.append({"step": 3})
    assert path.read_bytes() == b'{"step":1}\n{"step":2}\n{"step":3}\n'


def test_a_file_with_nothing_but_a_torn_line_becomes_empty(tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_bytes(b"x" * 100_000)
    with Journal(tmp_path / "m.jsonl") as journal:
        assert journal.path.read_bytes() == b""


def test_a_file_that_is_not_there_has_no_lines(tmp_path: Path) -> None:
    assert read_journal(tmp_path / "absent.jsonl") == []


def test_a_whole_line_that_was_altered_is_refused_with_its_number(tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_bytes(b'{"step":1}\n{"st\n{"step":3}\n')
    with pytest.raises(BadFile, match=r"line 2 of .*m\.jsonl is not what it should be"):
        read_journal(tmp_path / "m.jsonl")


def test_records_come_back_as_what_they_were(tmp_path: Path) -> None:
    record = EvalRecord(
        key="k", sample=0, prompt="p", text="t", answer="3", passed=True, reward=1.0,
        parts={"format": True, "answer": "3", "lenient": None, "x": 0.5}, error=None, num_tokens=3,
        finish_reason=FinishReason.STOP,
    )  # fmt: skip
    with Journal(tmp_path / "e.jsonl") as journal:
        journal.append(record)
    assert read_journal(tmp_path / "e.jsonl", EvalRecord) == [record]
    with Journal(tmp_path / "e.jsonl") as journal:
        journal.append({"key": 3})
    with pytest.raises(BadFile, match="line 2 of"):
        read_journal(tmp_path / "e.jsonl", EvalRecord)


def test_a_cut_takes_all_that_was_written_after_the_first_line_beyond(tmp_path: Path) -> None:
    with Journal(tmp_path / "m.jsonl") as journal:
        for number in (1, 5, 2):
            journal.append({"n": number})
        assert journal.truncate_after(lambda line: line["n"] == 5) == 2
        assert journal.read() == [{"n": 1}]


def append_many(journal: Journal) -> None:
    for step in range(100):
        journal.append({"step": step, "text": "x" * 80})


def test_a_full_disk_leaves_whole_lines_and_a_sentence(tmp_path: Path) -> None:
    with files_end_at(1000), Journal(tmp_path / "m.jsonl") as journal:
        with pytest.raises(
            BadFile, match=r"m\.jsonl could not be written \(File too large\); check free space"
        ):
            append_many(journal)
        whole = journal.read()
        assert journal.path.read_bytes().endswith(b"}\n")
        assert 5 < len(whole) < 1000 / 80
        journal.append({"n": 1})
        assert journal.read() == [*whole, {"n": 1}]


def test_a_disk_that_is_always_full_is_named(tmp_path: Path) -> None:
    with Journal(tmp_path / "full.jsonl") as journal, open("/dev/full", "wb") as full:
        os.dup2(full.fileno(), journal._descriptor)
        with pytest.raises(BadFile, match=r"full\.jsonl could not be written.*space"):
            journal.append({"n": 1})


def test_ctrl_c_between_two_writes_of_a_line_leaves_no_half_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write

    def half(descriptor: int, data: memoryview) -> int:
        write(descriptor, data[:5])
        raise KeyboardInterrupt

    with Journal(tmp_path / "m.jsonl") as journal:
        journal.append({"n": 1})
        monkeypatch.setattr("groschen.runs.journal.os.write", half)
        with pytest.raises(KeyboardInterrupt):
            journal.append({"n": 2})
        monkeypatch.undo()
        journal.append({"n": 3})
        assert journal.read() == [{"n": 1}, {"n": 3}]


@dataclass(frozen=True)
class Line:
    n: int
    text: str


@given(st.lists(st.text(max_size=40), max_size=8), st.integers(0, 400))
@settings(max_examples=100, deadline=None, derandomize=True)
def test_a_file_cut_anywhere_keeps_its_whole_lines(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], cut: int
) -> None:
    path = tmp_path_factory.mktemp("j") / "m.jsonl"
    records = [Line(n, text) for n, text in enumerate(texts)]
    ends = []
    with Journal(path) as journal:
        for record in records:
            journal.append(record)
            ends.append(path.stat().st_size)
    path.write_bytes(path.read_bytes()[:cut])
    with Journal(path) as journal:
        journal.append(Line(-1, "new"))
    num_whole = sum(end <= cut for end in ends)
    assert read_journal(path, Line) == [*records[:num_whole], Line(-1, "new")]
