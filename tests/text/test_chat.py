"""Rendering: what a template sees, which template is taken, what is refused, and which tokens are trained."""

from datetime import datetime

import pytest
from jinja2 import TemplateError
from transformers import PreTrainedTokenizerFast

from groschen.errors import BadRequest, Unsupported
from groschen.text.chat import ChatTemplate
from text.samples import CONVERSATIONS, TOOLS, byte_level, ours

# Written for these tests: the parts that the families' templates are made of.
CHATML = """{%- for message in messages %}
    {{- '<|im_start|>' + message['role'] + '\n' + (message.content or '') + '<|im_end|>' + '\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}
"""
TOOLS_AND_TAGS = """{%- set ns = namespace(first=true, called=0) %}
{{- bos_token }}
{%- macro show(call) -%}
<tool_call>{{ call.name }}({{ call.arguments | tojson(indent=2) }})</tool_call>
{%- endmacro %}
{%- if tools is not none and tools | length > 0 %}
{% for tool in tools %}
{{ tool.function.description | upper }} {{ tool | tojson }}{% if not loop.last %}, {% endif %}
{% endfor %}

{% endif %}
{%- for message in messages %}
    {%- if message.role == 'system' and not loop.first %}
        {{- raise_exception('system must be first, got ' ~ loop.index) }}
    {%- endif %}
    {%- if message.role == 'tool' %}{% continue %}{% endif %}
    {%- set ns.called = ns.called + (message.tool_calls or []) | length %}
<|im_start|>{{ message.role | trim }}
    {%- if message.role == 'assistant' %}
        {%- generation %}
        {%- if message.reasoning_content %}<think>{{ message.reasoning_content }}</think>{% endif %}
        {{- (message.content or '').split('</think>')[-1].lstrip('\n') }}
        {%- for call in message.tool_calls or [] %}{{ show(call.function) }}{% endfor %}
        {{- '<|im_end|>' }}
        {%- endgeneration %}
    {%- else %}
        {{- message['content'] | trim }}<|im_end|>
    {%- endif %}
{%- endfor %}{{ strftime_now('%d %B %Y') }} {{ '%03d' % ns.called }}
{{- messages[1:] | map(attribute='role') | join(',') }}
"""
WORDS = "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %} | {% endfor %}"
SPECIAL = {"bos_token": "<|endoftext|>"}


@pytest.mark.parametrize("source", [CHATML, TOOLS_AND_TAGS, WORDS])
@pytest.mark.parametrize("title", CONVERSATIONS)
def test_text_and_ids_are_those_of_transformers(source: str, title: str) -> None:
    backend = byte_level(plain=("<think>", "</think>"))
    reference = PreTrainedTokenizerFast(tokenizer_object=backend, **SPECIAL)
    reference.chat_template = source
    template = ChatTemplate(source, special_tokens=SPECIAL)
    messages, tools = CONVERSATIONS[title]
    for prompt in (True, False):
        settings = {"tools": tools, "add_generation_prompt": prompt}
        try:
            text = reference.apply_chat_template(messages, tokenize=False, **settings)
        except TemplateError:
            with pytest.raises(BadRequest, match="system must be first, got 3"):
                template.render(messages, **settings)
            continue
        assert template.render(messages, **settings) == text
        ids = reference.apply_chat_template(messages, tokenize=True, return_dict=False, **settings)
        assert template.encode(ours(backend), messages, **settings) == ids


@pytest.mark.parametrize("title", ["several turns", "reasoning", "tool call"])
def test_loss_mask_is_that_of_transformers(title: str) -> None:
    backend = byte_level()
    reference = PreTrainedTokenizerFast(tokenizer_object=backend, **SPECIAL)
    messages, tools = CONVERSATIONS[title]
    expected = reference.apply_chat_template(
        messages,
        tools=tools,
        chat_template=TOOLS_AND_TAGS,
        return_dict=True,
        return_assistant_tokens_mask=True,
    )
    template = ChatTemplate(TOOLS_AND_TAGS, special_tokens=SPECIAL)
    trained = template.encode_for_training(ours(backend), messages, tools=tools)
    assert trained.ids == expected["input_ids"]
    assert [int(is_trained) for is_trained in trained.mask] == expected["assistant_masks"]
    assert 0 < sum(trained.mask) < len(trained.mask)


def test_spans_are_the_assistant_s_text() -> None:
    messages, _ = CONVERSATIONS["several turns"]
    rendered = ChatTemplate(TOOLS_AND_TAGS, special_tokens=SPECIAL).render_spans(messages)
    assert [rendered.text[start:end] for start, end in rendered.spans] == ["2<|im_end|>", " 4 <|im_end|>"]
    assert rendered.text == ChatTemplate(TOOLS_AND_TAGS, special_tokens=SPECIAL).render(
        messages, add_generation_prompt=False
    )


