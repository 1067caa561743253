"""One shard: a worker's unit of work, committed by a sidecar file when it is whole on the disk."""

import contextlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from imagenet_jax import durable
from imagenet_jax.errors import UserError
from imagenet_jax.prepare.examples import Checked, Example, Reference
from imagenet_jax.prepare.sources.boxes import parse
from imagenet_jax.prepare.sources.tars import printable

SAMPLES = 8  # examples of a class whose places are noted for the card
SIZE_STEP = 16  # px


class Chunk(NamedTuple):
    """References that become one shard. spool: a file of this chunk's own, removed when it is done."""

    shard: Path
    sidecar: Path
    references: list[Reference]
    digest: str
    check: Callable[[Example], Checked]
    spool: Path | None = None


class Summary(NamedTuple):
    """What became of a chunk, or of a split of many.

    shards: records in each shard. bytes: of serialized records. labels: kept examples by label.
    samples: places in the split of the first few of each label. widths, heights: images by size, in steps of 16 px.
    repaired, quarantined: [file name, reason] of each. unturned: images that EXIF says to turn, kept as stored.
    corrupt: [file name, reason, place in the split] of those that are kept, although libjpeg says that they are.
    """

    shards: list[int] = []
    bytes: int = 0
    labels: dict[int, int] = {}
    samples: dict[int, list[int]] = {}
    boxes: int = 0
    dropped_boxes: int = 0
    widths: dict[int, int] = {}
    heights: dict[int, int] = {}
    repaired: list[list[str]] = []
    quarantined: list[list[str]] = []
    unturned: int = 0
    corrupt: list[tuple[str, str, int]] = []

    @property
    def examples(self) -> int:
        """Examples kept."""
        return sum(self.shards)


class _Tally(NamedTuple):
    """What a Summary is made of, while it grows."""

    sums: Counter
    labels: Counter
    samples: dict[int, list[int]]
    widths: Counter
    heights: Counter
    repaired: list[list[str]]
    quarantined: list[list[str]]
    corrupt: list[tuple[str, str, int]]


def write_chunk(chunk: Chunk) -> int:
    """Writes the shard of a chunk and then its sidecar; returns the number of references dealt with.

    Both appear whole or not at all. A chunk of which nothing survives leaves no shard.

    Raises:
        UserError: a source file can no longer be read.
        OSError: the disk is full or cannot be written.
    """
    tally = _Tally(Counter(), Counter(), {}, Counter(), Counter(), [], [], [])
    partial = chunk.sidecar.with_suffix(f".{os.getpid()}.tmp")
    count, size = _write_records(partial, _judged(chunk, tally))
    if count:
        durable.sync(partial)
        os.replace(partial, chunk.shard)
    summary = Summary([count] if count else [], size, tally.labels, tally.samples, tally.sums["boxes"],
                      tally.sums["dropped"], tally.widths, tally.heights, tally.repaired, tally.quarantined,
                      tally.sums["unturned"], tally.corrupt)
    disk = chunk.shard.stat().st_size if count else 0
    with durable.create(chunk.sidecar) as file:
        json.dump({"digest": chunk.digest, "disk": disk, "summary": summary._asdict()}, file)
    if chunk.spool:
        chunk.spool.unlink()
    return len(chunk.references)


def is_done(chunk: Chunk) -> bool:
    """Whether an earlier run finished this very chunk: the same sources, options and place."""
    try:
        sidecar = json.loads(chunk.sidecar.read_text())
        whole = not sidecar["disk"] or chunk.shard.stat().st_size == sidecar["disk"]
        return whole and sidecar["digest"] == chunk.digest
    except (OSError, ValueError, KeyError, TypeError):
        return False


def read_summary(sidecar: Path) -> Summary:
    """The summary of a finished chunk."""
    summary = Summary(**json.loads(sidecar.read_text())["summary"])

    def numbered(counts: dict[str, object]) -> dict[int, object]:
        return {int(key): value for key, value in counts.items()}

    return summary._replace(**{
        name: numbered(getattr(summary, name)) for name in ("labels", "samples", "widths", "heights")})


