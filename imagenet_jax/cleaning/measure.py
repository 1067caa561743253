"""What cleaning knows of an image: one row of numbers an example, measured once and kept on disk.

A range of examples is the unit of work: it becomes one file under OUT/measured, written whole or not at all, so
that ranges can be measured by processes or by Apache Beam workers in any order, again, or after an interruption.
"""

import contextlib
import functools
import hashlib
import io
import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import google_crc32c
import numpy as np
from PIL import Image
from scipy.fft import dctn
from tqdm import tqdm

from imagenet_jax import dataset as dataset_lib
from imagenet_jax import durable, jpeg, runtime
from imagenet_jax.errors import UserError

VERSION = 2  # raise it when a row comes to mean something else: files of another version are measured anew
RANGE = 1000  # examples a file: 0.9 MB, and seconds of work
SIDE = 256  # px, shorter side at which brightness to sharpness are judged: about what a network is shown
_READ_AT_ONCE = 50  # records in memory at a time
_THUMB = 16
# (row, column) of the 64 lowest frequencies but the mean, by the sum of both.
_LOWEST = tuple(np.array(sorted(np.ndindex(11, 11), key=lambda at: (sum(at), at))[1:65]).T)

# 870 bytes; the 1.33 million examples of ImageNet are 1.1 GiB.
ROW = np.dtype([
    ("label", "<i4"),
    ("decodable", "?"),  # where False, all that follows but bytes_sha256 is 0
    ("corrupt", "?"),  # see jpeg.corruption
    ("width", "<u4"), ("height", "<u4"),  # px
    ("brightness", "<f4"),  # mean luminance, 0..255
    ("contrast", "<f4"),  # standard deviation of the luminance
    ("colour", "<f4"),  # colourfulness M3 of Hasler and Suesstrunk (2003); 0 for grey, 100 for extreme
    ("sharpness", "<f4"),  # standard deviation of the Laplacian over the contrast, or over 20 where that is less
    ("bytes_sha256", "<u8", (4,)),  # of the encoded image
    ("pixels_sha256", "<u8", (4,)),  # of its size and RGB pixels, however it is encoded
    ("phash", "<u8"),  # signs of the 64 lowest frequencies of the luminance
    ("thumb", "u1", (_THUMB, _THUMB, 3)),  # the image squeezed into a square
])


class Task(NamedTuple):
    """Examples start..stop-1 of a split of the dataset in `directory`, to be measured into the file `path`."""

    directory: str
    split: str
    start: int
    stop: int
    path: str


def measure(record: bytes) -> np.ndarray:
    """The ROW [] of a serialized example: a pure function of its bytes."""
    features = dataset_lib.features(record)
    row = np.zeros((), ROW)
    encoded = features["image"].bytes_list.value[0]
    row["label"] = features["label"].int64_list.value[0]
    row["bytes_sha256"] = _digest(encoded)
    try:
        image = Image.open(io.BytesIO(encoded)).convert("RGB")
    except MemoryError:
        raise
    except Exception:  # Pillow's decoders raise a dozen kinds over damaged files
        return row
    row["decodable"], row["corrupt"] = True, bool(jpeg.corruption(jpeg.complaint(encoded), encoded))
    row["width"], row["height"] = image.size
    row["pixels_sha256"] = _digest(str(image.size).encode(), image.tobytes())
    if min(image.size) > SIDE:
        scale = SIDE / min(image.size)
        image = image.resize([round(side * scale) for side in image.size], Image.Resampling.BILINEAR)
    small = np.asarray(image.resize((2 * _THUMB, 2 * _THUMB), Image.Resampling.BOX), np.float32)
    row["phash"] = _perceptual_hash(_luminance(small))
    row["thumb"] = small.reshape(_THUMB, 2, _THUMB, 2, 3).mean((1, 3)).round()
    for name, value in _appearance(np.asarray(image, np.float32)).items():
        row[name] = value
    return row


def tasks(dataset: dataset_lib.Dataset, directory: str) -> list[Task]:
    """Cuts every split into ranges. Files tell which dataset and version they are of, so that none is mistaken."""
    place = Path(dataset.directory)
    stated = (place / "dataset_info.json").read_text()  # with bytes: files are padded
    files = sorted((path.name, path.stat().st_size) for path in place.glob(f"{dataset.name}-*"))
    identity = json.dumps([VERSION, ROW.descr, RANGE, dataset.name, dataset.classes, stated, files])
    key = hashlib.sha256(identity.encode()).hexdigest()[:12]
    return [
        Task(os.path.abspath(dataset.directory), split, start, min(start + RANGE, count),
             os.path.join(os.path.abspath(directory), f"{split}-{start:09d}-{key}.rows"))
        for split, count in dataset.splits.items() for start in range(0, count, RANGE)
    ]


def measure_range(task: Task) -> str:
    """Measures a range into its file, which appears when it is whole; returns its path."""
    records = _open(task.directory, task.split)
    rows = np.zeros(task.stop - task.start, ROW)
    for start in range(task.start, task.stop, _READ_AT_ONCE):
        block = records.read(np.arange(start, min(start + _READ_AT_ONCE, task.stop)))
        for i, record in enumerate(block, start - task.start):
            rows[i] = measure(record)
    with durable.create(task.path, "wb") as file:
        file.write(_sealed(rows.tobytes()))
    return task.path


