"""WebDataset: tars in which KEY.jpg and KEY.cls lie side by side.

    ROOT/anything-train-0000.tar, ROOT/train/0000.tar        the split is a word of the path, or else it is train
    KEY.jpg KEY.cls                                           a class is a number or a name; other files are left out

They are read where they lie.
"""

import itertools
import posixpath
import re
import tarfile
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from imagenet_jax.errors import UserError
from imagenet_jax.prepare.examples import Options, Reference, Source
from imagenet_jax.prepare.formats import ENDINGS, is_hidden
from imagenet_jax.prepare.sources import files, naming, tars, verify
from imagenet_jax.prepare.sources.folders import split_of

_MAX_CLASS = 2**10  # bytes
_PEEK = 16  # members of the first tar, among which must be a class


def are_shards(root: Path) -> bool:
    """Whether a folder holds tars with classes in them."""
    shards = _shards(root)
    if not shards:
        return False
    try:
        with tars.opened(shards[0][1]) as tar:
            return any(name.endswith(".cls") for name, _ in itertools.islice(tars.members(tar), _PEEK))
    except (OSError, tarfile.TarError):
        return False


def open_shards(root: Path, name: str, options: Options) -> Source:
    """The images of all tars, in their order.

    Raises:
        UserError: a damaged tar, no images with a class, classes that `naming` refuses or that train has not.
    """
    counts: dict[str, Counter[str]] = {}
    left_out: list[dict[str, tuple[int, str]]] = []
    paths: dict[str, list[Path]] = {}
    for split, path in tqdm(_shards(root), desc="scan", unit=" tars", disable=None):
        what = f"classes of {path.relative_to(root).as_posix().replace('/', ' ')}"
        found = verify.remembered(options.memory, what, path, lambda path=path: _scan(path))
        counts.setdefault(split, Counter()).update(found["counts"])
        paths.setdefault(split, []).append(path)
        left_out.append(found["left_out"])
    words = {split: set(labels) - {""} for split, labels in counts.items()}
    known = words.get("train") or set().union(*words.values())
    if not known:
        raise UserError(f"{root}: no image has a class beside it. KEY.jpg and KEY.cls must follow each other in the "
                        "tar; `tar --sort=name` packs them so.")
    if strange := set().union(*words.values()) - known:
        raise UserError(f"{root} has classes that train has not: {tars.some(strange)}.")
    classes = naming.arrange(known, options.classes)
    return Source(name, classes.ids, classes.names,
                  {split: _references(shards, classes.labels) for split, shards in paths.items()},
                  {split: labels.total() for split, labels in counts.items()},
                  {split: sum(path.stat().st_size for path in shards) for split, shards in paths.items()}, str(root),
                  left_out=files.together(left_out))


def _shards(root: Path) -> list[tuple[str, Path]]:
    """Split and path of each tar, sorted."""
    found = [path for pattern in ("*.tar", "*/*.tar") for path in root.glob(pattern) if not is_hidden(path.name)]
    return sorted((_split(path.relative_to(root)), path) for path in found)


def _split(path: Path) -> str:
    return next(filter(None, map(split_of, re.findall("[a-z]+", str(path).lower()))), "train")


def _scan(path: Path) -> dict[str, Any]:
    """How many images of each class a tar holds ("" for those without), and what else."""
    counts, left_out = Counter(), []
    with tars.readable(path), tars.opened(path) as tar:
        for image, word, others in _samples(path, tar):
            counts.update([word] if image else [])
            left_out += others
    return {"counts": counts, "left_out": files.by_ending(left_out)}


def _references(shards: list[Path], labels: Mapping[str, int]) -> Iterator[Reference]:
    for path in shards:
        with tars.readable(path), tars.opened(path) as tar:
            for image, word, _ in _samples(path, tar):
                if image:
                    yield image._replace(label=labels.get(word, 0), fault=image.fault or ("" if word else "no class"))


def _samples(path: Path, tar: tarfile.TarFile) -> Iterator[tuple[Reference | None, str, list[str]]]:
    """Image, class and the names of other files of each run of members with one key."""
    for _, group in itertools.groupby(tars.references(path, tar, whole=True), lambda item: _key(item.file_name)):
        image, word, others = None, "", []
        for item in group:
            if is_hidden(posixpath.basename(item.file_name)):
                others.append(item.file_name)
            elif item.file_name.lower().endswith(ENDINGS) and image is None:
                image = item
            elif posixpath.splitext(item.file_name)[1] == ".cls" and not word:
                word = _word(path, item)
            else:
                others.append(item.file_name)
        yield image, word, others


def _key(name: str) -> str:
    """Up to the first dot of a file's name, its folders included."""
    folder, base = posixpath.split(name)
    return posixpath.join(folder, base.partition(".")[0])


def _word(path: Path, item: Reference) -> str:
    with open(path, "rb") as file:
        file.seek(item.offset)
        return file.read(min(item.size, _MAX_CLASS)).decode(errors="surrogateescape").strip()
