"""A small ILSVRC drawn by the program itself, in the layout of the official archives.

The images come from shapes.py. Four files have faults that ImageNet has: in train a PNG named
.JPEG, a CMYK JPEG and a truncated file, in val a CMYK JPEG. Beside the archives lie scikit-learn's
handwritten digits as class folders, for finetuning.
"""

from __future__ import annotations

import gzip
import io
import tarfile
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import scipy.io
from PIL import Image
from tqdm import tqdm

from imagenet_jax.errors import UserError
from imagenet_jax.prepare.shapes import KINDS, Drawing, draw_image

# Faults of the first image of the first, second and third class; then of the first val image.
BAD_TRAIN = ("png", "cmyk", "truncated")
BAD_VAL = ("cmyk",)
TRAIN_BOXED = 0.5  # of the train images; every val image has its boxes, as in ILSVRC2012
ROOT_WNID = "n00001740"


class Counts(NamedTuple):
    """What `draw` wrote: images by set, the bad files among them, and boxed images."""

    train: int
    val: int
    bad: int
    boxed: int
    digits_train: int
    digits_val: int


def _encode(image: Image.Image, quality: int, fault: str | None) -> bytes:
    """JPEG bytes, or one of the faults ImageNet has: 'png', 'cmyk', 'truncated'."""
    buffer = io.BytesIO()
    if fault == "png":
        image.save(buffer, "PNG")
    else:
        image = image.convert("CMYK") if fault == "cmyk" else image
        image.save(buffer, "JPEG", quality=quality)
    data = buffer.getvalue()
    return data[: len(data) // 2] if fault == "truncated" else data


def _annotation(folder: str, name: str, wnid: str, drawing: Drawing) -> bytes:
    """The box XML of one image, as in the official archives (Pascal VOC)."""
    objects = "".join(
        f"\t<object>\n\t\t<name>{wnid}</name>\n\t\t<pose>Unspecified</pose>\n"
        "\t\t<truncated>0</truncated>\n\t\t<difficult>0</difficult>\n\t\t<bndbox>\n"
        f"\t\t\t<xmin>{xmin}</xmin>\n\t\t\t<ymin>{ymin}</ymin>\n"
        f"\t\t\t<xmax>{xmax}</xmax>\n\t\t\t<ymax>{ymax}</ymax>\n\t\t</bndbox>\n\t</object>\n"
        for xmin, ymin, xmax, ymax in drawing.boxes
    )
    width, height = drawing.image.size
    return (
        f"<annotation>\n\t<folder>{folder}</folder>\n\t<filename>{name}</filename>\n"
        "\t<source>\n\t\t<database>ILSVRC_2012</database>\n\t</source>\n"
        f"\t<size>\n\t\t<width>{width}</width>\n\t\t<height>{height}</height>\n"
        f"\t\t<depth>3</depth>\n\t</size>\n\t<segmented>0</segmented>\n{objects}</annotation>\n"
    ).encode()


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    archive.addfile(info, io.BytesIO(data))


def _tar(members: Iterable[tuple[str, bytes]]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in members:
            _add(archive, name, data)
    return buffer.getvalue()


def wnids(classes: int) -> list[str]:
    """Sorted, made-up WNIDs; the i-th is that of KINDS[i]. No WordNet noun starts with n99."""
    return [f"n99{1000 + 37 * i:06d}" for i in range(classes)]


def _identities(classes: int, seed: int) -> np.ndarray:
    """ILSVRC2012_ID (1-based) of each class: never in the order of the WNIDs, as in the devkit."""
    order = np.random.default_rng((seed, 0)).permutation(classes) + 1
    return np.roll(order, 1) if (np.diff(order) > 0).all() else order


def _devkit(identities: np.ndarray, train: np.ndarray, labels: np.ndarray) -> bytes:
    """ILSVRC2012_devkit_t12.tar.gz, from IDs and train counts [K] and val classes [N]."""
    classes = len(identities)
    fields = ("ILSVRC2012_ID", "WNID", "words", "gloss")
    fields += ("num_children", "children", "wordnet_height", "num_train_images")
    synsets = np.empty((classes + 1, 1), [(field, object) for field in fields])
    for i, wnid in enumerate(wnids(classes)):
        name = KINDS[i].name
        row = (identities[i], wnid, name, f"a drawn {name}", 0, np.zeros((0, 0)), 0, train[i])
        synsets[identities[i] - 1, 0] = row
    children = np.arange(1, classes + 1, dtype=np.uint16)
    root = (classes + 1, ROOT_WNID, "entity", "that which exists", classes, children, 1, 0)
    synsets[classes, 0] = root
    meta = io.BytesIO()
    scipy.io.savemat(meta, {"synsets": synsets})
    meta.getbuffer()[:116] = b"MATLAB 5.0 MAT-file".ljust(116)  # scipy writes the time here
    truth = "".join(f"{identities[label]}\n" for label in labels).encode()
    folder = "ILSVRC2012_devkit_t12/data/"
    members = [("meta.mat", meta.getvalue()), ("ILSVRC2012_validation_ground_truth.txt", truth)]
    return gzip.compress(_tar((folder + name, data) for name, data in members), mtime=0)


class _Task(NamedTuple):
    """One image to draw: the folder its annotation names, its name, class and fault."""

    folder: str
    name: str
    label: int
    fault: str | None


def _train_tasks(classes: int, count: int) -> list[list[_Task]]:
    """The tasks of each class. Faults go to the first images, one a class."""
    faults = dict(enumerate(BAD_TRAIN))
    return [
        [
            _Task(wnid, f"{wnid}_{number}", label, faults.get(position))
            for number, position in enumerate(range(label, count, classes), 1)
        ]
        for label, wnid in enumerate(wnids(classes))
    ]


def _val_tasks(classes: int, count: int, seed: int) -> list[_Task]:
    """Classes in random order, as many of each (one more or less)."""
    labels = np.random.default_rng((seed, 1)).permutation(np.arange(count) % classes).tolist()
    faults = dict(enumerate(BAD_VAL))
    return [
        _Task("val", f"ILSVRC2012_val_{i + 1:08d}", label, faults.get(i))
        for i, label in enumerate(labels)
    ]


def _render(task: _Task, key: Sequence[int], boxed: float) -> tuple[bytes, bytes | None]:
    """The image file of a task, and with probability `boxed` its annotation."""
    rng = np.random.default_rng(key)
    drawing = draw_image(KINDS[task.label], rng)
    data = _encode(drawing.image, int(rng.integers(60, 96)), task.fault)
    wnid = wnids(task.label + 1)[-1]
    has_box = rng.random() < boxed
    return data, _annotation(task.folder, task.name, wnid, drawing) if has_box else None


def _write_train(folder: Path, tasks: list[list[_Task]], seed: int, bar: tqdm) -> int:
    """Writes the train archive (a tar of one tar a class) and its boxes; returns boxed images."""
    notes = []
    with tarfile.open(folder / "ILSVRC2012_img_train.tar", "w") as outer:
        for label, (wnid, members) in enumerate(zip(wnids(len(tasks)), tasks, strict=True)):
            files = []
            for number, task in enumerate(members):
                data, note = _render(task, (seed, 2, label, number), TRAIN_BOXED)
                files.append((f"{task.name}.JPEG", data))
                if note:
                    notes.append((f"{wnid}/{task.name}.xml", note))
                bar.update()
            _add(outer, f"{wnid}.tar", _tar(files))
    boxes = gzip.compress(_tar(notes), mtime=0)
    (folder / "ILSVRC2012_bbox_train_v2.tar.gz").write_bytes(boxes)
    return len(notes)


def _write_val(folder: Path, tasks: list[_Task], seed: int, bar: tqdm) -> int:
    """Writes the val archive and its boxes; returns the number of boxed images."""
    notes = []
    with tarfile.open(folder / "ILSVRC2012_img_val.tar", "w") as archive:
        for number, task in enumerate(tasks):
            data, note = _render(task, (seed, 3, number), 1.0)
            _add(archive, f"{task.name}.JPEG", data)
            notes.append((f"val/{task.name}.xml", note))
            bar.update()
    boxes = gzip.compress(_tar(notes), mtime=0)
    (folder / "ILSVRC2012_bbox_val_v3.tgz").write_bytes(boxes)
    return len(notes)


def _write_digits(folder: Path) -> tuple[int, int]:
    """scikit-learn's 1,797 handwritten digits as `train|val/DIGIT/NUMBER.png`.

    The 8 x 8 pictures of 17 grey levels are enlarged to 32 x 32, so that crops and resizes do not
    meet single pixels. A fixed fifth of each digit is val. Returns the size of train and of val.
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    train, val = train_test_split(
        np.arange(len(digits.target)), test_size=360, random_state=0, stratify=digits.target
    )
    for split, numbers in (("train", train), ("val", val)):
        for number in sorted(numbers):
            path = folder / split / str(digits.target[number]) / f"{number:04d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            grey = np.uint8(digits.images[number] * (255 / 16))
            Image.fromarray(grey).resize((32, 32), Image.BICUBIC).save(path)
    return len(train), len(val)


def draw(
    out: str, *, classes: int = 12, train: int = 3600, val: int = 600, seed: int = 0
) -> Counts:
    """Writes a drawn ILSVRC in official archive layout, and `digits/` beside it, into `out`.

    The same arguments give the same bytes (with the same Pillow). `out` appears only when it is
    complete.

    Args:
      out: a directory that does not exist yet or is empty.
      classes: the first so many of KINDS.
      train: train images over all classes, at least one a class.
      val: val images over all classes, likewise.
      seed: of everything random, >= 0.

    Raises:
      UserError: a number out of range, or `out` is in use or cannot be written.
    """
    if not 2 <= classes <= len(KINDS):
        raise UserError(f"classes={classes}: choose from 2 to {len(KINDS)}.")
    if min(train, val) < classes:
        raise UserError(f"train={train}, val={val}: each of {classes} classes needs an image.")
    if seed < 0:
        raise UserError(f"seed={seed}: must not be negative.")
    target = Path(out).resolve()
    try:
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise UserError(f"{target} is already there: remove it or choose another directory.")
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f"{target.name}.") as scratch:
            partial = Path(scratch) / target.name
            partial.mkdir()
            counts = _write(partial, classes, train, val, seed)
            partial.replace(target)
    except OSError as error:
        raise UserError(f"Cannot write {target}: {error}.") from error
    return counts


def _write(folder: Path, classes: int, train: int, val: int, seed: int) -> Counts:
    train_tasks, val_tasks = _train_tasks(classes, train), _val_tasks(classes, val, seed)
    with tqdm(total=train + val, desc="drawing", unit="img", disable=None) as bar:
        boxed = _write_train(folder, train_tasks, seed, bar)
        boxed += _write_val(folder, val_tasks, seed, bar)
    sizes = np.array([len(tasks) for tasks in train_tasks])
    labels = np.array([task.label for task in val_tasks])
    kit = _devkit(_identities(classes, seed), sizes, labels)
    (folder / "ILSVRC2012_devkit_t12.tar.gz").write_bytes(kit)
    bad = sum(task.fault is not None for task in sum(train_tasks, val_tasks))
    return Counts(train, val, bad, boxed, *_write_digits(folder / "digits"))
