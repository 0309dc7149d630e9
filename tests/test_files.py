"""Whatever lies in the place of a file is read whole or refused in one sentence, at once."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from groschen.errors import BadFile
from groschen.files import parse_object, read_bytes, read_object, read_text


def socket(path: Path) -> None:
    os.mknod(path, 0o140644)


OTHER_KINDS: dict[str, tuple[Callable[[Path], object], str]] = {
    "a folder": (lambda path: path.mkdir(), "is a folder, expected a regular file"),
    "a pipe": (os.mkfifo, "is a pipe, expected a regular file"),
    "a device without end": (lambda path: path.symlink_to("/dev/zero"), "is a device, expected a regular"),
    "a socket": (socket, "cannot be read"),
    "a link to itself": (lambda path: path.symlink_to(path), "cannot be read"),
    "a link to nothing": (lambda path: path.symlink_to(path.parent / "nothing"), "is missing"),
    "a file of 64 GB": (lambda path: path.touch() or os.truncate(path, 1 << 36), "68,719,476,736 bytes"),
    "a file that hides its size": (lambda path: path.symlink_to("/proc/kallsyms"), "more than 1,000 bytes"),
    "bytes that are no text": (lambda path: path.write_bytes(b"a\xff"), "no UTF-8 text .* byte 1"),
}


@pytest.mark.timeout(10)
@pytest.mark.parametrize("kind", OTHER_KINDS)
def test_what_is_no_file_of_text_is_one_sentence(kind: str, tmp_path: Path) -> None:
    make, sentence = OTHER_KINDS[kind]
    make(tmp_path / "f")
    with pytest.raises(BadFile, match=sentence) as refusal:
        read_text(tmp_path / "f", most=1000)
    assert "\n" not in str(refusal.value)


def test_a_name_that_no_system_takes_is_one_sentence(tmp_path: Path) -> None:
    for name in ("a\0b", "a" * 5000):
        with pytest.raises(BadFile, match="cannot be read"):
            read_bytes(tmp_path / name)


def test_a_link_to_a_file_and_a_byte_order_mark_are_read_through(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b'\xef\xbb\xbf{"a": 1}')
    (tmp_path / "link").symlink_to(tmp_path / "f")
    assert read_object(tmp_path / "link") == {"a": 1}


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ('{"a": NaN}', "NaN is no JSON number"),
        ('{"a": [-Infinity]}', "-Infinity is no JSON number"),
        ('{"a": 1e999}', "1e999 is too large"),
        pytest.param('{"a": ' + "9" * 5000 + "}", "thousands of digits", id="5,000 digits"),
        pytest.param("[" * 100_000, "nested too deeply", id="deep"),
        (r'{"a": "\ud800"}', "half of a surrogate pair"),
        ("[]", "a JSON list, expected an object"),
        ("{", "is no JSON"),
    ],
)
def test_json_that_is_no_plain_object_is_one_sentence(content: str, sentence: str) -> None:
    with pytest.raises(BadFile, match=sentence):
        parse_object(content, "x.json")


def test_a_whole_surrogate_pair_is_a_character() -> None:
    assert parse_object(r'{"a": "\ud83d\ude00"}', "x.json") == {"a": "\U0001f600"}
