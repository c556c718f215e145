"""What a program is planned for: chips and their limits, and devices to compile for."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Sequence

import jax

from autoscale_jax.specs import BadInput
from autoscale_jax.train.plan_cards import AMPERE, HOPPER, Architecture, target_config


@dataclasses.dataclass(frozen=True)
class Chip:
    """Limits of one device as its maker states them, GB decimal.

    flops: bf16 matrix products a second, dense. memory: bytes; a little less than what is there.
    bandwidth: bytes a second of that memory. link: bytes a second that a device takes in from its
    neighbours: half of what is stated for both directions together. architecture: a card's.
    """

    name: str
    flops: float
    memory: float
    bandwidth: float
    link: float
    source: str
    architecture: Architecture | None = None


_TPU = "Cloud TPU documentation, system architecture"
_GPU = "NVIDIA {} Tensor Core GPU data sheet, SXM"
CHIPS = {
    "v5e": Chip("TPU v5e", 197e12, 16e9, 819e9, 200e9, _TPU),
    "v5p": Chip("TPU v5p", 459e12, 95e9, 2765e9, 600e9, _TPU),
    "v6e": Chip("TPU v6e", 918e12, 32e9, 1600e9, 400e9, _TPU),
    "a100-40gb": Chip("A100 40 GB", 312e12, 40e9, 1555e9, 300e9, _GPU.format("A100"), AMPERE),
    "a100-80gb": Chip("A100 80 GB", 312e12, 80e9, 2039e9, 300e9, _GPU.format("A100"), AMPERE),
    "h100": Chip("H100", 989e12, 80e9, 3350e9, 450e9, _GPU.format("H100"), HOPPER),
    "h200": Chip("H200", 989e12, 141e9, 4800e9, 450e9, _GPU.format("H200"), HOPPER),
}
# What libtpu is told where there is no TPU: not to ask what it is, nor to keep it from others; and
# kind and host, which describe nothing that is compiled for but are warned about when missing.
NO_TPU = {
    "TPU_SKIP_MDS_QUERY": "1",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-1",
    "TPU_WORKER_HOSTNAMES": "localhost",
}
FORMS = "cpu:N, gpu:CARD:N, cuda:CARD:N or a TPU topology such as v5e:4x4 or v5p:4x4x4"


@dataclasses.dataclass(frozen=True)
class Target:
    """Devices that a program can be compiled for, and the chip they stand for (None: a CPU).

    simulated: the compiler is the CPU's, whatever the chip.
    """

    topology: str
    devices: Sequence[jax.Device]
    chip: Chip | None
    simulated: bool


def find_target(topology: str) -> Target:
    """The devices of "cpu:8", "gpu:h200:8", "cuda:h200:8" or "v5e:4x4". Call it before anything
    uses jax.

    "gpu" cards are compiled for as so many simulated CPU devices. TPUs need the package libtpu and
    "cuda" cards jax's CUDA plugin, but neither its hardware. Raises `BadInput` for anything else.
    """
    jax.config.update("jax_platforms", "cpu")
    kind, *rest = topology.split(":")
    count = int(rest[-1]) if rest and rest[-1].isdigit() else 0
    if kind == "cpu" and count and len(rest) == 1:
        return Target(topology, _simulated(count), None, True)
    if kind in ("gpu", "cuda") and count and len(rest) == 2:
        cards = [name for name, chip in CHIPS.items() if chip.architecture]
        if rest[0] not in cards:
            raise BadInput(
                f"--topology={topology}: card {rest[0]!r}; use one of {', '.join(cards)}"
            )
        chip, simulated = CHIPS[rest[0]], kind == "gpu"
        devices = _simulated(count) if simulated else _cuda_devices(topology, chip, count)
        return Target(topology, devices, chip, simulated)
    if kind in CHIPS and kind.startswith("v") and re.fullmatch(r"\d+(x\d+)+", ":".join(rest)):
        return Target(topology, _tpu_devices(topology), CHIPS[kind], False)
    raise BadInput(f"--topology={topology}: use {FORMS}")


def _simulated(count: int) -> list[jax.Device]:
    jax.config.update("jax_num_cpu_devices", count)
    return jax.devices()


def _tpu_devices(topology: str) -> Sequence[jax.Device]:
    for name, value in NO_TPU.items():
        os.environ.setdefault(name, value)
    return _described(topology, "libtpu", "tpu", topology_name=topology)


def _cuda_devices(topology: str, chip: Chip, count: int) -> Sequence[jax.Device]:
    assert chip.architecture is not None
    config = target_config(chip.name, chip.architecture, chip.memory, chip.bandwidth)
    form = f"1x1x{count}"  # slices, hosts of each, devices of each
    return _described(topology, "the CUDA plugin", "cuda", target_config=config, topology=form)


def _described(asked: str, who: str, platform: str, **shape: str) -> Sequence[jax.Device]:
    from jax.experimental import topologies

    try:
        return topologies.get_topology_desc(platform=platform, **shape).devices
    except Exception as error:  # whatever the plugin does not like: mostly that it is not there
        reason = " ".join(str(error).split())[:200]
        raise BadInput(
            f"--topology={asked}: {who} cannot describe it ({reason}); "
            f"pip install 'autoscale_jax[{platform}]', and check the shape"
        ) from error
