"""Classes by name: from what their folders are called, or from a file that lists them, to labels."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from imagenet_jax.errors import UserError
from imagenet_jax.prepare.sources.tars import printable, some


class Naming(NamedTuple):
    """Classes in label order: ids, what people call them, and the label of each folder or word that means one."""

    ids: tuple[str, ...]
    names: tuple[str, ...]
    labels: dict[str, int]


def arrange(words: Iterable[str], file: str | None = None) -> Naming:
    """Gives each class a label: by the order of `file`, else of numbers where all words are, else of strings.

    Args:
        words: what folders or labels call the classes, each once.
        file: one class a line, `ID<TAB>NAME`, `WNID NAME` or `ID`. Words are found there by ID or NAME; if not all
            are and all are numbers, n means the (n+1)-th line. Lines that no word means are left out.

    Raises:
        UserError: words that `check` refuses, or that the file does not have once.
    """
    words = check(words)
    numbers = bool(words) and all(re.fullmatch(r"[0-9]+", word) for word in words)
    if numbers and (twice := [number for number, count in Counter(map(int, words)).items() if count > 1]):
        raise UserError(f"Classes are numbers, but {some(word for word in words if int(word) in twice)} are the same "
                        "number. Rename or join them.")
    if file is None:
        ordered = sorted(words, key=int if numbers else None)
        return Naming(tuple(ordered), tuple(ordered), {word: label for label, word in enumerate(ordered)})
    listed = read_classes(file)
    places = _by_number(words, listed, file) if numbers and not listed.keys() >= set(words) else _by_word(
        words, listed, file)
    ids, labels = list(listed), {place: label for label, place in enumerate(sorted(set(places.values())))}
    return Naming(tuple(ids[place] for place in labels), tuple(listed[ids[place]] for place in labels),
                  {word: labels[place] for word, place in places.items()})


def check(words: Iterable[str]) -> list[str]:
    """The names of classes as a list.

    Raises:
        UserError: one that cannot be written on a line of UTF-8, or two that some file systems take for one.
    """
    words, seen = list(words), {}
    for word in words:
        if printable(word) != word or not word.strip() or re.search(r"[\0-\x1f\x7f]", word):
            raise UserError(f"A class is called {ascii(word)}, which is not a line of UTF-8. Rename it.")
        key = unicodedata.normalize("NFC", word).casefold()
        if other := seen.get(key):
            raise UserError(f"The classes {other} and {word} ({ascii(other)} and {ascii(word)}) differ only in upper "
                            "and lower case, or in how Unicode spells them. Rename or join them.")
        seen[key] = word
    return words


def read_classes(path: str) -> dict[str, str]:
    """ID -> NAME of a file of classes, in its order; Kaggle's LOC_synset_mapping.txt is one.

    Raises:
        UserError: no such file, not UTF-8, empty, an empty line, or one ID twice.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").rstrip().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"The file of classes {path} cannot be read: {error}.") from error
    listed = {}
    for number, line in enumerate(lines, 1):
        separator = "\t" if "\t" in line else " " if re.match(r"n\d{8} ", line) else None
        word, _, name = (part.strip() for part in line.partition(separator or "\n"))
        if not word or word in listed:
            raise UserError(f"{path}, line {number}: {f'{word} is listed before' if word else 'no class'}. Give one "
                            "class a line: ID<TAB>NAME, or ID alone.")
        listed[word] = name or word
    if not listed:
        raise UserError(f"{path} lists no classes. Give one a line: ID<TAB>NAME, or ID alone.")
    return listed


def short(names: Mapping[str, str]) -> dict[str, str]:
    """The first of each class's comma-separated names, with the id behind it where two classes share it."""
    first = {word: text.split(",")[0] for word, text in names.items()}
    repeated = Counter(first.values())  # ImageNet has two cranes and two maillots
    return {word: name if repeated[name] == 1 else f"{name} ({word})" for word, name in first.items()}


def _by_number(words: list[str], listed: Mapping[str, str], file: str) -> dict[str, int]:
    if beyond := [word for word in words if int(word) >= len(listed)]:
        raise UserError(f"{file} lists {len(listed)} classes, so the last number is {len(listed) - 1}; there is "
                        f"{some(beyond)}.")
    return {word: int(word) for word in words}


def _by_word(words: list[str], listed: Mapping[str, str], file: str) -> dict[str, int]:
    meant: dict[str, set[int]] = {}
    for place, name in enumerate(listed.values()):
        for called in {name, *(part.strip() for part in name.split(","))}:
            meant.setdefault(called, set()).add(place)
    found = {word: {place} for place, word in enumerate(listed)}
    places = {word: found.get(word) or meant.get(word, set()) for word in words}
    if unknown := [word for word in words if not places[word]]:
        raise UserError(f"{file} has no class {some(unknown)}, neither as ID nor as NAME; it lists "
                        f"{some(listed)}. Rename the folder, or add a line.")
    if vague := [word for word in words if len(places[word]) > 1]:
        raise UserError(f"{file} has more than one class called {some(vague)}. Call the folder by its ID.")
    chosen = {word: min(places[word]) for word in words}
    if twice := [place for place, count in Counter(chosen.values()).items() if count > 1]:
        raise UserError(f"{some(word for word in words if chosen[word] in twice)} are one class in {file}. Join the "
                        "folders.")
    return chosen
