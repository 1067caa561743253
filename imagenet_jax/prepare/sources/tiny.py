"""Tiny ImageNet as unpacked.

    ROOT/wnids.txt words.txt                   it is known by wnids.txt and val_annotations.txt
    ROOT/train/WNID/images/WNID_0.JPEG         boxes in train/WNID/WNID_boxes.txt
    ROOT/val/images/val_0.JPEG                 labels and boxes in val/val_annotations.txt; test has no labels
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from imagenet_jax.errors import UserError
from imagenet_jax.prepare.examples import NO_BOXES, Options, Reference, Source
from imagenet_jax.prepare.sources import files
from imagenet_jax.prepare.sources.tars import some

_SIDE = 64  # px; its box files state no size


def is_tiny(root: Path) -> bool:
    """Whether a folder holds Tiny ImageNet."""
    return (root / "wnids.txt").is_file() and (root / "val" / "val_annotations.txt").is_file()


def open_tiny(root: Path, name: str, options: Options) -> Source:
    """Train and validation of Tiny ImageNet, with boxes; classes are its WNIDs, sorted.

    Raises:
        UserError: classes without images, images without labels, labels without images.
    """
    classes = tuple(sorted((root / "wnids.txt").read_text(errors="replace").split()))
    labels = {wnid: label for label, wnid in enumerate(classes)}
    words = root / "words.txt"
    names = dict(line.split("\t", 1) for line in words.read_text(errors="replace").splitlines() if "\t" in line) \
        if words.is_file() else {}
    train = {wnid: files.measure(_train_images(root, wnid)) for wnid in classes}
    missing = [wnid for wnid, (count, _) in train.items() if not count]
    if missing or not classes:
        raise UserError(f"{root}/train has no images of {some(missing) or 'any class'}, which wnids.txt lists: "
                        "unpack the archive again.")
    rows, found = _rows(root / "val" / "val_annotations.txt"), list(files.images(root / "val" / "images"))
    if strange := {wnid for _, wnid, *_ in rows} - set(classes):
        raise UserError(f"{root}/val/val_annotations.txt names {some(strange)}, which wnids.txt does not list.")
    there, listed = {reference.file_name for reference in found}, {Path(file).name for file, *_ in rows}
    if there != listed:
        raise UserError(f"{root}/val: {len(listed - there)} images of val_annotations.txt are missing and "
                        f"{len(there - listed)} have no line there: {some(listed ^ there)}. Unpack the archive again.")
    measured = {"train": np.sum(list(train.values()), axis=0).tolist(), "validation": files.measure(found)}
    return Source(name, classes, tuple(names.get(wnid, wnid).split(",")[0] for wnid in classes),
                  {"validation": _val(root / "val" / "images", rows, labels), "train": _train(root, labels)},
                  totals={split: count for split, (count, _) in measured.items()},
                  sizes={split: size for split, (_, size) in measured.items()}, origin=str(root),
                  left_out=files.by_ending(_unlabelled(root)))


def _train_images(root: Path, wnid: str) -> Iterator[Reference]:
    folder = root / "train" / wnid / "images"
    return files.images(folder) if folder.is_dir() else iter(())


def _train(root: Path, labels: dict[str, int]) -> Iterator[Reference]:
    for wnid, label in labels.items():
        file = root / "train" / wnid / f"{wnid}_boxes.txt"
        boxes = {name: _box(sides) for name, *sides in _rows(file)} if file.is_file() else {}
        for reference in _train_images(root, wnid):
            yield reference._replace(label=label, boxes=boxes.get(reference.file_name, NO_BOXES))


def _val(folder: Path, rows: list[list[str]], labels: dict[str, int]) -> Iterator[Reference]:
    for file, wnid, *sides in rows:
        reference = files.referred(str(folder / Path(file).name), Path(file).name)
        yield reference._replace(label=labels[wnid], boxes=_box(sides))


def _unlabelled(root: Path) -> Iterator[str]:
    """The images of the test split."""
    if (root / "test").is_dir():
        yield from (reference.file_name for reference in files.images(root / "test", "test/"))


def _rows(path: Path) -> list[list[str]]:
    """Lines of a name, perhaps a WNID, and the four sides of a box."""
    rows = [line.split() for line in path.read_text(errors="replace").splitlines() if line.strip()]
    if strange := [" ".join(row) for row in rows if len(row) < 2]:
        raise UserError(f"{path}: cannot read the line '{strange[0]}'.")
    return rows


def _box(sides: list[str]) -> np.ndarray:
    """(xmin, ymin, xmax, ymax) in pixels to shares [1, 4]; NaN where they cannot be read."""
    try:
        xmin, ymin, xmax, ymax = map(float, sides)
    except ValueError:
        return np.full((1, 4), np.nan, np.float32)
    return np.array([[ymin, xmin, ymax, xmax]], np.float32) / _SIDE
