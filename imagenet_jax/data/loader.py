"""From records on disk to batches on the devices: reading by index, the tf graph, prefetch."""

import collections
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from imagenet_jax.data import host, order
from imagenet_jax.data.dataset import Records
from imagenet_jax.errors import UserError

tf = host.tf
Batch = dict[str, np.ndarray]


class Part(NamedTuple):
    """Some examples of a split. pool: their indices int64 [n] in the split."""

    records: Records
    pool: np.ndarray


class Host(NamedTuple):
    """Host `index` of `count`: which slice of every global batch is read here."""

    index: int = 0
    count: int = 1


def train_batches(part: Part, *, seed: int, start_step: int, global_batch: int, augment: Mapping[str, Any],
                  host_slice: Host = Host(), threads: int = 0) -> Iterator[Batch]:
    """This host's slices of the global batches of steps start_step, start_step + 1, ... without end.

    Yields:
        image uint8 [B, S, S, 3], label int32 [B], index int64 [B], mask float32 [B] (all ones), and file_name
        (bytes) [B] for people, where B = global_batch / hosts. Nothing but (seed, position in the stream) decides what a batch holds.

    Raises:
        UserError: hosts that cannot share the batch; an image that cannot be decoded.
    """
    if global_batch % host_slice.count:
        raise UserError(f"global_batch={global_batch} cannot be shared by {host_slice.count} hosts")

    def read(step: np.ndarray) -> tuple[np.ndarray, ...]:
        positions = order.host_positions(int(step), global_batch, *host_slice)
        index = part.pool[order.stream(seed, len(part.pool), positions)]
        return _read(part.records, index), index, positions

    def example(encoded: tf.Tensor, position: tf.Tensor) -> tf.Tensor:
        return host.train_example(encoded, tf.stack([tf.cast(seed, tf.int64), position]), **augment)

    batch = global_batch // host_slice.count
    steps = tf.data.Dataset.range(start_step, np.iinfo(np.int64).max)
    chunks = steps.map(lambda s: tf.numpy_function(read, [s], [tf.string, tf.int64, tf.int64], stateful=False))
    return _batches(chunks, example, batch, threads)


def eval_batches(part: Part, *, batch: int, view: Mapping[str, Any], host_slice: Host = Host(), local_devices: int = 1,
                 threads: int = 0) -> Iterator[Batch]:
    """Every example of the part once, over all hosts; the last batches are padded and masked.

    Args:
        batch: examples at a time over all hosts, rounded up so that every device holds as many.
        view: size, resize, interpolation and antialias of the centre crop.
    """
    per_host = -(-batch // (host_slice.count * local_devices)) * local_devices
    count = -(-len(part.pool) // (per_host * host_slice.count))
    positions = np.arange(count * per_host * host_slice.count).reshape(count, host_slice.count, per_host)
    mine = positions[:, host_slice.index]
    view = dict(view)
    resize_to = view.pop("resize")

    def read(i: np.ndarray) -> tuple[np.ndarray, ...]:
        index = part.pool[np.minimum(mine[i], len(part.pool) - 1)]
        return _read(part.records, index), index, mine[i]

    def example(encoded: tf.Tensor, position: tf.Tensor) -> tf.Tensor:
        return host.eval_example(encoded, resize_to=resize_to, **view)

    chunks = tf.data.Dataset.range(count).map(
        lambda i: tf.numpy_function(read, [i], [tf.string, tf.int64, tf.int64], stateful=False))
    for i, loaded in enumerate(_batches(chunks, example, per_host, threads)):
        loaded["mask"] = (mine[i] < len(part.pool)).astype(np.float32)
        yield loaded


def prefetch(batches: Iterable[Batch], put: Callable[[Batch], Any], depth: int) -> Iterator[Any]:
    """Puts batches on the devices `depth` ahead of the one yielded: copies overlap with the step."""
    source, queue = iter(batches), collections.deque()
    for batch in itertools.islice(source, depth):
        queue.append(put(batch))
    while True:
        for batch in itertools.islice(source, 1):
            queue.append(put(batch))
        if not queue:
            return
        yield queue.popleft()


def _read(records: Records, index: np.ndarray) -> np.ndarray:
    return np.array(records.read(index), dtype=object)


def _batches(chunks: tf.data.Dataset, example: Callable[[tf.Tensor, tf.Tensor], tf.Tensor], batch: int,
             threads: int) -> Iterator[Batch]:
    """Parses chunks of (records, index, position), maps `example` over them in parallel, and batches."""
    features = {"image": tf.io.FixedLenFeature([], tf.string), "label": tf.io.FixedLenFeature([], tf.int64),
                "file_name": tf.io.FixedLenFeature([], tf.string)}

    def parse(records: tf.Tensor, index: tf.Tensor, position: tf.Tensor) -> dict[str, tf.Tensor]:
        parsed = tf.io.parse_example(tf.ensure_shape(records, [None]), features)
        return {"encoded": parsed["image"], "label": tf.cast(parsed["label"], tf.int32), "file_name": parsed["file_name"],
                "index": tf.ensure_shape(index, [None]), "position": tf.ensure_shape(position, [None])}

    def finish(row: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        image = example(row["encoded"], row["position"])
        return {"image": image, "label": row["label"], "index": row["index"], "file_name": row["file_name"]}

    examples = chunks.map(parse).unbatch().map(finish, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    options = tf.data.Options()
    options.threading.private_threadpool_size = threads
    options.deterministic = True
    dataset = examples.batch(batch, drop_remainder=True).prefetch(2).with_options(options)
    try:
        for loaded in dataset.as_numpy_iterator():
            yield loaded | {"mask": np.ones(batch, np.float32)}
    except tf.errors.InvalidArgumentError as error:
        raise UserError(f"an image could not be decoded: {str(error).splitlines()[0][:200]}\n"
                        "Prepare the dataset again with --verify=decode: it finds such images and sets them aside") from error
