"""A line a minute, and no more."""

import pytest

from groschen.progress import LineAMinute


def test_a_sentence_is_said_once_a_minute(capsys: pytest.CaptureFixture[str]) -> None:
    now = iter([0.0, 59.0, 61.0, 61.0, 100.0, 122.0, 122.0])
    words = LineAMinute(lambda: next(now))
    for number in range(4):
        words.say(f"line {number}")
    assert capsys.readouterr().err == "groschen: line 1\ngroschen: line 3\n"
