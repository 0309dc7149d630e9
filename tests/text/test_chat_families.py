"""The chat templates of real models give the ids that transformers gives: every conversation, or both
refuse.
"""

from pathlib import Path

import pytest
from jinja2 import TemplateError
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from groschen.errors import GroschenError
from groschen.text.chat import ChatTemplate
from groschen.text.load import load_text
from text.samples import CONVERSATIONS, byte_level, markers_of, ours

# Part of a file's name, for each family that must be among the references.
FAMILIES = [
    "qwen2_5",
    "qwen3.",
    "llama3_1",
    "llama3_2",
    "gemma3.",
    "deepseek_r1_distill.",
    "phi3_5.",
    "gptoss.",
    "cohere2.",
]
REFUSALS = (TemplateError, TypeError, KeyError, ValueError, AttributeError)


def theirs(
    reference: PreTrainedTokenizerFast,
    messages: list[dict[str, object]],
    tools: object,
    prompt: bool,
    **settings: object,
) -> list[int] | None:
    try:
        return reference.apply_chat_template(
            messages, tools=tools, add_generation_prompt=prompt, tokenize=True, return_dict=False, **settings
        )
    except REFUSALS:
        return None


def compared(source: str, reference: PreTrainedTokenizerFast, name: str, **settings: object) -> int:
    """How many prompts were rendered; asserts that each has the same ids or that both refuse."""
    reference.chat_template = source
    template = ChatTemplate(source, special_tokens={"bos_token": "<|bos|>", "eos_token": "<|eos|>"})
    tokenizer = ours(reference.backend_tokenizer)
    num_rendered = 0
    for title, (messages, tools) in CONVERSATIONS.items():
        for prompt in (True, False):
            expected = theirs(reference, messages, tools, prompt, **settings)
            got: list[int] | None
            try:
                got = template.encode(
                    tokenizer, messages, tools=tools, add_generation_prompt=prompt, **settings
                )
            except GroschenError:
                got = None
            assert got == expected, f"{name}, {title}, {prompt=}"
            num_rendered += got is not None
    return num_rendered


def with_transformers(backend: Tokenizer) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<|bos|>", eos_token="<|eos|>")


def small(source: str) -> PreTrainedTokenizerFast:
    return with_transformers(byte_level(special=("<|bos|>", "<|eos|>", *markers_of(source))))


@pytest.mark.parametrize("family", FAMILIES)
def test_family_s_templates_give_the_ids_of_transformers(
    reference_templates: list[Path], family: str
) -> None:
    found = [path for path in reference_templates if family in path.name]
    assert found
    for path in found:
        source = path.read_text(encoding="utf-8")
        assert compared(source, small(source), path.name) >= 6


@pytest.mark.slow
def test_every_reference_template_gives_the_ids_of_transformers(reference_templates: list[Path]) -> None:
    for path in reference_templates:
        source = path.read_text(encoding="utf-8")
        compared(source, small(source), path.name)


def test_thinking_switch_reaches_the_template(reference_templates: list[Path]) -> None:
    (path,) = [path for path in reference_templates if path.name == "trl-qwen3.jinja"]
    source = path.read_text(encoding="utf-8")
    assert compared(source, small(source), path.name, enable_thinking=False)
    template = ChatTemplate(source)
    question = [{"role": "user", "content": "Hi"}]
    assert template.render(question, enable_thinking=False) != template.render(question, enable_thinking=True)


@pytest.mark.real
def test_reference_templates_give_the_ids_of_transformers_with_a_real_vocabulary(
    reference_templates: list[Path], real_gguf: Path
) -> None:
    reference = with_transformers(load_text(real_gguf).tokenizer.backend)
    for path in reference_templates:
        if any(family in path.name for family in FAMILIES):
            assert compared(path.read_text(encoding="utf-8"), reference, path.name)


@pytest.mark.real
def test_the_real_file_s_own_template_gives_the_ids_of_transformers(real_gguf: Path) -> None:
    text = load_text(real_gguf)
    source = text.chat_template().sources["default"]
    assert compared(source, with_transformers(text.tokenizer.backend), "real") == 2 * len(CONVERSATIONS)
