"""The official ILSVRC2012 archives as a stream of examples.

They are read where they lie and never unpacked. Layout, as distributed:

    ILSVRC2012_img_train.tar             a tar of tars: nXXXXXXXX.tar holds nXXXXXXXX_i.JPEG
    ILSVRC2012_img_val.tar               ILSVRC2012_val_XXXXXXXX.JPEG
    ILSVRC2012_devkit_t12.tar.gz         data/meta.mat; data/ILSVRC2012_validation_ground_truth.txt
    ILSVRC2012_bbox_train_v2.tar.gz      optional: nXXXXXXXX/nXXXXXXXX_i.xml
    ILSVRC2012_bbox_val_v3.tgz           optional: val/ILSVRC2012_val_XXXXXXXX.xml

The class tars may also have been unpacked (`unpacked.py`), and the val archive into val/, flat or by class.

The ground truth counts in ILSVRC2012_IDs, which follow no order a label uses: ID -> WNID through
meta.mat, WNID -> place among the sorted WNIDs. How many classes and images there are is the
devkit's to say.
"""

import io
import posixpath
import re
from collections import Counter
from collections.abc import Iterator, Set
from pathlib import Path
from typing import NamedTuple

import numpy as np
import scipy.io

from imagenet_jax.errors import UserError
from imagenet_jax.prepare.examples import DEFAULTS, NO_BOXES, Options, Reference, Source
from imagenet_jax.prepare.sources import files, naming, tars, verify
from imagenet_jax.prepare.sources.boxes import read_annotations
from imagenet_jax.prepare.sources.unpacked import Unpacked, open_folders, open_tar

TRAIN = "ILSVRC2012_img_train.tar"
VAL = "ILSVRC2012_img_val.tar"
DEVKIT = "ILSVRC2012_devkit_t12.tar.gz"
TRAIN_BOXES = "ILSVRC2012_bbox_train_v2.tar.gz"
VAL_BOXES = "ILSVRC2012_bbox_val_v3.tgz"
_FULL = (1000, 50_000)  # classes and val images of the release; its 1,281,167 train images the devkit counts by class
_MAX_DEVKIT = 2**26


class Devkit(NamedTuple):
    """names and train_counts by WNID, in sorted order; truth: the WNID of each val image."""

    names: dict[str, str]
    train_counts: dict[str, int]
    truth: list[str]


def is_ilsvrc(folder: Path) -> bool:
    """Whether a folder holds any archive of the release."""
    return any((folder / name).is_file() for name in (TRAIN, VAL, DEVKIT))


def open_archives(folder: Path, name: str, options: Options = DEFAULTS) -> Source:
    """The archives of ILSVRC2012 in a directory.

    Raises:
        UserError: here, an archive that is missing or is not what its name says; while streaming,
            one cut short, an empty class, counts that differ from the devkit's.
    """
    missing = [name for name, unpacked in ((TRAIN, "train"), (VAL, "val"), (DEVKIT, None))
               if not (folder / name).is_file() and not (unpacked and (folder / unpacked).is_dir())]
    if missing:
        raise UserError(f"{folder} lacks {', '.join(missing)}. Download from image-net.org and leave the archives "
                        "packed (class folders in train/ and the images of val/ are read too); for images in other "
                        "folders use --images.")
    devkit = read_devkit(folder / DEVKIT)
    labels = {wnid: label for label, wnid in enumerate(devkit.names)}
    train, val = _place(folder, TRAIN, "train"), _place(folder, VAL, "val")
    unpacked = open_folders(train) if train.is_dir() else open_tar(train, options.memory)
    if unpacked:
        _compare_classes(train, unpacked.counts.keys(), set(labels))
        for wnid, count in unpacked.counts.items():
            _compare_count(train, wnid, count, devkit)
    else:
        _check_train_classes(train, set(labels))
    verified: list[str] = []
    if options.checksum:
        there = [folder / file for file in verify.PUBLISHED
                 if (folder / file).is_file() and not (unpacked and file == TRAIN)]
        verified = verify.verify(there, (len(devkit.names), len(devkit.truth)) == _FULL, options.memory)
    aside: list[str] = []
    val_size = files.measure(files.images(val, "val/", aside))[1] if val.is_dir() else val.stat().st_size
    return Source(
        name=name,
        classes=tuple(devkit.names),
        class_names=tuple(devkit.names.values()),
        # Validation first: a devkit of another release shows in minutes, not after 138 GB.
        splits={
            "validation": _val_examples(val, devkit, labels),
            "train": _unpacked_examples(folder, unpacked, labels) if unpacked else
            _train_examples(folder, devkit, labels),
        },
        totals={"validation": len(devkit.truth), "train": sum(devkit.train_counts.values())},
        sizes={"validation": val_size, "train": unpacked.size if unpacked else train.stat().st_size},
        origin=str(folder),
        left_out=files.together((files.by_ending(aside), unpacked.left_out if unpacked else {})),
        official={TRAIN, VAL} <= set(verified),
    )


