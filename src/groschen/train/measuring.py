"""What this machine allows a model: the roofs that plans and bills are measured against. Under a second.

Leaves out how a roof is measured (roofs.py).
"""

import torch

from groschen import roofs
from groschen.model.config import ModelConfig
from groschen.model.operations import kit_for

_ROWS = 256
_READS = 3


def measured_roofs(config: ModelConfig, device: torch.device) -> dict[str, float]:
    """A product of the model's own shape in GFLOP/s and reading in GB/s, by the names of `doctor --json`."""
    kit = kit_for(device, torch.bfloat16)
    weight = torch.randn(2 * config.mlp_width, config.width, device=device).to(torch.bfloat16)
    packed = kit.product.pack(weight)
    product = roofs.measure_product_roof(
        lambda x: kit.product.multiply(x, packed, 2 * config.mlp_width, None),
        rows=_ROWS,
        width_in=config.width,
        width_out=2 * config.mlp_width,
        dtype=kit.operations.activation_dtype,
        device=device,
    )
    read = roofs.measure_read_roof(repeats=_READS, device=device)
    return {"bf16_gflops": product.best, "read_gbps": read.best}
