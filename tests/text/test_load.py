"""A model's text side is read from its files, written back to files that transformers reads the same, or
refused.
"""

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer as Backend
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from groschen.errors import BadFile, Unsupported
from groschen.model.gguf_format import MetadataValue, ValueKind
from groschen.model.gguf_writer import array, integer, write_container
from groschen.model.gguf_writer import text as written
from groschen.text.load import load_text
from text.samples import CONVERSATIONS, CORPUS, NASTY, byte_level, sentencepiece_like
from text.test_chat import CHATML
from text.test_gguf_vocab import byte_level_metadata


def write(folder: Path, backend: Backend, **files: object) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "tokenizer.json").write_text(backend.to_str(), encoding="utf-8")
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def save(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def id_of(backend: Backend, token: str) -> int:
    found = backend.token_to_id(token)
    assert found is not None
    return found


def test_ids_with_a_duty_come_from_the_files_that_name_them(tmp_path: Path) -> None:
    backend = byte_level()
    start, end, text = (id_of(backend, token) for token in ("<|im_start|>", "<|im_end|>", "<|endoftext|>"))
    folder = write(
        tmp_path,
        backend,
        tokenizer_config={
            "eos_token": {"content": "<|im_end|>"},
            "pad_token": "<|endoftext|>",
            "bos_token": None,
        },
        generation_config={"eos_token_id": [text, end]},
        config={"eos_token_id": start, "vocab_size": 1024},
    )
    tokenizer = load_text(folder).tokenizer
    assert (tokenizer.eos_ids, tokenizer.pad_id, tokenizer.bos_id) == ((text, end), text, None)
    (folder / "generation_config.json").unlink()
    assert load_text(folder).tokenizer.eos_ids == (start, end)
    (folder / "config.json").write_text(
        json.dumps({"text_config": {"eos_token_id": [text], "vocab_size": 1024}})
    )
    assert load_text(folder).tokenizer.eos_ids == (text, end)


def test_tokens_that_only_the_config_knows_are_added_as_transformers_adds_them(tmp_path: Path) -> None:
    backend = byte_level()
    size = backend.get_vocab_size()
    entry = {"lstrip": False, "rstrip": False, "single_word": False, "normalized": False}
    write(
        tmp_path,
        backend,
        tokenizer_config={
            "tokenizer_class": "PreTrainedTokenizerFast",
            "added_tokens_decoder": {
                str(size): entry | {"content": "<tool>", "special": False},
                str(size + 1): entry | {"content": "<|tool|>", "special": True},
            },
            "eos_token": "<|tool|>",
            "pad_token": "<|new|>",
        },
    )
    tokenizer = load_text(tmp_path).tokenizer
    reference = AutoTokenizer.from_pretrained(tmp_path)
    for text in ("a<tool>b<|tool|>c<|new|>", *NASTY):
        assert tokenizer.encode(text) == reference.encode(text, add_special_tokens=False)
    assert tokenizer.pad_id == reference.pad_token_id == size + 2
    assert tokenizer.decode(tokenizer.encode("a<tool>b<|tool|>"), skip_special=True) == "a<tool>b"


@pytest.mark.parametrize("kind", ["jinja file", "config", "named", "files"])
def test_templates_are_found_where_they_are_kept(tmp_path: Path, kind: str) -> None:
    settings: dict[str, object] = {"eos_token": "<|im_end|>"}
    named = [{"name": "default", "template": "d"}, {"name": "tool_use", "template": "t"}]
    if kind != "files":
        settings["chat_template"] = named if kind == "named" else "c {{ eos_token }}"
    write(tmp_path, byte_level(), tokenizer_config=settings)
    if kind in ("jinja file", "files"):
        (tmp_path / "chat_template.jinja").write_text("j")
    if kind == "files":
        (tmp_path / "additional_chat_templates").mkdir()
        (tmp_path / "additional_chat_templates" / "rag.jinja").write_text("r")
    text = load_text(tmp_path)
    question = [{"role": "user", "content": "a"}]
    expected = {"jinja file": "j", "config": "c <|im_end|>", "named": "d", "files": "j"}[kind]
    assert text.chat_template().render(question) == expected
    if kind == "named":
        assert text.chat_template().render(question, tools=[]) == "t"
    if kind == "files":
        assert text.chat_template().sources["rag"] == "r"
    again = load_text(save(tmp_path / "again", text.files()))
    assert again.chat_template().sources == text.chat_template().sources


def test_no_template_says_what_to_do(tmp_path: Path) -> None:
    text = load_text(write(tmp_path, byte_level()))
    with pytest.raises(Unsupported, match=r"has no chat template.*instruct version.*chat_template.jinja"):
        text.chat_template()


@pytest.mark.parametrize("source", ["byte level", "prepend", "first", "none", "gguf"])
# Not qwen2: AutoTokenizer then rebuilds Qwen's own tokenizer from the vocabulary, whatever tokenizer.json
# says.
@pytest.mark.parametrize("model_type", [None, "llama", "qwen3"])
def test_written_files_give_transformers_the_same_ids(
    tmp_path: Path, source: str, model_type: str | None
) -> None:
    if source == "gguf":
        text = load_text(
            byte_level_metadata(bos_token_id=257, add_bos_token=True) | {"tokenizer.chat_template": CHATML}
        )
    else:
        backend = byte_level(plain=("<think>",)) if source == "byte level" else sentencepiece_like(source)
        end = "<|im_end|>" if source == "byte level" else "</s>"
        write(tmp_path / "first", backend, tokenizer_config={"eos_token": end})
        (tmp_path / "first" / "chat_template.jinja").write_text(CHATML)
        text = load_text(tmp_path / "first")
    folder = save(tmp_path / "written", text.files())
    if model_type:
        (folder / "config.json").write_text(json.dumps({"model_type": model_type, "vocab_size": 2000}))
    reference, again = AutoTokenizer.from_pretrained(folder), load_text(folder)
    for sample in [*NASTY, *CORPUS, "<|im_end|><think></s> x"]:
        ids = text.tokenizer.encode(sample)
        assert reference.encode(sample, add_special_tokens=False) == ids == again.tokenizer.encode(sample), (
            repr(sample)
        )
        assert reference.encode(sample) == text.tokenizer.encode(sample, add_special=True)
        if sample[:1] != " ":
            decoded = reference.decode(ids, clean_up_tokenization_spaces=False)
            assert decoded == text.tokenizer.decode(ids) == again.tokenizer.decode(ids)
    assert reference.eos_token_id == text.tokenizer.eos_ids[0] == again.tokenizer.eos_ids[0]
    assert again.tokenizer.special_ids == text.tokenizer.special_ids
    messages, _ = CONVERSATIONS["several turns"]
    ids = reference.apply_chat_template(
        messages, tokenize=True, add_generation_prompt=True, return_dict=False
    )
    assert ids == text.chat_template().encode(text.tokenizer, messages)
    assert ids == again.chat_template().encode(again.tokenizer, messages)


def test_a_folder_s_own_settings_are_written_back(tmp_path: Path) -> None:
    write(
        tmp_path,
        byte_level(),
        tokenizer_config={"eos_token": "<|im_end|>", "model_max_length": 4096, "chat_template": "x"},
        generation_config={"eos_token_id": 3, "temperature": 0.6, "top_p": 0.95},
    )
    files = load_text(tmp_path).files()
    settings = json.loads(files["tokenizer_config.json"])
    assert settings["model_max_length"] == 4096 and "chat_template" not in settings
    generation = json.loads(files["generation_config.json"])
    assert (generation["eos_token_id"], generation["temperature"], generation["top_p"]) == (3, 0.6, 0.95)
    assert files["chat_template.jinja"] == b"x"


@pytest.mark.real
@pytest.mark.parametrize("model_type", [None, "qwen2"])
def test_real_gguf_file_s_text_side_is_written_as_a_folder_that_transformers_reads(
    tmp_path: Path, real_gguf: Path, model_type: str | None
) -> None:
    text = load_text(real_gguf)
    folder = save(tmp_path, text.files())
    if model_type:
        (folder / "config.json").write_text(json.dumps({"model_type": model_type, "vocab_size": 151936}))
    reference = AutoTokenizer.from_pretrained(folder)
    for sample in [*NASTY, *CORPUS, "<|im_start|>user<tool_call>"]:
        ids = text.tokenizer.encode(sample)
        assert reference.encode(sample, add_special_tokens=False) == ids, repr(sample)
        assert reference.decode(ids, clean_up_tokenization_spaces=False) == text.tokenizer.decode(ids)
    assert (reference.eos_token_id, reference.pad_token_id) == (
        text.tokenizer.eos_ids[0],
        text.tokenizer.pad_id,
    )
    again = load_text(folder)
    assert again.tokenizer.eos_ids == text.tokenizer.eos_ids
    for messages, tools in CONVERSATIONS.values():
        expected = reference.apply_chat_template(
            messages, tools=tools, tokenize=True, add_generation_prompt=True, return_dict=False
        )
        assert expected == text.chat_template().encode(text.tokenizer, messages, tools=tools)
        assert expected == again.chat_template().encode(again.tokenizer, messages, tools=tools)


def test_old_names_in_special_tokens_map_are_read(tmp_path: Path) -> None:
    write(
        tmp_path,
        byte_level(),
        special_tokens_map={"eos_token": {"content": "<|im_end|>"}},
        tokenizer_config={},
    )
    reference = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    assert load_text(tmp_path).tokenizer.eos_ids == (reference.eos_token_id,)


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("tokenizer.json", None, "has no tokenizer.json; copy it"),
        ("tokenizer.json", b'{"version": "1.0", "mo', "tokenizer.json is no JSON.*truncated"),
        ("tokenizer.json", b"{}", "is no tokenizer that the tokenizers library reads"),
        ("tokenizer.json", b"\xff\xfe", "is no UTF-8"),
        ("tokenizer_config.json", b"[]", "holds a JSON list, expected an object"),
        ("tokenizer_config.json", b"{", "tokenizer_config.json is no JSON"),
        (
            "tokenizer_config.json",
            b'{"added_tokens_decoder": {"7": {"content": "<|im_end|>"}}}',
            "gives the token.*the id 7",
        ),
        (
            "tokenizer_config.json",
            b'{"added_tokens_decoder": {"x": {"content": "a"}}}',
            "added_tokens_decoder",
        ),
        ("tokenizer_config.json", b'{"added_tokens_decoder": {"5": "<x>"}}', "added_tokens_decoder"),
        pytest.param("tokenizer_config.json", b'{"a":' * 100_000, "nested too deeply", id="nested"),
        ("tokenizer_config.json", b'{"chat_template": [{"name": "default"}]}', "chat_template"),
        ("config.json", b'{"vocab_size": 300}', "a tokenizer of [0-9]+ tokens for a model of 300"),
        ("generation_config.json", b"nonsense", "generation_config.json is no JSON"),
    ],
)
def test_missing_and_corrupt_files_are_one_clear_sentence(
    tmp_path: Path, name: str, content: bytes | None, sentence: str
) -> None:
    write(tmp_path, byte_level())
    if content is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(BadFile, match=sentence):
        load_text(tmp_path)


def test_a_gguf_file_is_known_without_its_suffix(tmp_path: Path) -> None:
    def field(value: object) -> MetadataValue:
        if isinstance(value, list):
            return array(ValueKind.STRING if isinstance(value[0], str) else ValueKind.INT32, value)
        return integer(value) if isinstance(value, int) else written(str(value))

    fields = {key: field(value) for key, value in byte_level_metadata().items()}
    write_container(tmp_path / "sha256-0a1b", fields, [])
    assert load_text(tmp_path / "sha256-0a1b").tokenizer.encode("in<|im_end|>") == [256, 257]


def test_missing_folder_and_lone_sentencepiece_file_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match=r"is no folder; expected one with tokenizer.json, or a .gguf file"):
        load_text(tmp_path / "nowhere")
    (tmp_path / "tokenizer.model").write_bytes(b"x")
    with pytest.raises(BadFile, match=r"has only tokenizer.model.*save_pretrained"):
        load_text(tmp_path)


def test_vocabulary_larger_than_the_model_is_refused() -> None:
    with pytest.raises(BadFile, match="259 tokens for a model of 200"):
        load_text(byte_level_metadata(), num_rows=200)
    assert load_text(byte_level_metadata(), num_rows=260).tokenizer.vocab_size == 259
