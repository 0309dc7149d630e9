"""A whole run in a second or two: a tiny random model in a folder, and a task that such a model can learn."""

import dataclasses
from pathlib import Path

from tests.tiny import FAMILIES, VOCABULARY, byte_tokenizer, tiny_model

from groschen.model.folder_writer import write_folder
from groschen.text.bundle import Text
from groschen.text.chat import ChatTemplate
from groschen.train.alarms import AlarmSettings
from groschen.train.optimizer import OptimizerSettings
from groschen.train.recipe import EvaluationSettings, GrpoRecipe, PolicySettings, SamplingSettings

TEMPLATE = "{% for m in messages %}{{ m.content }}{% endfor %}{% if add_generation_prompt %}>{% endif %}"

TASK = '''"""Capitals and digits: the more of them, the better."""

from groschen import Problem, Verdict


def load():
    for number in range(60):
        yield Problem(key=f"p{number}", messages=({"role": "user", "content": f"say {number}"},), answer="e")


def verify(problem, text):
    share = sum(letter < "a" for letter in text) / max(1, len(text))
    return Verdict(reward=share, passed=share > 0.6, parts={"format": True, "lenient": share > 0})


def gold(problem):
    return "AEIOU"


def wrong(problem):
    return ("xyz",)
'''


def write_model(folder: Path) -> Path:
    """A Hugging Face folder of a random llama with bytes as tokens."""
    model = tiny_model("llama", max_position_embeddings=128)
    text = Text(
        tokenizer=byte_tokenizer(), template=ChatTemplate(TEMPLATE), named_tokens={"eos_token": "<end>"}
    )
    # A fifth of the vocabulary ends a completion, so that most of them end before they are cut.
    config = {**FAMILIES["llama"], "max_position_embeddings": 128, "architectures": ["LlamaForCausalLM"]}
    config["eos_token_id"] = list(range(256, VOCABULARY))
    write_folder(folder, config, model.tensors(), text.files())
    return folder


def write_task(folder: Path) -> Path:
    """A task.py beside the model."""
    path = folder / "task.py"
    path.write_text(TASK)
    return path


def recipe(folder: Path, **changes: object) -> GrpoRecipe:
    """Four steps of 3 x 4 completions of at most 12 tokens, evaluated and saved on the way."""
    model = folder / "model"
    if not model.exists():
        write_model(model)
    made = GrpoRecipe(
        model=str(model),
        task=str(write_task(folder)),
        seed=3,
        num_steps=4,
        policy=PolicySettings(),
        sampling=SamplingSettings(problems_per_step=3, group_size=4, max_tokens=16),
        optimizer=OptimizerSettings(learning_rate=3e-3),
        evaluation=EvaluationSettings(
            every=2, dev_problems=4, dev_samples=2, test_problems=4, test_samples=2, prompt_problems=0
        ),
        alarms=AlarmSettings(max_truncated_share=0.0, falls_by_errors=0.0),
        max_rows=16,
        tokens_at_once=80,
        save_every=1,
    )
    return dataclasses.replace(made, **changes)  # type: ignore[arg-type]
