"""Parquet files that hold the images themselves, as those of Hugging Face do.

    ROOT/data/train-00000-of-00294.parquet          ROOT/train/0000.parquet         data/ or one file may be given, too
    columns image (its bytes, perhaps with a path) and label

The split is a word of the path, or else it is train. Labels are words, or numbers of which the file may know the names.
Rows without a label (none, or one below 0, as in Hugging Face's test splits) are left out.
"""

import contextlib
import json
import posixpath
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow
from pyarrow import parquet

from imagenet_jax import classes
from imagenet_jax.errors import UserError
from imagenet_jax.prepare.examples import Example, Options, Source
from imagenet_jax.prepare.formats import is_hidden
from imagenet_jax.prepare.sources import naming
from imagenet_jax.prepare.sources.folders import split_of
from imagenet_jax.prepare.sources.tars import some

_COLUMNS = {"image": ("image", "img"), "label": ("label", "labels", "class")}
_READ_AT_ONCE = 32  # rows
_ALIKE = 0.99  # of 1000 names that are ImageNet's in order: copies differ in how they tell two cranes apart


class _Table(NamedTuple):
    """One file: its split, the names of its columns, and of its classes if it tells them."""

    path: Path
    split: str
    image: str
    label: str
    names: tuple[str, ...]


def are_tables(root: Path) -> bool:
    """Whether this is a Parquet file with images, or a folder that holds some, itself or in folders."""
    for path in _paths(root)[:1]:
        with contextlib.suppress(UserError), _opened(path) as file:
            return any(name in _COLUMNS["image"] and _is_bytes(kind)
                       for name, kind in zip(file.schema_arrow.names, file.schema_arrow.types, strict=True))
    return False


def open_tables(root: Path, name: str, options: Options) -> Source:
    """The images of all files, in their order.

    Raises:
        UserError: a damaged file, one without the columns, no labels, classes that `naming` refuses or train has not.
    """
    tables = [_table(root, path) for path in _paths(root)]
    counts: dict[str, Counter[str]] = {}
    unlabelled: dict[str, int] = {}
    for table in tables:
        words = Counter(_words(table))
        unlabelled[table.path.name] = words.pop("", 0)
        if words:
            counts.setdefault(table.split, Counter()).update(words)
    known = set(counts.get("train") or set().union(*counts.values()))
    if not known:
        raise UserError(f"{root}: no row of its {len(tables)} Parquet files has a label.")
    if strange := set().union(*counts.values()) - known:
        raise UserError(f"{root} has classes that train has not: {some(strange)}.")
    arranged = _arranged(known, tables[0].names, options)
    return Source(
        name, arranged.ids, arranged.names,
        {split: _examples([table for table in tables if table.split == split], arranged.labels) for split in counts},
        {split: words.total() for split, words in counts.items()},
        {split: sum(table.path.stat().st_size for table in tables if table.split == split) for split in counts},
        str(root), left_out={"unlabelled": (sum(unlabelled.values()), max(unlabelled, key=unlabelled.get))}
        if any(unlabelled.values()) else {})


def _is_bytes(kind: pyarrow.DataType) -> bool:
    if pyarrow.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0
    return pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind)


def _paths(root: Path) -> list[Path]:
    if root.suffix.lower() == ".parquet":
        return [root]
    found = (path for pattern in ("*.parquet", "*/*.parquet", "*/*/*.parquet") for path in root.glob(pattern))
    return sorted(path for path in found if not is_hidden(path.name))


def _table(root: Path, path: Path) -> _Table:
    with _opened(path) as file:
        schema = file.schema_arrow
        columns = [next((name for name in known if name in schema.names), None) for known in _COLUMNS.values()]
        if None in columns:
            raise UserError(f"{path} has the columns {', '.join(schema.names)}; it must have image (its bytes) and "
                            "label. A table of paths is read as --images=FILE.parquet.")
        names = _names(schema.metadata or {}, columns[1])
    below = path.name if root.is_file() else path.relative_to(root).as_posix()
    words = map(split_of, re.findall("[a-z]+", below.lower()))
    return _Table(path, next(filter(None, words), "train"), *columns, names)


def _names(metadata: Mapping[bytes, bytes], label: str) -> tuple[str, ...]:
    """What Hugging Face's metadata call the classes, made different: ImageNet's are WNIDs here."""
    try:
        names = json.loads(metadata[b"huggingface"])["info"]["features"][label]["names"]
    except (KeyError, ValueError, TypeError):
        return ()
    imagenet = classes.imagenet()
    alike = sum(name.split(",")[0] == known.split(",")[0] for name, known in zip(names, imagenet.names, strict=False))
    if len(names) == len(imagenet.ids) and alike >= _ALIKE * len(names):
        return imagenet.ids
    count = Counter(names)
    return tuple(name if count[name] == 1 else f"{name} ({number})" for number, name in enumerate(names))


def _arranged(known: set[str], names: tuple[str, ...], options: Options) -> naming.Naming:
    """Classes in the order of the file's names where it has them and no other is asked for."""
    if options.classes or not known <= set(names):
        return naming.arrange(known, options.classes)
    imagenet = classes.imagenet()
    called = naming.short(dict(zip(imagenet.ids, imagenet.names, strict=True)))
    ids = tuple(name for name in names if name in known)
    return naming.Naming(ids, tuple(called.get(word, word) for word in ids), {word: i for i, word in enumerate(ids)})


def _word(label: Any, names: tuple[str, ...]) -> str:
    """What a label calls its class; empty for none."""
    if label is None or isinstance(label, int) and label < 0:
        return ""
    return names[label] if isinstance(label, int) and label < len(names) else str(label).strip()


def _words(table: _Table) -> Iterator[str]:
    with _opened(table.path) as file:
        for batch in file.iter_batches(columns=[table.label]):
            yield from (_word(label, table.names) for label in batch[table.label].to_pylist())


def _examples(tables: list[_Table], labels: Mapping[str, int]) -> Iterator[Example]:
    for table in tables:
        with _opened(table.path) as file:
            rows = (row for batch in file.iter_batches(_READ_AT_ONCE, columns=[table.image, table.label])
                    for row in batch.to_pylist())
            for number, row in enumerate(rows):
                image, word = row[table.image], _word(row[table.label], table.names)
                data, path = (image.get("bytes"), image.get("path")) if isinstance(image, dict) else (image, None)
                if word:
                    yield Example(data or b"", labels[word], posixpath.basename(path or f"{table.path.stem}_{number}"))


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[parquet.ParquetFile]:
    try:
        with parquet.ParquetFile(path) as file:
            yield file
    except (OSError, ValueError) as error:  # pyarrow's own are ValueErrors
        raise UserError(f"{path} cannot be read: {str(error).rstrip('.')}. It is damaged, cut short, or no Parquet "
                        "file; download it again.") from error
