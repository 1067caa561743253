"""Writes a dataset from a stream of examples: all of it under its name, or nothing.

Sources are read in `archives.py`, judged in `repair.py`; the format is told in `dataset.py`.
"""

import contextlib
import json
import os
import re
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from imagenet_jax.data.dataset import FORMAT, INDEX, SHARD_TEMPLATE, shard_name
from imagenet_jax.errors import UserError

# 560 shards for ImageNet: below the usual limit of 1,024 open files when all are open.
SHARD_BYTES = 256 * 2**20
_LOG_SECONDS = 30.0


class Example(NamedTuple):
    """One labelled image.

    image: the encoded file. label: index into the dataset's classes.
    boxes: float32 [M, 4], (ymin, xmin, ymax, xmax) as shares of height and width.
    """

    image: bytes
    label: int
    file_name: str
    boxes: np.ndarray = np.zeros((0, 4), np.float32)


class Checked(NamedTuple):
    """What became of one example: kept (no reason), repaired (both) or refused (no example)."""

    example: Example | None
    reason: str = ""


class Source(NamedTuple):
    """Where examples come from. splits are written in the order given; totals only serve the bar.

    classes: names that sort into label order. class_names: the same for people.
    """

    name: str
    classes: tuple[str, ...]
    class_names: tuple[str, ...]
    splits: Mapping[str, Iterable[Example]]
    totals: Mapping[str, int] = {}
    origin: str = ""


class Written(NamedTuple):
    """What one split came to; bytes are of serialized records, seconds of wall time."""

    shard_lengths: tuple[int, ...]
    classes: int
    boxes: int
    dropped_boxes: int
    repaired: int
    quarantined: int
    bytes: int
    seconds: float

    @property
    def examples(self) -> int:
        """Examples in the split."""
        return sum(self.shard_lengths)


def write_dataset(
    directory: str | os.PathLike[str],
    source: Source,
    check: Callable[[Example], Checked] = Checked,
    shard_bytes: int = SHARD_BYTES,
) -> dict[str, Written]:
    """Writes a dataset, all or nothing: it takes its name only when it is complete.

    Until then it lies in `DIRECTORY.incomplete`, which is removed when anything goes wrong and
    replaced by the next attempt if the process was killed.

    Args:
        directory: where the dataset will be; must be missing or empty.
        source: the examples; records keep their order.
        check: judges, and may mend, one example; a pure function, applied in order.
        shard_bytes: a shard is closed once it holds this many bytes.

    Raises:
        UserError: the place is taken, the name is unusable, the disk is full, a split has no
            readable image, or a class has none to train on.
    """
    target = Path(directory).absolute()
    _refuse_taken(target)
    if not re.fullmatch(r"[a-z][a-z0-9_]*", source.name):
        raise UserError(
            f"'{source.name}' cannot name a dataset: use a-z, 0-9 and _, a letter first (--name)."
        )
    partial = target.with_name(target.name + ".incomplete")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        for name in ("quarantine.jsonl", "repairs.jsonl"):
            (partial / name).touch()
        written = {
            split: _write_split(partial, source, split, check, shard_bytes)
            for split in source.splits
        }
        _write_index(partial, source, written)
        _write_tfds_metadata(partial, source, written)
        os.replace(partial, target)
    except OSError as error:
        raise UserError(
            f"Cannot write {target}: {error.strerror or error}. Nothing was left there; "
            "make room or choose another place."
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return written


def _refuse_taken(target: Path) -> None:
    if (target / INDEX).exists():
        raise UserError(
            f"{target} already holds a dataset. Use it as it is, or remove it, or choose another "
            "place; it was not touched."
        )
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"{target} exists and is not an empty directory. Choose another place.")


def _write_split(
    directory: Path,
    source: Source,
    split: str,
    check: Callable[[Example], Checked],
    shard_bytes: int,
) -> Written:
    labels, sums, start = Counter(), Counter(), time.monotonic()

    def records() -> Iterator[bytes]:
        for example in _progress(source.splits[split], split, source.totals.get(split)):
            kept, reason = check(example)
            if reason:
                fate = "repairs" if kept else "quarantine"
                line = {"split": split, "file_name": example.file_name, "reason": reason}
                with open(directory / f"{fate}.jsonl", "a") as log:
                    log.write(json.dumps(line) + "\n")
                sums[fate] += 1
            if kept is None:
                continue
            record = _serialize(kept)
            labels[kept.label] += 1
            sums["bytes"] += len(record)
            sums["boxes"] += len(kept.boxes)
            sums["dropped"] += len(example.boxes) - len(kept.boxes)
            yield record

    lengths = _write_shards(directory, source.name, split, records(), shard_bytes)
    empty = [name for label, name in enumerate(source.classes) if not labels[label]]
    if not lengths or (split == "train" and empty):
        whose = f"class {empty[0]}" if lengths else "any class"
        raise UserError(
            f"The '{split}' split has no readable image of {whose}; {sums['quarantine']} images "
            f"were refused. Nothing was written. Source: {source.origin}"
        )
    return Written(
        shard_lengths=tuple(lengths),
        classes=len(labels),
        boxes=sums["boxes"],
        dropped_boxes=sums["dropped"],
        repaired=sums["repairs"],
        quarantined=sums["quarantine"],
        bytes=sums["bytes"],
        seconds=time.monotonic() - start,
    )


