"""Weights of 8 and 4 bits: against arithmetic written out in numpy, exact in any company, loaded lean, never
trained.
"""

import bisect
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.engine.test_engine_exactness import requests
from tests.tiny import FAMILIES, tiny_engine, tiny_model

from groschen import machine
from groschen.engine.open import open_engine
from groschen.errors import BadFile, BadRequest, DoesNotFit, Unsupported
from groschen.model import build_kernels
from groschen.model.checkpoint import open_checkpoint
from groschen.model.folder_writer import write_folder
from groschen.model.kvcache import Rows
from groschen.model.load import check_memory, load_model
from groschen.model.products import QuantizedProduct
from groschen.model.quantized import Weights, kits, weights_of
from groschen.model.transformer import Linear, Transformer
from groschen.records import Request, SamplingParams

CPU = torch.device("cpu")
MODES = [Weights.INT8, Weights.INT4]
SHAPES = [(16, 64), (1, 1), (50, 144), (33, 97), (300, 1100), (128, 4864)]  # outputs, inputs


@pytest.fixture(autouse=True)
def compiled() -> None:
    built = build_kernels.library(is_bf16=False)
    if built.library is None:
        pytest.skip(built.why_not)


def product_of(weights: Weights) -> QuantizedProduct:
    product = kits(weights, CPU)[0].product
    assert isinstance(product, QuantizedProduct)
    return product


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def recovered(product: QuantizedProduct, packed: torch.Tensor, outputs: int, inputs: int) -> torch.Tensor:
    """The weights that the codes stand for, asked one input at a time. A lone 1.0 is rounded to itself."""
    return product.multiply(torch.eye(inputs), packed, outputs, None).T.contiguous()


def eight_bits_by_hand(weight: np.ndarray) -> np.ndarray:
    """Blocks of 64 inputs: the largest magnitude over 127, rounded up to bfloat16, times whole numbers."""
    outputs, inputs = weight.shape
    blocks = np.pad(weight, ((0, 0), (0, -inputs % 64))).reshape(outputs, -1, 64)
    exact = (np.abs(blocks).max(2, keepdims=True) / np.float32(127)).astype(np.float32)
    scale = (((exact.view(np.uint32).astype(np.uint64) + 0xFFFF) >> 16) << 16).astype(np.uint32)
    scale = scale.view(np.float32)
    codes = np.rint(blocks * np.where(scale > 0, 1 / np.where(scale > 0, scale, 1), 0).astype(np.float32))
    assert np.abs(codes).max() <= 127
    return (codes * scale).reshape(outputs, -1)[:, :inputs].astype(np.float32)


@pytest.mark.parametrize(("outputs", "inputs"), SHAPES)
def test_eight_bit_weights_are_those_worked_out_by_hand(outputs: int, inputs: int) -> None:
    weight, product = random(outputs, inputs), product_of(Weights.INT8)
    found = recovered(product, product.pack(weight), outputs, inputs)
    np.testing.assert_allclose(found.numpy(), eight_bits_by_hand(weight.numpy()), rtol=3e-7, atol=0)


def test_four_bit_weights_have_one_scale_and_sixteen_levels_in_each_block() -> None:
    weight, product = random(40, 160), product_of(Weights.INT4)
    blocks = recovered(product, product.pack(weight), 40, 160).reshape(-1, 32)
    for block in blocks.tolist():
        assert len({round(value, 6) for value in block}) <= 16
    # Every block must come nearer than plain rounding with evenly spaced levels does on the whole.
    exact = weight.reshape(-1, 32)
    scale = exact.abs().amax(1, keepdim=True) / 7
    plain = (exact / scale).round().clamp(-8, 7) * scale
    error, plain_error = (blocks - exact).square().mean(1), (plain - exact).square().mean(1)
    assert error.mean() < 0.75 * plain_error.mean()
    assert (error < 1.3 * plain_error).all()


