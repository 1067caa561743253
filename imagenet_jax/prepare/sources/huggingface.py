"""ImageNet-1k as Hugging Face gives it: compressed tars whose files are called by their class.

    ROOT/data/train_images_0.tar.gz ...        n01440764_10026_n01440764.JPEG
    ROOT/data/val_images.tar.gz                ILSVRC2012_val_00000293_n01440764.JPEG
    ROOT/data/test_images.tar.gz               no labels

The last WNID of a name is the class. The archives are read twice, once for the classes, once for the images.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from imagenet_jax import classes
from imagenet_jax.errors import UserError
from imagenet_jax.prepare.examples import Example, Options, Reference, Source
from imagenet_jax.prepare.formats import is_hidden
from imagenet_jax.prepare.sources import files, naming, tars, verify

_SPLITS = {"train": "train_images*.tar.gz", "validation": "val_images*.tar.gz"}


def is_huggingface(root: Path) -> bool:
    """Whether a folder, or data/ in it, holds these archives."""
    return any(_archives(root).values())


def open_huggingface(root: Path, name: str, options: Options) -> Source:
    """Train and validation; classes are WNIDs, sorted, called as ImageNet's are.

    Raises:
        UserError: a damaged archive, no WNID in any name, or classes that train has not.
    """
    archives = {split: paths for split, paths in _archives(root).items() if paths}
    counts, left_out = {split: Counter() for split in archives}, []
    for split, paths in archives.items():
        for path in paths:
            found = verify.remembered(options.memory, f"classes of {path.name}", path, lambda path=path: _scan(path))
            counts[split].update(found["counts"])
            left_out += found["left_out"]
    known = set(counts.get("train") or set().union(*counts.values()))
    if strange := set().union(*counts.values()) - known or not known and {"none"}:
        raise UserError(f"{root} has classes that train has not: {tars.some(strange)}. Download the missing archives.")
    imagenet = classes.imagenet()
    names = naming.short(dict(zip(imagenet.ids, imagenet.names, strict=True)))
    wnids = tuple(sorted(known))
    labels = {wnid: label for label, wnid in enumerate(wnids)}
    left_out += (path.name for path in _folder(root).glob("test_images*.tar.gz"))
    return Source(name, wnids, tuple(names.get(wnid, wnid) for wnid in wnids),
                  {split: _streamed(paths, labels) for split, paths in archives.items()},
                  {split: labels.total() for split, labels in counts.items()},
                  {split: sum(path.stat().st_size for path in paths) for split, paths in archives.items()}, str(root),
                  left_out=files.by_ending(left_out))


def _folder(root: Path) -> Path:
    return root / "data" if (root / "data").is_dir() else root


def _archives(root: Path) -> dict[str, list[Path]]:
    return {split: sorted(_folder(root).glob(pattern)) for split, pattern in _SPLITS.items()}


def _wnid(file_name: str) -> str:
    return "" if is_hidden(file_name) else next(iter(re.findall(r"n\d{8}", file_name)[::-1]), "")


def _scan(path: Path) -> dict[str, Any]:
    """Images of each class, and the names without one."""
    counts, left_out = Counter(), []
    with tars.readable(path), tars.opened(path, "r|*") as tar:
        for name, _ in tqdm(tars.members(tar), desc=f"scan of {path.name}", unit=" images", disable=None):
            if wnid := _wnid(name):
                counts[wnid] += 1
            else:
                left_out.append(name)
    return {"counts": counts, "left_out": left_out}


def _streamed(paths: list[Path], labels: Mapping[str, int]) -> Iterator[Example | Reference]:
    for path in paths:
        with tars.readable(path), tars.opened(path, "r|*") as tar:
            for item in tars.streamed(tar):
                if wnid := _wnid(item.file_name):
                    yield item._replace(label=labels[wnid])
