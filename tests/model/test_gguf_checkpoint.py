import json
import math
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

from file_samples import CONFIGS, FAMILIES, logits_of, parts_of, tiny_model
from groschen.errors import BadFile, BadRequest, GroschenError, Unsupported
from groschen.model.config import ModelConfig
from groschen.model.folder_writer import write_folder
from groschen.model.gguf_checkpoint import GgufCheckpoint
from groschen.model.gguf_export import Kind, tokenizer_fields, write_gguf
from groschen.model.gguf_format import MetadataValue, ValueKind, read_gguf
from groschen.model.gguf_writer import StoredTensor, array, integer, text, write_container

TOKENIZER = {
    "tokenizer.ggml.model": text("gpt2"),
    "tokenizer.ggml.pre": text("qwen2"),
    "tokenizer.ggml.tokens": array(ValueKind.STRING, [f"t{number}" for number in range(320)]),
    "tokenizer.ggml.merges": array(ValueKind.STRING, []),
    "tokenizer.ggml.token_type": array(ValueKind.INT32, [1] * 320),
    "tokenizer.ggml.bos_token_id": integer(1),
    "tokenizer.ggml.eos_token_id": integer(2),
    "tokenizer.ggml.padding_token_id": integer(0),
}


def export(
    path: Path, family: str, kind: Kind = "bf16", dtype: torch.dtype = torch.bfloat16
) -> dict[str, torch.Tensor]:
    config, tensors = parts_of(tiny_model(family, dtype))
    write_gguf(path, config, tensors, TOKENIZER, kind)
    return tensors


