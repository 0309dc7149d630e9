"""Generators from elsewhere: nothing is paid for an empty answer, no problem stands in two splits."""

import importlib.util
from pathlib import Path

import pytest

from groschen.errors import GroschenError
from groschen.records import Split
from groschen.tasks.check import check_task
from groschen.tasks.load import load_task
from groschen.tasks.task import Task, judge
from groschen.tasks.trials import Probe

PACKAGE = """
import random
from dataclasses import dataclass
from types import SimpleNamespace


@dataclass
class Config:
    seed: int = 0
    size: int = 500
    largest: int = 10**6
    with_answer: bool = True
    train: bool = False  # a name that a user could take for ours


class Doubles:
    def __init__(self, config: Config) -> None:
        if config.largest < 1:
            raise ValueError("largest must be positive")
        self.config = config

    def __len__(self) -> int:
        return self.config.size

    def __getitem__(self, idx: int) -> dict:
        number = random.Random(self.config.seed + idx).randrange(self.config.largest)
        noise = random.random()  # as some generators do: from the global state
        answer = str(2 * number) if self.config.with_answer else None
        return {
            "question": f"Twice {number}?",
            "answer": answer,
            "metadata": {"noise": noise, "object": object()},
        }

    def score_answer(self, answer: str | None, entry: dict) -> float:
        if answer == entry["answer"]:
            return 1.0
        return 0.5 if entry["answer"] and answer and entry["answer"] in answer else 0.01


factory = SimpleNamespace(DATASETS={"doubles": (Doubles, Config, None), "composite": (Doubles, Config, None)})


def create_dataset(name, **more):
    return Doubles(Config(**more))
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As reasoning-gym's own data sets: item i draws from seed + i, and an empty answer is paid for."""
    (tmp_path / "reasoning_gym.py").write_text(PACKAGE)
    monkeypatch.syspath_prepend(tmp_path)


SMALL = "train_size=60&dev_size=20&test_size=20"


@pytest.mark.usefixtures("package")
def test_an_answer_counts_in_its_slot_and_only_if_it_is_whole() -> None:
    task = load_task(f"reasoning-gym:doubles?{SMALL}")
    problem = task.problems[Split.TEST][0]
    answer = problem.answer
    slot = f"<answer>{answer}</answer>"
    texts = (
        slot,
        f"<answer>It is {answer}</answer>",
        answer,
        "",
        "<answer></answer>",
        f"{slot}<answer>1</answer>",
    )
    verdicts = {text: judge(task, problem, text) for text in texts}
    assert [verdict.passed for verdict in verdicts.values()] == [True, False, False, False, False, False]
    assert [verdict.reward for verdict in verdicts.values()] == [1, 0, 0, 0, 0, 0]
    assert [verdict.parts["score"] for verdict in verdicts.values()] == [1, 0.5, 0.01, 0.01, 0.01, 0.01]
    assert verdicts[answer].parts["lenient"] is True
    assert verdicts[answer].parts["format"] is False


@pytest.mark.usefixtures("package")
def test_a_generator_that_pays_for_nothing_is_named_and_its_reward_is_ours() -> None:
    checked = check_task(load_task(f"reasoning-gym:doubles?{SMALL}"), 10)
    assert checked.ok
    assert (
        "the task's own score pays 0.01 to 0.01 for an empty answer (30 problems); the reward here does not"
        in (checked.warnings)
    )


@pytest.mark.usefixtures("package")
def test_a_generator_without_gold_answers_is_named() -> None:
    checked = check_task(load_task(f"reasoning-gym:doubles?{SMALL}&with_answer=false"), 10)
    assert any("30 of 30 problems have no gold answer" in warning for warning in checked.warnings)


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize("seed", [0, 1, 1430])
def test_the_splits_and_the_seeds_of_users_share_no_draw(seed: int) -> None:
    sizes = "train_size=300&dev_size=50&test_size=50"
    draws = []
    for own in (seed, seed + 1 if seed < 1430 else seed - 1):
        task = load_task(f"reasoning-gym:doubles?seed={own}&{sizes}")
        draws += [problem.key.split(":")[1] for split in Split for problem in task.problems[split]]
    assert len(draws) == len(set(draws)) == 800
    assert max(map(int, draws)) < 2**32


@pytest.mark.usefixtures("package")
def test_a_problem_that_comes_twice_stays_where_it_is_held_out() -> None:
    task = load_task("reasoning-gym:doubles?largest=40&train_size=200&dev_size=10&test_size=10")
    texts = [problem.messages[0]["content"] for split in Split for problem in task.problems[split]]
    assert len(texts) == len(set(texts)) <= 40
    assert len(task.problems[Split.TEST]) > 5
    assert any("repeat another one and were left out" in note for note in task.notes)


@pytest.mark.usefixtures("package")
def test_the_same_settings_give_the_same_digest_and_others_another() -> None:
    first = load_task(f"reasoning-gym:doubles?{SMALL}").digest
    assert load_task(f"reasoning-gym:doubles?{SMALL}").digest == first
    assert load_task(f"reasoning-gym:doubles?{SMALL}&seed=1").digest != first


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("doubles?largets=3", "did you mean largest?"),
        ("doubles?train_size=0", "train_size is '0'; expected a whole number from 1 to"),
        ("doubles?seed=one", "seed is 'one'"),
        ("doubles?largest=0", "refuses its settings: largest must be positive"),
        ("duobles", "did you mean doubles?"),
        ("composite", "no generator 'composite'"),
        ("", "no generator ''"),
    ],
)
def test_a_wrong_name_or_setting_is_told_in_one_sentence(source: str, said: str) -> None:
    with pytest.raises(GroschenError) as caught:
        load_task(f"reasoning-gym:{source}")
    assert said in str(caught.value)


def test_without_the_package_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "reasoning_gym.py").write_text("raise ImportError('not here')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(GroschenError, match=r"install it with: pip install 'groschen\[tasks\]'"):
        load_task("reasoning-gym:chain_sum")


installed = pytest.mark.skipif(
    importlib.util.find_spec("reasoning_gym") is None, reason="the extra `tasks` is not installed"
)


def real(name: str) -> Task:
    return load_task(f"reasoning-gym:{name}?train_size=40&dev_size=10&test_size=10")


@installed
@pytest.mark.slow
@pytest.mark.parametrize("name", ["chain_sum", "leg_counting", "basic_arithmetic", "spell_backward"])
def test_an_installed_generator_passes_the_check(name: str) -> None:
    checked = check_task(real(name))
    assert checked.failures == ()
    assert checked.splits[Split.TEST].right[Probe.GOLD] == checked.splits[Split.TEST].tried


@installed
@pytest.mark.slow
def test_an_installed_generator_that_pays_for_nothing_is_named() -> None:
    warnings = check_task(real("countdown"), 5).warnings
    assert any("pays 0.01 to 0.01 for an empty answer" in warning for warning in warnings)


@installed
@pytest.mark.slow
def test_an_installed_generator_without_gold_is_named() -> None:
    warnings = check_task(real("propositional_logic"), 5).warnings
    assert any("15 of 15 problems have no gold answer" in warning for warning in warnings)


@installed
@pytest.mark.slow
def test_an_installed_generator_that_pays_for_nonsense_is_refused() -> None:
    assert any(
        "nonsense" in failure.fault for failure in check_task(real("game_of_life_halting"), 10).failures
    )
