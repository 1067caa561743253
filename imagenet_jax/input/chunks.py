"""Batches made by all cores: a batch is cut into chunks, many are read and decoded at a time, and all keep their order.

What Python does for one image while it holds its lock bounds every process, however many cores it has. A chunk is
therefore one call of a graph, which decodes its images, and one copy into the place it has in its batch.
"""

import collections
import concurrent.futures
import functools
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from imagenet_jax import dataset
from imagenet_jax.errors import UserError
from imagenet_jax.input import crops as crops_lib
from imagenet_jax.input import damage, pixels
from imagenet_jax.input.policies import Augmentation

tf = pixels.tf
Batch = dict[str, np.ndarray]
Executor, Future = concurrent.futures.ThreadPoolExecutor, concurrent.futures.Future
CHUNKS = (16, 64)  # examples, least and most; what Python does for a chunk takes it 0.3 ms, whatever the number
CHUNK_BYTES = 8_000_000  # of pixels at most, where the bounds allow it
READS = 32  # chunks read at a time at least: a disk or a bucket is waited for, not the processor; of a store that
            # takes 1 ms a record they get up to 32,000 records a second
AHEAD = 2  # batches in the making at least, while one is used


class Workers(NamedTuple):
    """What input may use of a host; none of it changes a batch.

    threads: that decode, 0 for one a core. prefetch: batches held on the devices ahead of the step. ram_gb: what
    images on their way may fill, 0 for what keeps all threads busy. cache_gb: of encoded records, see cache.Cached.
    """

    threads: int = 0
    prefetch: int = 2
    ram_gb: float = 0.0
    cache_gb: float = 0.0


DEFAULT = Workers()


class Plan(NamedTuple):
    """What a batch is made of.

    index: int64 [B]. uniform: float [B, crops.DRAWS] for crops, and `more` [B, draws] for the augmentation; None where
    nothing is drawn. after: the example to show where that of an index is damaged; None where damage is an error.
    """

    index: np.ndarray
    uniform: np.ndarray | None = None
    more: np.ndarray | None = None
    after: Callable[[int], int] | None = None