@pytest.mark.parametrize("family", FAMILIES)
def test_a_bf16_file_gives_back_every_weight(tmp_path: Path, family: str) -> None:
    tensors = export(tmp_path / "m.gguf", family)
    checkpoint = GgufCheckpoint(tmp_path / "m.gguf")
    assert checkpoint.names() == {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    for name, tensor in tensors.items():
        found = checkpoint.read(name)
        if family.startswith("gemma") and name.endswith(
            "norm.weight"
        ):  # stored plus one: the last bits may go
            torch.testing.assert_close(found, tensor.float(), atol=2**-23, rtol=0)
        else:
            assert torch.equal(found, tensor.float()), name
        assert torch.equal(checkpoint.read_rows(name, 3, 17), found[3:17]), name


@pytest.mark.parametrize("family", FAMILIES)
def test_a_file_turned_into_a_folder_gives_transformers_the_same_logits(tmp_path: Path, family: str) -> None:
    model = tiny_model(family)
    config, tensors = parts_of(model)
    write_gguf(tmp_path / "m.gguf", config, tensors, TOKENIZER)
    checkpoint = GgufCheckpoint(tmp_path / "m.gguf")
    ModelConfig.from_json(checkpoint.config)
    read = {name: checkpoint.read(name).bfloat16() for name in checkpoint.names()}
    write_folder(tmp_path / "m", checkpoint.config, read, {})
    loaded, report = AutoModelForCausalLM.from_pretrained(tmp_path / "m", output_loading_info=True)
    assert not any(report.values())
    assert type(loaded).__name__.replace("Llama", "Mistral") == type(model).__name__.replace(
        "Llama", "Mistral"
    )
    torch.testing.assert_close(logits_of(loaded), logits_of(model), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "family", [family for family in FAMILIES if family != "mistral"]
)  # maps no "mistral"
def test_transformers_reads_the_same_weights_from_the_file(tmp_path: Path, family: str) -> None:
    model = tiny_model(family)
    config, tensors = parts_of(model)
    write_gguf(tmp_path / "m.gguf", config, tensors, TOKENIZER, "bf16")
    with torch.device("meta"):
        empty = AutoModelForCausalLM.from_config(CONFIGS[family])
    loaded = load_gguf_checkpoint(str(tmp_path / "m.gguf"), return_tensors=True, model_to_load=empty)
    for name, tensor in tensors.items():
        torch.testing.assert_close(loaded["tensors"][name], tensor.float(), atol=2**-23, rtol=0)
    same = (
        "hidden_size",
        "num_hidden_layers",
        "intermediate_size",
        "num_key_value_heads",
        "max_position_embeddings",
    )
    assert {key: loaded["config"][key] for key in same} == {key: config[key] for key in same}


@pytest.mark.parametrize("kind", ["bf16", "f16", "q8_0"])
def test_the_gguf_package_reads_the_same_numbers(tmp_path: Path, kind: Kind) -> None:
    tensors = export(tmp_path / "m.gguf", "qwen3", kind)
    checkpoint = GgufCheckpoint(tmp_path / "m.gguf")
    reader = gguf.GGUFReader(tmp_path / "m.gguf")
    theirs = {tensor.name: tensor for tensor in reader.tensors}
    assert theirs.keys() == checkpoint.file.tensors.keys()
    for name, pair in {
        "model.layers.1.mlp.down_proj.weight": "blk.1.ffn_down.weight",
        "model.layers.0.self_attn.q_proj.weight": "blk.0.attn_q.weight",
        "model.layers.0.self_attn.q_norm.weight": "blk.0.attn_q_norm.weight",
        "lm_head.weight": "output.weight",
    }.items():
        data = gguf.dequantize(theirs[pair].data, theirs[pair].tensor_type)
        assert np.array_equal(checkpoint.read(name).numpy(), data.reshape(tensors[name].shape))
        is_plain = tensors[name].dim() == 1
        assert theirs[pair].tensor_type.name == ("F32" if is_plain else kind.upper())
    assert reader.get_field("general.file_type").contents() == {"f16": 1, "q8_0": 7, "bf16": 32}[kind]


def test_rows_that_do_not_fill_blocks_stay_float16_in_a_q8_0_file(tmp_path: Path) -> None:
    config, tensors = parts_of(tiny_model("qwen2"))
    narrow = {name: tensor[:, :40] if "down_proj" in name else tensor for name, tensor in tensors.items()}
    write_gguf(tmp_path / "m.gguf", config, narrow, TOKENIZER, "q8_0")
    assert read_gguf(tmp_path / "m.gguf").tensors["blk.0.ffn_down.weight"].kind.name == "F16"


@pytest.mark.parametrize("family", FAMILIES)
def test_the_config_read_back_means_the_same_model(tmp_path: Path, family: str) -> None:
    export(tmp_path / "m.gguf", family)
    ours = ModelConfig.from_json(GgufCheckpoint(tmp_path / "m.gguf").config)
    original = ModelConfig.from_json(CONFIGS[family].to_dict())
    changed = {
        name: (getattr(original, name), getattr(ours, name))
        for name in ModelConfig.__slots__
        if name not in ("raw", "family") and getattr(original, name) != getattr(ours, name)
    }
    assert not changed


def test_tokenizer_fields_pass_through_unchanged(tmp_path: Path) -> None:
    export(tmp_path / "m.gguf", "qwen2")
    first = read_gguf(tmp_path / "m.gguf")
    config, tensors = parts_of(tiny_model("qwen2"))
    write_gguf(tmp_path / "n.gguf", config, tensors, tokenizer_fields(first.fields))
    assert tokenizer_fields(read_gguf(tmp_path / "n.gguf").fields) == TOKENIZER


def change(
    path: Path, fields: dict[str, MetadataValue | None], tensors: dict[str, StoredTensor] | None = None
) -> None:
    """Write the file at `path` again with other fields (None: without it) and further tensors."""
    file = read_gguf(path)
    kept = {key: field for key, field in {**file.fields, **fields}.items() if field is not None}

    def copy(name: str) -> StoredTensor:
        info = file.tensors[name]
        raw = file.read_bytes(info)
        return StoredTensor(name, info.shape, info.kind, lambda: [raw])

    stored = {name: copy(name) for name in file.tensors} | (tensors or {})
    path.unlink()
    write_container(path, kept, list(stored.values()))


@pytest.mark.parametrize(
    ("fields", "error", "what"),
    [
        ({"general.architecture": text("mamba")}, Unsupported, "the architecture 'mamba'"),
        ({"general.architecture": None}, BadFile, "no 'general.architecture'"),
        ({"qwen3.attention.clamp_kqv": integer(3)}, Unsupported, "'qwen3.attention.clamp_kqv'"),
        ({"qwen3.expert_count": integer(8)}, Unsupported, "'qwen3.expert_count'"),
        ({"qwen3.block_count": None}, BadFile, "no 'qwen3.block_count'"),
        ({"qwen3.block_count": text("two")}, BadFile, "expected a int"),
        ({"qwen3.block_count": integer(4_000_000_000)}, BadFile, "is 4,000,000,000, expected at most 1,024"),
        (
            {"qwen3.attention.head_count": array(ValueKind.INT32, [4, 2])},
            Unsupported,
            "differs from layer to layer",
        ),
        ({"qwen3.rope.dimension_count": integer(8)}, Unsupported, "'qwen3.rope.dimension_count'"),
        ({"qwen3.rope.scaling.type": text("longrope")}, Unsupported, "is 'longrope'"),
        ({"split.count": integer(2)}, Unsupported, "llama-gguf-split --merge"),
        ({"tokenizer.ggml.tokens": array(ValueKind.STRING, ["a"] * 321)}, BadFile, "lists 321 tokens"),
    ],
)
def test_metadata_that_is_not_honoured_is_refused_by_name(
    tmp_path: Path, fields: dict[str, MetadataValue | None], error: type[Exception], what: str
) -> None:
    export(tmp_path / "m.gguf", "qwen3")
    change(tmp_path / "m.gguf", fields)
    with pytest.raises(error, match=what):
        GgufCheckpoint(tmp_path / "m.gguf")


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.integers(0, 10**6), value=st.binary(min_size=1, max_size=4))
def test_a_damaged_file_never_gives_another_exception(
    tmp_path_factory: pytest.TempPathFactory, position: int, value: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.gguf"
    if not path.exists():
        export(path, "llama")
    whole = path.read_bytes()
    head = min(info.offset for info in read_gguf(path).tensors.values())
    tokens = whole.index(b"tokenizer.ggml.tokens")  # before it lies what decides
    position %= tokens if position % 4 else head
    message = str(path)
    path.write_bytes(whole[:position] + value + whole[position + len(value) :])
    try:
        checkpoint = GgufCheckpoint(path)
        for name in checkpoint.names():
            checkpoint.read(name)
    except GroschenError as error:
        message = str(error)
    finally:
        path.write_bytes(whole)
    assert str(path) in message or "rope_freqs.weight" in message or "sliding window pattern" in message


def test_a_tensor_that_is_not_known_is_refused_by_name(tmp_path: Path) -> None:
    export(tmp_path / "m.gguf", "qwen3")
    raw = np.zeros(8, dtype=np.uint8)
    extra = StoredTensor(
        "blk.0.attn_sinks.weight",
        (2,),
        read_gguf(tmp_path / "m.gguf").tensors["output_norm.weight"].kind,
        lambda: [raw],
    )
    change(tmp_path / "m.gguf", {}, {extra.name: extra})
    with pytest.raises(Unsupported, match=r"the tensor 'blk\.0\.attn_sinks\.weight'"):
        GgufCheckpoint(tmp_path / "m.gguf")


def test_rope_divisors_that_are_not_llama3_are_refused(tmp_path: Path) -> None:
    export(tmp_path / "m.gguf", "llama")
    divisors = np.linspace(1, 3, 8, dtype=np.float32).view(np.uint8)
    kind = read_gguf(tmp_path / "m.gguf").tensors["rope_freqs.weight"].kind
    change(
        tmp_path / "m.gguf",
        {},
        {"rope_freqs.weight": StoredTensor("rope_freqs.weight", (8,), kind, lambda: [divisors])},
    )
    with pytest.raises(Unsupported, match=r"rope_freqs\.weight"):
        GgufCheckpoint(tmp_path / "m.gguf")


@pytest.mark.parametrize("length", [-16, 1 << 40])
def test_rope_divisors_for_heads_of_an_impossible_width_are_refused(tmp_path: Path, length: int) -> None:
    export(tmp_path / "m.gguf", "llama")
    width = MetadataValue(ValueKind.INT64, length)
    keys = ("attention.key_length", "attention.value_length", "rope.dimension_count")
    change(tmp_path / "m.gguf", {f"llama.{key}": width for key in keys})
    with pytest.raises((BadFile, Unsupported), match=r"key_length|rope_freqs\.weight"):
        GgufCheckpoint(tmp_path / "m.gguf")


@pytest.mark.parametrize(
    ("family", "changes", "what"),
    [
        ("mistral", {"sliding_window": 64}, "no sliding window"),
        (
            "qwen2",
            {"use_sliding_window": True, "max_window_layers": 1, "layer_types": None, "sliding_window": 8},
            "no sliding window",
        ),
        ("qwen2", {"model_type": "olmo"}, "models of type 'olmo'"),
        ("qwen2", {"hidden_act": "gelu"}, "activation 'gelu'"),
        (
            "qwen2",
            {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}},
            "'dynamic'",
        ),
        ("gemma3", {"query_pre_attn_scalar": 100}, "query_pre_attn_scalar 100"),
        ("gemma2", {"attn_logit_softcapping": None}, "attn_logit_softcapping"),
        ("gemma3", {"final_logit_softcapping": 30.0}, "final_logit_softcapping"),
    ],
)
def test_what_llama_cpp_would_compute_differently_is_not_exported(
    tmp_path: Path, family: str, changes: dict[str, Any], what: str
) -> None:
    config, tensors = parts_of(tiny_model(family))
    with pytest.raises(Unsupported, match=what):
        write_gguf(tmp_path / "m.gguf", {**config, **changes}, tensors, TOKENIZER)
    assert not list(tmp_path.iterdir())


