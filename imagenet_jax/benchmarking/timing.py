"""How fast the train step of a recipe is on the devices of this host, with drawn batches that are there already."""

import gc
import os
import platform
import time
from collections.abc import Iterable, Iterator, Sequence
from importlib import metadata
from typing import Any, NamedTuple

import jax
import numpy as np

from imagenet_jax import config as config_lib
from imagenet_jax import models
from imagenet_jax.benchmarking import peaks
from imagenet_jax.errors import UserError, out_of_memory
from imagenet_jax.models import counting
from imagenet_jax.training import hlo, parallel, profiling, recipe
from imagenet_jax.training.state import PyTree, TrainState, init_variables, make_state
from imagenet_jax.training.step import StepOptions

EXAMPLES, CLASSES = 1_281_167, 1000  # of ImageNet, for which the recipes are
WINDOWS = 5  # that share the time of a batch
FLOPS_PER_MAC = 3 * 2  # a training step is counted as three forward passes, a multiply-add as two operations


class Figures(NamedTuple):
    """What one batch gave.

    Attributes:
        batch: examples in an optimizer step, over all devices; cut into `micro_batches`.
        bn_group: examples that share BatchNorm statistics, None in a network without.
        img_per_s: over all devices: the median of the windows, `lowest` and `highest` being the extremes.
        img_per_s_device: a device's share of it.
        ms_per_step: at the median.
        tflops: of a device, 1e12 operations a second by `FLOPS_PER_MAC`; None if parameters are frozen, for which there
            is less to do.
        mfu: `tflops` as a share of the published peak, None where one of them is not known.
        bandwidth: what a device moves through its memory, by `hlo.traffic`, as a share of the published rate; None
            where that is not known.
        compile_s, compiled: seconds and source, see `parallel.Compiled`.
        memory_gib: most that a device held, None where nobody says.
        memory_from: 'device' (the peak since the process began), or 'compiler' (what the program plans for).
        hours: that the recipe's duration would take over ImageNet at this rate.
    """

    batch: int
    micro_batches: int
    bn_group: int | None
    img_per_s: float
    img_per_s_device: float
    lowest: float
    highest: float
    ms_per_step: float
    tflops: float | None
    mfu: float | None
    bandwidth: float | None
    compile_s: float
    compiled: str
    memory_gib: float | None
    memory_from: str
    hours: float


class Refused(NamedTuple):
    """A batch that cannot be run, and why; `too_large` for the memory of the devices."""

    batch: int
    problem: str
    too_large: bool


def measure(config: config_lib.Config, batches: Sequence[int] = (), *, seconds: float) -> Iterator[Figures | Refused]:
    """Trains for `seconds` with each global batch, from the smallest to the largest, and yields what it gave.

    Args:
        config: filled and checked; its own global batch is measured as it is if there are no others.
        batches: see `with_batch`.
    """
    layout = parallel.make_layout(config.parallel)
    # From the smallest: the memory that a device tells of is its peak so far.
    for batch in sorted(set(batches or [config.global_batch])):
        try:
            result = _measure(with_batch(config, batch, layout) if batches else config, layout, seconds)
        except UserError as error:
            result = Refused(batch, str(error), False)
        except jax.errors.JaxRuntimeError as error:
            if not out_of_memory(error):
                raise
            result = Refused(batch, "does not fit the memory of the devices", True)
        gc.collect()  # what a failed try still holds of the devices
        yield result


def with_batch(config: config_lib.Config, batch: int, layout: parallel.Layout) -> config_lib.Config:
    """A recipe with another global batch, which the devices hold whole whatever its max_per_device_batch.

    BatchNorm groups stay as they are where they fit; where not, they are the largest equal parts of what a device
    holds that are no larger. The learning rate stays: it changes no speed.

    Raises:
        UserError: the devices cannot share the batch.
    """
    config = config.copy_and_resolve_references()
    config.global_batch = batch
    config.max_per_device_batch = max(config.max_per_device_batch, batch)
    parallel.micro_batches(layout, batch, batch)
    group = getattr(models.make(num_classes=CLASSES, **config.model), "bn_group", None)
    try:
        parallel.micro_batches(layout, batch, batch, group)
    except UserError:
        share = batch // len(layout.devices)
        config.model.bn_group = max(part for part in range(1, group + 1) if share % part == 0)
    return config


