"""ImageNet-21k as distributed: a tar of one tar a class, all for training.

    winter21_whole.tar.gz        19,167 classes, compressed: read twice, once for the classes, once for the images
    fall11_whole.tar             21,841 classes: read where it lies

Which classes there are, and how many images, the archive says; names of WNIDs are not in it.
"""

import posixpath
import tarfile
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

from imagenet_jax.errors import UserError
from imagenet_jax.prepare.examples import DEFAULTS, Example, Options, Reference, Source
from imagenet_jax.prepare.sources import tars, verify

WINTER = "winter21_whole.tar.gz"
FALL = "fall11_whole.tar"
WINTER_CLASSES = 19167  # of the official file; https://image-net.org/download-images


def is_21k(folder: Path) -> bool:
    """Whether a folder holds either archive."""
    return any((folder / name).is_file() for name in (WINTER, FALL))


def open_21k(folder: Path, name: str, options: Options = DEFAULTS) -> Source:
    """The archive of ImageNet-21k in a directory, or a part of it in the same layout.

    Raises:
        UserError: damaged archives, a file that is no class tar, an empty class.
    """
    path = next(folder / file for file in (WINTER, FALL) if (folder / file).is_file())
    counts = verify.remembered(options.memory, f"classes of {path.name}", path, lambda: _scan(path))
    if not counts or min(counts.values()) == 0:
        empty = tars.some(wnid for wnid, count in counts.items() if not count)
        raise UserError(f"{path} has {'no image of class ' + empty if counts else 'no class tars'}: "
                        "it is incomplete, download it again.")
    if options.checksum:
        verify.verify([path], len(counts) == WINTER_CLASSES, options.memory)
    classes = tuple(sorted(counts))
    labels = {wnid: label for label, wnid in enumerate(classes)}
    read = _streamed if path.name == WINTER else _references
    return Source(name, classes, classes, {"train": read(path, labels)}, {"train": sum(counts.values())},
                  {"train": path.stat().st_size}, str(path))


def _open(path: Path) -> tarfile.TarFile:
    return tars.opened(path, "r|gz" if path.name == WINTER else "r:")


def _class_tars(path: Path, outer: tarfile.TarFile) -> Iterator[tuple[str, tarfile.TarInfo, tarfile.TarFile]]:
    mode = "r|" if path.name == WINTER else "r:"
    for name, member in tars.members(outer):
        wnid = posixpath.splitext(name)[0]
        with tars.readable(f"{path}: {name}"), tars.inner_tar(outer, member, mode) as inner:
            yield wnid, member, inner


def _scan(path: Path) -> dict[str, int]:
    """Images of each class, by reading every header."""
    counts = {}
    with tars.readable(path), _open(path) as outer, tqdm(desc="scan", unit=" classes", disable=None) as bar:
        for wnid, _, inner in _class_tars(path, outer):
            if wnid in counts:
                raise UserError(f"{path} holds {wnid}.tar twice: it is not as it was distributed.")
            counts[wnid] = sum(1 for _ in tars.members(inner))
            bar.update()
    return counts


def _references(path: Path, labels: dict[str, int]) -> Iterator[Reference]:
    with tars.readable(path), _open(path) as outer:
        for wnid, member, inner in _class_tars(path, outer):
            for reference in tars.references(path, inner, member.offset_data):
                yield reference._replace(label=labels[wnid])


def _streamed(path: Path, labels: dict[str, int]) -> Iterator[Example | Reference]:
    with tars.readable(path), _open(path) as outer:
        for wnid, _, inner in _class_tars(path, outer):
            for item in tars.streamed(inner):
                yield item._replace(label=labels[wnid])
