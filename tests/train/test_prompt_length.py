"""The longest prompt is the one with the most tokens, wherever it stands."""

import dataclasses
import io
from pathlib import Path

import pytest
from tests.tiny import byte_tokenizer
from tests.train.tiny_run import TEMPLATE, recipe

from groschen.errors import DoesNotFit
from groschen.records import Problem, Split
from groschen.tasks.task import Task
from groschen.text.bundle import Text
from groschen.text.chat import ChatTemplate
from groschen.train.opening import new_session
from groschen.train.prompt_length import longest_prompt


def task_of(*contents: str, instructions: tuple[str, ...] = ()) -> Task:
    problems = tuple(
        Problem(key=str(i), messages=({"role": "user", "content": content},))
        for i, content in enumerate(contents)
    )
    parts = {Split.TRAIN: problems, Split.DEV: (), Split.TEST: ()}
    return Task(
        name="t", digest="", problems=parts, verify=lambda problem, text: None, instructions=instructions
    )


TEXT = Text(tokenizer=byte_tokenizer(), template=ChatTemplate(TEMPLATE))


def exact(task: Task) -> int:
    """Every prompt in every wording, rendered and encoded."""
    wordings = ("", *(f"\n\n{words}" for words in task.instructions))
    return max(
        len(TEXT.chat_template().encode(TEXT.tokenizer, ({"role": "user", "content": content + words},)))
        for problem in task.problems[Split.TRAIN]
        for content in [str(problem.messages[0]["content"])]
        for words in wordings
    )


@pytest.mark.parametrize("place", [0, 150, 299])
def test_a_short_text_of_many_tokens_among_long_ones_of_few_is_the_longest(place: int) -> None:
    contents = ["a fox ran " * 10 for _ in range(300)]
    contents[place] = "\U0001f98a" * 60  # 60 characters, 240 bytes
    task = task_of(*contents)
    assert longest_prompt(task, TEXT) == exact(task) > 200


def test_the_longest_wording_is_the_one_with_the_most_tokens() -> None:
    task = task_of("a", "bc", instructions=("twenty letters long.", "\U0001f98a" * 9))
    assert longest_prompt(task, TEXT) == exact(task)


def test_a_prompt_that_does_not_fit_is_found_before_there_is_a_step(tmp_path: Path) -> None:
    settings = recipe(tmp_path)
    path = Path(settings.task)
    source = path.read_text().replace(
        'f"say {number}"', '"\U0001f98a" * 30 if number == 7 else "say it " * 12'
    )
    path.write_text(source.replace('"say it " * 12', '"say it " * 12 + str(number)'))
    with pytest.raises(
        DoesNotFit, match=r"the longest prompt and sampling.max_tokens are 13. tokens together"
    ):
        new_session(dataclasses.replace(settings, seed=1), tmp_path / "run", io.StringIO())
