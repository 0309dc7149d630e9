"""Does the engine write the same greedy text as transformers? On real questions, with the real model, in two
types.

    python benchmarks/run_agreement.py --model FILE.gguf --data ROWS.jsonl [--questions 20] [--new-tokens 128]

The model is exported to a folder that transformers loads, in float32 and, if asked for, in bfloat16 (both
hold the same bfloat16 weights). Our text is fed to transformers whole: if it prefers the same token at every
position, it would have written the same text. Where it prefers another, the lead of its token over ours is
recorded: that says whether a rule differs or a rounding.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from run_engine import commit, is_dirty, machine_words
from transformers import AutoModelForCausalLM
from workload import questions

from groschen.engine.open import open_engine
from groschen.export import export_folder
from groschen.records import Completion, Request, SamplingParams

HERE = Path(__file__).parent


def write_texts(given: argparse.Namespace) -> list[Completion]:
    """Our greedy answers."""
    opened = open_engine(given.model)
    sampling = SamplingParams(max_tokens=given.new_tokens, temperature=0.0)
    template, tokenizer = opened.text.chat_template(), opened.text.tokenizer
    prompts = [
        template.encode(tokenizer, [{"role": "user", "content": text}])
        for text in questions(given.data, given.questions)
    ]
    requests = [Request(prompt_ids=tuple(ids), sampling=sampling) for ids in prompts]
    return [group[0] for group in opened.engine.generate(requests)]


@torch.no_grad()
def compare(folder: Path, dtype: torch.dtype, completions: list[Completion]) -> dict[str, Any]:
    """What transformers would have written instead, position by position."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).train(False)
    differences, gap, num_tokens = [], 0.0, 0
    for number, completion in enumerate(completions):
        ids = torch.tensor([[*completion.prompt_ids, *completion.token_ids]])
        first = len(completion.prompt_ids) - 1
        logits = model(ids).logits[0, first:-1].float()
        ours = torch.tensor(completion.token_ids)
        logprobs = logits.log_softmax(-1).gather(1, ours[:, None])[:, 0]
        gap = max(gap, (logprobs - torch.tensor(completion.logprobs)).abs().max().item())
        num_tokens += len(ours)
        best = logits.max(-1)
        for place in (best.indices != ours).nonzero()[:, 0].tolist():
            lead = (best.values[place] - logits[place, ours[place]]).item()
            theirs = int(best.indices[place])
            differences.append(
                {
                    "question": number,
                    "position": place,
                    "ours": int(ours[place]),
                    "theirs": theirs,
                    "lead_nat": lead,
                }
            )
    same = len(completions) - len({difference["question"] for difference in differences})
    return {
        "texts_equal": same,
        "texts": len(completions),
        "tokens": num_tokens,
        "positions_differing": len(differences),
        "logprob_gap_max_nat": gap,
        "differences": differences,
    }


def main() -> None:
    """Write the texts, compare in both types, keep the result."""
    made = argparse.ArgumentParser(description="greedy texts against transformers")
    made.add_argument("--model", required=True)
    made.add_argument("--data", required=True, type=Path)
    made.add_argument("--questions", type=int, default=20)
    made.add_argument("--new-tokens", type=int, default=128)
    made.add_argument(
        "--with-bf16", action="store_true", help="compare in bfloat16 as well; minutes on a CPU"
    )
    given = made.parse_args()
    dirty = is_dirty()
    completions = write_texts(given)
    found = {}
    with tempfile.TemporaryDirectory() as scratch:
        export_folder(given.model, Path(scratch) / "model")
        for dtype in (torch.float32, *([torch.bfloat16] if given.with_bf16 else [])):
            name = str(dtype).removeprefix("torch.")
            found[name] = compare(Path(scratch) / "model", dtype, completions)
            print(
                name, {key: value for key, value in found[name].items() if key != "differences"}, flush=True
            )
            for difference in found[name]["differences"]:
                print("   ", difference)
    result = {
        "name": "agreement",
        "commit": commit(dirty),
        "machine": machine_words(),
        "unit": "texts equal to transformers",
        "command": f"python benchmarks/run_agreement.py --model FILE.gguf --data ROWS.jsonl "
        f"--questions {given.questions} --new-tokens {given.new_tokens}",
        "repeats": 1,
        "median": found["float32"]["texts_equal"],
        "min": found["float32"]["texts_equal"],
        "max": found["float32"]["texts_equal"],
        "against": found,
    }
    (HERE / "results" / "agreement.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
