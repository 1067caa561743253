"""A list of images and labels: a CSV, TSV or Parquet file with the columns path, label and perhaps split.

Paths are relative to the folder of the list. Without the column, or where it is empty, the split is train. Rows without
a label are left out: who looked at what `predict --annotate` proposes takes it away where none fits. Columns may be
called as Hugging Face and Keras call them; what stands between them, a comma, a semicolon or a tab, is found out.
"""

import csv
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from pyarrow import parquet

from imagenet_jax.errors import UserError
from imagenet_jax.prepare.examples import Options, Reference, Source
from imagenet_jax.prepare.sources import files, naming
from imagenet_jax.prepare.sources.folders import CALLED, split_of
from imagenet_jax.prepare.sources.tars import printable, some

_COLUMNS = {"path": ("path", "file_name", "filename"), "label": ("label", "class"), "split": ("split",)}


def is_list(path: Path) -> bool:
    """Whether a file is called as lists are."""
    return path.is_file() and path.suffix.lower() in (".csv", ".tsv", ".parquet")


def open_list(path: Path, name: str, options: Options) -> Source:
    """The images of a list, in its order.

    Raises:
        UserError: columns that are missing, a row without path, of an unknown split, or listed before; no labels;
            classes that `naming` refuses or that train has not.
    """
    counts, sizes, by_label, unlabelled = _scan(path)
    if not counts:
        raise UserError(f"{path} lists no images{' with a label' if unlabelled else ''}.")
    naming.check({label for labels in counts.values() for label in labels})
    known = counts.get("train") or {label for labels in counts.values() for label in labels}
    if strange := {label for labels in counts.values() for label in labels if label not in known}:
        raise UserError(f"{path} has classes that train has not: {some(strange)}.")
    classes, held = naming.arrange(known, options.classes), set()
    totals = {split: labels.total() for split, labels in counts.items()}
    if options.holdout:
        files.refuse_holdout_beside(path, counts)
        held = set().union(*(files.held_out(names, options) for names in by_label.values()))
        sizes["validation"] = sizes["train"] * len(held) // totals["train"]
        totals |= {"train": totals["train"] - len(held), "validation": len(held)}
    streams = {split: _references(path, split, classes.labels, held) for split in totals}
    return Source(name, classes.ids, classes.names, streams, totals, sizes, str(path),
                  left_out={"unlabelled": (len(unlabelled), unlabelled[0])} if unlabelled else {})


def _scan(path: Path) -> tuple[dict[str, Counter[str]], dict[str, int], dict[str, list[str]], list[str]]:
    """For each split its images by label, and their bytes; the names of train's images by label, and of unlabelled."""
    counts, sizes, by_label, seen, unlabelled = {}, {}, {}, set(), []
    for number, image, label, split in _rows(path):
        if not image or image in seen:
            fault = f"lists {image} once more" if image else "has no path"
            raise UserError(f"{path}, row {number}, {fault}. Each image has one row, with path and label.")
        seen.add(image)
        if not label:
            unlabelled.append(image)
            continue
        counts.setdefault(split, Counter())[label] += 1
        sizes[split] = sizes.get(split, 0) + files.referred(os.path.join(path.parent, image), image).size
        if split == "train":
            by_label.setdefault(label, []).append(image)
    return counts, sizes, by_label, unlabelled


def _references(path: Path, wanted: str, labels: Mapping[str, int], held: set[str]) -> Iterator[Reference]:
    for _, image, label, split in _rows(path):
        if label and ("validation" if image in held else split) == wanted:
            yield files.referred(os.path.join(path.parent, image), image)._replace(label=labels[label])


def _rows(path: Path) -> Iterator[tuple[int, str, str, str]]:
    """Number, path, label and split of each row that is not empty.

    Raises:
        UserError: the file cannot be read, lacks a column, or names a split that is none.
    """
    read = _parquet if path.suffix.lower() == ".parquet" else _csv
    try:
        for number, row in enumerate(read(path), 2):
            if not any(row):
                continue
            image, label, word = row
            split = split_of(word or "train")
            if not split:
                raise UserError(f"{path}, row {number}: the split is {printable(word)}, but may be {CALLED}.")
            yield number, _found(path.parent, image), label, split
    except (OSError, ValueError, csv.Error) as error:  # UnicodeDecodeError and pyarrow's are ValueErrors
        raise UserError(f"{path} cannot be read: {error}. It must be a table with the columns path, label and perhaps "
                        "split; text in UTF-8.") from error


def _csv(path: Path) -> Iterator[list[str]]:
    with open(path, newline="", encoding="utf-8-sig") as file:
        header = file.readline()
        delimiter = max(",;\t", key=header.count)
        places = _places(path, next(csv.reader([header], delimiter=delimiter), []))
        for row in csv.reader(file, delimiter=delimiter):
            yield [row[place].strip() if place is not None and place < len(row) else "" for place in places]


def _parquet(path: Path) -> Iterator[list[str]]:
    with parquet.ParquetFile(path) as file:
        names = file.schema_arrow.names
        columns = [None if place is None else names[place] for place in _places(path, names)]
        for batch in file.iter_batches(columns=list(filter(None, columns))):
            cells = [batch[column].to_pylist() if column else [""] * len(batch) for column in columns]
            for row in zip(*cells, strict=True):
                yield ["" if cell is None else str(cell).strip() for cell in row]


def _found(folder: Path, image: str) -> str:
    """The path of an image, which Windows may have written."""
    return image.replace("\\", "/") if "\\" in image and not os.path.lexists(folder / image) else image


def _places(path: Path, header: list[str]) -> list[int | None]:
    """Where path, label and split are among the columns."""
    names = [name.strip().lower() for name in header]
    places = {column: next((names.index(name) for name in known if name in names), None)
              for column, known in _COLUMNS.items()}
    if missing := [column for column in ("path", "label") if places[column] is None]:
        raise UserError(f"{path} has no column {some(missing)}; its first row is {', '.join(header) or 'empty'}. It "
                        "must name the columns path (or file_name, filename), label (or class) and perhaps split.")
    return list(places.values())
