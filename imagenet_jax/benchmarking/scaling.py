"""The same step on 1, 2, 4, ... devices of this host, by both ways to run it on all of them."""

import statistics
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax

from imagenet_jax import config as config_lib
from imagenet_jax.benchmarking import timing
from imagenet_jax.training import parallel
from imagenet_jax.training.state import TrainState

MODES = ("pmap", "shard_map")


class Row(NamedTuple):
    """A step with so many devices.

    img_per_s: of all devices, the median of `timing.WINDOWS` windows; the modes take turns. dispatch_ms: until the
    call of a step is over while the devices have nothing to do: what Python and JAX take, and nothing else on devices
    that compute by themselves.
    """

    devices: int
    mode: str
    img_per_s: float
    ms_per_step: float
    dispatch_ms: float


def counts(available: int) -> list[int]:
    """Powers of two, and all."""
    return [*(2**i for i in range(available.bit_length()) if 2**i < available), available]


def measure(config: config_lib.Config, per_device: int, *, seconds: float) -> Iterator[Row]:
    """Trains with `per_device` examples on each device; each row gets about so many seconds.

    Raises:
        UserError: the recipe cannot be run so.
    """
    for count in counts(len(jax.devices())):
        layouts = [parallel.make_layout(mode, jax.devices()[:count]) for mode in MODES]
        sized = timing.with_batch(config, per_device * count, layouts[0])
        sides = [timing.ready(sized, layout) for layout in layouts]
        states = [timing.run(side.step, side.state, side.batch, 2)[0] for side in sides]
        taken, dispatched = [[] for _ in MODES], [[] for _ in MODES]
        for _ in range(timing.WINDOWS):
            for i, side in enumerate(sides):
                states[i], idle = _dispatch(side, states[i])
                steps = max(1, round(seconds / timing.WINDOWS / (taken[i][-1] if taken[i] else seconds)))
                states[i], each = timing.run(side.step, states[i], side.batch, steps)
                taken[i].append(each)
                dispatched[i].append(idle)
        for i, mode in enumerate(MODES):
            each = statistics.median(taken[i])
            yield Row(count, mode, sized.global_batch / each, 1e3 * each, 1e3 * statistics.median(dispatched[i]))


def _dispatch(side: timing.Ready, state: TrainState) -> tuple[TrainState, float]:
    jax.block_until_ready(state)
    start = time.perf_counter()
    state, metrics = side.step(state, side.batch)
    dispatched = time.perf_counter() - start
    jax.block_until_ready(metrics)
    return state, dispatched


def words(config: config_lib.Config, per_device: int, rows: Sequence[Row]) -> str:
    """The table."""
    kind, alone = jax.devices()[0].device_kind, {row.mode: row.img_per_s for row in rows if row.devices == 1}
    lines = [f"{config.model.name}, {config.augment.size} px, {config.model.dtype}, {per_device} images on each {kind}"
             + ("; these devices share the cores of this machine" if jax.devices()[0].platform == "cpu" else ""),
             f"{'devices':>8}{'mode':>11}{'img/s':>11}{'a device':>11}{'of one':>9}{'ms/step':>11}{'dispatch ms':>13}"]
    for row in rows:
        each = row.img_per_s / row.devices
        lines.append(f"{row.devices:8}{row.mode:>11}{row.img_per_s:11,.1f}{each:11,.1f}{each / alone[row.mode]:9.1%}"
                     f"{row.ms_per_step:11,.1f}{row.dispatch_ms:13,.2f}")
    return "\n".join(lines)