def test_a_window_that_the_config_leaves_to_its_class_is_not_exported_either(tmp_path: Path) -> None:
    config, tensors = parts_of(tiny_model("mistral"))
    del config["sliding_window"]
    write_gguf(tmp_path / "short.gguf", {**config, "max_position_embeddings": 4096}, tensors, TOKENIZER)
    with pytest.raises(Unsupported, match="or max_position_embeddings to 4096"):
        write_gguf(tmp_path / "m.gguf", {**config, "max_position_embeddings": 8192}, tensors, TOKENIZER)


def test_an_export_that_cannot_be_right_is_refused(tmp_path: Path) -> None:
    config, tensors = parts_of(tiny_model("qwen2"))
    with pytest.raises(BadRequest, match="0 tokens and the embedding 320 rows"):
        write_gguf(tmp_path / "m.gguf", config, tensors, {})
    with pytest.raises(Unsupported, match=r"'model\.layers\.0\.self_attn\.sinks'"):
        write_gguf(
            tmp_path / "m.gguf",
            config,
            {**tensors, "model.layers.0.self_attn.sinks": torch.ones(2)},
            TOKENIZER,
        )
    for number, kind in ((1e5, "f16"), (1e7, "q8_0"), (math.nan, "bf16")):
        large = {**tensors, "lm_head.weight": torch.full((320, 64), number)}
        with pytest.raises(
            BadRequest, match=f"'lm_head.weight' has numbers beyond .* {kind.upper()} cannot hold"
        ):
            write_gguf(tmp_path / "m.gguf", config, large, TOKENIZER, kind)
    assert not list(tmp_path.iterdir())


