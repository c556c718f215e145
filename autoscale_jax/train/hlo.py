"""The text of a compiled program (HLO) as data, and how often each of its instructions runs.

XLA's own `cost_analysis` counts the body of a loop once, whatever its trip count: a model of 36
scanned layers looks like one layer. Here loops are multiplied out.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping

BITS = {"pred": 8, "token": 0, "opaque": 0}  # of types whose name does not say
MOST_TRIPS = 100_000  # of a loop, before its count is called unknown

_ARRAY = re.compile(r"([a-z]\w*)\[([\d,<=]*)\](\{[^}]*\})?")
_HEADER = re.compile(r"(ENTRY )?%?([\w.\-]+) \(.*\) -> .*\{$")
_LINE = re.compile(r"\s+(ROOT )?%?([\w.\-]+) = (.*)$")
_NAME = re.compile(r"%([\w.\-]+)")
_MEMORY = re.compile(r"S\((\d+)\)")


@dataclasses.dataclass(frozen=True)
class Array:
    """Type, shape, and whether it lies in the device's main memory (or in a faster one)."""

    dtype: str
    shape: tuple[int, ...]
    in_memory: bool

    @property
    def bytes(self) -> int:
        bits = BITS.get(self.dtype)
        if bits is None:
            bits = int(next(iter(re.findall(r"\d+", self.dtype))))
        return -(-math.prod(self.shape) * bits // 8)

    @property
    def traffic(self) -> int:
        """Bytes that main memory moves when the array is read or written once."""
        return self.bytes if self.in_memory else 0


@dataclasses.dataclass(frozen=True)
class Instruction:
    """`arrays` are the leaves of its result; `operands` the names of what it works on."""

    name: str
    opcode: str
    arrays: tuple[Array, ...]
    operands: tuple[str, ...]
    literal: str  # what stands between the brackets: a constant's value, a parameter's number
    attributes: str
    root: bool

    @property
    def target(self) -> str:
        """What a custom call calls, "" of anything else."""
        found = re.search(r'custom_call_target="([^"]*)"', self.attributes)
        return found.group(1) if found else ""

    def called(self, attribute: str) -> str:
        """The computation that an attribute (calls, body, condition) names, "" without one."""
        found = re.search(rf"\b{attribute}=%?([\w.\-]+)", self.attributes)
        return found.group(1) if found else ""


Computation = Mapping[str, Instruction]


@dataclasses.dataclass(frozen=True)
class Program:
    """Computations by name, each with its instructions by name, in order."""

    computations: Mapping[str, Computation]
    entry: str

    def kernels(self) -> Iterator[tuple[Instruction, Computation, float]]:
        """What runs on the device: instruction, its surroundings, and how often it runs.

        A fusion is one instruction. Loops whose length is not known before the program runs count
        as one trip: the training program's outermost, over optimiser steps, is one.
        """
        yield from self._kernels(self.entry, 1.0)

    def _kernels(self, name: str, times: float) -> Iterator[tuple[Instruction, Computation, float]]:
        computation = self.computations[name]
        for instruction in computation.values():
            if instruction.opcode == "while":
                inside = times * (self.trips(instruction, computation) or 1)
                yield from self._kernels(instruction.called("body"), inside)
            elif instruction.opcode == "call":
                yield from self._kernels(instruction.called("to_apply"), times)
            elif instruction.opcode == "conditional":  # at worst all of its branches
                for branch in _branches(instruction):
                    yield from self._kernels(branch, times)
            else:
                yield instruction, computation, times

    def inside(
        self, instruction: Instruction, near: Computation
    ) -> Iterator[tuple[Instruction, Computation]]:
        """The instruction and all that are fused into it, each with its surroundings."""
        yield instruction, near
        fused = self.computations.get(instruction.called("calls"), {})
        for inner in fused.values():
            yield from self.inside(inner, fused)

    def trips(self, loop: Instruction, computation: Computation) -> int | None:
        """How often a loop's body runs, None where that is not known before the program runs."""
        known = re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.attributes)
        if known:
            return int(known.group(1))
        try:
            return _Counting(self, loop, computation).trips()
        except _UnknownError:
            return None


class _UnknownError(Exception):
    """A number that the program's text does not hold."""