def merge(summaries: Iterable[Summary]) -> Summary:
    """The summary of a split from those of its chunks, in order."""
    shards, labels, widths, heights = [], Counter(), Counter(), Counter()
    sums, samples, repaired, quarantined, corrupt = Counter(), {}, [], [], []
    for one in summaries:
        corrupt += [(name, reason, sum(shards) + place) for name, reason, place in one.corrupt]
        for label, places in one.samples.items():
            known = samples.setdefault(label, [])
            known += [sum(shards) + place for place in places][: SAMPLES - len(known)]
        shards += one.shards
        for total, part in ((labels, one.labels), (widths, one.widths), (heights, one.heights)):
            total.update(part)
        sums.update({name: getattr(one, name) for name in ("bytes", "boxes", "dropped_boxes", "unturned")})
        repaired += one.repaired
        quarantined += one.quarantined
    return Summary(shards, sums["bytes"], labels, samples, sums["boxes"], sums["dropped_boxes"], widths, heights,
                   repaired, quarantined, sums["unturned"], corrupt)


def load(references: Iterable[Reference]) -> Iterator[tuple[Reference, Example | None]]:
    """Reads the image of each reference; None for one that has a fault or is cut short.

    Raises:
        UserError: a file cannot be opened or read.
    """
    with contextlib.ExitStack() as stack:
        path, file = None, None
        for reference in references:
            image = None
            try:
                if not reference.fault:
                    if reference.path != path:
                        stack.close()
                        path, file = reference.path, stack.enter_context(open(reference.path, "rb"))
                    file.seek(reference.offset)
                    image = file.read(reference.size)
            except OSError as error:
                raise UserError(f"{reference.path} cannot be read: {error}. Look after the file or the disk, "
                                "then run the same command again: it goes on.") from error
            if image is None or len(image) < reference.size:
                yield reference, None
            else:
                boxes = reference.boxes if isinstance(reference.boxes, np.ndarray) else parse(reference.boxes)
                yield reference, Example(image, reference.label, reference.file_name, boxes)


def _judged(chunk: Chunk, tally: _Tally) -> Iterator[bytes]:
    """The records that the examples of a chunk leave, counted in `tally` on the way."""
    place = 0
    for reference, example in load(chunk.references):
        fault = reference.fault or "cut short: the file ends within the image"
        kept, reason, size, unturned, corrupt = chunk.check(example) if example else Checked(None, fault)
        if reason:
            (tally.repaired if kept else tally.quarantined).append([printable(reference.file_name), reason])
        if kept is None:
            continue
        if size:
            tally.widths[size[0] // SIZE_STEP * SIZE_STEP] += 1
            tally.heights[size[1] // SIZE_STEP * SIZE_STEP] += 1
        tally.labels[kept.label] += 1
        if tally.labels[kept.label] <= SAMPLES:
            tally.samples.setdefault(kept.label, []).append(place)
        tally.sums["boxes"] += len(kept.boxes)
        tally.sums["dropped"] += len(example.boxes) - len(kept.boxes)
        tally.sums["unturned"] += unturned
        if corrupt:
            tally.corrupt.append((printable(reference.file_name), corrupt, place))
        place += 1
        yield serialize(kept)


def _write_records(path: Path, records: Iterator[bytes]) -> tuple[int, int]:
    """Writes records into one ArrayRecord file if there are any; returns their number and bytes."""
    from array_record.python.array_record_module import ArrayRecordWriter

    count, size, writer = 0, 0, None
    try:
        for record in records:
            # Images are compressed already: zstd would cost time and gain nothing.
            writer = writer or ArrayRecordWriter(str(path), "group_size:1,uncompressed")
            writer.write(record)
            count, size = count + 1, size + len(record)
        if writer is not None:
            writer.close()
    except RuntimeError as error:  # how ArrayRecord tells a full disk
        raise OSError(str(error)) from error
    return count, size


def serialize(example: Example) -> bytes:
    """A tf.train.Example with the features of the format; the same bytes for the same example."""
    # TFDS's own copy of the protos: the same wire format, without importing TensorFlow.
    from tensorflow_datasets.proto import tf_example_pb2, tf_feature_pb2

    feature, bytes_list = tf_feature_pb2.Feature, tf_feature_pb2.BytesList
    int64_list, float_list = tf_feature_pb2.Int64List, tf_feature_pb2.FloatList
    features = {
        "image": feature(bytes_list=bytes_list(value=[example.image])),
        "label": feature(int64_list=int64_list(value=[example.label])),
        "file_name": feature(bytes_list=bytes_list(value=[printable(example.file_name).encode()])),
        "boxes": feature(float_list=float_list(value=example.boxes.ravel())),
    }
    proto = tf_example_pb2.Example(features=tf_feature_pb2.Features(feature=features))
    return proto.SerializeToString(deterministic=True)