class Transform(NamedTuple):
    """How an example becomes an image.

    view: the function of `pixels` that makes it in a graph, and `options` for that. draw: (uniform, sizes) -> crops,
    None where the view takes none. write: (what the view made, crop, place) writes the image into its place; where
    there is one, the view may give any size. augmentation: of the image in its place. crops: the axes of an image
    before [size, size, 3], where it is several.
    """

    view: Callable[..., tf.Tensor]
    options: Mapping[str, Any]
    draw: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None
    write: Callable[[np.ndarray, np.ndarray, np.ndarray], None] | None = None
    augmentation: Augmentation | None = None
    crops: tuple[int, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """Of an image in its place."""
        return (*self.crops, self.options["size"], self.options["size"], 3)


class Crew(NamedTuple):
    """Threads: readers wait for storage, makers decode."""

    readers: Executor
    makers: Executor


class Undecodable(UserError):
    """An image that cannot be decoded."""


def batches(records: dataset.Records, steps: Iterable[int], plan: Callable[[int], Plan], transform: Transform,
            batch: int, workers: Workers = DEFAULT) -> Iterator[Batch]:
    """A batch of image, label, file_name, index, fault and mask (all ones) for each step, in order.

    Raises:
        UserError: where the plan forgives no damage, a shard is damaged, or an image cannot be decoded. All batches
            before it have been yielded.
    """
    threads = workers.threads or cores()
    chunks_each = -(-batch // chunk_size(transform.shape))
    ahead = max(AHEAD, -(-max(READS, 2 * threads) // chunks_each))
    if workers.ram_gb:
        ahead = max(1, min(ahead, int(workers.ram_gb * 1e9) // (batch * math.prod(transform.shape))))
    crew, queue = hire(threads), collections.deque()
    try:
        for step in steps:
            queue.append(start(crew, records, step, plan, transform, batch))
            if len(queue) > ahead:
                yield finish(queue.popleft())
        while queue:
            yield finish(queue.popleft())
    finally:
        for pool in crew:
            pool.shutdown(wait=False, cancel_futures=True)
        for pool in crew:
            pool.shutdown()


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def chunk_size(shape: tuple[int, ...]) -> int:
    """Examples of a chunk, a power of two; `shape` is that of an image."""
    return min(CHUNKS[1], max(CHUNKS[0], 1 << (CHUNK_BYTES // math.prod(shape)).bit_length() >> 1))


def hire(threads: int) -> Crew:
    """A crew of which so many decode."""
    return Crew(Executor(max(READS, threads), "read"), Executor(threads, "decode"))


def start(crew: Crew, records: dataset.Records, step: int, plan: Callable[[int], Plan], transform: Transform,
          batch: int) -> tuple[Batch, list[Future]]:
    """Sets a crew to work on the batch of a step: its arrays, and the chunks that are being written into them."""
    made, planned = empty(batch, transform.shape), crew.readers.submit(plan, step)
    chunks, size = [], chunk_size(transform.shape)
    for first in range(0, batch, size):
        part = slice(first, min(first + size, batch))
        graph = _graph(transform.view, tuple(sorted(transform.options.items())), transform.shape,
                       part.stop - first if transform.write else None)  # built here, and not by many threads at once
        reading = crew.readers.submit(_read, records, planned, part, transform.draw)
        place = {key: array[part] for key, array in made.items()}
        chunks.append(crew.makers.submit(_make, reading, transform, graph, place))
    return made, chunks


def empty(batch: int, shape: tuple[int, ...]) -> Batch:
    """The arrays of a batch of images of a shape."""
    return {"image": np.empty((batch, *shape), np.uint8), "label": np.empty(batch, np.int32),
            "file_name": np.empty(batch, object), "index": np.empty(batch, np.int64), "fault": np.empty(batch, object),
            "mask": np.ones(batch, np.float32)}


def finish(started: tuple[Batch, list[Future]]) -> Batch:
    """Waits for a batch that was started."""
    made, chunks = started
    for chunk in chunks:
        chunk.result()
    return made


def viewer(transform: Transform) -> Callable[[Sequence[bytes]], np.ndarray]:
    """From encoded images to what a transform that draws nothing makes of them: uint8 [n, *transform.shape].

    It may be called by many threads, and raises Undecodable if one of the images is.
    """
    graph = _graph(transform.view, tuple(sorted(transform.options.items())), transform.shape, None)

    def see(encoded: Sequence[bytes]) -> np.ndarray:
        spans = np.array([(0, len(image)) for image in encoded], np.int32)
        nothing = np.zeros((len(encoded), crops_lib.CROP), np.int32)
        try:
            return graph(*map(tf.constant, (np.array(encoded, object), spans, nothing))).numpy()
        except tf.errors.InvalidArgumentError as error:
            raise Undecodable(_reason(error)) from error

    return see


class _Chunk(NamedTuple):
    """What was read of n examples.

    faults: what is wrong with each, or ''. crops: int32 [n, crops.CROP]. more: see Plan. forgiving: whether one that
    cannot be decoded is no error.
    """

    records: list[bytes]
    rows: list[dataset.Row]
    index: np.ndarray
    faults: list[str]
    crops: np.ndarray
    more: np.ndarray | None = None
    forgiving: bool = False


def _read(records: dataset.Records, planned: Future, part: slice,
          draw: Callable[[np.ndarray, np.ndarray], np.ndarray] | None) -> _Chunk:
    plan = planned.result()  # it was handed in first: some reader is at it
    found, index, faults = damage.read(records, plan.index[part], plan.after)
    rows = [dataset.row(record) for record in found]
    if draw is None:
        return _Chunk(found, rows, index, faults, np.zeros((len(rows), crops_lib.CROP), np.int32))
    sizes = [pixels.image_size(memoryview(record)[slice(*row.image)]) for record, row in zip(found, rows, strict=True)]
    return _Chunk(found, rows, index, faults, draw(plan.uniform[part], np.array(sizes)),
                  None if plan.more is None else plan.more[part], plan.after is not None)


def _make(reading: Future, transform: Transform, graph: Callable[..., Any], place: Batch) -> None:
    """Writes a chunk that is being read into its place."""
    chunk = reading.result()
    try:
        made = graph(tf.constant(np.array(chunk.records, object)), _spans(chunk.rows), tf.constant(chunk.crops))
    except tf.errors.InvalidArgumentError:
        made = [_seen(chunk, i, transform) for i in range(len(chunk.rows))]
    if transform.write is None:
        np.copyto(place["image"], np.asarray(made if isinstance(made, list) else memoryview(made)))
    else:
        for image, crop, out in zip(made, chunk.crops, place["image"], strict=True):
            transform.write(np.asarray(memoryview(image)), crop, out)  # numpy() would copy once more
    if chunk.more is not None:
        for out, uniform in zip(place["image"], chunk.more, strict=True):
            out[:] = transform.augmentation.apply(out, uniform)
    place["label"][:] = [row.label for row in chunk.rows]
    place["file_name"][:] = [row.file_name for row in chunk.rows]
    place["index"][:] = chunk.index
    place["fault"][:] = [fault.encode() for fault in chunk.faults]


def _spans(rows: list[dataset.Row]) -> tf.Tensor:
    return tf.constant(np.array([row.image for row in rows], np.int32))


@functools.lru_cache(maxsize=32)
def _graph(view: Callable[..., tf.Tensor], options: tuple[tuple[str, Any], ...], shape: tuple[int, ...],
           count: int | None) -> Callable[..., Any]:
    """From records string [n], where their images are int32 [n, 2] and crops to images uint8 [n, *shape].

    For a `count` of examples: to a list of what the view makes, whatever its sizes.
    """

    one = tf.function(functools.partial(view, **dict(options)))  # traced once, and not for each example

    def chunk(records: tf.Tensor, spans: tf.Tensor, crops: tf.Tensor) -> tf.Tensor | list[tf.Tensor]:
        encoded = tf.strings.substr(records, spans[:, 0], spans[:, 1] - spans[:, 0])
        if count:
            return [one(*example) for example in zip(*map(tf.unstack, (encoded, crops)), strict=True)]
        return tf.map_fn(lambda example: view(*example, **dict(options)), (encoded, crops), parallel_iterations=1,
                         fn_output_signature=tf.TensorSpec(shape, tf.uint8))

    return tf.function(chunk).get_concrete_function(
        tf.TensorSpec([count], tf.string), tf.TensorSpec([count, 2], tf.int32),
        tf.TensorSpec([count, crops_lib.CROP], tf.int32))


def _seen(chunk: _Chunk, i: int, transform: Transform) -> tf.Tensor:
    """What a transform makes of example i, alone; of what can be decoded of it, and noted, if the chunk forgives that.

    Raises:
        Undecodable: it cannot be decoded, and that is an error.
    """
    row, crop = chunk.rows[i], chunk.crops[i]
    encoded = chunk.records[i][slice(*row.image)]

    def see(image: bytes, crop: np.ndarray) -> tf.Tensor:
        return transform.view(tf.constant(image), tf.constant(crop), **transform.options)

    try:
        return see(encoded, crop)
    except (tf.errors.InvalidArgumentError, ValueError) as error:  # of tf, and of PIL
        reason = f"{row.file_name.decode()} ({_reason(error)})"
        if not chunk.forgiving:
            raise Undecodable(f"An image could not be decoded: {reason}. Prepare the dataset again with "
                              "--verify=decode: it finds such images and sets them aside.") from error
    part = damage.decodable_part(encoded, pixels.image_size(encoded))
    said = f"{reason} cannot be decoded. {'What can be of it' if part else 'Grey'} is shown in its place"
    chunk.faults[i] = ". ".join(filter(None, [chunk.faults[i], said]))
    return see(part, crop) if part else see(damage.GREY, np.array([0, 0, 1, 1, 0], np.int32))


def _reason(error: Exception) -> str:
    """What an error of TensorFlow's says, without where in the graph."""
    return getattr(error, "message", str(error)).split("}} ")[-1].split(" [Op:")[0].splitlines()[0]
