"""Damage files at random: values of a JSON file, bytes of any file, or what kind of file it is.

Each mutator replaces a file by a damaged one and says in words what it did. The same random numbers give the
same damage.
"""

import json
import os
import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

_DEEP = 100_000  # levels of nesting
_RAW_VALUES = {  # JSON that json.dumps does not write
    "a number of 5,000 digits": "9" * 5000,
    "a negative number of 5,000 digits": "-" + "9" * 5000,
    "NaN": "NaN",
    "Infinity": "Infinity",
    "-Infinity": "-Infinity",
    "1e999": "1e999",
    "a deep list": "[" * _DEEP + "]" * _DEEP,
    "a deep object": '{"a":' * _DEEP + "1" + "}" * _DEEP,
    "half a surrogate pair": '"\\ud800"',
    "a NUL": '"a\\u0000b"',
    "a number like 1.0": "1.0",
    "1e400 digits of a fraction": "0." + "3" * 5000,
}
_PLAIN_VALUES: Sequence[Any] = (
    None, True, False, "", "x", " ", "false", "0", "../../../etc/passwd", "/etc/passwd", "a" * 5000,
    "\u00e9" * 5000, "\U0010ffff", -1, 0, 1, 2, 3, 7, 255, 256, 511, 512, 513, 65_535, 2**31 - 1, 2**31,
    2**32, 2**53, 2**63, 2**64, -(2**31), -(2**63), 0.0, -0.5, 0.5, 1.5, 1e-300, 1e300, -1e300, [], [0], [[]],
    [None], [-1], {}, {"a": 1}, {"content": "x"}, ["a"], list(range(2000)),
)  # fmt: skip


class _Raw(str):
    """JSON text that stands for itself."""


def strange_value(random_: random.Random) -> tuple[str, Any]:
    """A value that few readers expect, with its name."""
    if random_.random() < 0.3:
        name = random_.choice(sorted(_RAW_VALUES))
        return name, _Raw(_RAW_VALUES[name])
    value = random_.choice(_PLAIN_VALUES)
    return repr(value)[:60], value


