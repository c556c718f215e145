"""What CUDA's compiler is told of a card that is not there."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Architecture:
    """Of a generation of cards: NVIDIA's white papers and the CUDA programming guide.

    float32_units: of a multiprocessor. shared, shared_block: bytes of its shared memory, and of a
    block's at most.
    """

    capability: str
    multiprocessors: int
    float32_units: int
    shared: int
    shared_block: int
    l2: int
    gigahertz: float


AMPERE = Architecture(
    capability="major: 8",
    multiprocessors=108,
    float32_units=64,
    shared=164 << 10,
    shared_block=163 << 10,
    l2=40 << 20,
    gigahertz=1.41,
)
HOPPER = Architecture(
    capability="major: 9 feature_extension: ACCELERATED_FEATURES",
    multiprocessors=132,
    float32_units=128,
    shared=228 << 10,
    shared_block=227 << 10,
    l2=50 << 20,
    gigahertz=1.98,
)


def target_config(card: str, of: Architecture, memory: float, bandwidth: float) -> str:
    """XLA's GpuTargetConfigProto of a card, as text; `memory` in bytes, `bandwidth` a second."""
    return f"""
gpu_device_info {{
  cuda_compute_capability {{ {of.capability} }}
  core_count: {of.multiprocessors}
  fpus_per_core: {of.float32_units}
  clock_rate_ghz: {of.gigahertz}
  device_memory_size: {memory:.0f}
  memory_bandwidth: {bandwidth:.0f}
  l2_cache_size: {of.l2}
  shared_memory_per_core: {of.shared}
  shared_memory_per_block: {48 << 10}
  shared_memory_per_block_optin: {of.shared_block}
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
  threads_per_core_limit: 2048
  threads_per_block_limit: 1024
  threads_per_warp: 32
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 8 patch: 0 }}
device_description_str: "NVIDIA {card}"
"""
