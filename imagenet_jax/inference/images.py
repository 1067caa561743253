"""The pictures that people point at, in their order: files, folders, patterns, tars, a split of a dataset."""

import contextlib
import glob
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

from imagenet_jax import dataset as dataset_lib
from imagenet_jax.errors import UserError
from imagenet_jax.prepare import repair
from imagenet_jax.prepare.examples import Example, Reference
from imagenet_jax.prepare.formats import ENDINGS, HEAD, is_hidden, is_image
from imagenet_jax.prepare.sources import files, tars

_PACKED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".zip")


class Picture(NamedTuple):
    """An encoded image. fault: why there is none; mended: what was wrong with it, and what was done.

    label: in the dataset that it is of, else -1.
    """

    name: str
    encoded: bytes = b""
    fault: str = ""
    mended: str = ""
    label: int = -1


class Images(NamedTuple):
    """load: place, from 0 to count - 1 -> the picture there; called by many threads."""

    count: int
    load: Callable[[int], Picture]


def pointed_at(names: Sequence[str]) -> tuple[Images, list[str]]:
    """What names stand for, and which files of folders and tars are no images and are left out.

    Args:
        names: of files; of folders, whose images are found by content however deep they lie, sorted; of tars, read
            where they lie; or patterns such as 'photos/*.jpg'. A file that is named is taken for an image.

    Raises:
        UserError: a folder or a tar cannot be read.
    """
    left_out: list[str] = []
    found = [reference for name in names for reference in _stands_for(name, left_out)]
    return Images(len(found), lambda place: judged(_load(found[place]))), left_out


def called(names: Sequence[str], folder: str) -> Images:
    """The images that `pointed_at` gave these names, those of tars too; what is no longer there has a fault.

    folder: the one that names are relative to.
    """
    packed = {}
    for path in sorted({os.path.join(folder, name[: found.end()])
                        for name in names for found in re.finditer(r"\.tar(?=/)", name, re.IGNORECASE)}):
        with contextlib.suppress(UserError):
            if os.path.isfile(path):
                packed |= {tars.printable(each.file_name): each for each in _in_tar(path, []) if not each.fault}

    def load(place: int) -> Picture:
        path = os.path.join(folder, names[place])
        picture = _load(packed.get(path) or files.referred(path, path))
        return judged(picture._replace(name=names[place]))

    return Images(len(names), load)


def of_split(records: dataset_lib.Records) -> Images:
    """The images of a split, as they were prepared."""

    def load(place: int) -> Picture:
        (record,) = records.read([place])
        row = dataset_lib.row(record)
        return Picture(row.file_name.decode(), record[slice(*row.image)], label=row.label)

    return Images(len(records), load)


def judged(picture: Picture, thorough: bool = False) -> Picture:
    """The picture as `prepare` would keep it: mended where it is odd, with a fault where it is refused.

    thorough: every pixel is decoded, see `repair.check`.
    """
    if picture.fault:
        return picture
    checked = repair.check(Example(picture.encoded, -1, picture.name), decode=thorough)
    if checked.example is None:
        return Picture(picture.name, fault=checked.reason)
    return picture._replace(encoded=checked.example.image, mended=checked.reason or picture.mended)


def _stands_for(name: str, left_out: list[str]) -> Iterator[Reference]:
    if os.path.isdir(name):
        return files.images(name, os.path.join(name, ""), left_out)
    if name.lower().endswith(_PACKED):
        raise UserError(f"{name} is packed, and pictures are read where they lie: unpack it, into a folder or a .tar")
    if name.lower().endswith(".tar") and os.path.isfile(name):
        return _in_tar(name, left_out)
    if glob.has_magic(name) and not os.path.lexists(name):
        matches = sorted(glob.glob(name, recursive=True))
        if not matches:
            return iter([Reference("", 0, 0, -1, name, fault="no file is called so")])
        return (reference for match in matches for reference in _stands_for(match, left_out))
    return iter([files.referred(name, name)])


def _in_tar(path: str, left_out: list[str]) -> Iterator[Reference]:
    with tars.readable(path), tars.opened(Path(path)) as tar, open(path, "rb") as file:
        for reference in tars.references(Path(path), tar, whole=True):
            named = reference._replace(file_name=f"{path}/{reference.file_name}")
            if _is_image(reference, file):
                yield named
            else:
                left_out.append(named.file_name)


def _is_image(reference: Reference, file: BinaryIO) -> bool:
    """As in a folder: by its ending or by its first bytes, and never if it is hidden."""
    if any(map(is_hidden, Path(reference.file_name).parts)):
        return False
    file.seek(reference.offset)
    return reference.file_name.lower().endswith(ENDINGS) or is_image(file.read(min(HEAD, reference.size)))


def _load(reference: Reference) -> Picture:
    name, fault = tars.printable(reference.file_name), reference.fault
    if reference.size > tars.MAX_IMAGE_BYTES:
        fault = f"{reference.size:,} bytes are no image"
    if fault:
        return Picture(name, fault=fault)
    try:
        with open(reference.path, "rb") as file:
            file.seek(reference.offset)
            encoded = file.read(reference.size)
    except OSError as error:
        return Picture(name, fault=str(error.strerror))
    return Picture(name, encoded, "" if len(encoded) == reference.size else "cut short: the file ends within the image")
