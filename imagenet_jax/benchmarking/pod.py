"""What a train step would need and take on devices that nobody has paid for yet: it is compiled, never run.

Compilers for TPUs and GPUs need none, see `described`. The least time of a step follows from what the program moves and
computes, and from what a chip can do at most: real steps take longer.
"""

import re
import time
from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from imagenet_jax import config as config_lib
from imagenet_jax.benchmarking import peaks, timing
from imagenet_jax.models import counting
from imagenet_jax.models.layers import AXIS
from imagenet_jax.training import hlo, parallel, recipe
from imagenet_jax.training.state import PyTree, TrainState, init_variables, make_state
from imagenet_jax.training.step import StepOptions

LARGEST = 10  # instructions that are told by name
# What a device can do at most, and a chip of its links; None where it is not known.
Limits = tuple[peaks.Memory | None, peaks.Peak | None, peaks.Links | None]
_OUT_OF_MEMORY = re.compile(r"Used ([\d.]+)([KMGT]?) of ([\d.]+)([KMGT]?) hbm")
_UNITS = {"": 2**-30, "K": 2**-20, "M": 2**-10, "G": 1.0, "T": 2**10}  # GiB


class Plan(NamedTuple):
    """GiB that a device holds: what goes in, what comes out elsewhere than in its place, what is between, the program.

    All but `total` are None for a program that the compiler gave up; `room` is what there is, None if not known.
    """

    total: float
    room: float | None
    arguments: float | None = None
    outputs: float | None = None
    temporaries: float | None = None
    program: float | None = None

    @property
    def fits(self) -> bool | None:
        """None where nobody knows how much there is."""
        return None if self.room is None else self.total <= self.room


class Bound(NamedTuple):
    """Least seconds of a step by each of what may bind; None where it is not known."""

    memory: float | None
    arithmetic: float | None
    interconnect: float | None

    @property
    def seconds(self) -> float | None:
        """Least seconds of a step, as if the three never waited for each other."""
        return max((each for each in self if each is not None), default=None)

    @property
    def binds(self) -> str | None:
        """The name of what takes longest."""
        known = {name: each for name, each in self._asdict().items() if each is not None}
        return max(known, key=known.get, default=None)


class Program(NamedTuple):
    """What a device does in a step.

    Attributes:
        hbm_bytes: that it moves through its memory, by `hlo.traffic`; the instructions that move most are `largest`.
        accessed_bytes: by XLA's own count, in which is what stays on the chip; None where it has none, as of GPUs.
        collective_bytes: that it gives to each kind of collective.
        bound: the least time.
    """

    hbm_bytes: int
    accessed_bytes: float | None
    largest: tuple[hlo.Traffic, ...]
    collective_bytes: dict[str, int]
    bound: Bound


class Compiled(NamedTuple):
    """What the compiler said of the step for a topology.

    Attributes:
        chips: of the topology; each is one or two of its `devices`.
        batch: examples a device holds at a time, in BatchNorm groups of `bn_group`.
        macs: multiply-adds of a forward pass of one image.
        steps: of the whole recipe with this global batch.
        program: None if it does not fit.
    """

    device_kind: str
    devices: int
    chips: int
    batch: int
    bn_group: int | None
    macs: int
    steps: int
    compile_s: float
    plan: Plan
    program: Program | None

    @property
    def hours(self) -> float | None:
        """Of the recipe's steps at the bound; evaluation, checkpoints and input take nothing here."""
        least = self.program and self.program.bound.seconds
        return least and self.steps * least / 3600


