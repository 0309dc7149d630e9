"""How much key/value cache the machine can give, decided before anything is taken.

A refusal with numbers, instead of a process that the kernel kills.
"""

from groschen import machine
from groschen.engine.blocks import blocks_for
from groschen.errors import DoesNotFit
from groschen.model.kvcache import KEYS_PER_BLOCK, KeyValueCache
from groschen.model.transformer import Transformer

CACHE_SHARE = 0.35  # of the free memory; a trainer's gradients and the user's other programs need the rest
_LEAST_TOKENS = 512  # a cache below this is of no use to anybody


def plan_blocks(model: Transformer, max_rows: int, cache_bytes: int | None) -> int:
    """Blocks of the cache: all that `max_rows` rows of full context could use, or what the memory allows.

    cache_bytes: the limit to use; None: a share of what is free. Raises DoesNotFit if not even 512 tokens
    fit.
    """
    block_bytes = KeyValueCache.bytes_per_block(model.config, model.activation_dtype)
    free = machine.free_memory_bytes(model.device)
    budget = int(free * CACHE_SHARE) if cache_bytes is None else cache_bytes
    if budget > free:
        raise DoesNotFit(
            f"a cache of {budget / 1e9:.1f} GB was asked for, {free / 1e9:.1f} GB are free; lower cache_bytes"
        )
    wanted = max_rows * blocks_for(model.config.max_context)
    num_blocks = min(wanted, budget // block_bytes)
    least = min(blocks_for(_LEAST_TOKENS), blocks_for(model.config.max_context))
    if num_blocks < least:
        raise DoesNotFit(
            f"the key/value cache needs {block_bytes * least / 1e6:.0f} MB for {least * KEYS_PER_BLOCK} "
            f"tokens, {budget / 1e6:.0f} MB are to be had; close other programs, use a smaller model or "
            "raise cache_bytes"
        )
    return int(num_blocks)
