"""How fast each stage of training input is on this machine, and which of them binds."""

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from imagenet_jax import dataset
from imagenet_jax.dataset import cache
from imagenet_jax.input import chunks, loader, order, pixels

tf = pixels.tf
ROUNDS = 3  # the stages take turns, so that what else the machine does meets all of them
IN_MEMORY = 1024  # examples that the stages without reading work on, over and over
_ASIDE = ("whole", "undecoded")  # for comparison


class Stage(NamedTuple):
    """Images a second (median of the rounds), and microseconds of wall clock that the stage itself adds to an image."""

    name: str
    rate: float
    own: float


def measure(part: loader.Part, augment: Mapping[str, Any], *, batch: int, workers: loader.Workers, seconds: float,
            put: Callable[[np.ndarray], Any]) -> list[Stage]:
    """Runs the stages in turns, each for `seconds` over all rounds.

    Args:
        put: copies a batch of images uint8 [batch, S, S, 3] to a device and waits until it is there.

    Returns:
        read: records by index, in one thread. whole: decodes whole JPEGs. decode: decodes the sampled windows, which
        is the limit of any input that decodes. resize: the same, and resizes, flips and puts them in batches, from
        memory. augment: the same, and the operations of the recipe, if it has any. undecoded: everything but decoding,
        resizing and operations. batch: everything up to batches on the host. device: the same, and onto the device.
    """
    rates: dict[str, list[float]] = {}
    with contextlib.ExitStack() as stack:
        stages = _stages(part, augment, batch, workers, put)
        for stage in stages.values():
            stack.enter_context(contextlib.closing(stage))
            next(stage), next(stage)  # tf.data starts its threads, tunes them, fills what it prefetches
        for _, (name, stage) in itertools.product(range(ROUNDS), stages.items()):
            for _ in range(chunks.AHEAD + 1):  # made while another stage was measured
                next(stage)
            rates.setdefault(name, []).append(_rate(stage, seconds / ROUNDS))
    rate = {name: float(np.median(values)) for name, values in rates.items()}
    below = {"resize": "decode", "augment": "resize", "batch": "augment" if "augment" in rate else "resize",
             "device": "batch"}
    own = {name: 1e6 / rate[name] - 1e6 / rate.get(below.get(name, ""), np.inf) for name in rate}
    return [Stage(name, rate[name], max(0.0, own[name])) for name in rate]


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

    def undecoded() -> Iterator[loader.Batch]:
        plan = loader.train_plan(part.pool, seed=0, global_batch=batch, augment=plain, host_slice=loader.ONE_HOST)
        transform = loader.train_transform(plain)._replace(view=_blank, write=None)
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
            "undecoded": made(undecoded()), "batch": made(batches(part)), "device": on_device()}


def _encoded(part: loader.Part, augment: Mapping[str, Any]) -> tf.data.Dataset:
    """The encoded images of a part, and their crops."""
    plan = loader.train_plan(part.pool, seed=0, global_batch=len(part.pool), augment=augment,
                             host_slice=loader.ONE_HOST)(0)
    encoded = [record[slice(*dataset.row(record).image)] for record in part.records.read(plan.index)]
    sizes = np.array([pixels.image_size(image) for image in encoded])
    crops = loader.train_transform(augment).draw(plan.uniform, sizes)
    return tf.data.Dataset.from_tensor_slices((encoded, crops))


def _blank(encoded: tf.Tensor, crop: tf.Tensor, *, size: int, **_: object) -> tf.Tensor:
    return tf.zeros((size, size, 3), tf.uint8)


def _rate(stage: Iterator[int], seconds: float) -> float:
    start, count = time.perf_counter(), 0
    while (passed := time.perf_counter() - start) < seconds or not count:
        count += next(stage)
    return count / passed
