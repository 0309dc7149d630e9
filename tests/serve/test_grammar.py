"""A text in a grammar is of its language, whoever draws it; what cannot be enforced is refused by name."""

import json
import random
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jsonschema
import pytest
from tests.tiny import VOCABULARY, byte_tokenizer, tiny_engine, tiny_model

from groschen.engine.engine import EngineConfig
from groschen.engine.open import open_engine
from groschen.errors import BadRequest, Unsupported
from groschen.records import FinishReason, Guide, Request, SamplingParams
from groschen.serve import grammar as grammar_module
from groschen.serve.grammar import Format, Grammar, Grammars, JsonObject, JsonSchema, Regex, json_rule

END = 256
TEXT = {"type": "string", "maxLength": 8}
SCHEMAS: dict[str, Mapping[str, object]] = {
    "person": {
        "type": "object",
        "properties": {"name": TEXT, "age": {"type": "integer", "minimum": 0, "maximum": 150}},
        "required": ["name", "age"],
        "additionalProperties": False,
    },
    "list": {"type": "array", "items": {"type": "boolean"}, "minItems": 1, "maxItems": 4},
    "enum": {"enum": ["red", "green", 3, None, {"deep": [1]}]},
    "optional": {
        "type": "object",
        "properties": {"a": {"const": 1}, "b": {"type": ["null", "boolean"]}, "c": TEXT},
        "required": ["b"],
        "additionalProperties": False,
    },
    "nested": {
        "type": "object",
        "properties": {"points": {"type": "array", "maxItems": 3, "items": {"$ref": "#/$defs/point"}}},
        "required": ["points"],
        "additionalProperties": False,
        "$defs": {
            "point": {
                "type": "object",
                "properties": {axis: {"type": "integer", "minimum": -9, "maximum": 9} for axis in "xy"},
                "required": ["x", "y"],
                "additionalProperties": False,
            }
        },
    },
    "alternatives": {"anyOf": [{"type": "integer", "minimum": 10, "maximum": 99}, {"enum": ["none"]}]},
    "pattern": {"type": "string", "pattern": "^[a-c]{2,5}-[0-9]{3}$"},
    "dates": {
        "type": "object",
        "properties": {key: {"type": "string", "format": key} for key in ("date", "uuid")},
        "required": ["date", "uuid"],
        "additionalProperties": False,
    },
    "number": {"type": "number", "minimum": 0.5, "maximum": 2.5, "multipleOf": 0.25},
    "all": {
        "allOf": [
            {"type": "object", "properties": {"a": TEXT}, "required": ["a"]},
            {"properties": {"b": {"enum": [1, 2]}}, "required": ["b"]},
            {"properties": {"a": {"minLength": 2}, "b": {}}, "additionalProperties": False},
        ]
    },
}  # fmt: skip


def ids(text: str) -> list[int]:
    return byte_tokenizer().encode(text)


@pytest.fixture(scope="module")
def grammars() -> Grammars:
    return Grammars(byte_tokenizer(), {END})


