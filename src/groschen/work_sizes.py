"""How much one call takes at once on each kind of device, where nobody says otherwise.

The arithmetic of a CPU is busy with few rows, a GPU waits for its memory with fewer than hundreds, and each
of its calls costs the same whatever it holds. No text has other bits for these numbers; the gradient of an
update has, because it is added up in other parts. Leaves out what a recipe says by itself (train/sizing.py).
"""

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkSizes:
    """Numbers of tokens or rows."""

    max_rows: int  # samples that decode together
    chunk_tokens: int  # prompt tokens of one step: bounds how long decoding rows wait for a prefill
    scored_at_once: int  # tokens whose logits are held together


# Beyond 64 rows a 0.5B model on two cores gains little. Logits of 512 tokens and 152 k words: 311 MB, and as
# much again for their gradient.
_CPU = WorkSizes(max_rows=64, chunk_tokens=512, scored_at_once=512)
_CUDA = WorkSizes(max_rows=256, chunk_tokens=8192, scored_at_once=1024)


def work_sizes(device: torch.device) -> WorkSizes:
    """Those of the device's kind."""
    return _CUDA if device.type == "cuda" else _CPU