@pytest.mark.real
def test_the_real_file_has_a_complete_qwen2_model(real_gguf: Path, tmp_path: Path) -> None:
    checkpoint = GgufCheckpoint(real_gguf)
    config = ModelConfig.from_json(checkpoint.config)
    assert (config.num_layers, config.width, config.num_heads, config.num_kv_heads) == (24, 896, 14, 2)
    assert checkpoint.config["rope_theta"] == 1e6
    assert checkpoint.config["rms_norm_eps"] == 1e-6
    assert checkpoint.config["vocab_size"] == 151_936
    (tmp_path / "config.json").write_text(json.dumps(checkpoint.config))
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(tmp_path))
    expected = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    assert dict(checkpoint.names()) == expected


@pytest.mark.slow
@pytest.mark.real
def test_every_tensor_of_the_real_file_equals_the_gguf_packages(real_gguf: Path) -> None:
    checkpoint = GgufCheckpoint(real_gguf)
    ours = {info.offset: name for name, info in checkpoint._infos.items()}
    reader = gguf.GGUFReader(real_gguf)
    assert len(reader.tensors) == len(ours)
    for tensor in reader.tensors:
        name = ours[int(tensor.data_offset)]
        rows = checkpoint.names()[name][0]
        for start in {0, max(0, rows - 2000)}:  # the whole of all but embedding and head
            stop = min(rows, start + 2000) if rows > 100_000 else rows
            theirs = gguf.dequantize(tensor.data[start:stop], tensor.tensor_type)
            found = checkpoint.read_rows(name, start, stop).numpy()
            assert np.array_equal(found.view(np.uint32), theirs.reshape(found.shape).view(np.uint32)), name
    assert math.prod(checkpoint.names()["lm_head.weight"]) == 151_936 * 896


def test_a_number_for_each_layer_is_read_where_all_are_equal(tmp_path: Path) -> None:
    export(tmp_path / "m.gguf", "qwen3")
    fields = read_gguf(tmp_path / "m.gguf").fields
    tensors = stored_again(tmp_path / "m.gguf")
    for counts, is_read in (([2, 2], True), ([2, 1], False), ([], False)):
        path = tmp_path / f"{len(counts)}{is_read}.gguf"
        key = "qwen3.attention.head_count_kv"
        write_container(path, {**fields, key: array(ValueKind.UINT32, counts)}, tensors)
        if is_read:
            assert GgufCheckpoint(path).config["num_key_value_heads"] == 2
        else:
            with pytest.raises(Unsupported, match="differs from layer to layer"):
                GgufCheckpoint(path)


def stored_again(path: Path) -> list[StoredTensor]:
    """The tensors of a file, to be written again as they are."""
    file = read_gguf(path)
    return [
        StoredTensor(info.name, info.shape, info.kind, lambda info=info: [file.read_bytes(info)])
        for info in file.tensors.values()
    ]
