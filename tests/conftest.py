"""What every test may ask for: the real model file, and which markers the plain run leaves out."""

import os
from pathlib import Path

import pytest
import torch


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run the tests marked slow too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    asked = config.getoption("-m")
    reasons = {}
    if not config.getoption("--slow") and "slow" not in asked:
        reasons["slow"] = "slow: give --slow"
    if "network" not in asked:
        reasons["network"] = "needs the internet: give -m network"
    if not torch.cuda.is_available():
        reasons["gpu"] = "needs a CUDA device"
    for item in items:
        for marker, reason in reasons.items():
            if item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def real_gguf() -> Path:
    """The real GGUF file: $GROSCHEN_REAL_GGUF, else the first one in ~/.cache/groschen-real."""
    named = os.environ.get("GROSCHEN_REAL_GGUF")
    if named:
        path = Path(named)
        assert path.is_file(), f"GROSCHEN_REAL_GGUF names {path}, which is not a file"
        return path
    found = sorted((Path.home() / ".cache" / "groschen-real").glob("*.gguf"))
    if not found:
        pytest.skip("no real GGUF file: set GROSCHEN_REAL_GGUF or put one into ~/.cache/groschen-real")
    return found[0]