def trial(config: config_lib.Config) -> list[str]:
    """What goes wrong in two steps of a filled recipe, on a few small drawn images; nothing if all goes well."""
    layout = parallel.make_layout(config.parallel)
    size = config.augment.size if config.model.aux else 96  # auxiliary heads may need all of it
    try:
        config = with_batch(config, 2 * len(layout.devices), layout)
        recipe.augment(config, EXAMPLES)  # as the input would ask
        options = recipe.step_options(config, CLASSES, recipe.plan(config, EXAMPLES)[1])
        state = make_state(*init_variables(options.model, size, config.seed), options.optimizer, options.freeze,
                           bool(config.ema_decay))
        step = recipe.compile_step(config, options, layout)
        batch = parallel.put_batch(drawn(config.global_batch, size), layout, 1)
        state = parallel.put_state(state, layout)
        parallel.compiled(step, state, batch)  # says in words which compiler_options there are not
        state, _ = step(state, batch)
        _, metrics = step(state, batch)
    except UserError as error:
        return [str(error)]
    metrics = parallel.get_state(metrics, layout)
    finite = metrics["finite"][0] == 1 and np.isfinite(metrics["loss"][0])
    return [] if finite else ["the loss of the second step, or the weights after it, is not finite"]


class Ready(NamedTuple):
    """A step that can be run: step(state, batch) gives (state, metrics) and takes the state with it."""

    options: StepOptions
    micro_batches: int
    step: Any
    state: TrainState
    batch: PyTree
    compiled: parallel.Compiled


