"""What the batches of training and evaluation hold, whose they are, and when they go to the devices."""

import collections
import contextlib
import functools
import itertools
import sys
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from imagenet_jax.errors import UserError
from imagenet_jax.input import chunks, crops, damage, order, parts, pixels, policies
from imagenet_jax.input.chunks import DEFAULT, Batch, Workers
from imagenet_jax.input.parts import Part

tf = pixels.tf
_RESIZED = ("size", "interpolation", "antialias")  # keys of `augment` that `pixels` resizes by


class Host(NamedTuple):
    """Host `index` of `count`: which slice of every global batch is read here."""

    index: int = 0
    count: int = 1


ONE_HOST = Host()


def train_batches(part: Part, *, seed: int, start_step: int, global_batch: int, augment: Mapping[str, Any],
                  host_slice: Host = ONE_HOST, workers: Workers = DEFAULT) -> Iterator[Batch]:
    """This host's slices of the global batches of steps start_step, start_step + 1, ... without end.

    Where the side S changes, the batches before have all been made before the next is begun: it is waited for, once.

    Args:
        augment: keys of `config.augment`, the boundaries of the ramp in steps.

    Yields:
        image uint8 [B, S, S, 3], label int32 [B], index int64 [B], mask float32 [B] (all ones), and for people
        file_name [B] and fault [B] (bytes), where B = global_batch / hosts. Nothing but (seed, position in the stream)
        decides what a batch holds, and S nothing but its step. Of a picture that is damaged what can be decoded is
        shown, or its neighbour in the pool: `fault` says so, and is empty for all others.

    Raises:
        UserError: hosts that cannot share the batch; a shard that is lost.
    """
    batch = share(global_batch, host_slice)
    plan = train_plan(part, seed=seed, global_batch=global_batch, augment=augment, host_slice=host_slice)

    def batches() -> Iterator[Batch]:
        for (first, size), (end, _) in itertools.pairwise([*sizes(augment, start_step), (sys.maxsize, 0)]):
            transform = train_transform({**augment, "size": size})
            for made in chunks.batches(parts.records(part), range(first, end), plan, transform, batch, workers):
                parts.relabel(part, made["index"], made["label"])
                yield made

    return batches()


def sizes(augment: Mapping[str, Any], start_step: int) -> list[tuple[int, int]]:
    """The sides of the squares of training: (step, px) for start_step and for each later step that changes it."""
    before = [px for first, px in augment["ramp"] if first <= start_step]
    after = [(first, px) for first, px in augment["ramp"] if first > start_step]
    return [(start_step, before[-1] if before else augment["size"]), *after]


def share(global_batch: int, host_slice: Host) -> int:
    """Examples of a global batch that are read on one host.

    Raises:
        UserError: the hosts cannot share it equally.
    """
    if global_batch % host_slice.count:
        raise UserError(f"global_batch={global_batch} cannot be shared by {host_slice.count} hosts")
    return global_batch // host_slice.count


def train_plan(part: Part, *, seed: int, global_batch: int, augment: Mapping[str, Any],
               host_slice: Host) -> Callable[[int], chunks.Plan]:
    """What a host's slice of the batch of a step is made of."""
    more, after = augmentation(augment).draws, damage.next_of(parts.pool(part))

    def plan(step: int) -> chunks.Plan:
        positions = order.host_positions(step, global_batch, *host_slice)
        index = parts.shown(part, positions, seed=seed, global_batch=global_batch, repeats=augment["repeats"])
        drawn = functools.partial(order.draws, seed, int(positions[0]), len(positions))
        return chunks.Plan(index, drawn(crops.DRAWS), drawn(more, purpose=1) if more else None, after)

    return plan


def train_transform(augment: Mapping[str, Any]) -> chunks.Transform:
    """How an example is cropped, resized, flipped and augmented in training."""
    draw, keys = {
        "random_resized": (crops.random_resized, ("area", "aspect", "flip")),
        "scale_jitter": (crops.scale_jitter, ("size", "resize", "central", "flip")),
    }[augment["crop"]]
    transform = chunks.Transform(pixels.train_example, _of(augment, _RESIZED),
                                 functools.partial(draw, **_of(augment, keys)), augmentation=augmentation(augment))
    if augment["interpolation"] == "bilinear" and not augment["antialias"]:  # OpenCV has other weights for the others
        return transform._replace(view=pixels.train_window, write=pixels.place_window)
    return transform


def augmentation(augment: Mapping[str, Any]) -> policies.Augmentation:
    """What is done to an image after its crop."""
    strength = policies.Strength(*(augment[key] for key in ("operations", "magnitude", "magnitude_std")))
    return policies.make(augment["size"], strength=strength,
                         **_of(augment, ("policy", "jitter", "lighting", "interpolation")))


def _of(section: Mapping[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    return {key: section[key] for key in keys}


def eval_batches(part: Part, *, batch: int, view: Mapping[str, Any], host_slice: Host = ONE_HOST,
                 local_devices: int = 1, workers: Workers = DEFAULT) -> Iterator[Batch]:
    """Every example of the part once, over all hosts; the last batches are padded and masked.

    Args:
        batch: examples at a time over all hosts, rounded up so that every device holds as many.
        view: the keys of `config.view`.

    Yields:
        As `train_batches`; where the view has several crops, image is uint8 [B, C, S, S, 3].
    """
    per_host = -(-batch // (host_slice.count * local_devices)) * local_devices
    count = -(-len(part.pool) // (per_host * host_slice.count))
    positions = np.arange(count * per_host * host_slice.count).reshape(count, host_slice.count, per_host)
    mine = positions[:, host_slice.index]

    def plan(i: int) -> chunks.Plan:
        return chunks.Plan(part.pool[np.minimum(mine[i], len(part.pool) - 1)])

    transform = eval_transform(view)
    for i, loaded in enumerate(chunks.batches(part.records, range(count), plan, transform, per_host, workers)):
        parts.relabel(part, loaded["index"], loaded["label"])
        loaded["mask"] = (mine[i] < len(part.pool)).astype(np.float32)
        yield loaded


def eval_transform(view: Mapping[str, Any]) -> chunks.Transform:
    """How an example is seen in evaluation; `view` has the keys of `config.view`."""
    return chunks.Transform(_eval_example, view, crops=pixels.crop_axes(view.get("crops", 1), view.get("scales", ())))


def _eval_example(encoded: tf.Tensor, crop: tf.Tensor, *, resize: int, **view: Any) -> tf.Tensor:
    return pixels.eval_example(encoded, resize_to=resize, **view)  # nothing is drawn


def prefetch(batches: Generator[Batch], put: Callable[[Batch], Any], depth: int) -> Iterator[Any]:
    """Puts batches on the devices in a thread, `depth` ahead of the one yielded, and closes them in the end.

    It begins at once, not with the first that is asked for. Copies overlap with the step, and of a source that stalls
    nothing is felt for as long as there are batches ahead.
    """
    begun = _prefetched(batches, put, depth)
    next(begun)
    return begun


def _prefetched(batches: Generator[Batch], put: Callable[[Batch], Any], depth: int) -> Generator[Any]:
    """`prefetch`, after a first None once it has begun."""

    def placed() -> Any:
        batch = next(batches, None)
        return batch if batch is None else put(batch)

    thread = chunks.Executor(1, "put")
    ahead = collections.deque(thread.submit(placed) for _ in range(depth))
    with contextlib.closing(batches):
        try:
            yield None
            while True:
                ahead.append(thread.submit(placed))
                batch = ahead.popleft().result()
                if batch is None:
                    return
                yield batch
        finally:
            thread.shutdown(cancel_futures=True)