def run_local(todo: Sequence[Task], workers: int = 0) -> None:
    """Measures ranges in `workers` processes (0: one a core), under a progress bar.

    Raises:
        UserError: a worker was killed, or found a shard damaged. What is measured stays.
    """
    workers = min(workers or os.cpu_count() or 1, len(todo))
    bar = tqdm(total=sum(task.stop - task.start for task in todo), desc="measure", unit=" images", disable=None)
    with bar, contextlib.ExitStack() as stack:
        pool = stack.enter_context(ProcessPoolExecutor(workers, get_context("spawn"), initializer=runtime.quiet))
        stack.callback(pool.shutdown, cancel_futures=True)  # after an error nothing more is begun
        running = {pool.submit(measure_range, task): task for task in todo}
        try:
            for done in as_completed(running):
                done.result()
                bar.update(running[done].stop - running[done].start)
        except BrokenProcessPool as error:
            raise UserError("a measuring process was killed (out of memory?). Give fewer --workers; the same command "
                            "goes on from what is measured.") from error


def run_beam(todo: Sequence[Task], runner: str, options: Sequence[str]) -> None:
    """Measures ranges as an Apache Beam pipeline.

    Args:
        runner: DirectRunner, FlinkRunner, DataflowRunner, ... Its workers must see the dataset and the output
            directory under the same paths as this process, and have imagenet_jax installed.
        options: of the pipeline, as '--name=value'.

    Raises:
        UserError: Beam is not installed, or knows no such runner.
    """
    try:
        import apache_beam as beam
        from apache_beam.options.pipeline_options import PipelineOptions
    except ImportError as error:
        raise UserError(f"--runner={runner} needs Apache Beam: install apache-beam, or take --runner=local") from error
    try:
        pipeline = beam.Pipeline(runner, options=PipelineOptions(list(options)))
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"Beam cannot make --runner={runner}: {error}. Known are DirectRunner, FlinkRunner, "
                        "DataflowRunner and others; their options go into --runner_options.") from error
    with pipeline:
        _ = pipeline | beam.Create(todo) | beam.Reshuffle() | beam.Map(measure_range)


def places(todo: Sequence[Task]) -> tuple[np.ndarray, dict[Task, np.ndarray]]:
    """Room for the rows of all ranges, ROW [n] in their order, and the part of it that is each one's."""
    ends = np.cumsum([task.stop - task.start for task in todo])
    rows = np.empty(ends[-1], ROW)
    return rows, dict(zip(todo, np.split(rows, ends[:-1]), strict=True))


def load(places: Mapping[Task, np.ndarray]) -> list[Task]:
    """Reads what is measured into its places; returns the ranges that are not, or whose files are damaged."""
    missing = []
    for task, place in places.items():
        if (found := _read(task)) is None:
            missing.append(task)
        else:
            place[:] = found
    return missing


def _read(task: Task) -> np.ndarray | None:
    try:
        content = Path(task.path).read_bytes()
    except OSError:
        return None
    rows = content[: (task.stop - task.start) * ROW.itemsize]
    return np.frombuffer(rows, ROW) if content == _sealed(rows) else None


def _sealed(rows: bytes) -> bytes:
    return rows + google_crc32c.value(rows).to_bytes(4)


def first_rows(dataset: dataset_lib.Dataset) -> dict[str, int]:
    """The row at which each split begins."""
    return dict(zip(dataset.splits, np.cumsum([0, *dataset.splits.values()]).tolist(), strict=False))


def locate(dataset: dataset_lib.Dataset, row: int) -> tuple[str, int]:
    """The split and the index of a row."""
    split, start = [item for item in first_rows(dataset).items() if item[1] <= row][-1]
    return split, row - start


@functools.lru_cache(maxsize=2)
def _open(directory: str, split: str) -> dataset_lib.Records:
    return dataset_lib.open_split(dataset_lib.open_dataset(directory), split)


def _digest(*parts: bytes) -> np.ndarray:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return np.frombuffer(digest.digest(), "<u8")


def _luminance(pixels: np.ndarray) -> np.ndarray:
    return pixels @ np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601, as JPEG


def _perceptual_hash(grey: np.ndarray) -> np.uint64:
    """pHash (Zauner, 2010) of a grey [32, 32]: hardly changed by resizing, recompression or another tone.

    Signs of the coefficients and not, as there, which are above their median: that always sets half of the bits, so
    that distances are even and more copies are missed at a distance of 3.
    """
    signs = dctn(grey, norm="ortho")[_LOWEST] > 0
    return np.packbits(signs).view(">u8")[0]


def _appearance(pixels: np.ndarray) -> dict[str, float]:
    """brightness, contrast, colour and sharpness of [H, W, 3]."""
    grey = _luminance(pixels)
    red_green = pixels[..., 0] - pixels[..., 1]
    yellow_blue = (pixels[..., 0] + pixels[..., 1]) / 2 - pixels[..., 2]
    spread, shift = (np.hypot(f(red_green), f(yellow_blue)) for f in (np.std, np.mean))
    contrast = grey.std()
    laplacian = (grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4 * grey[1:-1, 1:-1]
                 if min(grey.shape) > 2 else np.zeros(1))
    return {"brightness": grey.mean(), "contrast": contrast, "colour": spread + 0.3 * shift,
            "sharpness": laplacian.std() / max(contrast, 20)}  # in a pale image JPEG noise is all that is sharp
