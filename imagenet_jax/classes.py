"""Classes have names: those of ImageNet's 1000, and how a dataset's classes are found among a model's."""

import functools
import pathlib
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from imagenet_jax.errors import UserError


class Classes(NamedTuple):
    """Classes in the order of their labels. ids: all different, such as WNIDs; names: what people call them."""

    ids: tuple[str, ...]
    names: tuple[str, ...]


@functools.cache
def imagenet() -> Classes:
    """The 1000 classes of ILSVRC2012 in the order of their labels everywhere: WNIDs sorted, and the synsets' words."""
    lines = pathlib.Path(__file__).with_name("imagenet_classes.tsv").read_text(encoding="utf-8").splitlines()
    ids, names = zip(*(line.split("\t") for line in lines), strict=True)
    return Classes(ids, names)


class Joined(NamedTuple):
    """Where each class of a dataset is among a model's: columns int32 [C] of its logits. how: 'name' or 'number'."""

    columns: np.ndarray
    how: str


def join(ours: Classes, theirs: Classes, remedy: str = "Finetune it on this dataset (init_from)") -> Joined:
    """Where each class of a dataset is among the classes of a model.

    A class is found by its id, else by what it or its id is called: upper and lower case are alike, and so are spaces,
    hyphens and underscores. Classes that are all called by whole numbers, none of which the model knows, are labels.

    Args:
        remedy: what to do about classes that the model has not.

    Raises:
        UserError: classes that the model has not, has more than one of that name, or that are one to it; lists them.
    """
    by_id = {word: label for label, word in enumerate(theirs.ids)}
    by_name: dict[str, set[int]] = {}
    for label, names in enumerate(theirs.names):
        for name in names.split(","):
            by_name.setdefault(_key(name), set()).add(label)
    found = []
    for word, names in zip(ours.ids, ours.names, strict=True):
        named = set().union(*(by_name.get(_key(name), set()) for name in (word, *names.split(","))))
        found.append({by_id[word]} if word in by_id else named)
    if not any(found) and all(word.isdecimal() and int(word) < len(theirs.ids) for word in ours.ids):
        return Joined(np.array(ours.ids, np.int32), "number")
    lost = [word for word, labels in zip(ours.ids, found, strict=True) if len(labels) != 1]
    if lost:
        several = [f"{word} ({' or '.join(theirs.ids[label] for label in sorted(labels))})"
                   for word, labels in zip(ours.ids, found, strict=True) if len(labels) > 1]
        hint = f"; more than one is called {_some(several)}: name the folder by its id" if several else ""
        raise UserError(f"the model has no class {_some(lost)} of the dataset; it has {len(theirs.ids)}: "
                        f"{_some(theirs.ids)}{hint}. {remedy}")
    columns = [label for (label,) in found]
    if len(set(columns)) < len(columns):
        same = [word for word, label in zip(ours.ids, columns, strict=True) if columns.count(label) > 1]
        raise UserError(f"the classes {_some(same)} of the dataset are one to the model: join their folders")
    return Joined(np.array(columns, np.int32), "name")


def find(word: str, classes: Classes) -> int:
    """The label of the class that a word means, by its id or one of its names, as `join` finds them.

    Raises:
        UserError: no class is called so, or more than one.
    """
    called = lambda label: map(_key, (classes.ids[label], *classes.names[label].split(",")))
    found = [classes.ids.index(word)] if word in classes.ids else [
        label for label in range(len(classes.ids)) if _key(word) in called(label)]
    if len(found) != 1:
        several = f"what {_some([classes.ids[label] for label in found])} are called: give one of these ids"
        raise UserError(f"{word!r} is {several if found else f'no class; there are {_some(classes.ids)}'}")
    return found[0]


def _key(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", name.strip()).casefold()


def _some(words: Sequence[str], most: int = 5) -> str:
    more = f", ... ({len(words)} in all)" if len(words) > most else ""
    return ", ".join(map(str, words[:most])) + more
