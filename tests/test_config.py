import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groschen.config import build, digest, flatten, read_toml, to_toml
from groschen.errors import BadFile, BadRequest, UsageError


class Loss(StrEnum):
    GRPO = "grpo"
    CISPO = "cispo"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    temperature: float = 1.0
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Verifier:
    kind: str
    weight: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    task: str
    group_size: int = 8
    learning_rate: float = 1e-5
    loss: Loss = Loss.GRPO
    kl: Literal["none", "k2"] = "none"
    budget: str | None = "10min"
    is_greedy: bool = False
    sampling: Sampling = field(default_factory=lambda: Sampling(max_tokens=512))
    draft: Sampling | None = None
    verifiers: tuple[Verifier, ...] = ()
    extra: Mapping[str, object] = field(default_factory=dict)


TASK = {"task": "countdown"}


def test_an_absent_table_leaves_the_defaults() -> None:
    assert build(Recipe, TASK) == Recipe(task="countdown")


def test_a_table_changes_only_what_it_names() -> None:
    recipe = build(Recipe, TASK | {"sampling": {"temperature": 0.5}})
    assert recipe.sampling == Sampling(temperature=0.5, max_tokens=512)


def test_flags_count_more_than_the_file_and_the_last_one_most() -> None:
    mapping = TASK | {"group_size": 4, "sampling": {"temperature": 0.5}}
    flags = ["group_size=2", "sampling.max_tokens=9", "group_size=6", "loss=cispo", "is_greedy=true",
             "sampling.stop=['a', 'b=c']", "task=my task.py", "learning_rate=1"]  # fmt: skip
    assert build(Recipe, mapping, flags) == Recipe(
        task="my task.py",
        group_size=6,
        loss=Loss.CISPO,
        is_greedy=True,
        learning_rate=1.0,
        sampling=Sampling(temperature=0.5, max_tokens=9, stop=("a", "b=c")),
    )
    assert mapping == TASK | {"group_size": 4, "sampling": {"temperature": 0.5}}