def ready(config: config_lib.Config, layout: parallel.Layout) -> Ready:
    """The train step of a filled recipe, a fresh state and a drawn batch, on the devices."""
    options = recipe.step_options(config, CLASSES, recipe.plan(config, EXAMPLES)[1])
    model, size = options.model, config.augment.size
    micro = parallel.micro_batches(layout, config.global_batch, config.max_per_device_batch,
                                   getattr(model, "bn_group", None))
    state = make_state(*init_variables(model, size, config.seed), options.optimizer, options.freeze,
                       bool(config.ema_decay))
    batch = drawn(config.global_batch // jax.process_count(), size)
    step, state = recipe.compile_step(config, options, layout), parallel.put_state(state, layout)
    batch = parallel.put_batch(batch, layout, micro)
    return Ready(options, micro, step, state, batch, parallel.compiled(step, state, batch))


def _measure(config: config_lib.Config, layout: parallel.Layout, seconds: float) -> Figures:
    options, micro, step, state, batch, (program, compile_s, source) = ready(config, layout)
    model, size = options.model, config.augment.size
    taken = _windows(step, state, batch, seconds)
    rates = [config.global_batch / each for each in taken]
    rate = float(np.median(rates))
    unlike = config.freeze or config.optimizer.sam_rho  # a step is not three forward passes
    tflops, mfu = utilisation(None if unlike else counting.params_and_macs(model, size)[1],
                              rate / len(layout.devices), peak_of(config, layout))
    share = bandwidth(program, config.global_batch / rate, peaks.memory(layout.devices[0].device_kind))
    memory, memory_from = _memory(program, layout)
    return Figures(
        config.global_batch, micro, getattr(model, "bn_group", None), rate, rate / len(layout.devices), min(rates),
        max(rates), 1e3 * config.global_batch / rate, tflops, mfu, share, compile_s,
        source, memory, memory_from,
        recipe.plan(config, EXAMPLES)[0] * config.global_batch / rate / 3600)


def profile(config: config_lib.Config, batch: int | None, directory: str) -> list[profiling.Cost]:
    """Traces some steps with a batch (None: as the recipe has it) into a directory; what their operations take."""
    layout = parallel.make_layout(config.parallel)
    side = ready(with_batch(config, batch, layout) if batch else config, layout)
    state, _ = run(side.step, side.state, side.batch, 2)
    for number in range(profiling.STEPS):
        with profiling.window(directory, number, first=0):
            state, metrics = side.step(state, side.batch)
            jax.block_until_ready(metrics)
    return profiling.costs(directory, side.compiled.program)


def drawn(count: int, size: int) -> dict[str, np.ndarray]:
    """A batch of noise: image uint8 [count, size, size, 3], label int32 [count]."""
    random = np.random.default_rng(0)
    return {"image": random.integers(0, 256, (count, size, size, 3), np.uint8),
            "label": random.integers(0, CLASSES, count, np.int32)}


def peak_of(config: config_lib.Config, layout: parallel.Layout | None = None) -> peaks.Peak | None:
    """What a device could do at most in the compute type of a config."""
    devices = layout.devices if layout else jax.devices()
    return peaks.peak(devices[0].device_kind, config.model.dtype, jax.config.jax_default_matmul_precision)


def utilisation(macs: int | None, img_per_s: float, peak: peaks.Peak | None) -> tuple[float | None, float | None]:
    """(TFLOP/s, share of the peak) of a device that trains on `img_per_s` images of `macs` multiply-adds forward."""
    tflops = None if macs is None else FLOPS_PER_MAC * macs * img_per_s / 1e12
    return tflops, None if tflops is None or peak is None else tflops / peak.tflops


def bandwidth(program: Any, seconds: float, memory: peaks.Memory | None) -> float | None:
    """The share of its memory's rate that a device uses that runs a compiled program in so many seconds."""
    if memory is None:
        return None
    moved = sum(each.bytes for each in hlo.traffic(*hlo.parse(program.as_text())))
    return moved / seconds / 1e9 / memory.gb_per_s


def _windows(step: Any, state: TrainState, batch: PyTree, seconds: float) -> list[float]:
    """Seconds that a step takes, in each of the windows; they share `seconds`, but have a step each at least."""
    state, _ = run(step, state, batch, 1)
    state, each = run(step, state, batch, 2)
    taken = []
    for _ in range(WINDOWS):
        state, each_now = run(step, state, batch, max(1, round(seconds / WINDOWS / each)))
        taken.append(each_now)
    return taken


def run(step: Any, state: TrainState, batch: PyTree, count: int) -> tuple[TrainState, float]:
    """The state after `count` steps, and the seconds each took; as many are in flight as in training."""
    start, pending = time.perf_counter(), []
    for _ in range(count):
        state, metrics = step(state, batch)
        pending = [*pending, metrics][-parallel.STEPS_IN_FLIGHT:]
        jax.block_until_ready(pending[0])
    jax.block_until_ready((state, pending))
    return state, (time.perf_counter() - start) / count


def _memory(program: Any, layout: parallel.Layout) -> tuple[float | None, str]:
    """GiB that a device held at most, and who says so."""
    stats = [device.memory_stats() or {} for device in layout.local_devices]
    if all("peak_bytes_in_use" in each for each in stats):
        return max(each["peak_bytes_in_use"] for each in stats) / 2**30, "device"
    plan = program.memory_analysis()
    if plan is None:
        return None, ""
    held = (plan.argument_size_in_bytes + plan.output_size_in_bytes - plan.alias_size_in_bytes
            + plan.temp_size_in_bytes + plan.generated_code_size_in_bytes)
    return held / 2**30, "compiler"


def setting(config: config_lib.Config) -> dict[str, Any]:
    """What figures depend on besides the code, as JSON can hold it."""
    devices, peak = jax.devices(), peak_of(config)
    memory = peaks.memory(devices[0].device_kind)
    model = models.make(num_classes=CLASSES, **config.model)
    params, macs = counting.params_and_macs(model, config.augment.size)
    flags = " ".join(filter(None, map(os.environ.get, ("XLA_FLAGS", "LIBTPU_INIT_ARGS"))))
    return {"device": {"kind": devices[0].device_kind, "platform": devices[0].platform, "count": len(devices),
                       "mode": parallel.make_layout(config.parallel).mode},
            "versions": versions(), "xla_flags": flags, "config": config.to_dict(),
            "bn_group": getattr(model, "bn_group", None), "params": params, "macs": macs,
            "flops_per_mac": FLOPS_PER_MAC, "peak": peak and peak._asdict(), "memory": memory and memory._asdict()}


def versions() -> dict[str, str]:
    """Of Python and of what compiles and computes a step."""
    packages = ("jax", "jaxlib", "flax", "optax", "numpy")
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in packages}


def best(results: Iterable[Figures | Refused]) -> Figures | None:
    """The batch with the most images a second, None if none could be run."""
    return max((each for each in results if isinstance(each, Figures)), key=lambda each: each.img_per_s, default=None)


def largest(results: Iterable[Figures | Refused]) -> int | None:
    """The largest batch that could be run."""
    return max((each.batch for each in results if isinstance(each, Figures)), default=None)
