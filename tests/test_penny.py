"""Penny, the built-in model: its files, the truth of what it was trained on, and what it can do untrained."""

import itertools
import json
from importlib import resources
from pathlib import Path

import pytest
import torch
from penny import measure, network, traces
from penny.reading import read_attempt
from penny.vocabulary import build_text
from transformers import AutoModelForCausalLM, AutoTokenizer

from groschen.engine.open import Opened, open_engine
from groschen.model.checkpoint import open_checkpoint
from groschen.model.kvcache import Rows
from groschen.model.load import load_model
from groschen.records import Problem, Request, SamplingParams, Split
from groschen.tasks import countdown
from groschen.text.bundle import TOKENIZER
from groschen.text.load import load_text

FOLDER = Path(str(resources.files("groschen"))) / "penny"
PROBLEMS = countdown.problems()
TEXTS = [
    "Make 31 from 3, 5 and 8.",
    "<think>8-5=3\n3*3=9 ✓\n</think><answer>(8-5)*3</answer>",
    "149 150 151 999 1000 007",
    "Grüße, 你好 🙂\n\n\tdef f(x): return x**2",
    "<|user|>hi<|end|>",
]


@pytest.fixture(scope="module")
def opened() -> Opened:
    return open_engine(str(FOLDER), dtype=torch.bfloat16, device=torch.device("cpu"))


def meta(problem: Problem) -> tuple[list[int], int]:
    numbers, target = problem.meta["numbers"], problem.meta["target"]
    assert isinstance(numbers, list) and isinstance(target, int)
    return numbers, target


def test_the_files_are_small_and_say_what_they_are() -> None:
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 10_000_000
    card = (FOLDER / "README.md").read_text()
    assert "Apache-2.0" in card and "knows nothing else" in card
    tensors = open_checkpoint(str(FOLDER))
    num_parameters = sum(torch.Size(shape).numel() for shape in tensors.names().values())
    assert 2_000_000 < num_parameters < 4_000_000


def test_the_tokenizer_in_the_folder_is_the_one_that_the_script_builds() -> None:
    assert (FOLDER / TOKENIZER).read_bytes() == build_text().files()[TOKENIZER]


def test_every_number_of_the_task_is_one_token() -> None:
    tokenizer = load_text(FOLDER).tokenizer
    for number in range(countdown.LARGEST_VALUE + 1):
        assert len(tokenizer.encode(str(number))) == 1
        assert tokenizer.decode(tokenizer.encode(f"{number}+{number}")) == f"{number}+{number}"


@pytest.mark.parametrize("text", TEXTS)
def test_ids_are_those_of_transformers_and_every_text_comes_back(text: str) -> None:
    tokenizer, oracle = load_text(FOLDER).tokenizer, AutoTokenizer.from_pretrained(FOLDER)
    assert tokenizer.encode(text) == oracle.encode(text, add_special_tokens=False)
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_a_conversation_has_the_ids_of_transformers() -> None:
    text, oracle = load_text(FOLDER), AutoTokenizer.from_pretrained(FOLDER)
    messages = [
        {"role": "user", "content": countdown.prompt((3, 5, 8), 9)},
        {"role": "assistant", "content": "<answer>(8-5)*3</answer>"},
        {"role": "user", "content": "Make 7 from 1, 2 and 4."},
    ]
    expected = oracle.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert text.chat_template().encode(text.tokenizer, messages) == expected


def test_greedy_text_is_that_of_transformers() -> None:
    mine = open_engine(str(FOLDER), dtype=torch.float32, device=torch.device("cpu"))
    theirs = AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float32)
    for problem in PROBLEMS[Split.DEV][:3]:
        ids = mine.text.chat_template().encode(mine.text.tokenizer, problem.messages)
        greedy = SamplingParams(temperature=0.0, max_tokens=96)
        ((completion,),) = mine.engine.generate([Request(prompt_ids=tuple(ids), sampling=greedy)])
        prompt = torch.tensor([ids])
        out = theirs.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=96,
            do_sample=False,
            temperature=None,
        )
        assert tuple(out[0, len(ids) :].tolist()) == completion.token_ids