def _near(random_: random.Random, value: Any) -> tuple[str, Any]:
    """A value of the same kind that is a little wrong."""
    if isinstance(value, bool):
        changed: Any = random_.choice([not value, str(value), int(value), None])
    elif isinstance(value, int):
        changed = random_.choice(
            [value + 1, value - 1, value * 2, value // 2, -value, float(value), str(value)]
        )
    elif isinstance(value, float):
        changed = random_.choice([-value, value * 1e6, value / 1e6, str(value), int(value)])
    elif isinstance(value, str):
        changed = random_.choice([value[:-1], value + "x", value.upper(), value * 50, [value], value[::-1]])
    elif isinstance(value, list):
        changed = random_.choice(
            [value[:-1], value + value, value[::-1], value * 3, dict(enumerate(map(str, value)))]
        )
    elif isinstance(value, dict):
        changed = random_.choice([list(value), list(value.items()), dict(list(value.items())[:-1])])
    else:
        changed = random_.choice(_PLAIN_VALUES)
    return repr(changed)[:60], changed


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value; of long lists and objects, the first and last ten members."""
    children: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, dict):
        children = value.items()
    elif isinstance(value, list):
        children = enumerate(value)
    found = [path] if path else []
    members = list(children)
    for key, child in members if len(members) <= 20 else members[:10] + members[-10:]:
        found += _places(child, (*path, key))
    return found


def mutate(random_: random.Random, content: Any) -> tuple[str, Any]:
    """A copy of a JSON value with one change, and the change in words."""
    copy = json.loads(json.dumps(content))
    places = _places(copy)
    if not places:
        name, value = strange_value(random_)
        return f"everything = {name}", value
    depth = random_.randint(1, max(map(len, places)))  # else nearly all changes hit the longest list
    path = random_.choice([place for place in places if len(place) <= depth])
    owner = copy
    for key in path[:-1]:
        owner = owner[key]
    key, where = path[-1], ".".join(map(str, path))[:80]
    kind = random_.choice(["strange", "strange", "strange", "near", "near", "delete", "rename", "add"])
    if kind == "delete":
        del owner[key]
        return f"{where} deleted", copy
    if kind == "rename" and isinstance(owner, dict):
        owner[str(key) + random_.choice(["s", "_", " "])] = owner.pop(key)
        return f"{where} renamed", copy
    name, value = _near(random_, owner[key]) if kind == "near" else strange_value(random_)
    if kind == "add" and isinstance(owner, dict):
        new = random_.choice(["new", "", "a" * 5000, "type", "__class__", "\u00e9"])
        owner[new] = value
        return f"{where}: beside it {new[:20]!r} = {name}", copy
    owner[key] = value
    return f"{where} = {name}", copy


def dump(content: Any) -> bytes:
    """JSON with raw values where `mutate` put them."""
    raw: list[str] = []

    def plain(value: Any) -> Any:
        if isinstance(value, _Raw):
            raw.append(str(value))
            return f"@raw {len(raw) - 1}@"
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        return [plain(item) for item in value] if isinstance(value, list) else value

    text = json.dumps(plain(content), ensure_ascii=False)
    for index, item in enumerate(raw):
        text = text.replace(f'"@raw {index}@"', item)
    return text.encode("utf-8", "surrogatepass")


def damage_json(random_: random.Random, path: Path) -> str:
    """Change one to three values of a JSON file."""
    content, changes = json.loads(path.read_bytes()), []
    for _ in range(random_.choice([1, 1, 1, 1, 2, 3])):
        change, content = mutate(random_, content)
        changes.append(change)
        if "everything" in change or isinstance(content, _Raw):
            break
        content = json.loads(dump(content)) if changes and not _has_raw(content) else content
        if _has_raw(content):
            break
    replace(path, dump(content))
    return f"{path.name}: {'; '.join(changes)}"


def _has_raw(value: Any) -> bool:
    if isinstance(value, dict):
        return any(_has_raw(item) for item in value.values())
    return any(_has_raw(item) for item in value) if isinstance(value, list) else isinstance(value, _Raw)


def damage_bytes(random_: random.Random, path: Path, within: int | None = None) -> str:
    """Change bytes of a file; within: only among the first so many."""
    data = bytearray(path.read_bytes())
    end = min(len(data), within or len(data))
    at = random_.randrange(max(end, 1))
    kind = random_.choice(
        ["cut", "flip", "random", "zeros", "insert", "delete", "twice", "empty", "mark", "ones"]
    )
    length = random_.choice([1, 2, 4, 8, 64, 1000])
    if kind == "cut":
        del data[at:]
    elif kind == "flip":
        for _ in range(random_.choice([1, 1, 5, 50])):
            if data:
                data[random_.randrange(max(end, 1))] ^= 1 << random_.randrange(8)
    elif kind == "random":
        data[at : at + length] = random_.randbytes(min(length, len(data) - at))
    elif kind in ("zeros", "ones"):
        data[at : at + length] = (b"\0" if kind == "zeros" else b"\xff") * min(length, len(data) - at)
    elif kind == "insert":
        data[at:at] = random_.randbytes(length)
    elif kind == "delete":
        del data[at : at + length]
    elif kind == "twice":
        data += bytes(data)
    elif kind == "empty":
        data.clear()
    else:
        data[:0] = "\ufeff".encode()
    replace(path, bytes(data))
    return f"{path.name}: {kind} at byte {at:,}, {length}"


KINDS = (
    "folder",
    "missing",
    "pipe",
    "zero",
    "null",
    "random",
    "loop",
    "dangling",
    "socket",
    "huge",
    "itself",
)


def damage_kind(random_: random.Random, path: Path) -> str:
    """Put something that is no ordinary file in the place of a file, or a huge one."""
    kind = random_.choice(KINDS)
    content = path.read_bytes()
    path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind in ("zero", "null", "random"):
        path.symlink_to(f"/dev/{'urandom' if kind == 'random' else kind}")
    elif kind == "loop":
        path.symlink_to(path)
    elif kind == "dangling":
        path.symlink_to(path.parent / "nothing")
    elif kind == "socket":
        os.mknod(path, 0o140644)
    elif kind == "huge":  # holes: takes no disk
        path.write_bytes(content)
        os.truncate(path, 1 << 36)
    elif kind == "itself":
        path.symlink_to("/proc/self/mem")
    return f"{path.name}: {kind}"


def replace(path: Path, content: bytes) -> None:
    """New content under the old name; other names of the same file keep the old one."""
    path.unlink(missing_ok=True)
    path.write_bytes(content)
