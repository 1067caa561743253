"""How fast each stage of training input is on this machine, and which of them binds."""

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from imagenet_jax import dataset
from imagenet_jax.dataset import cache
from imagenet_jax.input import chunks, loader, order, pixels, width

tf = pixels.tf
ROUNDS = 3  # the stages take turns, so that what else the machine does meets all of them
IN_MEMORY = 1024  # examples that the stages without reading work on, over and over
_ASIDE = ("whole", "undecoded", "python")  # for comparison


class Stage(NamedTuple):
    """What a stage gives and takes; medians of the rounds.

    rate: images a second. own: microseconds of wall clock that the stage itself adds to an image. processor: those of
    all cores together that an image takes up to and with it.
    """

    name: str
    rate: float
    own: float
    processor: float


def measure(part: loader.Part, augment: Mapping[str, Any], *, batch: int, workers: loader.Workers, seconds: float,
            put: Callable[[np.ndarray], Any]) -> list[Stage]:
    """Runs the stages in turns, each for `seconds` over all rounds.

    Args:
        put: copies a batch of images uint8 [batch, S, S, 3] to a device and waits until it is there.

    Returns:
        read: records by index, in one thread. whole: decodes whole JPEGs. decode: decodes the sampled windows, which
        is the limit of any input that decodes. resize: the same, and resizes, flips and puts them in batches, from
        memory. augment: the same, and the operations of the recipe, if it has any. undecoded: everything but decoding,
        resizing and operations: images are of 1 px. python: the same, from memory. batch: everything up to batches on
        the host. device: the same, and onto the device.
    """
    taken: dict[str, list[tuple[float, float]]] = {}
    with contextlib.ExitStack() as stack:
        stages = _stages(part, augment, batch, workers, put)
        for stage in stages.values():
            stack.enter_context(contextlib.closing(stage))
            next(stage), next(stage)  # tf.data starts its threads, tunes them, fills what it prefetches
        for _, (name, stage) in itertools.product(range(ROUNDS), stages.items()):
            _settle()
            for _ in range(chunks.AHEAD + 1):  # made while another stage was measured
                next(stage)
            taken.setdefault(name, []).append(_taken(stage, seconds / ROUNDS))
    wall, processor = ({name: float(np.median([each[i] for each in taken[name]])) for name in taken} for i in (0, 1))
    own = _own(wall)
    return [Stage(name, 1e6 / wall[name], own[name], processor[name]) for name in taken]


def _own(taken: Mapping[str, float]) -> dict[str, float]:
    """What each stage adds to the one below it."""
    below = {"resize": "decode", "augment": "resize", "batch": "augment" if "augment" in taken else "resize",
             "device": "batch"}
    return {name: max(0.0, taken[name] - taken.get(below.get(name, ""), 0.0)) for name in taken}


def extrapolate(stages: list[Stage]) -> width.Width:
    """What the stages would give on more cores.

    Python's lock is taken to be held for all of the processor time of `python`. Of that, TensorFlow does a part
    without it; reading, which is not in it, holds it for a moment. Neither can be seen from here.
    """
    processor = {stage.name: stage.processor for stage in stages}
    own = {name: taken for name, taken in _own(processor).items() if name not in ("read", *_ASIDE)}  # batch has read
    return width.Width(own, processor["python"])


def binding(stages: list[Stage]) -> Stage:
    """The stage of a batch's way that costs most; _ASIDE is not on it."""
    return max((stage for stage in stages if stage.name not in _ASIDE), key=lambda stage: stage.own)


def _stages(part: loader.Part, augment: Mapping[str, Any], batch: int, workers: loader.Workers,
            put: Callable[[np.ndarray], Any]) -> dict[str, Iterator[int]]:
    some = part.pool[order.permutation(0, 0, len(part.pool))[:IN_MEMORY]]
    in_memory = part._replace(records=cache.Cached(part.records, np.inf), pool=some)
    memory = _encoded(in_memory, augment).repeat()
    plain = dict(augment) | {"policy": "", "jitter": (), "lighting": 0.0}
    options = tf.data.Options()
    options.threading.private_threadpool_size = workers.threads
    options.threading.max_intra_op_parallelism = 1  # images run beside each other: no one is cut over threads

    def mapped(stage: Callable[..., tf.Tensor]) -> Iterator[int]:
        outputs = memory.map(stage, num_parallel_calls=tf.data.AUTOTUNE).batch(batch).prefetch(2)
        for _ in outputs.with_options(options):
            yield batch

    def read() -> Iterator[int]:
        for step in itertools.count():
            index = order.stream(0, len(part.pool), order.host_positions(step, batch, 0, 1))
            yield len(part.records.read(part.pool[index]))

    def batches(part: loader.Part, augment: Mapping[str, Any] = augment) -> Iterator[loader.Batch]:
        return loader.train_batches(part, seed=0, start_step=0, global_batch=batch, augment=augment, workers=workers)

    def undecoded(part: loader.Part) -> Iterator[loader.Batch]:
        plan = loader.train_plan(part, seed=0, global_batch=batch, augment=plain, host_slice=loader.ONE_HOST)
        transform = loader.train_transform(plain)._replace(view=_blank, write=_leave)
        return chunks.batches(part.records, itertools.count(), plan, transform, batch, workers)

    def made(batches: Iterator[loader.Batch]) -> Iterator[int]:
        with contextlib.closing(batches) as source:
            for _ in source:
                yield batch

    def on_device() -> Iterator[int]:
        with contextlib.closing(batches(part)) as source:
            for made in source:
                put(made["image"])
                yield batch

    return {"read": read(),
            "whole": mapped(lambda e, c: tf.shape(pixels.decode(e))),
            "decode": mapped(lambda e, c: tf.shape(pixels.decode_window(e, c[:4]))),
            "resize": made(batches(in_memory, plain)),
            **({"augment": made(batches(in_memory))} if loader.augmentation(augment).draws else {}),
            "undecoded": made(undecoded(part)), "python": made(undecoded(in_memory)),
            "batch": made(batches(part)), "device": on_device()}


def _encoded(part: loader.Part, augment: Mapping[str, Any]) -> tf.data.Dataset:
    """The encoded images of a part, and their crops."""
    plan = loader.train_plan(part, seed=0, global_batch=len(part.pool), augment=augment,
                             host_slice=loader.ONE_HOST)(0)
    encoded = [record[slice(*dataset.row(record).image)] for record in part.records.read(plan.index)]
    sizes = np.array([pixels.image_size(image) for image in encoded])
    crops = loader.train_transform(augment).draw(plan.uniform, sizes)
    return tf.data.Dataset.from_tensor_slices((encoded, crops))


def _blank(encoded: tf.Tensor, crop: tf.Tensor, **_: object) -> tf.Tensor:
    return tf.zeros((1, 1, 3), tf.uint8)


def _leave(window: np.ndarray, crop: np.ndarray, place: np.ndarray) -> None:
    pass


def _settle(patience: float = 2.0) -> None:
    """Waits until other stages have made all that they make ahead, or their work would be counted to the next one."""
    end = time.perf_counter() + patience
    while time.perf_counter() < end:
        before = time.process_time()
        time.sleep(0.02)
        if time.process_time() - before < 0.002:
            return


def _taken(stage: Iterator[int], seconds: float) -> tuple[float, float]:
    """Microseconds of wall clock and of the processor that an image takes."""
    start, processor, count = time.perf_counter(), time.process_time(), 0
    while (passed := time.perf_counter() - start) < seconds or not count:
        count += next(stage)
    return 1e6 * passed / count, 1e6 * (time.process_time() - processor) / count
