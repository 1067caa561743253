"""From records on disk to batches on the devices: reading by index, the tf graph, prefetch."""

import collections
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from imagenet_jax.dataset import Records, features
from imagenet_jax.errors import UserError
from imagenet_jax.input import order, pixels

tf = pixels.tf
Batch = dict[str, np.ndarray]
Example = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
# What is read of a step, and its types: see `read_step`.
ROW = {"encoded": tf.string, "label": tf.int32, "file_name": tf.string, "index": tf.int64, "crop": tf.int32}
_DRAWN = ("area", "aspect", "flip")  # keys of `augment` that a crop is drawn by
Fetch = Callable[[tf.Tensor], Sequence[tf.Tensor]]


class Part(NamedTuple):
    """Some examples of a split. pool: their indices int64 [n] in the split. origin: its directory and name."""

    records: Records
    pool: np.ndarray
    origin: tuple[str, str] = ("", "")


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
    batch = share(global_batch, host_slice)
    spec = step_spec(seed=seed, global_batch=global_batch, augment=augment, host_slice=host_slice)

    def read(step: np.ndarray) -> tuple[np.ndarray, ...]:
        return read_step(part.records, part.pool, int(step), **spec)

    return _batches(endless(start_step), read, train_example(augment), batch, workers)


def share(global_batch: int, host_slice: Host) -> int:
    """Examples of a global batch that are read on one host.

    Raises:
        UserError: the hosts cannot share it equally.
    """
    if global_batch % host_slice.count:
        raise UserError(f"global_batch={global_batch} cannot be shared by {host_slice.count} hosts")
    return global_batch // host_slice.count


def endless(start_step: int) -> tf.data.Dataset:
    """start_step, start_step + 1, ..."""
    return tf.data.Dataset.range(start_step, np.iinfo(np.int64).max)


def step_spec(*, seed: int, global_batch: int, augment: Mapping[str, Any], host_slice: Host) -> dict[str, Any]:
    """What `read_step` must know of a run; JSON can carry it."""
    return {"seed": seed, "global_batch": global_batch, "host_slice": host_slice,
            "drawn": {key: augment[key] for key in _DRAWN}}


def read_step(records: Records, pool: np.ndarray, step: int, *, seed: int, global_batch: int, host_slice: Host,
              drawn: Mapping[str, Any]) -> tuple[np.ndarray, ...]:
    """What a host needs of a step: encoded images, labels, file names, indices [B], crops int32 [B, pixels.CROP]."""
    positions = order.host_positions(step, global_batch, *host_slice)
    index = pool[order.stream(seed, len(pool), positions)]
    encoded, label, file_name = _read(records, index)
    sizes = np.array([pixels.image_size(image) for image in encoded])
    uniform = order.draws(seed, int(positions[0]), len(positions), pixels.DRAWS)
    return encoded, label, file_name, index, pixels.random_crops(uniform, sizes, **drawn)


def train_example(augment: Mapping[str, Any]) -> Example:
    """The tf graph from (encoded, crop) to the image."""
    resizing = {key: value for key, value in augment.items() if key not in _DRAWN}
    return lambda encoded, crop: pixels.train_example(encoded, crop, **resizing)


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
        return *_read(part.records, index), index, np.zeros((per_host, pixels.CROP), np.int32)  # nothing is drawn

    def example(encoded: tf.Tensor, crop: tf.Tensor) -> tf.Tensor:
        return pixels.eval_example(encoded, resize_to=resize_to, **view)

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


def _read(records: Records, index: np.ndarray) -> tuple[np.ndarray, ...]:
    """Encoded images, labels and file names [n] at these indices."""
    rows = [features(record) for record in records.read(index)]
    names = [row["file_name"].bytes_list.value for row in rows]  # a TFDS build may have none
    return (np.array([row["image"].bytes_list.value[0] for row in rows], object),
            np.array([row["label"].int64_list.value[0] for row in rows], np.int32),
            np.array([name[0] if name else b"" for name in names], object))


def pipeline(steps: tf.data.Dataset, fetch: Fetch, example: Example, batch: int, workers: Workers) -> tf.data.Dataset:
    """A batch for each step, without mask, and the `step` of each of its examples int64 [batch].

    Args:
        fetch: step -> what `read_step` has of it.
        example: (encoded, crop) -> image, mapped over the examples in parallel.
    """

    def finish(row: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        image = example(row.pop("encoded"), row.pop("crop"))
        return row | {"image": image}

    # The batch after this one is read while this one is decoded.
    rows = _rows(steps, fetch, batch).prefetch(1).unbatch()
    examples = rows.map(finish, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    return examples.batch(batch, drop_remainder=True).prefetch(2).with_options(options(workers))


def _rows(steps: tf.data.Dataset, fetch: Fetch, batch: int) -> tf.data.Dataset:
    def row(step: tf.Tensor) -> dict[str, tf.Tensor]:
        read = {key: tf.ensure_shape(value, [batch, *([pixels.CROP] if key == "crop" else [])])
                for key, value in zip(ROW, fetch(step), strict=True)}
        return read | {"step": tf.repeat(step, batch)}

    return steps.map(row)


def _batches(steps: tf.data.Dataset, read: Callable[[np.ndarray], tuple[np.ndarray, ...]], example: Example,
             batch: int, workers: Workers) -> Iterator[Batch]:
    """The batches of the pipeline, with records that read(step) gets in this process."""
    failed: list[UserError] = []  # tf would wrap it in an error of its own

    def load(step: np.ndarray) -> tuple[np.ndarray, ...]:
        try:
            return read(step)
        except UserError as error:
            failed.append(error)
            raise

    def fetch(step: tf.Tensor) -> Sequence[tf.Tensor]:
        return tf.numpy_function(load, [step], [*ROW.values()], stateful=False)

    done = 0
    try:
        for loaded in pipeline(steps, fetch, example, batch, workers).as_numpy_iterator():
            del loaded["step"]
            yield loaded | {"mask": np.ones(batch, np.float32)}
            done += 1
    except tf.errors.InvalidArgumentError as error:
        reason = _undecodable(_rows(steps.skip(done).take(1), fetch, batch).unbatch(), example)
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


def _undecodable(rows: tf.data.Dataset, example: Example) -> str:
    """The name of the first image that `example` cannot take, and what it says; empty when it takes them all."""
    for row in rows:
        try:
            example(row["encoded"], row["crop"])
        except (tf.errors.InvalidArgumentError, ValueError) as error:  # of tf, and of PIL
            reason = getattr(error, "message", str(error)).split("}} ")[-1].split(" [Op:")[0].splitlines()[0]
            return f"{row['file_name'].numpy().decode()} ({reason})"
    return ""