def test_the_forward_of_pretraining_is_that_of_the_engine() -> None:
    model = network.new_model(0)
    ids = torch.randint(0, 512, (3, 20), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        positions = torch.arange(20).expand(3, -1)
        found = network.hidden(model, ids, positions, torch.zeros_like(ids))
        rows, cache = Rows.of_sequences([20] * 3, torch.device("cpu")), model.new_cache(6)
        expected = model(ids.flatten(), rows, cache)
    torch.testing.assert_close(found.flatten(0, 1), expected, atol=1e-4, rtol=1e-4)


def test_every_sum_and_every_mark_in_the_training_texts_is_true() -> None:
    attempts = traces.Attempts(PROBLEMS[Split.TRAIN], seed=5)
    styles = dict.fromkeys(("guessed", "gave up", "hit"), 0)
    for problem in itertools.islice(itertools.cycle(PROBLEMS[Split.TRAIN][:800]), 2400):
        numbers, target = meta(problem)
        text = attempts.attempt(numbers, target)
        reading = read_attempt(numbers, target, text)
        assert reading.malformed == reading.repeated == 0, text
        assert reading.true_sums == reading.allowed_sums == reading.sums, text
        assert reading.true_marks == reading.marks and reading.true_hits == reading.hits <= 1, text
        verdict = countdown.verify(problem, text)
        assert verdict.parts["format"] is True
        assert verdict.passed or not reading.hits, text
        assert not (reading.gave_up and verdict.passed), text
        styles["hit" if reading.hits else "gave up" if reading.gave_up else "guessed"] += 1
    assert min(styles.values()) > 100


def test_the_reader_sees_what_is_false() -> None:
    def read(text: str) -> object:
        found = read_attempt([3, 5, 8], 9, f"<think>{text}</think>")
        return found.sums - found.true_sums, found.sums - found.allowed_sums, found.marks - found.true_marks

    assert read("8-5=3\n3*3=9 ✓\n") == (0, 0, 0)
    assert read("8-5=4\n4*3=12 ✗\n") == (1, 0, 0)
    assert read("8-5=3\n3+3=6 ✓\n") == (0, 0, 1)
    assert read("8-5=3\n5+3=8 ✗\n") == (0, 1, 0)
    assert read("8-4=4\n") == (0, 1, 0)


def test_training_texts_hold_no_numbers_of_held_out_problems() -> None:
    attempts = traces.Attempts(
        PROBLEMS[Split.TRAIN], seed=6, mix=traces.Mix(small_talk=0.0, other_wordings=0.0)
    )
    held_out = {tuple(meta(problem)[0]) for split in (Split.DEV, Split.TEST) for problem in PROBLEMS[split]}
    for _ in range(2000):
        prompt, _ = attempts.draw(0)
        numbers = prompt.split("from ")[1].split(".")[0].replace(" and ", ", ").split(", ")
        assert tuple(sorted(map(int, numbers))) not in held_out


def test_untrained_it_solves_some_and_its_claims_can_be_trusted(opened: Opened) -> None:
    found, _ = measure.measure(opened.engine, opened.text, PROBLEMS[Split.DEV][:64], 4)
    assert 0.15 < found.pass_at_1 < 0.5
    assert found.groups_with_signal > 0.5
    # On held-out numbers some sums were never seen: 143+10 needs 10, 11 and 13.
    assert found.true_marks > 0.98 and found.true_hits > 0.9 and found.true_sums > 0.92
    assert found.truncated < 0.02


def test_it_says_what_it_is_when_asked_for_anything_else(opened: Opened) -> None:
    for question in ("Hello, who are you?", "What is the capital of Peru?"):
        ids = opened.text.chat_template().encode(
            opened.text.tokenizer, [{"role": "user", "content": question}]
        )
        greedy = SamplingParams(temperature=0.0, max_tokens=64)
        ((completion,),) = opened.engine.generate([Request(prompt_ids=tuple(ids), sampling=greedy)])
        assert completion.text == traces.FALLBACK


def test_its_weights_load_and_its_config_is_read(opened: Opened) -> None:
    config = json.loads((FOLDER / "config.json").read_text())
    assert config["model_type"] == "qwen3" and config["vocab_size"] == opened.text.tokenizer.vocab_size
    assert load_model(open_checkpoint(str(FOLDER)), torch.float32, torch.device("cpu")).config.num_layers == 4
