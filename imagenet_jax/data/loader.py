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


class Workers(NamedTuple):
    """What input may use of a host; none of it changes a batch.

    threads: of the tf.data pool, 0 for one a core. prefetch: batches held on the devices ahead of the step.
    ram_gb: what tf.data may fill with examples on their way, 0 for half of what is free. cache_gb: of encoded
    records, see cache.Cached.
    """

    threads: int = 0
    prefetch: int = 2
    ram_gb: float = 0.0
    cache_gb: float = 0.0


ONE_HOST = Host()
DEFAULT = Workers()


def train_batches(part: Part, *, seed: int, start_step: int, global_batch: int, augment: Mapping[str, Any],
                  host_slice: Host = ONE_HOST, workers: Workers = DEFAULT) -> Iterator[Batch]:
    """This host's slices of the global batches of steps start_step, start_step + 1, ... without end.

    Yields:
        image uint8 [B, S, S, 3], label int32 [B], index int64 [B], mask float32 [B] (all ones), and file_name
        (bytes) [B] for people, where B = global_batch / hosts. Nothing but (seed, position in the stream)
        decides what a batch holds.

    Raises:
        UserError: hosts that cannot share the batch; an image that cannot be decoded.
    """
    if global_batch % host_slice.count:
        raise UserError(f"global_batch={global_batch} cannot be shared by {host_slice.count} hosts")
    crop = dict(augment)
    area = crop.pop("area")

    def read(step: np.ndarray) -> tuple[np.ndarray, ...]:
        positions = order.host_positions(int(step), global_batch, *host_slice)
        index = part.pool[order.stream(seed, len(part.pool), positions)]
        uniform = order.draws(seed, int(positions[0]), len(positions), host.DRAWS)
        return _read(part.records, index), index, host.crop_draws(uniform, area, crop["aspect"])

    def example(encoded: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
        return host.train_example(encoded, draws, **crop)

    batch = global_batch // host_slice.count
    return _batches(tf.data.Dataset.range(start_step, np.iinfo(np.int64).max), read, example, batch, workers)


def eval_batches(part: Part, *, batch: int, view: Mapping[str, Any], host_slice: Host = ONE_HOST,
                 local_devices: int = 1, workers: Workers = DEFAULT) -> Iterator[Batch]:
    """Every example of the part once, over all hosts; the last batches are padded and masked.

    Args:
        batch: examples at a time over all hosts, rounded up so that every device holds as many.
        view: size, resize, library, interpolation and antialias of the centre crop.
    """
    per_host = -(-batch // (host_slice.count * local_devices)) * local_devices
    count = -(-len(part.pool) // (per_host * host_slice.count))
    positions = np.arange(count * per_host * host_slice.count).reshape(count, host_slice.count, per_host)
    mine = positions[:, host_slice.index]
    view = dict(view)
    resize_to = view.pop("resize")

    def read(i: np.ndarray) -> tuple[np.ndarray, ...]:
        index = part.pool[np.minimum(mine[i], len(part.pool) - 1)]
        return _read(part.records, index), index, np.zeros((per_host, 1), np.float32)  # nothing is drawn

    def example(encoded: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
        return host.eval_example(encoded, resize_to=resize_to, **view)

    for i, loaded in enumerate(_batches(tf.data.Dataset.range(count), read, example, per_host, workers)):
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


def _batches(steps: tf.data.Dataset, read: Callable[[np.ndarray], tuple[np.ndarray, ...]],
             example: Callable[[tf.Tensor, tf.Tensor], tf.Tensor], batch: int, workers: Workers) -> Iterator[Batch]:
    """A batch for each step: read(step) -> (records, index, draws), and `example` mapped over them in parallel."""
    features = {"image": tf.io.FixedLenFeature([], tf.string), "label": tf.io.FixedLenFeature([], tf.int64),
                "file_name": tf.io.FixedLenFeature([], tf.string, default_value="")}
    failed: list[UserError] = []  # tf would wrap it in an error of its own

    def load(step: np.ndarray) -> tuple[np.ndarray, ...]:
        try:
            return read(step)
        except UserError as error:
            failed.append(error)
            raise

    def parse(step: tf.Tensor) -> dict[str, tf.Tensor]:
        records, index, draws = tf.numpy_function(load, [step], [tf.string, tf.int64, tf.float32], stateful=False)
        parsed = tf.io.parse_example(tf.ensure_shape(records, [batch]), features)
        return {"encoded": parsed["image"], "label": tf.cast(parsed["label"], tf.int32),
                "file_name": parsed["file_name"], "index": tf.ensure_shape(index, [batch]),
                "draws": tf.ensure_shape(draws, [batch, None])}

    def finish(row: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        image = example(row["encoded"], row["draws"])
        return {"image": image, "label": row["label"], "index": row["index"], "file_name": row["file_name"]}

    # The batch after this one is read while this one is decoded.
    rows = steps.map(parse).prefetch(1).unbatch()
    examples = rows.map(finish, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    dataset = examples.batch(batch, drop_remainder=True).prefetch(2).with_options(options(workers))
    done = 0
    try:
        for loaded in dataset.as_numpy_iterator():
            yield loaded | {"mask": np.ones(batch, np.float32)}
            done += 1
    except tf.errors.InvalidArgumentError as error:
        reason = _undecodable(steps.skip(done).take(1).map(parse).unbatch(), example)
        if not reason:
            raise
        raise UserError(f"An image could not be decoded: {reason}. Prepare the dataset again with --verify=decode: "
                        "it finds such images and sets them aside.") from error
    except tf.errors.UnknownError:
        if not failed:
            raise
    if failed:  # raised out here, where nothing holds the iterator, so that its threads end
        raise failed[0]


def options(workers: Workers) -> tf.data.Options:
    """How tf.data runs: in order, with the threads and the memory it is allowed."""
    chosen = tf.data.Options()
    chosen.deterministic = True
    chosen.threading.private_threadpool_size = workers.threads
    chosen.threading.max_intra_op_parallelism = 1  # images run beside each other: no one is cut over threads
    if workers.ram_gb:
        chosen.autotune.ram_budget = int(workers.ram_gb * 1e9)
    return chosen


def _undecodable(rows: tf.data.Dataset, example: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]) -> str:
    """The name of the first image that `example` cannot take, and what it says; empty when it takes them all."""
    for row in rows:
        try:
            example(row["encoded"], row["draws"])
        except tf.errors.InvalidArgumentError as error:
            reason = error.message.split("}} ")[-1].split(" [Op:")[0].splitlines()[0]
            return f"{row['file_name'].numpy().decode()} ({reason})"
    return ""
