"""What people have on disk, as a stream of examples: the official archives, or plain folders.

The ILSVRC2012 archives are read where they lie and never unpacked. Layout, as distributed:

    ILSVRC2012_img_train.tar             a tar of tars: nXXXXXXXX.tar holds nXXXXXXXX_i.JPEG
    ILSVRC2012_img_val.tar               ILSVRC2012_val_XXXXXXXX.JPEG
    ILSVRC2012_devkit_t12.tar.gz         data/meta.mat; data/ILSVRC2012_validation_ground_truth.txt
    ILSVRC2012_bbox_train_v2.tar.gz      optional: nXXXXXXXX/nXXXXXXXX_i.xml
    ILSVRC2012_bbox_val_v3.tgz           optional: val/ILSVRC2012_val_XXXXXXXX.xml

The ground truth counts in ILSVRC2012_IDs, which follow no order a label uses: ID -> WNID through
meta.mat, WNID -> place among the sorted WNIDs. How many classes and images there are is the
devkit's to say.
"""

import contextlib
import io
import re
import tarfile
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import NamedTuple
from xml.etree.ElementTree import Element, ParseError

import numpy as np
import scipy.io
from defusedxml import DefusedXmlException, ElementTree

from imagenet_jax.data.writer import Example, Source
from imagenet_jax.errors import UserError

TRAIN = "ILSVRC2012_img_train.tar"
VAL = "ILSVRC2012_img_val.tar"
DEVKIT = "ILSVRC2012_devkit_t12.tar.gz"
TRAIN_BOXES = "ILSVRC2012_bbox_train_v2.tar.gz"
VAL_BOXES = "ILSVRC2012_bbox_val_v3.tgz"

_SPLITS = {
    "train": "train",
    "val": "validation",
    "validation": "validation",
    "test": "test",
}
_SUFFIXES = {".jpg", ".jpeg", ".png"}
_NO_BOXES = np.zeros((0, 4), np.float32)


class Devkit(NamedTuple):
    """names and train_counts by WNID, in sorted order; truth: the WNID of each val image."""

    names: dict[str, str]
    train_counts: dict[str, int]
    truth: list[str]


def open_archives(directory: str, name: str) -> Source:
    """The ILSVRC2012 archives in a directory; nothing but small files is read before the stream is.

    Raises:
        UserError: here, an archive that is missing or is not what its name says; while streaming,
            one cut short, an empty class, counts that differ from the devkit's.
    """
    folder = Path(directory)
    missing = [name for name in (TRAIN, VAL, DEVKIT) if not (folder / name).is_file()]
    if missing:
        raise UserError(
            f"{folder} lacks {', '.join(missing)}. Download from image-net.org and leave the "
            "archives packed; for images already in folders use --images."
        )
    devkit = read_devkit(folder / DEVKIT)
    labels = {wnid: label for label, wnid in enumerate(devkit.names)}
    _check_train_classes(folder / TRAIN, set(labels))
    return Source(
        name=name,
        classes=tuple(devkit.names),
        class_names=tuple(devkit.names.values()),
        # Validation first: a devkit of another release shows in minutes, not after 138 GB.
        splits={
            "validation": _val_examples(folder, devkit, labels),
            "train": _train_examples(folder, devkit, labels),
        },
        totals={"validation": len(devkit.truth), "train": sum(devkit.train_counts.values())},
        origin=str(folder),
    )