class _Counting:
    """What a loop's integers are before each trip, found by computing them."""

    def __init__(self, program: Program, loop: Instruction, around: Computation) -> None:
        self._program, self._around = program, around
        self._condition = program.computations[loop.called("condition")]
        self._body = program.computations[loop.called("body")]
        start, after = around[loop.operands[0]], root(self._body)
        if start.opcode != "tuple" or after.opcode != "tuple":
            raise _UnknownError
        self._start, self._after = start.operands, after.operands
        self._known: dict[tuple[int, int], int] = {}

    def trips(self) -> int:
        """How often the condition holds."""
        for trip in range(MOST_TRIPS):
            if not self._value(root(self._condition), self._condition, trip, ()):
                return trip
        raise _UnknownError

    def _carried(self, index: int, trip: int) -> int:
        """Element `index` of what the loop carries, before trip `trip`."""
        if (index, trip) not in self._known:
            if trip == 0:
                value = self._value(self._around[self._start[index]], self._around, None, ())
            else:
                value = self._value(self._body[self._after[index]], self._body, trip - 1, ())
            self._known[index, trip] = value
        return self._known[index, trip]

    def _value(
        self, what: Instruction, near: Computation, trip: int | None, given: tuple[int, ...]
    ) -> int:
        """An integer in body or condition, in a computation fused there (`given` its arguments), or
        (`trip` is None) outside of the loop."""
        if what.opcode == "constant" and re.fullmatch(r"-?\d+", what.literal):
            return int(what.literal)
        if what.opcode == "parameter" and given:
            return given[int(what.literal)]
        index = re.search(r"\bindex=(\d+)", what.attributes)
        if index and trip is not None and near[what.operands[0]].opcode == "parameter":
            return self._carried(int(index.group(1)), trip)
        if what.opcode not in (*_INTEGERS, "fusion"):
            raise _UnknownError
        values = tuple(self._value(near[name], near, trip, given) for name in what.operands)
        if what.opcode == "fusion":
            fused = self._program.computations[what.called("calls")]
            return self._value(root(fused), fused, None, values)
        return _INTEGERS[what.opcode](values, what.attributes)


def _compare(values: tuple[int, ...], attributes: str) -> int:
    a, b = values
    holds = {"LT": a < b, "LE": a <= b, "GT": a > b, "GE": a >= b, "NE": a != b, "EQ": a == b}
    return int(holds[attributes.split("direction=")[1][:2]])


_INTEGERS = {
    "add": lambda values, _: values[0] + values[1],
    "subtract": lambda values, _: values[0] - values[1],
    "copy": lambda values, _: values[0],
    "bitcast": lambda values, _: values[0],
    "convert": lambda values, _: values[0],
    "compare": _compare,
}


def parse(text: str) -> Program:
    """What `Compiled.as_text()` gives."""
    computations: dict[str, dict[str, Instruction]] = {}
    entry = ""
    for line in text.splitlines():
        if header := _HEADER.match(line):
            name = header.group(2)
            computations[name] = {}
            entry = name if header.group(1) else entry
        elif computations and (found := _LINE.match(line)):
            instruction = _instruction(found.group(2), found.group(3), bool(found.group(1)))
            computations[name][instruction.name] = instruction
    return Program(computations, entry)


def arrays(text: str) -> tuple[Array, ...]:
    """The arrays of a type: one, or the leaves of a tuple."""
    found = []
    for dtype, shape, layout in _ARRAY.findall(text):
        memory = _MEMORY.search(layout)
        size = tuple(int(n.removeprefix("<=")) for n in shape.split(",") if n)
        found.append(Array(dtype, size, memory is None or memory.group(1) == "0"))
    return tuple(found)


def _instruction(name: str, text: str, root: bool) -> Instruction:
    kind = text[: _closing(text)] if text.startswith("(") else text.split(" ", 1)[0]
    rest = text[len(kind) :].lstrip()
    opcode, rest = rest.split("(", 1)
    end = _closing("(" + rest) - 1
    inside = rest[: end - 1]
    return Instruction(
        name, opcode, arrays(kind), tuple(_NAME.findall(inside)), inside, rest[end:], root
    )


def _closing(text: str) -> int:
    """Where the bracket that `text` begins with ends."""
    depth = 0
    for i, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if depth == 0:
            return i + 1
    return len(text)


def root(computation: Computation) -> Instruction:
    """What a computation gives."""
    return next(x for x in computation.values() if x.root)


def _branches(instruction: Instruction) -> list[str]:
    listed = re.search(r"branch_computations=\{([^}]*)\}", instruction.attributes)
    if listed:
        return _NAME.findall(listed.group(1))
    return [instruction.called("true_computation"), instruction.called("false_computation")]
