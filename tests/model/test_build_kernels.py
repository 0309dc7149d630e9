"""A compiled library is taken again only where it was compiled for."""

import pytest

from groschen import machine
from groschen.model import build_kernels


def test_a_processor_that_differs_in_one_word_gets_kernels_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def digest(features: str) -> str:
        monkeypatch.setattr(machine, "cpu_features", lambda: (features,))
        return build_kernels._digest("true", build_kernels.FLAGS)

    assert digest("flags: avx2 fma") == digest("flags: avx2 fma") != digest("flags: avx2 fma avx512_vbmi")