def open_folders(directory: str, name: str) -> Source:
    """Images in root/split/class/*.jpg|jpeg|png; class names sort into label order.

    Raises:
        UserError: no split folders, a class without images, or one unknown to train.
    """
    root = Path(directory)
    if not root.is_dir():
        raise UserError(f"The image folder {root} does not exist.")
    folders = {path.name: path for path in sorted(root.iterdir()) if _is_folder(path)}
    splits = {_SPLITS[name]: path for name, path in folders.items() if name in _SPLITS}
    if not splits or len(splits) < len(folders):
        raise UserError(
            f"{root} must hold one folder a split, each named train, val, validation or test and "
            f"no two alike, with one folder a class inside; it holds {_some(folders) or 'none'}."
        )
    found = {
        split: {cls.name: len(_images(cls)) for cls in sorted(path.iterdir()) if _is_folder(cls)}
        for split, path in splits.items()
    }
    classes = tuple(found["train"] if "train" in found else sorted(set().union(*found.values())))
    for split, counts in found.items():
        where = splits[split]
        if not counts:
            raise UserError(f"{where} has no class folders.")
        if strange := [cls for cls in counts if cls not in classes]:
            raise UserError(f"{where} has classes that train has not: {_some(strange)}.")
        if empty := [cls for cls, count in counts.items() if not count]:
            raise UserError(
                f"{where}: no .jpg, .jpeg or .png in class {_some(empty)}. "
                "Add images or remove the folder."
            )
    return Source(
        name=name,
        classes=classes,
        class_names=classes,
        splits={split: _folder_examples(path, classes) for split, path in splits.items()},
        totals={split: sum(counts.values()) for split, counts in found.items()},
        origin=str(root),
    )


