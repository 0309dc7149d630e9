"""Schemathesis on the published document: thousands of requests, right and wrong, and never an answer that
the document does not know.

It is a program beside this environment: GROSCHEN_SCHEMATHESIS names its `st`, or it is on the PATH.
"""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from serve.serving import Server

CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,"
    "unsupported_method"
)
LEAST_CASES = 2000
# negative_data_rejection is left out: it would call what exceeds the bounds below wrong, and the server not.


def bounded(document: dict[str, dict[str, dict[str, dict[str, object]]]]) -> str:
    """The document for the one model that is served, and with short answers: the time is for cases."""
    tokens = {"type": "integer", "minimum": 1, "maximum": 4}
    for name in ("ChatRequest", "CompletionRequest", "ResponsesRequest", "EmbeddingsRequest"):
        schema = document["components"]["schemas"][name]
        schema["properties"]["model"] = {"enum": ["penny"]}
        for field in ("max_tokens", "max_completion_tokens", "max_output_tokens"):
            if field in schema["properties"] and "Not honoured" not in str(schema["properties"][field]):
                schema["properties"][field] = tokens
        if "n" in schema["properties"]:
            schema["properties"]["n"] = {"type": "integer", "minimum": 1, "maximum": 2}
    return json.dumps(document)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_schemathesis_finds_no_answer_that_the_document_does_not_know(server: Server, tmp_path: Path) -> None:
    program = os.environ.get("GROSCHEN_SCHEMATHESIS") or shutil.which("st")
    if program is None:
        pytest.skip("no schemathesis: install it beside this environment and set GROSCHEN_SCHEMATHESIS")
    document = tmp_path / "openapi.json"
    document.write_text(bounded(server.get("/openapi.json").json()))
    command = [program, "run", str(document), "--url", server.url, "--checks", CHECKS, "--seed", "1",
               "--phases", "coverage,fuzzing", "--max-examples", "150", "--no-color"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False, timeout=500)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    counted = re.search(r"(\d+) generated", done.stdout)
    assert counted is not None and int(counted[1]) >= LEAST_CASES, done.stdout[-2000:]
    assert server.is_empty()
