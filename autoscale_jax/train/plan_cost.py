"""What one call of a compiled program costs a device: products, memory traffic, communication."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator

import numpy as np

from autoscale_jax.train.hlo import Array, Computation, Instruction, Program, root

# Instructions that move nothing: names for what is there, waits, and loops' and calls' frames.
FREE = {
    *("parameter", "constant", "get-tuple-element", "tuple", "bitcast", "after-all", "domain"),
    *("partition-id", "replica-id", "opt-barrier", "add-dependency", "iota"),
}
FREE_CALLS = ("AllocateBuffer", "ConcatBitcast", "AssumeGatherIndicesInBound", "Sharding")
COLLECTIVES = (
    *("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute"),
    "collective-broadcast",
)
# Products of L x L x d, for each row and head, in attention kernels: the TPU's by their names, and
# cuDNN's by what they call.
KERNEL_PRODUCTS = {"splash_mha_fwd": 2, "splash_mha_dq": 3, "splash_mha_dkv": 4}
CUDNN_PRODUCTS = 2, 5  # forward, backward


@dataclasses.dataclass(frozen=True)
class Collective:
    """One kind of exchange: how often in a call, and bytes that a device takes in by it."""

    kind: str
    count: float
    bytes: float


@dataclasses.dataclass(frozen=True)
class Cost:
    """Of one call, on each device.

    flops: of matrix products and convolutions, and of attention kernels; nothing elementwise.
    work: (flops, bytes) of each instruction, times included: for a roofline instruction by
        instruction.
    """

    flops: float
    kernel_flops: float
    bytes: float
    collectives: tuple[Collective, ...]
    work: tuple[tuple[float, float], ...]

    def seconds(self, flops_per_second: float, bytes_per_second: float) -> float:
        """Each instruction at the speed of the slower of arithmetic and memory."""
        return sum(max(f / flops_per_second, b / bytes_per_second) for f, b in self.work)


def cost(program: Program) -> Cost:
    """Counts the products, bytes and exchanges of one call."""
    flops = kernel_flops = moved = 0.0
    work, exchanged, seen = [], dict[str, list[float]](), set[tuple[int, str]]()
    for kernel, near, times in program.kernels():
        own_flops = 0.0
        for inner, around in program.inside(kernel, near):
            own_flops += product_flops(inner, around)
            kind = next((k for k in COLLECTIVES if inner.opcode in (k, f"{k}-start")), None)
            channel = re.search(r"channel_id=(\d+)", inner.attributes)
            key = (id(near), channel.group(1) if channel else f"{id(inner)}")
            if kind and key not in seen:  # one exchange can be spread over several fusions
                seen.add(key)
                entry = exchanged.setdefault(kind, [0.0, 0.0])
                entry[0] += times
                entry[1] += times * taken_in(kind, inner, around)
        inside_kernel = attention_flops(kernel, near)
        own_bytes = traffic(kernel, near, program)
        flops += times * (own_flops + inside_kernel)
        kernel_flops += times * inside_kernel
        moved += times * own_bytes
        work.append((times * (own_flops + inside_kernel), times * own_bytes))
    found = tuple(Collective(kind, *entry) for kind, entry in sorted(exchanged.items()))
    return Cost(flops, kernel_flops, moved, found, tuple(work))


def product_flops(instruction: Instruction, near: Computation) -> float:
    """Two for each multiplication of a dot or a convolution; 0 of anything else."""
    if instruction.opcode == "dot":
        left = _operand(instruction, near, 0)
        dims = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", instruction.attributes)
        summed = [left.shape[int(i)] for i in dims.group(1).split(",") if i] if dims else []
        return 2.0 * math.prod(instruction.arrays[0].shape) * math.prod(summed)
    if instruction.opcode == "convolution":
        return _convolution_flops(instruction, near)
    return 0.0


def _convolution_flops(instruction: Instruction, near: Computation) -> float:
    """The TPU's compiler writes products as convolutions, batches and heads as their windows."""
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", instruction.attributes)
    if labels is None:
        return 0.0
    left, right, out = labels.groups()
    lhs, rhs = _operand(instruction, near, 0).shape, _operand(instruction, near, 1).shape
    result = instruction.arrays[0].shape
    flops = 2.0 * result[out.index("b")] * result[out.index("f")] * rhs[right.index("i")]
    for d in (letter for letter in out if letter.isdigit()):
        window = _window(instruction.attributes, int(d))
        size = (lhs[left.index(d)], rhs[right.index(d)], result[out.index(d)])
        flops *= _pairs(*size, **window)
    return flops


def _window(attributes: str, d: int) -> dict[str, int]:
    """Stride, padding and dilations of one spatial dimension of a convolution."""
    found = re.search(r"window=\{([^}]*)\}", attributes)
    given = dict(part.split("=") for part in found.group(1).split()) if found else {}
    one = {name: text.split("x")[d] for name, text in given.items()}
    return {
        "stride": int(one.get("stride", 1)),
        "pad": int(one.get("pad", "0_0").split("_")[0]),
        "dilation": int(one.get("lhs_dilate", 1)),
        "spread": int(one.get("rhs_dilate", 1)),
    }


def _pairs(
    length: int, kernel: int, out: int, stride: int, pad: int, dilation: int, spread: int
) -> int:
    """How many (output, kernel) positions meet an input that is no padding."""
    at = np.arange(out)[:, None] * stride - pad + np.arange(kernel) * spread
    return int(np.sum((at >= 0) & (at <= (length - 1) * dilation) & (at % dilation == 0)))