def read_devkit(path: Path) -> Devkit:
    """Reads meta.mat and the validation ground truth of a t12 devkit, whatever its size.

    Raises:
        UserError: the archive is damaged or of another kind, or an ID has no class.
    """
    with _readable(path), tarfile.open(path) as tar:
        files = {PurePath(member.name).name: member for member in tar if member.isfile()}
        try:
            meta, truth = (
                tar.extractfile(files[name]).read()
                for name in ("meta.mat", "ILSVRC2012_validation_ground_truth.txt")
            )
            synsets = scipy.io.loadmat(io.BytesIO(meta), squeeze_me=True)["synsets"]
            # Inner nodes of the hierarchy are listed too; only leaves have images.
            leaves = [row for row in np.atleast_1d(synsets) if int(row["num_children"]) == 0]
            wnids = {int(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in leaves}
            labels = [wnids[int(line)] for line in truth.split()]
        except (KeyError, ValueError, TypeError) as error:
            raise UserError(
                f"{path} is not the ILSVRC2012 devkit for tasks 1 and 2: its meta.mat or ground "
                f"truth is missing, unreadable, or names an ID that is no class ({error})."
            ) from error
    rows = sorted(leaves, key=lambda row: str(row["WNID"]))
    short = {str(row["WNID"]): str(row["words"]).split(",")[0] for row in rows}
    repeated = Counter(short.values())  # ImageNet has two cranes and two maillots
    return Devkit(
        names={
            wnid: words if repeated[words] == 1 else f"{words} ({wnid})"
            for wnid, words in short.items()
        },
        train_counts={str(row["WNID"]): int(row["num_train_images"]) for row in rows},
        truth=labels,
    )


def read_boxes(path: Path) -> dict[str, np.ndarray]:
    """Boxes float32 [M, 4] by file name without suffix, as shares of the size the XML states.

    As annotated: order and bounds are not checked, and a box or file that cannot be read is
    NaN. All of ImageNet's 594,546 files take about 200 MB. Empty where there is no archive.

    Raises:
        UserError: the archive is damaged.
    """
    if not path.is_file():
        return {}
    with _readable(path), tarfile.open(path, "r|*") as tar:
        return {
            PurePath(member.name).stem: _parse_boxes(tar.extractfile(member).read())
            for member in tar
            if member.name.endswith(".xml")
        }


def _parse_boxes(xml: bytes) -> np.ndarray:
    def number(node: Element, path: str) -> float:
        return float(node.findtext(path, default="nan"))

    try:
        root = ElementTree.fromstring(xml)
        size = np.array([number(root, "size/height"), number(root, "size/width")] * 2)
        sides = ("ymin", "xmin", "ymax", "xmax")
        corners = [[number(box, side) for side in sides] for box in root.iterfind("object/bndbox")]
    except (ParseError, DefusedXmlException, ValueError):
        return np.full((1, 4), np.nan, np.float32)
    size[size <= 0] = np.nan
    return (np.array(corners).reshape(-1, 4) / size).astype(np.float32)


def _check_train_classes(path: Path, classes: set[str]) -> None:
    """Compares the names of the inner tars, which costs one header each, with the devkit."""
    with _readable(path), tarfile.open(path, "r:") as outer:
        names = [PurePath(member.name).name for member in outer if member.isfile()]
    strange = [name for name in names if not re.fullmatch(r"n\d{8}\.tar", name)]
    if strange or not names:
        raise UserError(
            f"{path} is not the archive of training images: it must hold one nXXXXXXXX.tar a "
            f"class, but holds {_some(strange) or 'nothing'}."
        )
    found = {name.removesuffix(".tar") for name in names}
    if found != classes:
        raise UserError(
            f"{path} and {DEVKIT} disagree on the classes: {len(found)} against {len(classes)}; "
            f"only in the archive: {_some(found - classes) or 'none'}; "
            f"only in the devkit: {_some(classes - found) or 'none'}. "
            "Both must come from the same release, and the download be complete."
        )


def _train_examples(folder: Path, devkit: Devkit, labels: dict[str, int]) -> Iterator[Example]:
    boxes = read_boxes(folder / TRAIN_BOXES)
    path = folder / TRAIN
    with _readable(path), tarfile.open(path, "r:") as outer:
        for member in outer:
            wnid = PurePath(member.name).stem
            count = 0
            with (
                _readable(f"{path}: {member.name}"),
                tarfile.open(fileobj=outer.extractfile(member), mode="r:") as inner,
            ):
                for name, image in _files(inner):
                    count += 1
                    yield Example(
                        image, labels[wnid], name, boxes.get(PurePath(name).stem, _NO_BOXES)
                    )
            stated = devkit.train_counts[wnid]
            if not count or (stated and count != stated):
                raise UserError(
                    f"{path}: class {wnid} has {count} images, but the devkit states {stated}. "
                    "The archive is incomplete or of another release; download it again."
                )


def _val_examples(folder: Path, devkit: Devkit, labels: dict[str, int]) -> Iterator[Example]:
    boxes = read_boxes(folder / VAL_BOXES)
    path = folder / VAL
    numbers = set()
    with _readable(path), tarfile.open(path, "r:") as tar:
        for name, image in _files(tar):
            match = re.fullmatch(r"ILSVRC2012_val_(\d{8})\.JPEG", name)
            number = int(match[1]) if match else 0
            if not 1 <= number <= len(devkit.truth):
                raise UserError(
                    f"{path} holds {name}, but {DEVKIT} labels ILSVRC2012_val_00000001.JPEG to "
                    f"{len(devkit.truth):08d}. Use the devkit and the archive of one release."
                )
            numbers.add(number)
            found = boxes.get(PurePath(name).stem, _NO_BOXES)
            yield Example(image, labels[devkit.truth[number - 1]], name, found)
    if len(numbers) != len(devkit.truth):
        raise UserError(
            f"{path} holds {len(numbers)} images, but {DEVKIT} labels {len(devkit.truth)}. "
            "The archive is incomplete or of another release."
        )


def _folder_examples(folder: Path, classes: tuple[str, ...]) -> Iterator[Example]:
    for label, cls in enumerate(classes):
        for path in _images(folder / cls):
            with _readable(path):
                yield Example(path.read_bytes(), label, f"{cls}/{path.name}")


def _files(tar: tarfile.TarFile) -> Iterator[tuple[str, bytes]]:
    for member in tar:
        if member.isfile():
            yield PurePath(member.name).name, tar.extractfile(member).read()


def _images(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in _SUFFIXES)


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.name.startswith(".")


def _some(names: object) -> str:
    """The first few of many names."""
    listed = sorted(names)
    return ", ".join(listed[:5]) + (f" and {len(listed) - 5} more" if len(listed) > 5 else "")


@contextlib.contextmanager
def _readable(path: Path | str) -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise UserError(
            f"{path} cannot be read to its end: {error}. It is damaged, cut short, or no archive "
            "of this kind; download it again."
        ) from error
