"""Every number of a recipe has a range, and what is out of it is refused before anything is made."""

import dataclasses
import math
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import pytest

from groschen.config import build, flatten
from groschen.errors import BadRequest, UsageError
from groschen.ranges import Range, Setting, check_ranges, settings_of
from groschen.train.command import recipe_of
from groschen.train.recipe import GrpoRecipe

DOCUMENT = Path(__file__).parent.parent / "docs" / "training.md"


def ranged(cls: type = GrpoRecipe, path: str = "") -> Iterator[tuple[str, Setting | None]]:
    """Each setting that is a number, or may be one, by its dotted name."""
    hints, settings = typing.get_type_hints(cls), settings_of(cls)
    for field in dataclasses.fields(cls):
        if dataclasses.is_dataclass(hint := hints[field.name]):
            yield from ranged(typing.cast("type", hint), f"{path}{field.name}.")
        elif {int, float} & {hint, *typing.get_args(hint)}:
            yield f"{path}{field.name}", settings.get(field.name)


NUMBERS = dict(ranged())
SETTINGS = {name: setting for name, setting in NUMBERS.items() if setting is not None}


def outside(name: str) -> Iterator[object]:
    """Values that the setting must refuse: beyond each bound, not a number, of another type."""
    bounds = SETTINGS[name].range
    is_pair = name == "optimizer.betas"
    numbers: list[object] = [math.nan, math.inf, -math.inf, 10**30 if bounds.most or bounds.below else -1]
    numbers += [] if bounds.least is None else [bounds.least - 1]
    numbers += [] if bounds.above is None else [bounds.above]
    numbers += [] if bounds.most is None else [bounds.most + 1]
    numbers += [] if bounds.below is None else [bounds.below]
    numbers += [1.5] if SETTINGS[name].is_whole else []
    yield from ([number, 0.5] if is_pair else number for number in numbers)
    yield from (True, "1", [], {})


def test_every_number_of_a_recipe_has_a_range() -> None:
    assert [name for name, setting in NUMBERS.items() if setting is None] == []
    assert len(SETTINGS) > 30


@pytest.mark.parametrize("name", SETTINGS)
def test_a_number_out_of_its_range_is_refused_by_name(name: str) -> None:
    *folders, last = name.split(".")
    for value in outside(name):
        table: dict[str, object] = {last: value}
        for folder in folders:
            table = {folder: table}
        with pytest.raises(BadRequest, match=name.replace(".", r"\.")):
            build(GrpoRecipe, table, source="r.toml")


@pytest.mark.parametrize("name", SETTINGS)
def test_the_bounds_of_a_range_belong_to_it(name: str) -> None:
    bounds = SETTINGS[name].range
    for value in (bounds.least, bounds.most):
        assert value is None or SETTINGS[name].fault(value) is None
    if bounds.zero:
        assert SETTINGS[name].fault(0) is None


@pytest.mark.parametrize(
    ("flag", "fault"),
    [
        ("evaluation.test_problems=-1", r"must be from 0 to 1,000,000,000, found -1$"),
        ("optimizer.learning_rate=-0.1", r"must be from 0 to 10, found -0.1$"),
        ("optimizer.learning_rate=nan", r"must be from 0 to 10, found nan$"),
        ("optimizer.betas=[1,1]", r"must be from 0 to below 1, found \(1.0, 1.0\)$"),
        ("optimizer.weight_decay=-1", r"must be from 0 to 1,000, found -1.0$"),
        ("rewards.length_penalty=-1", r"must be from 0 to 1,000, found -1.0$"),
        ("policy.clip_low=-1", r"must be 0 or more, found -1.0$"),
        ("optimizer.warmup_steps=-5", r"must be from 0 to 1,000,000,000, found -5$"),
        ("sampling.top_p=0.9", r"must be 1, found 0.9: the trainer would score another distribution"),
        ("sampling.trained_per_group=1", r"must be 0 \(all\), or from 2 to 10,000, found 1$"),
        ("seed=1.5", r"expected whole number, got number; found 1.5$"),
        ("optimizer.max_grad_norm=0", r"must be above 0, found 0.0: 0 makes every gradient 0"),
    ],
)
def test_a_flag_out_of_range_is_named_with_what_is_allowed(flag: str, fault: str) -> None:
    with pytest.raises(UsageError, match=fault) as refused:
        recipe_of("countdown", None, [flag])
    assert str(refused.value).startswith(f"--set {flag}: ")


def test_a_punished_length_lies_within_the_longest_completion() -> None:
    with pytest.raises(BadRequest, match=r"length_buffer = 100000 must be at most sampling.max_tokens = "):
        recipe_of("countdown", None, ["rewards.length_penalty=1", "rewards.length_buffer=100000"])


@pytest.mark.parametrize(
    "flag",
    [
        f"seed={'9' * 5000}",
        f"seed={'[' * 5000}{']' * 5000}",
        f"optimizer.learning_rate=1{'0' * 400}",
        "seed=0x" + "f" * 5000,
    ],
    ids=["digits", "depth", "float", "hex"],
)
def test_a_number_that_no_machine_reads_is_a_sentence(flag: str) -> None:
    with pytest.raises(UsageError, match="--set"):
        recipe_of("countdown", None, [flag])


def test_a_recipe_that_python_made_is_checked_too() -> None:
    with pytest.raises(BadRequest, match=r"^seed must be a whole number from -9.* found 1.5$"):
        GrpoRecipe(seed=1.5)  # type: ignore[arg-type]
    with pytest.raises(BadRequest, match=r"^num_steps must be from 1 to .* found '3'$"):
        GrpoRecipe(num_steps="3")  # type: ignore[arg-type]


@dataclasses.dataclass(frozen=True)
class Inner:
    share: Annotated[float | None, Range(above=0, most=1)] = None


@dataclasses.dataclass(frozen=True)
class Outer:
    inner: Inner


def test_none_is_no_number_and_a_nested_one_has_its_whole_name() -> None:
    check_ranges(Outer(Inner()))
    with pytest.raises(BadRequest, match=r"^inner\.share must be above 0, at most 1, found 0$"):
        check_ranges(Outer(Inner(0)))


def test_the_table_of_ranges_in_the_document_is_that_of_the_settings() -> None:
    defaults = {
        name: "the algorithm's" if value == '"none"' else value
        for name, value in flatten(GrpoRecipe()).items()
    }
    rows = [f"| `{name}` | {defaults[name]} | {setting.range} |" for name, setting in SETTINGS.items()]
    shown = DOCUMENT.read_text().split("### Ranges")[1].split("\n#")[0]
    assert [line for line in shown.splitlines() if line.startswith("| `")] == rows
