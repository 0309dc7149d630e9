"""Log probabilities of the prompt's own tokens (echo), chunk by chunk.

Scored at temperature 1 by the same function that scores drawn tokens, a few rows of logits at a time.
"""

import torch
from torch import Tensor

from groschen.engine.sampling import alternatives
from groschen.engine.scheduler import Chunk
from groschen.model.transformer import Transformer

_ROWS_AT_ONCE = 64  # 64 rows of a vocabulary of 152 k words are 39 MB


def score_chunk(model: Transformer, chunk: Chunk, hidden_TD: Tensor) -> None:
    """Append the logprobs of the tokens that follow each position of the chunk to its prompt.

    A prompt that had to step back comes again: what it has is kept, since samples of it may end before.
    """
    prompt = chunk.prompt
    first = max(chunk.first, len(prompt.logprobs))
    following, hidden_TD = prompt.token_ids[first + 1 : chunk.last + 1], hidden_TD[first - chunk.first :]
    for start in range(0, len(following), _ROWS_AT_ONCE):
        tokens = torch.tensor(following[start : start + _ROWS_AT_ONCE], device=hidden_TD.device)
        logits = model.logits(hidden_TD[start : start + len(tokens)])
        inverses = torch.ones(len(tokens), device=logits.device)
        scored = model.kit.operations.categorical(logits, inverses, None, tokens)
        prompt.logprobs += scored.logprobs.tolist()
        if prompt.top_logprobs:
            prompt.alternatives += alternatives(
                model.kit.operations, logits, inverses, prompt.top_logprobs, scored
            )