def follows(guide: Guide, text: str) -> bool:
    """Whether every byte of the text is allowed in its place, and the end behind it."""
    guide = guide.fork()
    for token_id in [*ids(text), END]:
        mask = guide.allowed()
        if mask is not None and not (token_id < 8 * len(mask) and mask[token_id // 8] >> token_id % 8 & 1):
            return False
        guide.accept(token_id)
    return True


def choices(guide: Guide) -> set[int]:
    mask = guide.allowed()
    assert mask is not None
    return {i for i in range(8 * len(mask)) if mask[i // 8] >> i % 8 & 1}


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_random_model_writes_valid_json_in_20_of_20_answers(grammars: Grammars, name: str) -> None:
    """Ten schemas: 200 answers at temperature 1 of a model that has never seen JSON."""
    guide = grammars.guide(JsonSchema(SCHEMAS[name]))
    request = Request(
        prompt_ids=tuple(ids("Answer: ")), num_completions=20, guide=guide,
        sampling=SamplingParams(seed=3, max_tokens=400),
    )  # fmt: skip
    group = tiny_engine().generate([request])[0]
    for completion in group:
        assert completion.finish_reason is FinishReason.STOP
        checker = jsonschema.FormatChecker()
        jsonschema.validate(json.loads(completion.text), SCHEMAS[name], format_checker=checker)
    assert len({completion.text for completion in group}) > 3


def test_a_schema_allows_what_fits_it_and_nothing_else(grammars: Grammars) -> None:
    guide = grammars.guide(JsonSchema(SCHEMAS["person"]))
    assert follows(guide, '{"name":"Ada","age":36}')
    assert follows(guide, '{"name": "Änne \\n", "age": 0}')
    for wrong in ('{"name":"Ada"}', '{"age":36,"name":"Ada"}', '{"name":"Ada","age":151}', "[]", "null", ""):
        assert not follows(guide, wrong)


def test_white_space_is_that_of_people_and_ends(grammars: Grammars) -> None:
    guide = grammars.guide(JsonSchema(SCHEMAS["list"]))
    for fine in ("[true]", "[true, false]", "[ true ]", "[\n  true,\n  false\n]", "[\n" + " " * 20 + "true]"):
        assert follows(guide, fine)
    for wrong in ("[  true]", "[\n\n true]", "[\n" + " " * 21 + "true]", "[\ttrue]", " [true]", "[true] "):
        assert not follows(guide, wrong)
    objects = grammars.guide(JsonObject())
    assert follows(objects, '{\n  "a": {"b": [1, 2.5e3, null, "x"]},\n  "c": -0.1\n}')
    for wrong in ("[]", '"text"', '{"a": 01}', "{'a': 1}", '{"a":   1}'):
        assert not follows(objects, wrong)


@pytest.mark.parametrize(
    "pattern", [r"[a-f]{3}(-[0-9]{2}){2}", "yes|no|maybe so", r"\+?\d{2,5}", "Größe: [äöü]+!"]
)
def test_a_regular_expression_matches_the_whole_text(grammars: Grammars, pattern: str) -> None:
    request = Request(
        prompt_ids=tuple(ids("?")), num_completions=10, guide=grammars.guide(Regex(pattern)),
        sampling=SamplingParams(seed=1, max_tokens=300),
    )  # fmt: skip
    for completion in tiny_engine().generate([request])[0]:
        assert completion.finish_reason is FinishReason.STOP
        assert re.fullmatch(pattern, completion.text)


def test_a_grammar_may_nest_and_hold_json(grammars: Grammars) -> None:
    sums = grammars.guide(Grammar('start: sum\nsum: /[0-9]/ | "(" sum "+" sum ")"'))
    assert follows(sums, "((1+2)+3)")
    assert not follows(sums, "((1+2)+3")
    call = Grammar(
        'start: "<tool_call>\\n" arguments "\\n</tool_call>"\narguments: ' + json_rule(SCHEMAS["list"])
    )
    assert follows(grammars.guide(call), "<tool_call>\n[true, false]\n</tool_call>")
    assert not follows(grammars.guide(call), "<tool_call>\n[true,  false]\n</tool_call>")


def test_a_finished_text_may_only_end(grammars: Grammars) -> None:
    guide = grammars.guide(Regex("ab?")).fork()
    guide.accept(ids("a")[0])
    assert choices(guide) == {ids("b")[0], END}
    guide.accept(ids("b")[0])
    assert choices(guide) == {END}
    guide.accept(END)  # a request may ask to go on after an end token
    assert choices(guide) == {END}


def test_forks_and_guides_of_one_grammar_go_their_own_ways(grammars: Grammars) -> None:
    first = grammars.guide(Regex("[0-9]{2}"))
    second = first.fork()
    first.accept(ids("1")[0])
    first.accept(ids("2")[0])
    assert choices(first) == {END}
    assert choices(second) == choices(grammars.guide(Regex("[0-9]{2}"))) == set(ids("0123456789"))


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        (JsonSchema({"type": "object", "properties": {"a": {"not": {}}}}), 'JSON schema uses "not", which'),
        (JsonSchema({"type": "array", "uniqueItems": True}), 'schema uses "uniqueItems", which cannot'),
        (JsonSchema({"type": "strin"}), "the JSON schema cannot be compiled: Invalid type: strin$"),
        (JsonSchema({"type": "string", "format": "colour"}), "Unknown format: colour$"),
        (JsonSchema({"type": "string", "pattern": "(?=a)b"}), "JSON schema cannot be compiled: look-around"),
        (JsonSchema({"enum": []}), "Unsatisfiable schema"),
        (JsonSchema({"type": "integer", "minimum": 5, "maximum": 1}), "minimum .5. is greater than"),
        (JsonSchema({"$ref": "#/definitions/none"}), "'/definitions/none' does not exist$"),
        (JsonSchema({"oneOf": [{"type": "integer"}, {"type": "number"}]}), '"oneOf" with alternatives'),
        (Regex("(ab"), "the regular expression cannot be compiled: unclosed group$"),
        (Regex("a(?<!b)"), "regular expression cannot be compiled: look-around.* is not supported$"),
        (Grammar("start: number"), r'compiled: unknown name: "number" \(line 1, column 8\)$'),
        (Grammar('start "a"'), "the grammar cannot be compiled: Expected token ':'"),
    ],
)  # fmt: skip
def test_what_cannot_be_enforced_is_refused_in_one_sentence(
    grammars: Grammars, asked: Format, sentence: str
) -> None:
    with pytest.raises(BadRequest, match=sentence) as caught:
        grammars.guide(asked)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 420


def test_a_text_in_a_grammar_is_the_same_alone_and_among_others(grammars: Grammars) -> None:
    model = tiny_model("qwen3")
    asked = [
        Request(
            prompt_ids=tuple(ids(f"Request {number}: ")), sampling=SamplingParams(seed=number, max_tokens=60),
            guide=grammars.guide(JsonSchema(schema)) if number % 3 else None,
        )
        for number, schema in enumerate([*SCHEMAS.values()] * 3)
    ]  # fmt: skip
    together = tiny_engine(model).generate(asked)
    for number in range(0, 30, 4):
        (alone,) = tiny_engine(model).generate([asked[number]])
        assert (alone[0].token_ids, alone[0].logprobs) == (
            together[number][0].token_ids,
            together[number][0].logprobs,
        )


def test_grammars_may_be_compiled_in_several_threads_at_once() -> None:
    grammars = Grammars(byte_tokenizer(), {END})
    asked = [JsonSchema(schema) for schema in SCHEMAS.values()] * 4
    with ThreadPoolExecutor(8) as pool:
        guides = list(pool.map(grammars.guide, asked))
    assert [choices(guide) for guide in guides[:10]] == [choices(guide) for guide in guides[10:20]]


def test_a_mask_has_no_bits_beyond_the_vocabulary(grammars: Grammars) -> None:
    assert max(choices(grammars.guide(Regex(".*")))) < VOCABULARY


def test_without_an_end_token_it_is_refused_in_a_sentence() -> None:
    with pytest.raises(Unsupported, match="has no end token"):
        Grammars(byte_tokenizer(), ())


def test_a_text_that_needs_too_many_states_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """One state for each choice of the last 10 letters, with a limit that a short text reaches."""
    monkeypatch.setattr(grammar_module, "_MOST_STATES", 200)
    guide, coin = Grammars(byte_tokenizer(), {END}).guide(Regex("[ab]*a[ab]{9}")), random.Random(0)
    for _ in range(400):
        guide.accept(ids(coin.choice("ab"))[0])
    with pytest.raises(BadRequest, match="cannot be followed any further"):
        guide.allowed()


@pytest.mark.real
@pytest.mark.slow
def test_a_real_model_from_a_gguf_file_answers_in_json(real_gguf: Path) -> None:
    opened = open_engine(str(real_gguf), config=EngineConfig(cache_bytes=500_000_000))
    grammars = Grammars(opened.text.tokenizer, opened.engine.end_ids)
    asked = [{"role": "user", "content": "Ada Lovelace was 36. Answer in JSON with name and age."}]
    prompt_ids = tuple(opened.text.chat_template().encode(opened.text.tokenizer, asked))
    schema = {**SCHEMAS["person"], "properties": {"name": {"type": "string"}, "age": {"type": "integer"}}}
    request = Request(
        prompt_ids=prompt_ids, sampling=SamplingParams(temperature=0.0, max_tokens=60),
        guide=grammars.guide(JsonSchema(schema)),
    )  # fmt: skip
    assert json.loads(opened.engine.generate([request])[0][0].text) == {"name": "Ada Lovelace", "age": 36}
