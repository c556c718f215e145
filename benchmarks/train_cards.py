"""The card that a benchmark of training ran on: its peak, and which libraries ran there."""

from __future__ import annotations

from typing import Any

import jax

from autoscale_jax.models import GPT2Config, flops_per_token
from autoscale_jax.train.plan_targets import CHIPS, Chip

# The names that jax gives the SXM cards of the planner's table. PCIe and NVL cards of the same
# letters, and slices of a card (MIG), are slower: whatever is not named here has no known peak.
NAMES = {
    "NVIDIA A100-SXM4-40GB": "a100-40gb",
    "NVIDIA A100-SXM4-80GB": "a100-80gb",
    "NVIDIA H100 80GB HBM3": "h100",
    "NVIDIA H200": "h200",
}
FULL, SEEN = "MFU, attention L x L", "MFU, its causal half"


def chip_of(device_kind: str) -> Chip | None:
    """The planner's card of the whole name that jax gives a device, None where it has none."""
    return CHIPS[NAMES[device_kind]] if device_kind in NAMES else None


def utilisation(config: GPT2Config, rate: float, chip: Chip | None) -> dict[str, float | None]:
    """Shares of the card's bf16 peak at `rate` tokens/s, by both conventions of what a token takes:
    attention's full square of scores (the usual one), or the half that a causal model sees."""
    full = flops_per_token(config)
    unseen = 3 * 2.0 * config.num_layers * config.seq_len * config.d_model
    flops = {FULL: full, SEEN: full - unseen}
    return {name: rate * n / chip.flops if chip else None for name, n in flops.items()}


def versions() -> dict[str, Any]:
    """Of jax, and of the cuDNN that it found (None without a GPU)."""
    from jax._src import lib

    cuda = getattr(lib, "cuda_versions", None)  # jax has no public way to ask
    cudnn = cuda.cudnn_get_version() if cuda else None
    return {"jax": jax.__version__, "jax's cuDNN": cudnn}
