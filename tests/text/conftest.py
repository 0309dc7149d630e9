"""Where the text tests find what `get_references.py` fetched."""

import json
import os
from pathlib import Path

import pytest

from text.get_references import folder


@pytest.fixture(scope="session")
def reference_templates() -> list[Path]:
    """Chat templates of real models."""
    found = sorted((folder() / "templates").glob("*.jinja"))
    if not found:
        pytest.skip("no reference templates: run python tests/text/get_references.py")
    return found


@pytest.fixture(scope="session")
def reference_vocabularies() -> list[Path]:
    """GGUF files of llama.cpp that hold a vocabulary alone, each with an .inp and an .out file beside it."""
    found = sorted((folder() / "vocabularies").glob("*.gguf"))
    if not found:
        pytest.skip("no reference vocabularies: run python tests/text/get_references.py --vocabularies")
    return found


@pytest.fixture(scope="session")
def gsm8k_questions() -> list[str]:
    """Questions of GSM8K, from $GROSCHEN_GSM8K or a shared folder beside the checkout."""
    named = os.environ.get("GROSCHEN_GSM8K")
    rows = Path(named) if named else Path(__file__).parents[3] / "shared" / "data" / "gsm8k"
    found = sorted(rows.glob("*.jsonl"))
    if not found:
        pytest.skip("no GSM8K rows: set GROSCHEN_GSM8K to the folder with its .jsonl files")
    return [
        json.loads(line)["question"]
        for path in found
        for line in path.read_text(encoding="utf-8").splitlines()
    ]