def test_none_means_no_value_only_where_there_may_be_none() -> None:
    recipe = build(Recipe, TASK | {"budget": "none", "kl": "none"}, ["sampling.max_tokens=none"])
    assert (recipe.budget, recipe.kl, recipe.sampling.max_tokens) == (None, "none", None)
    assert build(Recipe, {"task": "none"}).task == "none"
    drafted = build(Recipe, TASK | {"draft": "none"}, ["draft.temperature=2"])
    assert drafted.draft == Sampling(temperature=2.0)


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("group_sise=4", r"'group_sise': there is no such setting; did you mean 'group_size'\?"),
        ("smapling.temperature=1", r"'smapling': .*did you mean 'sampling'"),
        ("temperature=1", r"did you mean 'sampling.temperature'\?"),
        ("sampling.temprature=1", r"did you mean 'sampling.temperature'\?"),
        ("xyz=1", r"known are task, group_size"),
        ("group_size=many", "expected whole number, got string; found 'many'"),
        ("group_size=2.5", "expected whole number, got number"),
        ("group_size=true", "expected whole number, got true or false"),
        ("sampling.max_tokens=x", "expected whole number or none, got string"),
        ("is_greedy=True", "expected true or false, got string"),
        ("task=3", "expected string, got whole number; found 3, which in quotes would be a string"),
        ("loss=ppo", "found 'ppo'"),
        ("sampling=3", "'sampling': expected table, got whole number"),
        ("group_size.deep=3", "'group_size': expected whole number, got table"),
        ("sampling.stop=['a'", "not valid TOML"),
        ("group_size", "expected key=value"),
        ("=3", "expected key=value"),
        ("a b=3", "expected key=value"),
    ],
)
def test_a_wrong_flag_is_refused_with_its_text_and_a_reason(flag: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as refused:
        build(Recipe, TASK, [flag])
    assert str(refused.value).startswith(f"--set {flag}: ")


@pytest.mark.parametrize(
    ("mapping", "said"),
    [
        ({"group_size": 4}, "r.toml: 'task': it is missing and has no default"),
        (TASK | {"sampling": {"seed": 1}}, r"r.toml: 'sampling.seed': there is no such setting"),
        (
            TASK | {"verifiers": [{"kind": "number"}, {"kin": 1}]},
            r"'verifiers\[1\].kin': .* 'verifiers\[1\].kind'",
        ),
        (TASK | {"verifiers": [{"weight": 1.0}]}, r"'verifiers\[0\].kind': it is missing"),
        (
            TASK | {"draft": {"temperature": "hot"}},
            "'draft.temperature': expected number, got string; found 'hot'",
        ),
    ],
)
def test_a_fault_of_the_file_names_file_and_key(mapping: dict[str, object], said: str) -> None:
    with pytest.raises(BadRequest, match=said):
        build(Recipe, mapping, ["group_size=3"], source="r.toml")


def test_a_flag_cannot_smuggle_in_a_second_key() -> None:
    assert build(Recipe, TASK, ["budget='a'\ngroup_size=1"]) == Recipe(
        task="countdown", budget="'a'\ngroup_size=1"
    )


def test_toml_files_are_read_or_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    path.write_text("task = 'ä'\n[sampling]\ntemperature = 1\n")
    assert build(Recipe, read_toml(path)).sampling.temperature == 1.0
    path.write_text("task = \n")
    with pytest.raises(BadFile, match=r"r\.toml is not valid TOML"):
        read_toml(path)
    path.write_bytes(b"task = '\xff'")
    with pytest.raises(BadFile, match=r"r\.toml is not valid TOML"):
        read_toml(path)
    with pytest.raises(BadFile, match="is missing; check its name"):
        read_toml(tmp_path / "absent.toml")


WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12).filter(lambda text: text != "none")
NUMBERS = st.floats(allow_nan=False)
SAMPLINGS = st.builds(
    Sampling, temperature=NUMBERS, max_tokens=st.none() | st.integers(), stop=st.lists(WORDS).map(tuple)
)
PLAIN = st.recursive(
    st.booleans() | st.integers() | NUMBERS | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=6,
)
RECIPES = st.builds(
    Recipe, task=WORDS | st.just("none"), group_size=st.integers(), learning_rate=NUMBERS,
    loss=st.sampled_from(Loss), kl=st.sampled_from(["none", "k2"]), budget=st.none() | WORDS,
    is_greedy=st.booleans(), sampling=SAMPLINGS, draft=st.none() | SAMPLINGS,
    verifiers=st.lists(st.builds(Verifier, kind=WORDS, weight=NUMBERS), max_size=3).map(tuple),
    extra=st.dictionaries(WORDS, PLAIN, max_size=3),
)  # fmt: skip


@given(RECIPES)
@settings(max_examples=150, deadline=None, derandomize=True)
def test_what_is_written_as_toml_reads_back_equal(
    tmp_path_factory: pytest.TempPathFactory, recipe: Recipe
) -> None:
    path = tmp_path_factory.mktemp("toml") / "config.toml"
    path.write_text(to_toml(recipe), encoding="utf-8", newline="")
    again = build(Recipe, read_toml(path))
    assert again == recipe
    assert digest(again) == digest(recipe)


def test_numbers_that_are_not_finite_can_be_written() -> None:
    text = to_toml(Sampling(temperature=math.inf))
    assert text.startswith("temperature = inf\n")


def test_what_could_not_be_read_back_is_refused() -> None:
    with pytest.raises(BadRequest, match="'budget' is the word"):
        to_toml(Recipe(task="x", budget="none"))
    with pytest.raises(BadRequest, match="'extra' is None, a NoneType"):
        to_toml(Recipe(task="x", extra={"a": None}))


def test_the_digest_sees_every_setting() -> None:
    recipe = Recipe(task="x")
    changed = [{"task": "y"}, {"group_size": 9}, {"sampling": Sampling()}, {"draft": Sampling()},
               {"verifiers": (Verifier(kind="a"),)}, {"extra": {"a": 1}}, {"budget": None}]  # fmt: skip
    digests = {digest(dataclasses.replace(recipe, **change)) for change in changed}
    assert len(digests | {digest(recipe)}) == len(changed) + 1


def test_flattened_settings_have_dotted_names() -> None:
    flat = flatten(Recipe(task="x", verifiers=(Verifier(kind="a"),)))
    assert flat["sampling.max_tokens"] == "512"
    assert flat["task"] == '"x"'
    assert flat["draft"] == '"none"'
    assert flat["verifiers"] == 'kind = "a", weight = 1.0'
