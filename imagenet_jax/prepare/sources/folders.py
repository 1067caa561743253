"""Images in one folder a class, with a folder for each split above them or without.

    ROOT/SPLIT/CLASS/...            splits as in `CALLED`, in upper or lower case
    ROOT/CLASS/...                  everything is train

Images lie anywhere below their class's folder.
"""

from collections.abc import Iterator
from pathlib import Path

from imagenet_jax.errors import UserError
from imagenet_jax.prepare.examples import DEFAULTS, Options, Reference, Source
from imagenet_jax.prepare.sources import files, naming
from imagenet_jax.prepare.sources.tars import some

_SPLITS = {"train": "train", "training": "train", "val": "validation", "valid": "validation",
           "validation": "validation", "test": "test", "testing": "test"}
CALLED = "train (or training), val (or valid, validation), or test (or testing)"


def split_of(word: str) -> str | None:
    """The split that a word means, if any: train, validation or test."""
    return _SPLITS.get(word.lower())


def has_splits(root: Path) -> bool:
    """Whether a folder holds folders named as splits."""
    return root.is_dir() and any(map(split_of, files.subfolders(root)))


def has_classes(root: Path) -> bool:
    """Whether a folder holds folders, none of which is named as a split."""
    return root.is_dir() and bool(files.subfolders(root)) and not has_splits(root)


def open_splits(root: Path, name: str, options: Options) -> Source:
    """Images in ROOT/SPLIT/CLASS; those of a test split without class folders are left out.

    Raises:
        UserError: folders that are no splits, a class without images, or one unknown to train.
    """
    left_out: list[str] = []
    folders = files.subfolders(root, left_out)
    splits = {split: path for name, path in folders.items() if (split := split_of(name))}
    if len(splits) < len(folders):
        raise UserError(f"{root} must hold one folder a split, called {CALLED}, no two for the same, with one folder "
                        f"a class inside; it holds {some(folders)}. Move what is no split elsewhere; if these are "
                        "classes, one of which is called as a split is, put them all into a folder named train.")
    if "test" in splits and not files.subfolders(splits["test"]):
        test = splits.pop("test")
        left_out += (image.file_name for image in files.images(test, f"{test.name}/", left_out))
    return from_class_folders(root, name, splits, options, left_out)


def open_classes(root: Path, name: str, options: Options) -> Source:
    """Images in ROOT/CLASS, all of them for training but for what `options.holdout` asks.

    Raises:
        UserError: a single class, or folders that hold datasets and not classes.
    """
    folders = files.subfolders(root)
    if nested := [path for path in folders.values() if has_splits(path)]:
        raise UserError(f"{root} holds datasets and not classes: there are folders of splits in "
                        f"{some(path.name for path in nested)}. Give one of them, --images={nested[0]}.")
    if len(folders) == 1:
        raise UserError(f"{root} holds a single folder, {some(folders)}; if it is a class it needs a second one to be "
                        "told from, else give the folder that holds the class folders.")
    return from_class_folders(root, name, {"train": root}, options, [])


def from_class_folders(root: Path, name: str, splits: dict[str, Path], options: Options,
                       left_out: list[str]) -> Source:
    """A source of splits that each hold one folder a class.

    Raises:
        UserError: no class folders, classes that `naming` refuses, without images, or unknown to train; a holdout
            where there is a validation split.
    """
    found = {split: _count(root, path, left_out) for split, path in splits.items()}
    naming.check({cls for counts in found.values() for cls in counts})
    known = found.get("train") or {cls for counts in found.values() for cls in counts}
    for split, counts in found.items():
        if not counts:
            raise UserError(f"{splits[split]} has no class folders, so nothing tells what its images show. Sort them "
                            "into one folder a class, list them with their labels in a CSV file, or, if they are "
                            "those of ILSVRC2012, put the devkit beside the folders and give --archives.")
        if strange := [cls for cls in counts if cls not in known]:
            raise UserError(f"{splits[split]} has classes that train has not: {some(strange)}. Move what is to be "
                            "left out elsewhere.")
        if empty := [cls for cls, (count, _) in counts.items() if not count]:
            raise UserError(f"{splits[split]}: no image in class {some(empty)}. Add images or remove the folder.")
    classes = naming.arrange(known, options.classes)
    totals = {split: sum(count for count, _ in counts.values()) for split, counts in found.items()}
    sizes = {split: sum(size for _, size in counts.values()) for split, counts in found.items()}
    streams = {split: _references(path, classes) for split, path in splits.items()}
    if options.holdout:
        files.refuse_holdout_beside(root, splits)
        held = sum(files.held_count(count, options.holdout) for count, _ in found["train"].values())
        streams |= {split: _references(splits["train"], classes, options, split == "validation")
                    for split in ("train", "validation")}
        sizes["validation"] = sizes["train"] * held // totals["train"]
        totals |= {"train": totals["train"] - held, "validation": held}
    return Source(name, classes.ids, classes.names, streams, totals, sizes, str(root),
                  left_out=files.by_ending(left_out))


def _count(root: Path, folder: Path, left_out: list[str]) -> dict[str, tuple[int, int]]:
    """Number and bytes of the images of each class of a split."""
    below = "" if folder == root else f"{folder.relative_to(root).as_posix()}/"
    return {cls: files.measure(files.images(path, f"{below}{cls}/", left_out))
            for cls, path in files.subfolders(folder, left_out, below).items()}


def _references(folder: Path, classes: naming.Naming, options: Options = DEFAULTS,
                held: bool = False) -> Iterator[Reference]:
    """The images of a split in label order: those that a holdout leaves, or those that it takes."""
    for cls in sorted(classes.labels, key=classes.labels.get):
        if (folder / cls).is_dir():
            found = list(files.images(folder / cls, f"{cls}/"))
            taken = files.held_out((reference.file_name for reference in found), options)
            for reference in found:
                if (reference.file_name in taken) == held:
                    yield reference._replace(label=classes.labels[cls])
