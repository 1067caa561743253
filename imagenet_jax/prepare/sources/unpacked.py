"""Train images of ILSVRC2012 whose class tars were unpacked: into folders, or into the folders of another tar.

    train/nXXXXXXXX/nXXXXXXXX_i.JPEG
    ILSVRC2012_img_train.tar                  the same inside, under any folders
"""

import posixpath
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from imagenet_jax.prepare.examples import Reference
from imagenet_jax.prepare.formats import is_hidden
from imagenet_jax.prepare.sources import files, tars, verify


class Unpacked(NamedTuple):
    """counts: images of each WNID. size: bytes. images: WNID and reference of each; labels are -1."""

    counts: dict[str, int]
    size: int
    images: Iterator[tuple[str, Reference]]
    left_out: Mapping[str, tuple[int, str]]


def open_folders(folder: Path) -> Unpacked:
    """The images in class folders, by class and name."""
    left_out: list[str] = []
    below = f"{folder.name}/"
    classes = files.subfolders(folder, left_out, below)
    found = {wnid: files.measure(files.images(path, f"{below}{wnid}/", left_out)) for wnid, path in classes.items()}
    images = ((wnid, item._replace(file_name=posixpath.basename(item.file_name)))
              for wnid, path in classes.items() for item in files.images(path))
    return Unpacked({wnid: count for wnid, (count, _) in found.items()}, sum(size for _, size in found.values()),
                    images, files.by_ending(left_out))


def open_tar(path: Path, memory: Path | None) -> Unpacked | None:
    """The images in the folders of a tar, in its order; None if its first file lies in no folder.

    Raises:
        UserError: the tar is damaged.
    """
    with tars.readable(path), tars.opened(path) as tar:
        name, _ = next(tars.paths(tar), ("", None))
    if not posixpath.dirname(name.removeprefix("./")) or name.endswith(".tar"):
        return None
    found = verify.remembered(memory, f"folders of {path.name}", path, lambda: _scan(path))
    return Unpacked(found["counts"], path.stat().st_size, _images(path), found["left_out"])


def _scan(path: Path) -> dict[str, Any]:
    counts, left_out = Counter(), []
    with tars.readable(path), tars.opened(path) as tar:
        for name, _ in tars.paths(tar):
            if any(map(is_hidden, name.removeprefix("./").split("/"))):
                left_out.append(name)
            else:
                counts[_wnid(name)] += 1
    return {"counts": counts, "left_out": files.by_ending(left_out)}


def _images(path: Path) -> Iterator[tuple[str, Reference]]:
    seen = set()
    with tars.readable(path), tars.opened(path) as tar:
        for name, member in tars.paths(tar):
            if not any(map(is_hidden, name.removeprefix("./").split("/"))):
                fault = tars.DUPLICATE if name in seen else tars.fault(member)
                seen.add(name)
                yield _wnid(name), Reference(str(path), member.offset_data, member.size, -1, posixpath.basename(name),
                                             fault=fault)


def _wnid(name: str) -> str:
    return posixpath.basename(posixpath.dirname(name))
