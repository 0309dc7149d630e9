"""A plan to tensors, one call of the model, and the logits of whoever draws a token.

The flat batch has the decoding rows first, those with a draft behind the others, then the prompts' chunks.
The head of the model runs only on rows that may be drawn from, once for all samples that leave the same
prompt. Leaves out drawing (`sampling.py`) and deciding (`scheduler.py`).
"""

from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from groschen.engine.blocks import blocks_for
from groschen.engine.graphs import DecodeGraphs, padded_blocks
from groschen.engine.scheduler import Chunk, Plan
from groschen.engine.sequence import Sequence
from groschen.model.kvcache import KeyValueCache, Rows, runs_of
from groschen.model.transformer import Transformer


@dataclass(frozen=True, slots=True)
class StepOutput:
    """Logits of the samples that draw: decodes, then branches; and hidden states for prompt logprobs.

    A sample has one row of logits, and one more behind it for each token of its draft.
    """

    logits_RV: Tensor  # [R, V] float32
    sequences: list[Sequence]
    firsts: list[int]  # of each sequence, its first row
    echoed: list[tuple[Chunk, Tensor]]  # hidden states [T, D] of chunks whose prompt wants logprobs


class Runner:
    """Holds the cache and the block table of one engine."""

    def __init__(self, model: Transformer, num_blocks: int, max_rows: int) -> None:
        self._model = model
        self.cache: KeyValueCache = model.new_cache(
            num_blocks + 1
        )  # the last one takes what padding rows write
        width = min(blocks_for(model.config.max_context), num_blocks)
        self._tables = torch.zeros(2 * max_rows + 1, width, dtype=torch.int32, device=model.device)
        self._tables[-1] = num_blocks
        is_cuda = model.device.type == "cuda"
        self._graphs = DecodeGraphs(model, self.cache, 2 * max_rows, captures=True) if is_cuda else None
        self._filled: list[list[int]] = [[] for _ in range(2 * max_rows)]  # what each row of the table holds

    def run(self, plan: Plan) -> StepOutput:
        """One step. Prompts whose last chunk it was get their last hidden state."""
        plan.decodes.sort(key=lambda s: len(s.draft) > 0)
        firsts = list(accumulate((1 + len(s.draft) for s in plan.decodes), initial=0))
        hidden_ND = self._forward(plan) if plan.decodes or plan.chunks else torch.empty(0)
        num_decoded = at = firsts.pop()
        echoed = []
        for chunk in plan.chunks:
            end = at + chunk.last - chunk.first
            if chunk.last == len(chunk.prompt.token_ids):
                chunk.prompt.last_hidden = hidden_ND[end - 1].clone()
            if chunk.prompt.wants_logprobs:
                echoed.append((chunk, hidden_ND[at:end]))
            at = end
        logits_RV = self._logits(plan, hidden_ND[:num_decoded])
        firsts += range(num_decoded, num_decoded + len(plan.branches))
        copies = [branch.copied_block for branch in plan.branches if branch.copied_block]
        self.cache.copy_blocks([source for source, _ in copies], [target for _, target in copies])
        return StepOutput(logits_RV, [*plan.decodes, *(b.sequence for b in plan.branches)], firsts, echoed)

    def _forward(self, plan: Plan) -> Tensor:
        token_ids: list[int] = []
        row: list[int] = []
        positions: list[int] = []
        for sequence in plan.decodes:
            self._fill(sequence.row, sequence.blocks)
            token_ids += (sequence.token_ids[-1], *sequence.draft)
            row += [sequence.row] * (1 + len(sequence.draft))
            positions += range(sequence.num_computed, sequence.num_tokens + len(sequence.draft))
        # Graphs and the ordered attention of a GPU take a token of a draft as one that is alone in its row:
        # it sees what its positions say.
        is_each_alone = self._graphs is not None
        num_single = len(token_ids) if is_each_alone else sum(not s.draft for s in plan.decodes)
        for chunk in plan.chunks:
            self._fill(chunk.row, chunk.blocks)
            token_ids += chunk.prompt.token_ids[chunk.first : chunk.last]
            row += [chunk.row] * (chunk.last - chunk.first)
            positions += range(chunk.first, chunk.last)
        device, needed = self._model.device, blocks_for(max(positions) + 1)
        if self._graphs is not None and len(token_ids) == num_single:
            tables = self._tables[:, : padded_blocks(needed, self._tables.shape[1])]
            return self._graphs.run(token_ids, row, positions, tables)
        tables = self._tables[:, :needed].contiguous()
        rows = Rows.at(
            torch.tensor(row, dtype=torch.int32).to(device),
            torch.tensor(positions).to(device),
            tables,
            num_single=num_single,
            runs=runs_of(row, positions, num_single),
        )
        hidden_ND: Tensor = self._model(torch.tensor(token_ids).to(device), rows, self.cache)
        return hidden_ND

    def _fill(self, row: int, blocks: list[int]) -> None:
        """Write a row's blocks into the table where they are new."""
        filled = self._filled[row]
        if filled == blocks:
            return
        same = 0
        while same < min(len(filled), len(blocks)) and filled[same] == blocks[same]:
            same += 1
        del filled[same:]  # what follows is being overwritten, even if the write is cut off
        self._tables[row, same : len(blocks)] = torch.tensor(blocks[same:], dtype=torch.int32).to(
            self._tables.device
        )
        filled += blocks[same:]

    def _logits(self, plan: Plan, hidden_RD: Tensor) -> Tensor:
        """Logits of decodes and branches, the head run once for each prompt. hidden_RD: of the decodes."""
        prompts: dict[int, int] = {}
        rows, pick = [hidden_RD] if len(hidden_RD) else [], list(range(len(hidden_RD)))
        for branch in plan.branches:
            if id(branch.prompt) not in prompts:
                prompts[id(branch.prompt)] = len(hidden_RD) + len(prompts)
                assert branch.prompt.last_hidden is not None
                rows.append(branch.prompt.last_hidden[None])
            pick.append(prompts[id(branch.prompt)])
        if not rows:
            return torch.empty(0, self._model.config.vocab_size, device=self._model.device)
        logits_RV = self._model.logits(torch.cat(rows))
        is_each_once = len(pick) == len(logits_RV)
        return logits_RV if is_each_once else logits_RV[torch.tensor(pick, device=logits_RV.device)]
