"""What a compiled program moves, read from its text: XLA's HLO after optimization, for one device.

An instruction reads its operands and writes its result, once each: that is what it moves through the memory of the
device (HBM). On TPUs the text says which memory an array is in, and what stays on the chip is not counted, as it is in
XLA's own `bytes accessed`. Sizes are those in memory, filled up to whole tiles. Of an operand of which a fusion reads a
part all of it is counted; what a convolution reads again is not.
"""

import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

_COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
# They name what is there.
_IDLE = frozenset({"parameter", "constant", "get-tuple-element", "tuple", "bitcast", "after-all", "partition-id",
                   "replica-id", "iota", "optimization-barrier"})
_COMPUTATION = re.compile(r"(ENTRY )?%?([\w.-]+) .*\{$")
_INSTRUCTION = re.compile(r"\s+(?:ROOT )?%?([\w.-]+) = (\(.*?\)|\S+) ([a-z][a-z0-9-]*)\((.*)")
_ARRAY = re.compile(r"\b([a-z]+\d*\w*)\[([\d,]*)\](?:\{([^}]*)\})?")
_TILE = re.compile(r"([\d,]+):T\(([\d,]+)\)")
_ON_CHIP = re.compile(r"S\([1-9]")
_CALLED = re.compile(r"(?:to_apply|body)=%?([\w.-]+)")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
_WRAPPER = re.compile(r"(transpose\()?jvp\(|shard_map$|while$|body$|cond$|branch_\d+_fun$|closed_call$")
_OP_NAME = re.compile(r'op_name="([^"]*)"')


class Array(NamedTuple):
    """What an instruction gives, or a part of it. in_hbm: in the memory of the device, not on the chip itself."""

    size: int  # bytes
    in_hbm: bool


class Instruction(NamedTuple):
    """A line of a program. called: the computation that a loop or a call runs, `trips` times."""

    name: str
    opcode: str
    arrays: tuple[Array, ...]
    operands: tuple[str, ...]
    layer: str
    called: str
    trips: int


Computation = Mapping[str, Instruction]


class Traffic(NamedTuple):
    """Bytes that an instruction moves through HBM in a run of the program, `layer` see `layer_of`."""

    bytes: int
    opcode: str
    layer: str


def parse(text: str) -> tuple[dict[str, Computation], str]:
    """The computations of a module by name, each its instructions by name in order; and the name of what runs first."""
    computations: dict[str, dict[str, Instruction]] = {}
    entry, current = "", {}
    for line in text.splitlines():
        if not line.startswith(" "):
            if found := _COMPUTATION.match(line):
                current = computations.setdefault(found[2], {})
                entry = found[2] if found[1] else entry
        elif found := _INSTRUCTION.match(line):
            current[found[1]] = _instruction(*found.groups())
    return computations, entry


def _instruction(name: str, shape: str, opcode: str, rest: str) -> Instruction:
    operands, _, attributes = rest.partition(")")
    called, trips, op_name = (pattern.search(attributes) for pattern in (_CALLED, _TRIPS, _OP_NAME))
    return Instruction(name, opcode, tuple(map(_array, _ARRAY.findall(shape))),
                       tuple(re.findall(r"%([\w.-]+)", operands)), layer_of(op_name[1]) if op_name else "",
                       called[1] if called and opcode in ("while", "call") else "", int(trips[1]) if trips else 1)


def _array(found: tuple[str, str, str]) -> Array:
    """Of (type, dimensions, layout), say ('bf16', '128,56,56,64', '3,0,2,1:T(8,128)(2,1)S(1)').

    A layout is the order of dimensions, the innermost first, the tile that the innermost are cut into, and the memory.
    """
    dtype, dims, layout = found
    bits = 8 if dtype == "pred" else int((re.search(r"\d+", dtype) or "0")[0])
    sides = [int(side) for side in dims.split(",") if side]
    if sides and (tile := _TILE.match(layout)):
        sides = [sides[int(axis)] for axis in tile[1].split(",")]  # the innermost first
        tiled = [int(side) for side in reversed(tile[2].split(","))]
        sides = [-(-side // part) * part for side, part in itertools.zip_longest(sides, tiled, fillvalue=1)]
    return Array(math.prod(sides) * bits // 8, not _ON_CHIP.search(layout))


def layer_of(op_name: str) -> str:
    """What JAX calls an operation, as a layer of the network: 'layer2_0/bn1/mul, backward'.

    The function that was compiled, what runs it on all devices or in a loop, and the class of the network are left out.
    """
    words = [re.sub(r"^.*\(|\)+$", "", part) for part in op_name.split("/")[1:] if not _WRAPPER.match(part)]
    return "/".join(filter(None, words)) + (", backward" if "transpose(" in op_name else "")


def traffic(computations: Mapping[str, Computation], entry: str) -> list[Traffic]:
    """What each instruction moves, the largest first; loops as often as they run, where the text says how often."""
    moved = [each for each in _moved(computations, entry, 1) if each.bytes]
    return sorted(moved, key=lambda each: each.bytes, reverse=True)


def _moved(computations: Mapping[str, Computation], name: str, times: int) -> Iterator[Traffic]:
    computation = computations[name]
    for each in computation.values():
        if each.called in computations:
            yield from _moved(computations, each.called, times * each.trips)
        elif each.opcode.endswith("-done"):
            start = computation[each.operands[0]]
            sources = _given(computation, start.operands)
            # A slice is a part of its source: what arrives is what was read.
            read = any(array.in_hbm for array in sources)
            layer = each.layer or next((computation[name].layer for name in start.operands if name in computation), "")
            yield Traffic(times * sum(array.size * (read + array.in_hbm) for array in each.arrays),
                          each.opcode.removesuffix("-done"), layer)
        elif each.opcode not in _IDLE and not each.opcode.endswith("-start"):
            arrays = [*_given(computation, each.operands), *each.arrays]
            yield Traffic(times * sum(array.size for array in arrays if array.in_hbm), each.opcode, each.layer)


def _given(computation: Computation, names: Sequence[str]) -> list[Array]:
    return [array for name in dict.fromkeys(names) if name in computation for array in computation[name].arrays]


def collectives(computations: Mapping[str, Computation]) -> dict[str, int]:
    """Bytes that a device gives to each kind of collective, wherever it is called from, once; by kind."""
    found: dict[str, int] = {}
    for computation in computations.values():
        for each in computation.values():
            kind = each.opcode.removesuffix("-start")
            if kind in _COLLECTIVES:
                given = sum(array.size for array in _given(computation, each.operands))
                found[kind] = found.get(kind, 0) + given
    return found