def _write_shards(
    directory: Path, name: str, split: str, records: Iterable[bytes], shard_bytes: int
) -> list[int]:
    """Writes records into shards of about `shard_bytes`; returns the number in each."""
    from array_record.python.array_record_module import ArrayRecordWriter

    lengths, size, writer = [], 0, None
    for record in records:
        with _disk_errors():
            if writer is None:
                path = directory / shard_name(name, split, len(lengths))
                # Images are compressed already: zstd would cost time and gain nothing.
                writer, size = ArrayRecordWriter(str(path), "group_size:1,uncompressed"), 0
                lengths.append(0)
            writer.write(record)
            lengths[-1] += 1
            size += len(record)
            if size >= shard_bytes:
                writer.close()
                writer = None
    with _disk_errors():
        if writer is not None:
            writer.close()
    return lengths


@contextlib.contextmanager
def _disk_errors() -> Iterator[None]:
    """ArrayRecord tells a full disk by RuntimeError."""
    try:
        yield
    except RuntimeError as error:
        raise OSError(str(error)) from error


def _serialize(example: Example) -> bytes:
    # TFDS's own copy of the protos: the same wire format, without importing TensorFlow.
    from tensorflow_datasets.proto import tf_example_pb2, tf_feature_pb2

    feature, bytes_list = tf_feature_pb2.Feature, tf_feature_pb2.BytesList
    int64_list, float_list = tf_feature_pb2.Int64List, tf_feature_pb2.FloatList
    features = {
        "image": feature(bytes_list=bytes_list(value=[example.image])),
        "label": feature(int64_list=int64_list(value=[example.label])),
        "file_name": feature(bytes_list=bytes_list(value=[example.file_name.encode()])),
        "boxes": feature(float_list=float_list(value=example.boxes.ravel())),
    }
    proto = tf_example_pb2.Example(features=tf_feature_pb2.Features(feature=features))
    return proto.SerializeToString(deterministic=True)


def _progress(examples: Iterable[Example], split: str, total: int | None) -> Iterator[Example]:
    """Passes examples on under a bar; in a log file under a plain line now and then."""
    told = time.monotonic()
    for done, example in enumerate(tqdm(examples, split, total, unit=" images", disable=None)):
        if not sys.stderr.isatty() and time.monotonic() - told > _LOG_SECONDS:
            told = time.monotonic()
            print(f"{split}: {done:,} of {total or '?':,} images", flush=True)
        yield example


def _write_index(directory: Path, source: Source, written: Mapping[str, Written]) -> None:
    index = {
        "format": FORMAT,
        "name": source.name,
        "source": source.origin,
        "splits": {
            split: {
                "examples": entry.examples,
                "bytes": entry.bytes,
                "shard_lengths": entry.shard_lengths,
            }
            for split, entry in written.items()
        },
        "classes": source.classes,
        "class_names": source.class_names,
        "quarantined": sum(entry.quarantined for entry in written.values()),
        "repaired": sum(entry.repaired for entry in written.values()),
        "dropped_boxes": sum(entry.dropped_boxes for entry in written.values()),
    }
    (directory / INDEX).write_text(json.dumps(index, indent=1) + "\n")


def _write_tfds_metadata(directory: Path, source: Source, written: Mapping[str, Written]) -> None:
    """dataset_info.json, features.json, label.labels.txt: what builder_from_directory reads."""
    import tensorflow_datasets as tfds

    features = tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg"),
            "label": tfds.features.ClassLabel(names=source.classes),
            "file_name": tfds.features.Text(),
            "boxes": tfds.features.Sequence(tfds.features.BBoxFeature()),
        }
    )
    template = tfds.core.ShardedFileTemplate(data_dir=directory, template=SHARD_TEMPLATE)
    tfds.folder_dataset.write_metadata(
        data_dir=directory,
        features=features,
        split_infos=[
            tfds.core.SplitInfo(split, list(entry.shard_lengths), entry.bytes, template)
            for split, entry in written.items()
        ],
        filename_template=SHARD_TEMPLATE,
        check_data=False,
        supervised_keys=("image", "label"),
        description=f"{source.name}: {source.origin}",
    )