def read_devkit(path: Path) -> Devkit:
    """Reads meta.mat and the validation ground truth of a t12 devkit, whatever its size.

    Raises:
        UserError: the archive is damaged or of another kind, or an ID has no class.
    """
    with tars.readable(path), tars.opened(path, "r:*") as tar:
        files = {posixpath.basename(member.name): member for member in tar if member.isfile()}
        try:
            meta, truth = (
                tar.extractfile(files[name]).read(_MAX_DEVKIT)
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
    return Devkit(
        names=naming.short({str(row["WNID"]): str(row["words"]) for row in rows}),
        train_counts={str(row["WNID"]): int(row["num_train_images"]) for row in rows},
        truth=labels,
    )


def _check_train_classes(path: Path, classes: set[str]) -> None:
    """Compares the names of the inner tars, which costs one header each, with the devkit."""
    with tars.readable(path), tars.opened(path) as outer:
        names = [name for name, _ in tars.members(outer)]
    strange = [name for name in names if not re.fullmatch(r"n\d{8}\.tar", name)]
    if strange or not names:
        raise UserError(
            f"{path} is not the archive of training images: it must hold one nXXXXXXXX.tar a "
            f"class, but holds {tars.some(strange) or 'nothing'}."
        )
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise UserError(f"{path} holds {tars.some(twice)} more than once: it is not as it was distributed.")
    _compare_classes(path, {name.removesuffix(".tar") for name in names}, classes)


def _compare_classes(path: Path, found: Set[str], classes: Set[str]) -> None:
    if found != classes:
        raise UserError(
            f"{path} and {DEVKIT} disagree on the classes: {len(found)} against {len(classes)}; "
            f"only in the archive: {tars.some(found - classes) or 'none'}; "
            f"only in the devkit: {tars.some(classes - found) or 'none'}. "
            "Both must come from the same release, and the download be complete."
        )


def _train_examples(folder: Path, devkit: Devkit, labels: dict[str, int]) -> Iterator[Reference]:
    annotations = read_annotations(folder / TRAIN_BOXES)
    path = folder / TRAIN
    with tars.readable(path), tars.opened(path) as outer:
        for name, member in tars.members(outer):
            wnid = posixpath.splitext(name)[0]
            count = 0
            with tars.readable(f"{path}: {name}"), tars.inner_tar(outer, member) as inner:
                for reference in tars.references(path, inner, member.offset_data):
                    count += reference.fault != tars.DUPLICATE
                    yield _labelled(reference, labels[wnid], annotations)
            _compare_count(path, wnid, count, devkit)


def _compare_count(path: Path, wnid: str, count: int, devkit: Devkit) -> None:
    stated = devkit.train_counts[wnid]
    if not count or (stated and count != stated):
        raise UserError(
            f"{path}: class {wnid} has {count} images, but the devkit states {stated}. "
            "The archive is incomplete or of another release; download it again."
        )


def _unpacked_examples(folder: Path, unpacked: Unpacked, labels: dict[str, int]) -> Iterator[Reference]:
    annotations = read_annotations(folder / TRAIN_BOXES)
    for wnid, reference in unpacked.images:
        yield _labelled(reference, labels[wnid], annotations)


def _val_examples(path: Path, devkit: Devkit, labels: dict[str, int]) -> Iterator[Reference]:
    annotations = read_annotations(path.parent / VAL_BOXES)
    numbers = set()
    for reference in _val_references(path):
        match = re.fullmatch(r"ILSVRC2012_val_(\d{8})\.JPEG", reference.file_name)
        number = int(match[1]) if match else 0
        if not 1 <= number <= len(devkit.truth):
            raise UserError(
                f"{path} holds {reference.file_name}, but {DEVKIT} labels ILSVRC2012_val_00000001.JPEG to "
                f"{len(devkit.truth):08d}. Use the devkit and the archive of one release."
            )
        numbers.add(number)
        yield _labelled(reference, labels[devkit.truth[number - 1]], annotations)
    if len(numbers) != len(devkit.truth):
        raise UserError(
            f"{path} holds {len(numbers)} images, but {DEVKIT} labels {len(devkit.truth)}. "
            "The archive is incomplete or of another release."
        )


def _val_references(path: Path) -> Iterator[Reference]:
    """The images of the archive, or of a folder (and its folders) that it was unpacked into, by name."""
    if path.is_dir():
        found = (image._replace(file_name=posixpath.basename(image.file_name)) for image in files.images(path))
        yield from sorted(found, key=lambda image: image.file_name)
        return
    with tars.readable(path), tars.opened(path) as tar:
        yield from tars.references(path, tar)


def _place(folder: Path, archive: str, unpacked: str) -> Path:
    """Where an archive is, or what was unpacked from it."""
    return folder / archive if (folder / archive).is_file() else folder / unpacked


def _labelled(reference: Reference, label: int, annotations: dict[str, bytes]) -> Reference:
    found = annotations.get(posixpath.splitext(reference.file_name)[0], NO_BOXES)
    return reference._replace(label=label, boxes=found)
