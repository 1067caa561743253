"""Images that lie in folders: one folder a class, or Tiny ImageNet's layout.

    ROOT/SPLIT/CLASS/*.jpg|jpeg|png            splits train, val or validation, test

    ROOT/wnids.txt words.txt                   Tiny ImageNet, known by wnids.txt and val_annotations.txt
    ROOT/train/WNID/images/WNID_0.JPEG         boxes in train/WNID/WNID_boxes.txt
    ROOT/val/images/val_0.JPEG                 labels and boxes in val/val_annotations.txt; test has no labels
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from imagenet_jax.errors import UserError
from imagenet_jax.prepare.examples import NO_BOXES, Reference, Source
from imagenet_jax.prepare.sources.tars import some

_SPLITS = {"train": "train", "val": "validation", "validation": "validation", "test": "test"}
_SUFFIXES = {".jpg", ".jpeg", ".png"}
_TINY_SIDE = 64  # px; its box files state no size


def open_folders(directory: str, name: str) -> Source:
    """Images in root/split/class/*.jpg|jpeg|png, or Tiny ImageNet; class names sort into label order.

    Raises:
        UserError: no split folders, a class without images, or one unknown to train.
    """
    root = Path(directory)
    if not root.is_dir():
        raise UserError(f"The image folder {root} does not exist.")
    if (root / "wnids.txt").is_file() and (root / "val" / "val_annotations.txt").is_file():
        return _open_tiny(root, name)
    folders = {path.name: path for path in sorted(root.iterdir()) if _is_folder(path)}
    splits = {_SPLITS[name]: path for name, path in folders.items() if name in _SPLITS}
    if not splits or len(splits) < len(folders):
        raise UserError(f"{root} must hold one folder a split, each named train, val, validation or test and "
                        f"no two alike, with one folder a class inside; it holds {some(folders) or 'none'}.")
    found = {split: {cls.name: _measure(_images(cls)) for cls in sorted(path.iterdir()) if _is_folder(cls)}
             for split, path in splits.items()}
    classes = tuple(found["train"] if "train" in found else sorted(set().union(*found.values())))
    for split, counts in found.items():
        where = splits[split]
        if not counts:
            raise UserError(f"{where} has no class folders.")
        if strange := [cls for cls in counts if cls not in classes]:
            raise UserError(f"{where} has classes that train has not: {some(strange)}.")
        if empty := [cls for cls, (count, _) in counts.items() if not count]:
            raise UserError(f"{where}: no .jpg, .jpeg or .png in class {some(empty)}. "
                            "Add images or remove the folder.")
    sums = {split: np.sum(list(counts.values()), axis=0).tolist() for split, counts in found.items()}
    return Source(name, classes, classes, {split: _class_folders(path, classes) for split, path in splits.items()},
                  totals={split: count for split, (count, _) in sums.items()},
                  sizes={split: size for split, (_, size) in sums.items()}, origin=str(root))


def _class_folders(folder: Path, classes: tuple[str, ...]) -> Iterator[Reference]:
    for label, cls in enumerate(classes):
        for path in _images(folder / cls):
            yield _reference(path, label, f"{cls}/{path.name}")


def _open_tiny(root: Path, name: str) -> Source:
    classes = tuple(sorted((root / "wnids.txt").read_text(errors="replace").split()))
    labels = {wnid: label for label, wnid in enumerate(classes)}
    words = root / "words.txt"
    names = dict(line.split("\t", 1) for line in words.read_text(errors="replace").splitlines() if "\t" in line) \
        if words.is_file() else {}
    missing = [wnid for wnid in classes if not _images(root / "train" / wnid / "images")]
    if missing or not classes:
        raise UserError(f"{root}/train has no images of {some(missing) or 'any class'}, which wnids.txt lists: "
                        "unpack the archive again.")
    val = _rows(root / "val" / "val_annotations.txt")
    if strange := {wnid for _, wnid, *_ in val} - set(classes):
        raise UserError(f"{root}/val/val_annotations.txt names {some(strange)}, which wnids.txt does not list.")
    absent = [file for file, *_ in val if not (root / "val" / "images" / Path(file).name).is_file()]
    unlabelled = {path.name for path in _images(root / "val" / "images")} - {Path(file).name for file, *_ in val}
    if absent or unlabelled:
        raise UserError(f"{root}/val: {len(absent)} images of val_annotations.txt are missing and {len(unlabelled)} "
                        f"have no line there: {some([*absent, *unlabelled])}. Unpack the archive again.")
    sizes = {"train": (root / "train").glob("*/images/*"), "validation": (root / "val" / "images").iterdir()}
    measured = {split: _measure(paths) for split, paths in sizes.items()}
    return Source(name, classes, tuple(names.get(wnid, wnid).split(",")[0] for wnid in classes),
                  {"validation": _tiny_val(root / "val" / "images", val, labels), "train": _tiny_train(root, labels)},
                  totals={split: count for split, (count, _) in measured.items()},
                  sizes={split: size for split, (_, size) in measured.items()}, origin=str(root))


def _tiny_train(root: Path, labels: dict[str, int]) -> Iterator[Reference]:
    for wnid, label in labels.items():
        file = root / "train" / wnid / f"{wnid}_boxes.txt"
        boxes = {name: _box(sides) for name, *sides in _rows(file)} if file.is_file() else {}
        for path in _images(root / "train" / wnid / "images"):
            yield _reference(path, label, path.name, boxes.get(path.name, NO_BOXES))


def _tiny_val(folder: Path, rows: list[list[str]], labels: dict[str, int]) -> Iterator[Reference]:
    for name, wnid, *sides in rows:
        path = folder / Path(name).name
        yield _reference(path, labels[wnid], path.name, _box(sides))


def _reference(path: Path, label: int, name: str, boxes: np.ndarray = NO_BOXES) -> Reference:
    try:
        return Reference(str(path), 0, path.stat().st_size, label, name, boxes)
    except OSError as error:  # a link that leads nowhere
        return Reference("", 0, 0, label, name, fault=str(error.strerror))


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
    return np.array([[ymin, xmin, ymax, xmax]], np.float32) / _TINY_SIDE


def _images(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir()
                  if path.suffix.lower() in _SUFFIXES and (path.is_file() or path.is_symlink()))


def _measure(paths: Iterator[Path] | list[Path]) -> tuple[int, int]:
    """Number and bytes of files."""
    sizes = [path.stat().st_size if path.exists() else 0 for path in paths]
    return len(sizes), sum(sizes)


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.name.startswith(".")