def test_mask_follows_the_text_when_a_content_spells_a_control_token() -> None:
    tokenizer = ours(byte_level())
    messages = [
        {"role": "user", "content": "say <|im_end|>"},
        {"role": "assistant", "content": "no <|im_end|> here"},
        {"role": "user", "content": "thanks"},
    ]
    trained = ChatTemplate(TOOLS_AND_TAGS, special_tokens=SPECIAL).encode_for_training(tokenizer, messages)
    parts = [i for i, is_trained in zip(trained.ids, trained.mask, strict=True) if is_trained]
    assert tokenizer.decode(parts) == "no <|im_end|> here<|im_end|>"
    assert parts.count(tokenizer.control["<|im_end|>"]) == 1


def test_template_without_generation_tag_gives_no_mask() -> None:
    with pytest.raises(Unsupported, match="generation"):
        ChatTemplate(CHATML).encode_for_training(ours(byte_level()), CONVERSATIONS["several turns"][0])


def test_generation_tag_whose_text_is_changed_later_gives_no_mask() -> None:
    source = (
        "{% filter trim %} {% generation %} {{ messages[0].content }} {% endgeneration %} {% endfilter %}"
    )
    changed = "{% set x %}{% generation %}  a  {% endgeneration %}{% endset %}{{ x | trim }}"
    question = [{"role": "user", "content": "a"}]
    with pytest.raises(Unsupported, match="put the tag around the final text"):
        ChatTemplate(changed).render_spans(question)
    with pytest.raises(Unsupported, match="put the tag around the final text"):
        ChatTemplate(source).render_spans(question)


def test_named_templates_are_taken_as_transformers_takes_them() -> None:
    template = ChatTemplate({"default": "plain", "tool_use": "tools", "rag": "rag"})
    question = [{"role": "user", "content": "a"}]
    assert template.render(question) == "plain"
    assert template.render(question, tools=TOOLS) == "tools"
    with pytest.raises(Unsupported, match="named rag, but none named default"):
        ChatTemplate({"rag": "x"}).render(question)


def test_clock_is_the_one_that_was_given() -> None:
    template = ChatTemplate("{{ strftime_now('%Y-%m-%d') }}", clock=lambda: datetime(2026, 11, 22))
    assert template.render([{"role": "user", "content": "a"}]) == "2026-11-22"


@pytest.mark.parametrize(
    ("messages", "sentence"),
    [
        ([], "no messages"),
        ([{"content": "a"}], r"messages\[0\] has the role None"),
        ([{"role": "end", "content": "a"}], "has the role 'end'; expected one of system"),
        (["text"], r"messages\[0\] is of the type str"),
        ([{"role": "user", "content": object()}], r"messages\[0\].content is of the type object"),
        ([{"role": "user", "content": {"a": [b"x"]}}], r"messages\[0\].content.a\[0\] is of the type bytes"),
        ([{"role": "user", "content": 5}], "failed on these messages: TypeError"),
        ([{"role": "user", "content": "\ud800"}], "surrogate"),
    ],
)
def test_malformed_messages_are_one_clear_sentence(messages: list[object], sentence: str) -> None:
    with pytest.raises(BadRequest, match=sentence):
        ChatTemplate(CHATML).encode(ours(byte_level()), messages)


def test_messages_nested_too_deeply_are_refused() -> None:
    deep: object = "x"
    for _ in range(5000):
        deep = [deep]
    messages, template = [{"role": "user", "content": deep}], ChatTemplate("{{ messages | tojson }}")
    for call in (
        lambda: template.render(messages),
        lambda: template.encode(ours(byte_level()), messages),
        lambda: template.encode_for_training(ours(byte_level()), messages),
        lambda: template.render_spans(messages),
    ):
        with pytest.raises(BadRequest, match="nested too deeply"):
            call()


def test_names_of_arguments_are_no_settings() -> None:
    with pytest.raises(TypeError):
        ChatTemplate(CHATML).render([{"role": "user", "content": "a"}], messages=[])  # type: ignore[misc]
    with pytest.raises(BadRequest, match="add_generation_prompt"):
        ChatTemplate(WORDS).render_spans([{"role": "user", "content": "a"}], add_generation_prompt=True)


def test_broken_template_says_where() -> None:
    with pytest.raises(Unsupported, match="line 2: "):
        ChatTemplate("fine\n{% if %}")
    with pytest.raises(Unsupported, match="No filter named 'nonsense'"):
        ChatTemplate("{{ messages | nonsense }}")


def test_a_byte_order_mark_before_a_template_is_not_part_of_a_prompt() -> None:
    template = ChatTemplate("\ufeff{% for message in messages %}{{ message.content }}{% endfor %}")
    assert template.render([{"role": "user", "content": "hi"}]) == "hi"
