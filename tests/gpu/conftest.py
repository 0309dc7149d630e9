"""Each test of this folder runs on a CUDA device: on a stand-in where there is none, and on the real one
where there is (pytest tests/gpu -m gpu runs those alone).
"""

from collections.abc import Iterator

import pytest
import torch
from tests.fake_cuda import FakeCuda, fake_cuda

from groschen import machine, roofs

HAS_CUDA = torch.cuda.is_available()


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCuda]:
    """The stand-in, made ready as every command does it, with counters at zero."""
    if HAS_CUDA:
        pytest.skip("there is a real CUDA device here")
    monkeypatch.setattr(roofs, "_CUDA_BUFFER_BYTES", 1 << 22)  # no cache of it has to be passed by
    with fake_cuda(monkeypatch) as fake:
        machine.prepare(machine.best_device())
        fake.forget()
        yield fake


@pytest.fixture(params=["stand-in", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> torch.device:
    """A CUDA device: the stand-in, or a real one."""
    if request.param == "stand-in":
        request.getfixturevalue("stand_in")
    else:
        machine.prepare(torch.device("cuda", 0))
    return machine.best_device()
