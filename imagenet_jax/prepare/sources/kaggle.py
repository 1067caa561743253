"""ILSVRC as Kaggle gives it: class folders for train, one folder for all of val, labels beside them.

    ROOT/ILSVRC/Data/CLS-LOC/train/nXXXXXXXX/nXXXXXXXX_i.JPEG
    ROOT/ILSVRC/Data/CLS-LOC/val/ILSVRC2012_val_XXXXXXXX.JPEG          test/ has no labels
    ROOT/ILSVRC/Annotations/CLS-LOC/...                                 boxes, the same names ending in .xml; optional
    ROOT/LOC_val_solution.csv                                           ImageId,PredictionString: WNID and boxes
    ROOT/LOC_synset_mapping.txt                                         `n01440764 tench, Tinca tinca`; optional

Any folder from ROOT to CLS-LOC may be given, and train and val may lie in ROOT itself.
"""

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path

from imagenet_jax.errors import UserError
from imagenet_jax.prepare.examples import NO_BOXES, Options, Reference, Source
from imagenet_jax.prepare.sources import files, naming
from imagenet_jax.prepare.sources.tars import some

_SOLUTION = "LOC_val_solution.csv"
_NAMES = "LOC_synset_mapping.txt"
_DATA = ("ILSVRC/Data/CLS-LOC", "Data/CLS-LOC", "CLS-LOC", ".")
_MAX_XML = 2**20


def is_kaggle(root: Path) -> bool:
    """Whether train and val lie where Kaggle's archive puts them, with the labels of val above them."""
    return root.is_dir() and _data(root) is not None and _beside(root, _SOLUTION) is not None


def open_kaggle(root: Path, name: str, options: Options) -> Source:
    """Train and validation with boxes; file names are those of the official archives.

    Raises:
        UserError: classes without images or unknown to train, images of val without a label, labels without image.
    """
    data, left_out = _data(root), []
    above = data.parents[1] / "Annotations" / "CLS-LOC" if data.parent.name == "Data" else data / "Annotations"
    folders = files.subfolders(data / "train", left_out, "train/")
    train = {wnid: files.measure(files.images(path, f"train/{wnid}/", left_out)) for wnid, path in folders.items()}
    if empty := [wnid for wnid, (count, _) in train.items() if not count] or not train and ["any class"]:
        raise UserError(f"{data}/train has no images of {some(empty)}.")
    wnids = tuple(naming.arrange(train).ids)
    labels = {wnid: label for label, wnid in enumerate(wnids)}
    truth = _truth(_beside(root, _SOLUTION), labels)
    val = {Path(item.file_name).stem: item for item in files.images(data / "val", "", left_out)}
    if wrong := val.keys() ^ truth.keys():
        raise UserError(f"{data}/val and {_SOLUTION}: {len(truth.keys() - val.keys())} images are missing and "
                        f"{len(val.keys() - truth.keys())} have no line there: {some(wrong)}.")
    if (data / "test").is_dir():
        left_out += (item.file_name for item in files.images(data / "test", "test/", left_out))
    names = _beside(root, _NAMES)
    known = naming.short(naming.read_classes(str(names))) if names else {}
    sizes = {"validation": sum(item.size for item in val.values()), "train": sum(size for _, size in train.values())}
    return Source(name, wnids, tuple(known.get(wnid, wnid) for wnid in wnids),
                  {"validation": _val(val, truth, labels, above / "val"),
                   "train": _train(data / "train", labels, above / "train")},
                  {"validation": len(val), "train": sum(count for count, _ in train.values())}, sizes, str(root),
                  left_out=files.by_ending(left_out))


def _data(root: Path) -> Path | None:
    """The folder that holds train and val."""
    return next((root / part for part in _DATA if (root / part / "train").is_dir() and (root / part / "val").is_dir()),
                None)


def _beside(root: Path, name: str) -> Path | None:
    """A file in ROOT, whichever folder below it was given."""
    return next((folder / name for folder in (root, *root.absolute().parents[:3]) if (folder / name).is_file()), None)


def _truth(path: Path, labels: Mapping[str, int]) -> dict[str, str]:
    """The WNID of each image of val."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            truth = {row["ImageId"]: row["PredictionString"].split()[0] for row in csv.DictReader(file)}
    except (OSError, ValueError, KeyError, AttributeError, IndexError, csv.Error) as error:
        raise UserError(f"{path} cannot be read ({error}): it must have the columns ImageId and PredictionString, and "
                        "in the latter a WNID first. Unpack Kaggle's archive again.") from error
    if strange := set(truth.values()) - labels.keys():
        raise UserError(f"{path} has classes that train has not: {some(strange)}.")
    return truth


def _train(folder: Path, labels: Mapping[str, int], boxes: Path) -> Iterator[Reference]:
    for wnid, label in labels.items():
        for item in files.images(folder / wnid):
            yield _boxed(item, label, boxes / wnid)


def _val(images: Mapping[str, Reference], truth: Mapping[str, str], labels: Mapping[str, int],
         boxes: Path) -> Iterator[Reference]:
    for image, item in images.items():
        yield _boxed(item, labels[truth[image]], boxes)


def _boxed(item: Reference, label: int, boxes: Path) -> Reference:
    try:
        with open((boxes / item.file_name).with_suffix(".xml"), "rb") as file:
            return item._replace(label=label, boxes=file.read(_MAX_XML))
    except OSError:
        return item._replace(label=label, boxes=NO_BOXES)