@pytest.mark.parametrize("weights", MODES)
def test_a_weight_of_zeros_a_tiny_and_a_huge_one_come_back(weights: Weights) -> None:
    product = product_of(weights)
    for value in (0.0, 1e-36, 1e-20, 3.0, 1e30):
        found = recovered(product, product.pack(torch.full((20, 70), value)), 20, 70)
        assert ((found - value).abs() <= 0.01 * value + 1e-30).all(), value


@pytest.mark.parametrize("weights", MODES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize(("outputs", "inputs"), SHAPES)
def test_a_product_is_that_of_its_weights_to_five_digits(
    weights: Weights, dtype: torch.dtype, outputs: int, inputs: int
) -> None:
    weight, x, bias = random(outputs, inputs).to(dtype), random(70, inputs, seed=1), random(outputs, seed=2)
    product = product_of(weights)
    packed = product.pack(weight)
    exact = recovered(product, packed, outputs, inputs).double()
    expected = x.double() @ exact.T + bias.double()
    size = x.double().norm(dim=1, keepdim=True) * exact.norm(dim=1)  # of a product whose terms add up
    for count in (1, 5, 70):
        found = product.multiply(x[:count], packed, outputs, bias)
        assert ((found - expected[:count]).abs() <= 3e-5 * size[:count] + 1e-6).all()


@pytest.mark.parametrize("weights", MODES)
@pytest.mark.parametrize(("outputs", "inputs"), [(1152, 896), (33, 97), (300, 2100)])
def test_a_row_has_the_same_bits_beside_any_number_of_rows_and_threads(
    weights: Weights, outputs: int, inputs: int, threads: None
) -> None:
    product, x = product_of(weights), random(200, inputs)
    packed, bias = product.pack(random(outputs, inputs, seed=1)), random(outputs, seed=2)
    whole = product.multiply(x, packed, outputs, bias)
    for count in (1, 2, 3, 4, 5, 7, 8, 15, 16, 17, 18, 64, 193, 200):
        for number in (1, 2, 3):
            torch.set_num_threads(number)
            assert torch.equal(product.multiply(x[:count].clone(), packed, outputs, bias), whole[:count])
    assert torch.equal(product.multiply(x[77:78], packed, outputs, bias), whole[77:78])


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("weights", MODES)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_number_that_is_not_finite_shows_in_its_row_and_in_no_other(weights: Weights, bad: float) -> None:
    product, x = product_of(weights), random(20, 97)
    packed = product.pack(random(33, 97, seed=1))
    clean = product.multiply(x, packed, 33, None)
    x[7, 96] = bad
    found = product.multiply(x, packed, 33, None)
    assert found[7].isnan().all()
    others = [row for row in range(20) if row != 7]
    assert torch.equal(found[others], clean[others])


@pytest.mark.parametrize("weights", MODES)
def test_rows_of_zeros_tiny_and_huge_numbers_keep_their_size(weights: Weights) -> None:
    product, x = product_of(weights), random(1, 96)
    packed = product.pack(random(16, 96, seed=1))
    usual = product.multiply(x, packed, 16, None)
    for factor in (2.0**-90, 2.0**100):
        assert torch.equal(product.multiply(x * factor, packed, 16, None), usual * factor)
    assert torch.equal(product.multiply(x * 0, packed, 16, None), usual * 0)
    assert product.multiply(x * 1e-38, packed, 16, None).abs().max() < 1e-36


# -- models


def saved(place: Path, family: str) -> tuple[Transformer, str]:
    """A tiny model in bfloat16 and the folder it was written to."""
    model = tiny_model(family)
    write_folder(place / family, {**model.config.raw}, model.tensors(), {})
    return model, str(place / family)


def logits(model: Transformer, num_tokens: int = 90) -> torch.Tensor:
    token_ids = torch.randint(0, 300, (num_tokens,), generator=torch.Generator().manual_seed(3))
    rows = Rows.of_sequences([num_tokens - 30, 30], CPU)
    return model.logits(model(token_ids, rows, model.new_cache(12)))


@pytest.mark.parametrize("weights", MODES)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_quantised_model_is_the_plain_one_with_its_weights_rounded(
    tmp_path: Path, family: str, weights: Weights
) -> None:
    """Also holds that loading finds every product: the plain model gets the recovered weights."""
    plain, folder = saved(tmp_path, family)
    model = load_model(folder, weights=weights)
    assert model.weights is weights
    linears = {name: module for name, module in plain.named_modules() if isinstance(module, Linear)}
    wide = Transformer(plain.config, torch.float32)
    for name, tensor in plain.tensors().items():
        wide.tensors()[name].copy_(tensor)
    if plain.config.has_tied_head:
        wide.lm_head.weight = torch.nn.Parameter(torch.empty(plain.lm_head.weight.shape))
    for name, module in linears.items():
        kit = kits(weights, CPU)[1 if name == "lm_head" else 0]
        packed = kit.product.pack(module.weight)
        eye = torch.eye(module.weight.shape[1])
        target = wide.get_submodule(name).weight
        target.data.copy_(kit.product.multiply(eye, packed, module.weight.shape[0], None).T)
    with torch.no_grad():
        found, expected, unrounded = logits(model), logits(wide), logits(plain)
    assert (found - expected).abs().max() < 2e-3 * expected.abs().max()
    loss = (found.softmax(-1) * (found.log_softmax(-1) - unrounded.log_softmax(-1))).sum(-1).mean()
    assert 0 < loss < (0.002 if weights is Weights.INT8 else 0.2)  # nat


@pytest.mark.parametrize("weights", MODES)
@pytest.mark.parametrize("family", FAMILIES)
def test_quantised_layers_run_in_one_call_have_the_bits_of_layers_run_one_by_one(
    tmp_path: Path, family: str, weights: Weights
) -> None:
    model = load_model(saved(tmp_path, family)[1], weights=weights)
    with torch.no_grad():
        fused = logits(model)
    assert torch.equal(fused, logits(model))


@pytest.mark.parametrize("weights", MODES)
@pytest.mark.parametrize("family", ["qwen2", "gemma3"])
def test_a_quantised_model_writes_a_seeded_text_alone_and_among_63_others(
    tmp_path: Path, family: str, weights: Weights
) -> None:
    model, asked = load_model(saved(tmp_path, family)[1], weights=weights), requests(64)
    together = tiny_engine(model, max_rows=64).generate(asked)
    chunked = tiny_engine(model, max_rows=64, chunk_tokens=7).generate(asked)
    assert [group[0].logprobs for group in together] == [group[0].logprobs for group in chunked]
    for index in range(0, 64, 9):
        (alone,) = tiny_engine(model).generate([asked[index]])
        assert alone[0].token_ids == together[index][0].token_ids
        assert alone[0].logprobs == together[index][0].logprobs


@pytest.mark.parametrize("weights", MODES)
@pytest.mark.parametrize("family", ["qwen2", "qwen3"])
def test_only_the_embedding_stays_beside_the_codes(tmp_path: Path, family: str, weights: Weights) -> None:
    model = load_model(saved(tmp_path, family)[1], weights=weights)
    kept = {name for name, parameter in model.named_parameters() if not parameter.is_meta}
    assert "embed_tokens.weight" in kept
    assert all("norm" in name or "bias" in name or "embed" in name for name in kept)
    for module in model.modules():
        if isinstance(module, Linear):
            bits = 8 * module.pack().weight.numel() / module.weight.numel()
            # rows and inputs are padded to whole panels and blocks, which a small model feels
            assert bits < (16 if weights is Weights.INT8 or module is model.lm_head else 9)


@pytest.mark.parametrize("weights", MODES)
def test_a_quantised_model_is_neither_trained_nor_written(tmp_path: Path, weights: Weights) -> None:
    model = load_model(saved(tmp_path, "qwen2")[1], weights=weights)
    with pytest.raises(Unsupported, match=f"are {weights}, which is for serving only"):
        model.requires_grad_(True)
    with pytest.raises(Unsupported, match=f"are {weights}, which is for serving only"):
        model.tensors()
    model.embed_tokens.weight.requires_grad_(True)
    with pytest.raises(Unsupported, match="have no gradient"):
        logits(model).sum().backward()


def test_a_checkpoint_that_lacks_a_tensor_is_refused_before_anything_is_quantised(tmp_path: Path) -> None:
    model = tiny_model("qwen3")
    tensors = model.tensors()
    del tensors["model.layers.2.mlp.down_proj.weight"]
    write_folder(tmp_path / "m", {**model.config.raw}, tensors, {})
    with pytest.raises(BadFile, match=r"lacks model\.layers\.2\.mlp\.down_proj\.weight"):
        load_model(str(tmp_path / "m"), weights=Weights.INT8)


def test_a_weight_that_is_not_finite_is_refused_when_it_is_quantised(tmp_path: Path) -> None:
    model = tiny_model("qwen2")
    model.tensors()["model.layers.1.self_attn.v_proj.weight"][3, 5] = float("nan")
    write_folder(tmp_path / "m", {**model.config.raw}, model.tensors(), {})
    with pytest.raises(BadFile, match=r"layers\.1\.self_attn\.v_proj\.weight"):
        load_model(str(tmp_path / "m"), weights=Weights.INT4)


def test_int4_fits_where_bf16_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("qwen3", hidden_size=512, intermediate_size=2048, num_hidden_layers=4)
    write_folder(tmp_path / "m", {**model.config.raw}, model.tensors(), {})
    checkpoint = open_checkpoint(str(tmp_path / "m"))

    def is_refused(weights: Weights, free: int) -> bool:
        monkeypatch.setattr(machine, "free_memory_bytes", lambda device: free)
        try:
            check_memory(checkpoint, model.config, torch.bfloat16, CPU, weights)
        except DoesNotFit as refused:
            return str(weights) in str(refused) or weights is Weights.PLAIN
        return False

    def needed(weights: Weights) -> int:
        """Bytes below which it is refused, without the spare."""
        return bisect.bisect_left(
            range(300_000_000, 1_000_000_000), True, key=lambda free: not is_refused(weights, free)
        )

    plain, int8, int4 = (needed(weights) for weights in (Weights.PLAIN, Weights.INT8, Weights.INT4))
    assert 0 < int4 < 0.7 * int8 < 0.3 * plain


def test_without_compiled_kernels_quantised_weights_are_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = saved(tmp_path, "qwen2")[1]
    monkeypatch.setenv("GROSCHEN_KERNELS", "off")
    build_kernels.library.cache_clear()
    try:
        with pytest.raises(Unsupported, match=r"int8 weights need the compiled kernels: switched off by"):
            load_model(folder, weights=Weights.INT8)
    finally:
        build_kernels.library.cache_clear()


def test_a_gpu_refuses_quantised_weights_by_name() -> None:
    with pytest.raises(Unsupported, match="int4 weights run on CPUs only"):
        kits(Weights.INT4, torch.device("cuda"))


def test_a_word_that_names_no_mode_is_refused() -> None:
    assert weights_of(None) is Weights.PLAIN and weights_of("int4") is Weights.INT4
    with pytest.raises(BadRequest, match="weights are 'int5', expected one of bf16, int8, int4"):
        weights_of("int5")


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.parametrize("weights", MODES)
def test_the_real_model_answers_with_quantised_weights(real_gguf: Path, weights: Weights) -> None:
    opened = open_engine(str(real_gguf), weights=weights)
    ids = opened.text.chat_template().encode(
        opened.text.tokenizer, [{"role": "user", "content": "What is the capital of France? One word."}]
    )
    sampling = SamplingParams(max_tokens=12, temperature=0.0)
    (group,) = opened.engine.generate([Request(prompt_ids=tuple(ids), sampling=sampling)])
    assert "Paris" in group[0].text
