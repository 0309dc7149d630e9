import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from huggingface_hub.errors import LocalEntryNotFoundError, RepositoryNotFoundError

from file_samples import parts_of, tiny_model
from groschen.errors import BadFile
from groschen.model import checkpoint as checkpoint_module
from groschen.model.checkpoint import load_weights, open_checkpoint
from groschen.model.folder_writer import write_folder
from groschen.model.gguf_checkpoint import GgufCheckpoint
from groschen.model.gguf_export import write_gguf
from groschen.model.gguf_format import ValueKind
from groschen.model.gguf_writer import array
from groschen.model.safetensors_folder import SafetensorsFolder

TOKENS = {"tokenizer.ggml.tokens": array(ValueKind.STRING, [str(number) for number in range(320)])}


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Path, dict[str, torch.Tensor]]:
    config, tensors = parts_of(tiny_model("llama"))
    write_folder(tmp_path / "llama", config, tensors, {})
    write_gguf(tmp_path / "llama.gguf", config, tensors, TOKENS)
    return tmp_path, tensors


def empty_like(
    tensors: dict[str, torch.Tensor], dtype: torch.dtype = torch.bfloat16
) -> dict[str, torch.Tensor]:
    return {name: torch.full(tensor.shape, 9.0, dtype=dtype) for name, tensor in tensors.items()}


def test_a_folder_and_a_gguf_file_load_the_same_bits(saved: tuple[Path, dict[str, torch.Tensor]]) -> None:
    place, tensors = saved
    for source, kind in ((place / "llama", SafetensorsFolder), (place / "llama.gguf", GgufCheckpoint)):
        found = open_checkpoint(str(source))
        assert isinstance(found, kind)
        destination = empty_like(tensors)
        load_weights(destination, found)
        assert all(torch.equal(destination[name], tensor) for name, tensor in tensors.items())


def test_weights_are_cast_into_views_in_pieces(
    saved: tuple[Path, dict[str, torch.Tensor]], monkeypatch: pytest.MonkeyPatch
) -> None:
    place, tensors = saved
    monkeypatch.setattr(checkpoint_module, "_NUMBERS_AT_ONCE", 200)  # three rows of 64 at a time
    fused = torch.zeros(200, 64, dtype=torch.float32)
    destination = empty_like(tensors, torch.float32)
    destination["model.layers.0.self_attn.q_proj.weight"] = fused[50:114]
    load_weights(destination, open_checkpoint(str(place / "llama.gguf")))
    assert all(torch.equal(destination[name], tensor.float()) for name, tensor in tensors.items())
    assert torch.equal(fused[50:114], tensors["model.layers.0.self_attn.q_proj.weight"].float())
    assert not fused[:50].any() and not fused[114:].any()


def test_names_and_shapes_must_fit_both_ways(saved: tuple[Path, dict[str, torch.Tensor]]) -> None:
    place, tensors = saved
    destination = empty_like(tensors)
    del destination["model.norm.weight"]
    destination |= {f"new.{number}.weight": torch.zeros(1) for number in range(7)}
    destination["lm_head.weight"] = torch.zeros(320, 65)
    with pytest.raises(BadFile) as caught:
        load_weights(destination, open_checkpoint(str(place / "llama")))
    message = str(caught.value)
    assert "lacks new.0.weight, new.1.weight, new.2.weight, new.3.weight, new.4.weight and 2 more" in message
    assert "unexpected, model.norm.weight;" in message
    assert "lm_head.weight (320, 64) instead of (320, 65)" in message


def test_rotary_buffers_of_old_releases_are_ignored(tmp_path: Path) -> None:
    config, tensors = parts_of(tiny_model("llama"))
    old = {**tensors, "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(8)}
    write_folder(tmp_path / "m", config, old, {})
    load_weights(empty_like(tensors), open_checkpoint(str(tmp_path / "m")))


def test_a_stored_head_of_a_tied_model_must_be_its_embedding(tmp_path: Path) -> None:
    config, tensors = parts_of(tiny_model("qwen2_tied"))
    embedding = tensors["model.embed_tokens.weight"]
    untied = {**config, "tie_word_embeddings": False}
    write_folder(tmp_path / "same", untied, {**tensors, "lm_head.weight": embedding}, {})
    write_folder(tmp_path / "other", untied, {**tensors, "lm_head.weight": embedding + 1}, {})
    load_weights(empty_like(tensors), open_checkpoint(str(tmp_path / "same")))
    with pytest.raises(BadFile, match=r"'lm_head\.weight' that differs from the embedding"):
        load_weights(empty_like(tensors), open_checkpoint(str(tmp_path / "other")))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_number_that_is_not_finite_names_its_tensor(tmp_path: Path, value: float) -> None:
    config, tensors = parts_of(tiny_model("qwen2"))
    damaged = tensors["model.layers.1.mlp.up_proj.weight"].clone()
    damaged[17, 3] = value
    write_folder(tmp_path / "m", config, {**tensors, "model.layers.1.mlp.up_proj.weight": damaged}, {})
    with pytest.raises(BadFile, match=r"'model\.layers\.1\.mlp\.up_proj\.weight' .* NaN or infinite"):
        load_weights(empty_like(tensors), open_checkpoint(str(tmp_path / "m")))


def test_a_number_that_only_the_wider_type_holds_is_told_apart(tmp_path: Path) -> None:
    config, tensors = parts_of(tiny_model("qwen2"))
    write_folder(tmp_path / "m", config, {**tensors, "lm_head.weight": torch.full((320, 64), 1e6)}, {})
    with pytest.raises(BadFile, match="numbers too large for float16"):
        load_weights(empty_like(tensors, torch.float16), open_checkpoint(str(tmp_path / "m")))


def test_a_mistyped_path_gets_its_nearest_name(
    saved: tuple[Path, dict[str, torch.Tensor]], monkeypatch: pytest.MonkeyPatch
) -> None:
    place, _ = saved
    monkeypatch.setattr(
        checkpoint_module, "snapshot_download", lambda *args, **kwargs: pytest.fail("asked the hub")
    )
    for typed, meant in (("lama.gguf", "llama.gguf"), ("llamma", "llama"), ("lama.gguf/x/y", "llama.gguf")):
        with pytest.raises(BadFile, match=rf"there is no model at .*did you mean {place / meant}\?"):
            open_checkpoint(str(place / typed))
    monkeypatch.chdir(place.parent)
    with pytest.raises(
        BadFile, match="did you mean"
    ):  # looks like a hub id, but its first half is a folder here
        open_checkpoint(f"{place.name}/lama.gguf")
    with pytest.raises(BadFile, match="there is no model at nothing"):
        open_checkpoint("nothing")


def test_a_file_that_is_no_model_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"PK\x03\x04")
    (tmp_path / "a.safetensors").write_bytes(b"")
    (tmp_path / "a.gguf").write_bytes(b"")
    with pytest.raises(BadFile, match="is no model: it begins with b'PK"):
        open_checkpoint(str(tmp_path / "a.bin"))
    with pytest.raises(BadFile, match="give the folder"):
        open_checkpoint(str(tmp_path / "a.safetensors"))
    with pytest.raises(BadFile, match="truncated"):
        open_checkpoint(str(tmp_path / "a.gguf"))