def attention_flops(instruction: Instruction, near: Computation) -> float:
    """Of a kernel of flash attention, whose inside the compiler does not show; 0 of anything else.

    Each of its products is 2 L^2 d a row and head, the full square even where a causal kernel
    leaves blocks of the future out: as `models.flops_per_token` counts.
    """
    target = instruction.target
    if target.startswith("__cudnn$fmha"):
        products = CUDNN_PRODUCTS["Backward" in target]
        rows, length, heads, width = _operand(instruction, near, 0).shape  # queries
        return 2.0 * products * rows * heads * length**2 * width
    if target != "tpu_custom_call":
        return 0.0
    products = next((n for k, n in KERNEL_PRODUCTS.items() if instruction.name.startswith(k)), 0)
    if not products:
        return 0.0
    arrays = _operands(instruction, near)  # tables of the mask, then queries, keys and values
    *rows_and_heads, length, width = next(x.shape for x in arrays if "f" in x.dtype)
    return 2.0 * products * math.prod(rows_and_heads) * length**2 * width


def taken_in(kind: str, instruction: Instruction, near: Computation) -> float:
    """Bytes that each device takes in from others, by the ring algorithms' counts."""
    given = sum(array.bytes for array in _operands(instruction, near))
    if kind in ("collective-permute", "collective-broadcast"):
        return given
    n = group_size(instruction.attributes)
    share = (n - 1) / n
    return {
        "all-gather": given * (n - 1),
        "all-reduce": 2 * given * share,
        "reduce-scatter": given * share,
        "all-to-all": given * share,
    }[kind]


def group_size(attributes: str) -> int:
    """Devices that exchange with each other, from any way of writing `replica_groups`."""
    text = attributes.split("replica_groups=")[1]
    if text.startswith("mesh["):  # mesh['a'=4,'b'=2] {'a'}: those that differ in a
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", text.split("]")[0]))
        named = re.findall(r"'(\w+)'", text.split("{")[1].split("}")[0])
        return math.prod(int(sizes[name]) for name in named)
    if text.startswith("["):  # [groups,size]<=[...]
        return int(text[1:].split("]")[0].split(",")[-1])
    return text.split("}")[0].count(",") + 1  # {{0,1},{2,3}}


def traffic(instruction: Instruction, near: Computation, program: Program) -> float:
    """Bytes of main memory that an instruction reads and writes. Slices count by their size."""
    opcode = instruction.opcode
    if opcode in FREE or opcode.endswith("-done") or instruction.target in FREE_CALLS:
        return 0.0
    if opcode == "fusion":
        return _fusion_traffic(instruction, near, program)
    result = sum(array.traffic for array in instruction.arrays)
    if opcode in ("dynamic-slice", "slice", "gather"):
        source = _operand(instruction, near, 0)
        return result + (instruction.arrays[0].bytes if source.in_memory else 0)
    if opcode == "dynamic-update-slice":
        return 2.0 * _operand(instruction, near, 1).traffic
    if opcode in ("copy-start", "slice-start"):  # gives (to, from) or (from, to), the sizes alike
        moved = min(array.bytes for array in instruction.arrays[:2])
        return sum(moved for array in instruction.arrays[:2] if array.in_memory)
    return result + sum(array.traffic for array in _operands(instruction, near))


def _fusion_traffic(instruction: Instruction, near: Computation, program: Program) -> float:
    fused = program.computations[instruction.called("calls")]
    total = 0.0
    for name, given in zip(instruction.operands, _parameters(fused), strict=True):
        whole = sum(array.traffic for array in near[name].arrays)
        total += min(whole, _used(given, fused))
    last = root(fused)
    ends = [fused[name] for name in last.operands] if last.opcode == "tuple" else [last]
    for end, array in zip(ends, instruction.arrays, strict=False):
        update = _through(end, fused)
        if update.opcode == "dynamic-update-slice":
            total += min(array.traffic, _operand(update, fused, 1).bytes)
        else:
            total += array.traffic
    return total


def _parameters(fused: Computation) -> list[Instruction]:
    given = [x for x in fused.values() if x.opcode == "parameter"]
    return sorted(given, key=lambda x: int(x.literal))


def _used(given: Instruction, fused: Computation) -> float:
    """Bytes of a fusion's argument that are read: slices of it, or all."""
    total = 0.0
    for user in _users(given, fused):
        if user.opcode in ("dynamic-slice", "slice", "gather"):
            total += user.arrays[0].bytes
        elif (
            user.opcode == "dynamic-update-slice"
            and _through(fused[user.operands[0]], fused) is given
        ):
            total += _operand(user, fused, 1).bytes
        else:
            return math.inf
    return total


def _users(of: Instruction, fused: Computation) -> Iterator[Instruction]:
    """What uses an array, seen through bitcasts."""
    for user in fused.values():
        if of.name in user.operands:
            if user.opcode == "bitcast":
                yield from _users(user, fused)
            else:
                yield user


def _through(x: Instruction, near: Computation) -> Instruction:
    """What a bitcast renames."""
    while x.opcode == "bitcast":
        x = near[x.operands[0]]
    return x


def _operand(instruction: Instruction, near: Computation, i: int) -> Array:
    return near[instruction.operands[i]].arrays[0]


def _operands(instruction: Instruction, near: Computation) -> list[Array]:
    return [array for name in instruction.operands for array in near[name].arrays]
