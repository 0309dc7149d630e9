"""Which problems of an evaluation a model was trained on, as far as its run folder knows.

A split may have changed after the run: other shares, other rows, another task file. Prompts are compared, so
renaming a problem or correcting its answer hides nothing. Leaves out near copies (tasks/overlap.py) and what
the base model met before.
"""

from collections.abc import Sequence
from pathlib import Path

from groschen.errors import BadRequest
from groschen.progress import say
from groschen.records import Problem, Split
from groschen.runs.folder import is_run
from groschen.tasks.identity import prompt_digest, read_fingerprints


def num_trained_on(model: str, problems: Sequence[Problem], *, is_allowed: bool) -> int | None:
    """How many of the problems stand in the training split of the run that made the model; None: not known.

    Says so on standard error if there are any. Raises BadRequest if there are and that is not allowed.
    """
    run = _run_of(Path(model))
    if run is None:
        return None
    prints = read_fingerprints(run)
    if prints is None:
        say(f"{run} does not say which problems it was trained on; an older groschen made it")
        return None
    prompts = {each.prompt for each in prints if each.split is Split.TRAIN}
    trained = [problem for problem in problems if prompt_digest(problem) in prompts]
    if not trained:
        return 0
    fault = (
        f"{len(trained)} of the {len(problems)} problems that {model} is asked stand in the training split "
        f"of {run} (first {trained[0].key!r}): an accuracy on them says nothing about fresh ones"
    )
    if not is_allowed:
        raise BadRequest(f"{fault}; take the splits that the run had, or say --allow-trained")
    say(fault)
    return len(trained)


def _run_of(model: Path) -> Path | None:
    """The run folder that a model lies in: itself, or that of a checkpoint."""
    folders = (model, *model.resolve().parents[:2])  # RUN/best is a link to RUN/checkpoints/step-000020
    return next((folder for folder in folders if is_run(folder)), None)
