"""Which layouts are read, and which of them a place is in: told by what lies there."""

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from imagenet_jax.errors import UserError
from imagenet_jax.prepare.examples import Options, Source
from imagenet_jax.prepare.sources import (
    archives,
    files,
    folders,
    huggingface,
    imagenet21k,
    kaggle,
    lists,
    shards,
    tables,
    tiny,
)
from imagenet_jax.prepare.sources.tars import some


class Layout(NamedTuple):
    """A way in which images and labels lie on disk.

    name, looks: for people, what it is and how it lies there. fits: whether a place is in this layout, from a few
    names. open: the source; raises UserError over what is wrong with it. takes: the options that mean something here.
    """

    name: str
    looks: str
    fits: Callable[[Path], bool]
    open: Callable[[Path, str, Options], Source]
    takes: tuple[str, ...] = ()


_PACKED = (
    Layout("ImageNet-1k of Hugging Face", "train_images_*.tar.gz, val_images.tar.gz", huggingface.is_huggingface,
           huggingface.open_huggingface),
    Layout("WebDataset", "*.tar or SPLIT/*.tar with KEY.jpg and KEY.cls inside", shards.are_shards, shards.open_shards,
           ("classes",)),
    Layout("Parquet with images", "data/SPLIT-*.parquet or SPLIT/*.parquet with the columns image and label",
           tables.are_tables, tables.open_tables, ("classes",)),
)
ARCHIVES = (  # the first that fits is meant
    Layout("archives of ILSVRC2012", f"{archives.TRAIN} or train/WNID/*, {archives.VAL} or val/*, "
           f"{archives.DEVKIT}", archives.is_ilsvrc, archives.open_archives),
    Layout("archive of ImageNet-21k", f"{imagenet21k.WINTER} or {imagenet21k.FALL}", imagenet21k.is_21k,
           imagenet21k.open_21k),
    *_PACKED,
)
IMAGES = (
    *_PACKED,
    Layout("list of images", "FILE.csv, .tsv or .parquet with the columns path, label and perhaps split",
           lists.is_list, lists.open_list, ("classes", "holdout")),
    Layout("Tiny ImageNet", "wnids.txt, train/WNID/images/*, val/val_annotations.txt", tiny.is_tiny, tiny.open_tiny),
    Layout("ILSVRC of Kaggle", "ILSVRC/Data/CLS-LOC/train/WNID/*, val/*, LOC_val_solution.csv above", kaggle.is_kaggle,
           kaggle.open_kaggle),
    Layout("class folders in split folders", "train/CLASS/*, and val/CLASS/* or test/CLASS/* beside train",
           folders.has_splits, folders.open_splits, ("classes", "holdout")),
    Layout("class folders", "CLASS/*, all for training", folders.has_classes, folders.open_classes,
           ("classes", "holdout")),
)


def open_source(layouts: Sequence[Layout], place: str, name: str, options: Options) -> Source:
    """The source at a place in one of these layouts.

    Raises:
        UserError: there is nothing, the layout is another one or has no use for an option, or what `open` raises.
    """
    try:
        return _opened(layouts, Path(place), name, options)
    except OSError as error:
        raise UserError(f"{place} cannot be read: {error}.") from error


def _opened(layouts: Sequence[Layout], path: Path, name: str, options: Options) -> Source:
    if not path.exists():
        raise UserError(f"{path} does not exist.")
    layout = next((layout for layout in layouts if layout.fits(path)), None)
    if layout is None:
        there = f"holds {some(os.listdir(path)) or 'nothing'}" if path.is_dir() else "is a file"
        known = "".join(f"\n    {layout.name}: {layout.looks}" for layout in dict.fromkeys((*ARCHIVES, *IMAGES)))
        raise UserError(f"{path} is in no layout that is read here; it {there}.{_advice(path)} What is read, the "
                        f"archives by --archives=DIR and the rest by --images=PATH:{known}")
    for option in ("classes", "holdout"):
        if getattr(options, option) and option not in layout.takes:
            raise UserError(f"{path} holds {layout.name}, for which --{option} means nothing. Leave it out.")
    return layout.open(path, name, options)._replace(layout=layout.name)


def _advice(path: Path) -> str:
    """What to do with a place that is nearly right."""
    if path.is_file():
        if re.search(r"\.(zip|tar|t?gz|7z|rar)$", path.name.lower()):
            return " Unpack it and give its folder."
        return " If it lists images and their labels, write it as one of the lists below."
    if other := next((layout for layout in (*ARCHIVES, *IMAGES) if layout.fits(path)), None):
        flag = "archives" if other in ARCHIVES else "images"
        return f" It holds {other.name}: give it by --{flag}={path}."
    names = sorted(os.listdir(path))
    if any(re.fullmatch(r"n\d{8}\.tar", name) for name in names):
        return f" These tars belong in {archives.TRAIN}, which is read as it is: do not unpack it."
    if any(name.endswith(".tar") for name in names):
        return " Of tars those are read where KEY.jpg has its class beside it, a number or a name in KEY.cls."
    if any(re.search(r"tfrecord|-\d{5}-of-\d{5}$", name) for name in names):
        return " If `tfds build` wrote these files, give them by --tfds=DIR."
    if listing := next((name for name in names if lists.is_list(path / name)), None):
        return f" If {listing} lists the images and their labels, give it by --images={path / listing}."
    if next(files.images(path), None):
        return " Nothing tells what its images show: each class needs a folder, or they need a list."
    return ""
