"""lm-eval scores a task of ours over HTTP, and each option's likelihood is the engine's, to the last bit.

It is a program beside this environment (with `lm-eval[api]` and transformers): GROSCHEN_LM_EVAL names its
`lm_eval`, or it is on the PATH.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

import groschen
from groschen.engine.open import open_engine
from groschen.records import Request, SamplingParams
from serve.serving import Server

TASK = Path(__file__).parent / "lm_eval_task"
PENNY = Path(groschen.__file__).parent / "penny"
Score = tuple[float, bool]


def scored_in_process(rows: list[dict[str, Any]]) -> list[list[Score]]:
    """For each question and option: the sum of its tokens' logprobs, and whether greedy drawing writes it."""
    opened = open_engine("penny")
    encode = opened.text.tokenizer.encode
    sampling = SamplingParams(max_tokens=1, temperature=0.0, seed=0, prompt_logprobs=True, top_logprobs=1)
    found = []
    for row in rows:
        begins = len(encode(row["question"])) - 1  # the first token has no logprob
        prompts = [tuple(encode(row["question"] + choice)) for choice in row["choices"]]
        requests = [Request(prompt_ids=prompt, sampling=sampling) for prompt in prompts]
        scores = []
        for (completion,) in opened.engine.generate(requests):
            logprobs = completion.prompt_logprobs[begins:]
            best = [each.logprobs[0] for each in completion.prompt_alternatives[begins:]]
            scores.append((sum(logprobs), list(logprobs) == best))
        found.append(scores)
    return found


def scored_over_http(
    program: str, server: Server, out: Path, arguments: str, batch: int
) -> tuple[list[Any], float]:
    """The rows that lm-eval logs, in the order of the questions, and its accuracy."""
    model = (
        f"model=penny,base_url={server.url}/v1/completions,tokenizer_backend=huggingface,tokenizer={PENNY}"
    )
    command = [program, "run", "--model", "local-completions", "--model_args", f"{model},{arguments}",
               "--tasks", "groschen_sums", "--include_path", str(TASK), "--log_samples",
               "--output_path", str(out), "--batch_size", str(batch)]  # fmt: skip
    environment = {**os.environ, "HF_HOME": str(out / "cache"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=TASK, env=environment, check=False, timeout=240
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    (samples,) = out.rglob("samples_*.jsonl")
    (results,) = out.rglob("results_*.json")
    rows = [json.loads(line) for line in samples.read_text().splitlines()]
    accuracy = json.loads(results.read_text())["results"]["groschen_sums"]["acc,none"]
    return sorted(rows, key=lambda row: row["doc_id"]), accuracy


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "batch"),
    [("tokenized_requests=True", 1), ("tokenized_requests=True,num_concurrent=4", 7),
     ("tokenized_requests=False", 4)],
    ids=["ids one by one", "ids in batches side by side", "texts in batches"],
)  # fmt: skip
def test_lm_eval_gets_the_engines_own_likelihoods(
    server: Server, tmp_path: Path, arguments: str, batch: int
) -> None:
    program = os.environ.get("GROSCHEN_LM_EVAL") or shutil.which("lm_eval")
    if program is None:
        pytest.skip("no lm_eval: install lm-eval[api] and transformers beside, and set GROSCHEN_LM_EVAL")
    rows = [json.loads(line) for line in (TASK / "sums.jsonl").read_text().splitlines()]
    expected = scored_in_process(rows)
    logged, accuracy = scored_over_http(program, server, tmp_path, arguments, batch)
    assert len(logged) == len(rows) == 20
    for row, scores in zip(logged, expected, strict=True):
        texts = [response[0] for response in row["resps"]]
        assert [(float(value), str(greedy) == "True") for value, greedy in texts] == scores
    best = [
        likelihoods.index(max(likelihoods)) for likelihoods in ([one for one, _ in each] for each in expected)
    ]
    right = sum(guess == row["gold"] for guess, row in zip(best, rows, strict=True))
    assert accuracy == right / len(rows)
    print(f"accuracy {accuracy}, {sum(map(len, expected))} options")  # noqa: T201
