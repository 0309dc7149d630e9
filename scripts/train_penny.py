"""Makes the built-in model: writes its tokenizer, generates its data, pre-trains it, measures it, saves it.

    python scripts/train_penny.py OUT [--tokens 4000000] [--seed 1] [--threads 2]

The same seed and machine give the same weights. It needs no network and no data: problems come from
`groschen.tasks.countdown` (its train split alone), attempts from `penny/traces.py`.
"""

import argparse
import json
import math
import sys
import time
from pathlib import Path

import torch
from penny import measure, network
from penny.batches import Batch, Batches
from penny.muon import Muon
from penny.traces import Attempts
from penny.vocabulary import build_text
from torch.nn import functional

from groschen.engine.engine import Engine, EngineConfig
from groschen.model.config import ModelConfig
from groschen.model.folder_writer import write_folder
from groschen.model.transformer import Transformer
from groschen.records import Split
from groschen.tasks import countdown
from groschen.text.bundle import Text

BATCH = 4096  # larger ones were no faster


def main() -> None:
    """Parse, train, save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--tokens", type=int, default=4_000_000, help="learned tokens")
    parser.add_argument("--batch", type=int, default=BATCH, help="tokens of a step, padding included")
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--every", type=int, default=1_000_000, help="tokens between two measurements")
    parser.add_argument("--config", type=json.loads, default={}, help="changes of config.json, as JSON")
    settings = parser.parse_args()
    torch.set_num_threads(settings.threads)
    text = build_text()
    model = network.new_model(settings.seed, **settings.config)
    log(f"{sum(each.numel() for each in model.parameters()):,} parameters, {vars(settings)}")
    train(model, text, settings)
    save(model, text, settings.out)
    log(f"written to {settings.out}")


def train(model: Transformer, text: Text, settings: argparse.Namespace) -> None:
    """`settings.tokens` learned tokens, rate warmed up over a twentieth and then along a cosine."""
    problems = countdown.problems(seed=0)
    attempts = Attempts(problems[Split.TRAIN], settings.seed)
    batches = iter(Batches(attempts, text, settings.batch, seed=settings.seed))
    optimizer = Optimizer(model)
    seen, step, last_measured, start, losses = 0, 0, 0, time.perf_counter(), []
    while seen < settings.tokens:
        batch = next(batches)
        losses.append(gradient(model, batch))
        optimizer.step(settings.rate * rate_at(seen / settings.tokens))
        seen, step = seen + batch.num_learned, step + 1
        if step % 25 == 0:
            spent = time.perf_counter() - start
            loss = sum(losses[-25:]) / 25
            log(
                f"step {step} tokens {seen:,} loss {loss:.4f} tokens/s {seen / spent:.0f} seconds {spent:.0f}"
            )
        if seen - last_measured >= settings.every or seen >= settings.tokens:
            last_measured = seen
            found, groups = measure.measure(engine_of(model, text), text, problems[Split.DEV][:100], 4)
            log(measure.as_text(found))
            log(repr(groups[0][0].text))
            save(model, text, settings.out.with_name(f"{settings.out.name}-{seen}"))


class Optimizer:
    """Muon for the matrices of the layers, AdamW for the embedding and the norms."""

    def __init__(self, model: Transformer) -> None:
        matrices = [each for each in model.layers.parameters() if each.dim() == 2]
        others = [each for each in model.parameters() if not any(each is matrix for matrix in matrices)]
        self.muon = Muon(matrices)
        self.adamw = torch.optim.AdamW(others, betas=(0.9, 0.95), weight_decay=0.0)

    def step(self, rate: float) -> None:
        """One update from the gradients."""
        self.muon.step(rate)
        self.adamw.param_groups[0]["lr"] = rate
        self.adamw.step()


def rate_at(done: float) -> float:
    """Share of the full rate after this share of the tokens."""
    if done < 0.05:
        return (done + 0.001) / 0.05
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (done - 0.05) / 0.95))


def gradient(model: Transformer, batch: Batch) -> float:
    """Sets the gradients of one batch; returns the mean loss of its learned tokens, nat."""
    is_learned = batch.targets >= 0
    hidden = network.hidden(model, batch.inputs, batch.positions, batch.branches)[is_learned]
    logits = functional.linear(hidden, model.embed_tokens.weight)
    loss = functional.cross_entropy(logits, batch.targets[is_learned])
    model.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    return loss.item()


def engine_of(model: Transformer, text: Text) -> Engine:
    """An engine on a bfloat16 copy, as it will be shipped."""
    copy = Transformer(ModelConfig.from_json(_config(model, text)), torch.bfloat16).requires_grad_(False)
    tensors = model.tensors()
    for name, tensor in copy.tensors().items():
        tensor.copy_(tensors[name])
    return Engine(copy, text.tokenizer, EngineConfig(max_rows=128, cache_bytes=400_000_000))


def save(model: Transformer, text: Text, folder: Path) -> None:
    """Write the model in bfloat16 as a folder that transformers loads too."""
    tensors = {name: tensor.to(torch.bfloat16) for name, tensor in model.tensors().items()}
    write_folder(folder, _config(model, text), tensors, text.files())


def _config(model: Transformer, text: Text) -> dict[str, object]:
    ids = {"eos_token_id": text.tokenizer.eos_ids[0], "pad_token_id": text.tokenizer.pad_id}
    return {**model.config.raw, **ids}


def log(line: str) -> None:
    """A line on the terminal."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