def test_a_hub_id_is_looked_up_in_the_cache_when_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(
        BadFile, match=r"org/tiny is neither a folder here nor in the hub's cache.*HF_HUB_OFFLINE"
    ):
        open_checkpoint("org/tiny")
    config, tensors = parts_of(tiny_model("qwen2"))
    repository = tmp_path / "models--org--tiny"
    write_folder(repository / "snapshots" / "abc", config, tensors, {})
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")
    found = open_checkpoint("org/tiny")
    assert found.names().keys() == tensors.keys()


def test_only_weights_that_are_no_pickles_are_asked_of_the_hub(
    saved: tuple[Path, dict[str, torch.Tensor]], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {}

    def download(name: str, *, allow_patterns: list[str], ignore_patterns: list[str]) -> str:
        asked.update({"name": name, "allow": allow_patterns, "ignore": ignore_patterns})
        return str(saved[0] / "llama")

    monkeypatch.setattr(checkpoint_module, "snapshot_download", download)
    open_checkpoint("org/tiny")
    assert asked["name"] == "org/tiny"
    assert not [
        pattern for pattern in asked["allow"] if pattern == "*" or pattern.endswith((".bin", ".pt", ".pth"))
    ]


@pytest.mark.parametrize(
    ("error", "what"),
    [
        (LocalEntryNotFoundError("x"), "the hub cannot be asked"),
        (OSError("disk on fire\nmore"), r"could not be fetched from the hub \(disk on fire\)"),
    ],
)
def test_a_failed_download_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, error: Exception, what: str
) -> None:
    def fail(*args: object, **kwargs: object) -> str:
        raise error

    monkeypatch.setattr(checkpoint_module, "snapshot_download", fail)
    with pytest.raises(BadFile, match=what) as caught:
        open_checkpoint("org/tiny")
    assert "\n" not in str(caught.value)


def test_an_unknown_hub_id_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **kwargs: object) -> str:
        raise RepositoryNotFoundError.__new__(RepositoryNotFoundError)

    monkeypatch.setattr(checkpoint_module, "snapshot_download", fail)
    with pytest.raises(BadFile, match="there is no folder org/tiny here and no model org/tiny on the hub"):
        open_checkpoint("org/tiny")


_MEASURE = """
import gc, json, sys, torch
from groschen.model.checkpoint import load_weights, open_checkpoint
def status(key):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(key)) * 1024
torch.empty(10, 10) @ torch.empty(10, 10)
before = status("VmRSS")
checkpoint = open_checkpoint(sys.argv[1])
model = {name: torch.empty(shape, dtype=torch.bfloat16) for name, shape in checkpoint.names().items()}
load_weights(model, checkpoint)
peak = status("VmHWM") - before
print(json.dumps({"peak": peak, "weights": sum(tensor.nbytes for tensor in model.values())}))
"""


def peak_over_weights(source: Path) -> float:
    command = [sys.executable, "-W", "ignore", "-c", _MEASURE, str(source)]
    measured = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return float(measured["peak"] / measured["weights"])


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_loading_a_folder_peaks_below_1_15_of_its_weights(tmp_path: Path) -> None:
    tensors = {
        f"model.{number}.weight": torch.ones(20_000, 1000, dtype=torch.bfloat16) for number in range(4)
    }
    write_folder(tmp_path / "m", {}, tensors, {})  # 160 MB
    # Pages that the kernel took away before and that come back meanwhile only add to a peak: one quiet run
    # decides.
    assert any(peak_over_weights(tmp_path / "m") < 1.15 for _ in range(3))


@pytest.mark.slow
@pytest.mark.real
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_loading_the_real_file_peaks_below_1_15_of_its_weights(real_gguf: Path) -> None:
    assert peak_over_weights(real_gguf) < 1.15