def compile_for(config: config_lib.Config, devices: list[jax.Device], batch: int | None = None) -> Compiled:
    """Compiles the train step of a filled recipe for `devices`, each of which holds `batch` examples.

    Without `batch` each holds its share of the recipe's global batch; never is it accumulated. It is jit + shard_map,
    whatever `config.parallel` says: in this JAX pmap is made of it.
    """
    layout = parallel.make_layout("shard_map", devices)
    config = timing.with_batch(config, batch * len(devices) if batch else config.global_batch, layout)
    steps, learning_rate = recipe.plan(config, timing.EXAMPLES)
    options = recipe.step_options(config, timing.CLASSES, learning_rate)
    kind, share = devices[0].device_kind, config.global_batch // len(devices)
    chips = len({tuple(getattr(device, "coords", [device.id])) for device in devices})  # only TPUs have coordinates
    macs = counting.params_and_macs(options.model, config.augment.size)[1]
    memory, program = peaks.memory(kind), None
    start = time.perf_counter()
    try:
        compiled = parallel.compile_lowered(lower(config, options, layout))
    except jax.errors.JaxRuntimeError as error:
        plan = refused(str(error))
        if plan is None:
            raise
    else:
        plan = planned(compiled, memory)
        unlike = config.freeze or config.optimizer.sam_rho  # a step is not three forward passes
        program = read(compiled, None if unlike else timing.FLOPS_PER_MAC * macs * share, chips,
                       (memory, peaks.peak(kind, config.model.dtype), peaks.links(kind)))
    return Compiled(kind, len(devices), chips, share, getattr(options.model, "bn_group", None), macs, steps,
                    time.perf_counter() - start, plan, program)


def largest(found: Iterable[Compiled]) -> int | None:
    """Of the batches that were tried the largest that fits a device; None if none is known to."""
    return max((each.batch for each in found if each.plan.fits), default=None)


def read(compiled: Any, flop: float | None, chips: int, limits: Limits) -> Program:
    """What a compiled step does; arguments see `bound`."""
    computations, entry = hlo.parse(compiled.as_text())
    moved, collective = hlo.traffic(computations, entry), hlo.collectives(computations)
    hbm_bytes = sum(each.bytes for each in moved)
    accessed = (compiled.cost_analysis() or {}).get("bytes accessed")
    return Program(hbm_bytes, accessed, tuple(moved[:LARGEST]), collective,
                   bound(hbm_bytes, flop, sum(collective.values()), chips, limits))


def lower(config: config_lib.Config, options: StepOptions, layout: parallel.Layout) -> Any:
    """The train step for arguments that exist as shapes only, ready to be compiled."""
    size = config.augment.size

    def initial() -> TrainState:
        return make_state(*init_variables(options.model, size, config.seed), options.optimizer, options.freeze,
                          bool(config.ema_decay))

    batch = {"image": jax.ShapeDtypeStruct((1, config.global_batch, size, size, 3), jnp.uint8),
             "label": jax.ShapeDtypeStruct((1, config.global_batch), jnp.int32)}
    step = recipe.compile_step(config, options, layout)
    return step.lower(_laid_out(jax.eval_shape(initial), layout, P()), _laid_out(batch, layout, P(None, AXIS)))


def _laid_out(tree: PyTree, layout: parallel.Layout, spec: P) -> PyTree:
    sharding = NamedSharding(layout.mesh, spec)
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)


def planned(program: Any, memory: peaks.Memory | None) -> Plan:
    """What a compiled program says that it holds."""
    sizes = program.memory_analysis()
    parts = [size / 2**30 for size in (
        sizes.argument_size_in_bytes, sizes.output_size_in_bytes - sizes.alias_size_in_bytes,
        sizes.temp_size_in_bytes, sizes.generated_code_size_in_bytes)]
    return Plan(sum(parts), memory and memory.gib, *parts)


def refused(message: str) -> Plan | None:
    """What the compiler says of a program that is too large for the memory; None if it says something else."""
    if found := _OUT_OF_MEMORY.search(message):
        used, unit, room, room_unit = found.groups()
        return Plan(float(used) * _UNITS[unit], float(room) * _UNITS[room_unit])
    return None


def bound(hbm_bytes: float, flop: float | None, payload: float, chips: int, limits: Limits) -> Bound:
    """Least seconds of a step.

    Args:
        hbm_bytes: that a device moves through its memory.
        flop: operations of a device.
        payload: bytes that a device gives to all-reduces. The devices of a chip add theirs up within it; then each chip
            sends at least 2 (chips - 1) / chips of it (Patarasuk and Yuan 2009,
            https://doi.org/10.1016/j.jpdc.2008.09.002), over all its links at once.
    """
    memory, peak, links = limits
    sent = 2 * (chips - 1) / chips * payload
    return Bound(memory and hbm_bytes / memory.gb_per_s / 1e9,
                 peak and flop and flop / peak.tflops / 1e12,
                 links and sent / links.gb_per_s / 1e9)
