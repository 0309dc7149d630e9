"""Which operations a CUDA device is given: none whose sums have another order beside other rows, or in
another run.
"""

import pytest
import torch
from tests.engine.test_engine_exactness import prompt, requests
from tests.fake_cuda import DEVICE, Call, FakeCuda
from tests.gpu.models import engine_on, model_on
from tests.tiny import tiny_model
from tests.train.samples import scored_groups

from groschen.model import exactness
from groschen.model.operations import kit_for
from groschen.model.products import ROWS_OF_A_CALL
from groschen.records import Request, SamplingParams
from groschen.train.batch import batch
from groschen.train.step import Objective, gradient

# Reductions and scans whose threads, and products whose tiles, a library chooses by the shape.
_BY_SHAPE = {"mean", "_softmax", "_log_softmax", "cumsum", "logcumsumexp", "logsumexp", "bmm", "baddbmm",
             "var", "std", "linalg_vector_norm", "prod", "native_layer_norm"}  # fmt: skip
_PRODUCTS = {"mm", "addmm", "linear", "matmul", "dot", "mv", "addmv"}
# Several threads add to one number, whichever comes first.
_ATOMIC = {"index_add", "index_add_", "scatter_add", "scatter_add_", "scatter_reduce", "bincount", "histc",
           "embedding_dense_backward", "put_"}  # fmt: skip


def depends_on_the_company(call: Call) -> bool:
    """Whether a row's bits may depend on the shape of what was given, on some device."""
    if call.name == "sum":
        return call.dtypes[0].is_floating_point
    if call.name in _PRODUCTS:
        x = call.shapes[-2]
        return x[0] != ROWS_OF_A_CALL
    return call.name in _BY_SHAPE


def is_atomic(call: Call) -> bool:
    return call.name in _ATOMIC or (
        call.name in ("index_put_", "_index_put_impl_") and True in call.arguments[:1]
    )


def names(calls: list[Call]) -> set[str]:
    return {f"{call.name} of {call.shapes} at {call.where}" for call in calls}


@pytest.mark.parametrize("family", ["qwen3", "gemma2"])
def test_the_engine_asks_for_no_sum_whose_order_depends_on_the_company(
    stand_in: FakeCuda, family: str
) -> None:
    engine = engine_on(model_on(DEVICE, family), speculate=3)
    stand_in.forget()
    sampling = SamplingParams(max_tokens=4, seed=2, top_p=0.9, top_k=20, top_logprobs=2, prompt_logprobs=True)
    engine.generate([*requests(3, max_tokens=5), Request(prompt_ids=prompt(40, 3), sampling=sampling)])
    assert {"mm", "embedding", "exp"} <= set(stand_in.launches)
    assert (
        names([call for call in stand_in.calls if depends_on_the_company(call) or is_atomic(call)]) == set()
    )


def test_the_trainer_scores_with_no_sum_whose_order_depends_on_the_company(stand_in: FakeCuda) -> None:
    """The forward of a gradient; what follows it is never compared with another batch."""
    model = model_on(DEVICE, "qwen3")
    made = batch(scored_groups(tiny_model("qwen3"), (5, 33), 3, 10), "token", 1, 2048, DEVICE)
    stand_in.forget()
    with torch.no_grad():
        for part in made.micro_batches:
            hidden = model(part.token_ids_N, part.rows, model.new_cache(part.num_blocks))
            model.kit.operations.categorical(
                model.logits(hidden), torch.ones(len(hidden), device=DEVICE), None, part.token_ids_N
            )
    assert names([call for call in stand_in.calls if depends_on_the_company(call)]) == set()


def test_a_gradient_adds_up_with_no_atomics(stand_in: FakeCuda) -> None:
    model = model_on(DEVICE, "smollm").requires_grad_(True)
    for parameter in model.parameters():
        parameter.grad_dtype = torch.float32
    made = batch(scored_groups(tiny_model("smollm"), (5, 33), 4, 10), "token", 1, 2048, DEVICE)
    stand_in.forget()
    gradient(model, made, Objective())
    assert names([call for call in stand_in.calls if is_atomic(call)]) == set()


@pytest.mark.parametrize("count", [1, 2, 127, 128, 129, 300])
def test_every_call_of_a_product_has_the_same_number_of_rows(device: torch.device, count: int) -> None:
    product = kit_for(device, torch.bfloat16).product
    generator = torch.Generator().manual_seed(0)
    weight = (torch.randn(96, 64, generator=generator) / 8).bfloat16()
    bias = torch.randn(96, generator=generator).bfloat16()
    x = torch.randn(count, 64, generator=generator).bfloat16()
    right = x.double() @ weight.double().t() + bias.double()
    packed, on_device = product.pack(weight.to(device)), x.to(device)
    wide = product.multiply(on_device, packed, 96, bias.to(device), is_wide=True)
    found = product.multiply(on_device, packed, 96, bias.to(device))
    assert (wide.dtype, found.dtype) == (torch.float32, torch.bfloat16)
    torch.testing.assert_close(wide.cpu().double(), right, rtol=0, atol=1e-5)
    torch.testing.assert_close(found.cpu().double(), right, rtol=2**-7, atol=2**-7)


def test_logits_are_not_rounded_to_bfloat16(device: torch.device) -> None:
    """Between 16 and 32 a bfloat16 has steps of 0.125."""
    model = model_on(device)
    hidden = torch.randn(5, model.config.width, generator=torch.Generator().manual_seed(1)).bfloat16()
    weight = model.embed_tokens.weight.cpu().double()
    logits = model.logits(40 * hidden.to(device)).cpu().double()
    right = (40 * hidden).double() @ weight.t()
    assert right.abs().max() > 32
    assert (logits - right).abs().max() < 1e-3


def test_the_probe_finds_the_device_exact(device: torch.device) -> None:
    is_real = torch.version.cuda is not None
    report = exactness.probe(torch.bfloat16, device, None if is_real else exactness.CPU)
    assert report.exact, [check for check in report.checks if check.num_differing]
    assert (report.operations, report.product) == ("portable", "plain")


def test_deterministic_algorithms_are_on_and_cublas_has_a_workspace_that_allows_them(
    device: torch.device,
) -> None:
    import os

    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.utils.deterministic.fill_uninitialized_memory
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] in (":16:8", ":4096:8")
    assert not torch.backends.cuda.matmul.allow_tf32
