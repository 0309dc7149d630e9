"""Two tasks are the same if the model sees the same; what differs is said with a key and a split."""

from dataclasses import replace
from pathlib import Path

import pytest

from groschen.errors import BadRequest
from groschen.records import Problem, Split
from groschen.tasks.check import check_task, refuse_broken
from groschen.tasks.identity import difference, digest_of, encoded, fingerprints
from groschen.tasks.load import load_task


def asked(prompt: str) -> tuple[dict[str, str], ...]:
    return ({"role": "user", "content": prompt},)


MADE = [
    Problem(key=f"p{n}", messages=asked(f"{n} + 1"), answer=n + 1, meta={"level": 1}) for n in range(6)
]


def split_of(problems: list[Problem], num_held_out: int = 2) -> dict[Split, tuple[Problem, ...]]:
    held_out, rest = tuple(problems[:num_held_out]), tuple(problems[num_held_out:])
    return {Split.TRAIN: rest, Split.DEV: (), Split.TEST: held_out}


def changed(index: int, **what: object) -> list[Problem]:
    return [replace(each, **what) if n == index else each for n, each in enumerate(MADE)]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("now", "said"),
    [
        (split_of(MADE), None),
        (split_of(changed(3, answer=5)), "1 of 6 problems differ: 1 changed (first 'p3' in train, a"),
        (split_of(changed(3, meta={"level": 2})), "1 changed (first 'p3' in train, another answer, meta or"),
        (split_of(changed(1, messages=asked("?"))), "(first 'p1' in test, another prompt"),
        (split_of(changed(1, messages=asked("1  + 1"))), "form of the messages)"),
        (split_of(MADE, 3), "1 moved (first 'p2' in train, now in test)"),
        (split_of(MADE[:5]), "1 gone (first 'p5' in train)"),
        (split_of(changed(5, key="new")), "2 of 6 problems differ: 1 gone (first 'p5' in train), 1 new (f"),
        (split_of([*MADE[:2], *MADE[:1:-1]]), "the same 6 problems stand in another order"),
    ],
    ids=["same", "answer", "meta", "prompt", "white-space", "split", "gone", "key", "order"],
)  # fmt: skip
def test_what_the_model_sees_decides(now: dict[Split, tuple[Problem, ...]], said: str | None) -> None:
    before, after = fingerprints(split_of(MADE)), fingerprints(now)
    told = difference(before, after)
    assert (said is None and told is None) or (told is not None and said is not None and said in told), told
    assert (digest_of(before) == digest_of(after)) == (told is None)
    assert len(encoded(after).splitlines()) == len(after)


DRAWN = """
import random
from groschen import Problem, Verdict
def load():
    for n in {draw}:
        prompt = {{"role": "user", "content": f"{{n}} + 1"}}
        yield Problem(key=f"p{{n}}", messages=[prompt], answer=int(n) + 1)
def verify(problem, text):
    passed = text == str(problem.answer)
    return Verdict(reward=float(passed), passed=passed)
"""


@pytest.mark.parametrize(
    ("draw", "is_stable"),
    [
        ("random.sample(range(1000), 60)", False),
        ("random.Random(3).sample(range(1000), 60)", True),
        ("{str(n) for n in range(60)}", False),
        ("sorted({str(n) for n in range(60)})", True),
    ],
    ids=["unseeded", "seeded", "set", "sorted-set"],
)
def test_check_loads_twice_and_says_what_differs(tmp_path: Path, draw: str, is_stable: bool) -> None:
    (tmp_path / "task.py").write_text(DRAWN.format(draw=draw))
    checked = check_task(load_task(str(tmp_path / "task.py")), 2)
    assert checked.ok == is_stable and (checked.unstable is None) == is_stable
    if is_stable:
        refuse_broken(checked)
        return
    with pytest.raises(BadRequest, match=r"another one each time .*(problems differ|another order)"):
        refuse_broken(checked)
