"""Which classes are taken for which: counted sparsely, for ImageNet-21k's whole matrix would take gigabytes."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure

WHOLE = 100  # classes up to which all of the matrix is drawn
PART = 40  # classes drawn where there are more
_INCHES = (5, 11)  # least and most for a side of the matrix


class Confusion(NamedTuple):
    """The P different (label, predicted) that occur, in ascending order, and how often.

    label, predicted, count: int64 [P]. examples: int64 [K], how many of each class there are.
    """

    label: np.ndarray
    predicted: np.ndarray
    count: np.ndarray
    examples: np.ndarray


def count(label: np.ndarray, predicted: np.ndarray, classes: int) -> Confusion:
    """Counts int [N] labels and predictions, both below `classes`, in O(N log N + classes)."""
    cells, counts = np.unique(label.astype(np.int64) * classes + predicted, return_counts=True)
    return Confusion(*np.divmod(cells, classes), counts, np.bincount(label, minlength=classes))


def mistakes(confusion: Confusion) -> Confusion:
    """Without the right predictions, commonest first, equally common ones in the order of their classes."""
    wrong = np.flatnonzero(confusion.label != confusion.predicted)
    wrong = wrong[np.argsort(-confusion.count[wrong], kind="stable")]
    return confusion._replace(**{name: getattr(confusion, name)[wrong] for name in ("label", "predicted", "count")})


def draw(path: str, confusion: Confusion, classes: Sequence[str], names: Sequence[str], heading: str) -> None:
    """Writes a picture: rows are labels, columns predictions, shades the share of the label, white is never.

    Beyond WHOLE classes it shows PART of them, those that the commonest mistakes are between, and its title says so.

    Args:
        path: of the picture.
        confusion: of K classes.
        classes: K, which stand for names that the font cannot draw.
        names: K.
        heading: of the title.
    """
    shown, title = _shown(confusion)
    place = np.full(len(names), -1)
    place[shown] = range(len(shown))
    row, column = place[confusion.label], place[confusion.predicted]
    inside = (row >= 0) & (column >= 0)
    matrix = np.zeros((len(shown), len(shown)), np.int64)
    matrix[row[inside], column[inside]] = confusion.count[inside]
    share = matrix / np.maximum(confusion.examples[shown, None], 1)

    inches = float(np.clip(0.45 * len(shown), *_INCHES))
    figure = Figure(figsize=(inches + 2, inches + 1), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    # The square root keeps the few per cent of a common mistake visible beside the diagonal.
    shade = np.where(matrix > 0, np.sqrt(share), np.nan)
    image = axes.imshow(shade, cmap="magma_r", vmin=0, vmax=1, interpolation="nearest")
    bar = figure.colorbar(image, ax=axes, shrink=0.8, label="share of the label's examples")
    ticks = np.array([0, 0.01, 0.05, 0.1, 0.25, 0.5, 1])
    bar.set_ticks(np.sqrt(ticks), labels=[f"{tick:.0%}" for tick in ticks])
    _name_ticks(axes, [_drawable(names[i], classes[i], i) for i in shown])
    if len(shown) <= PART:
        for i, j in np.argwhere(matrix):
            axes.text(j, i, matrix[i, j], ha="center", va="center", fontsize=8 if len(shown) <= 25 else 6,
                      color="white" if share[i, j] > 0.3 else "black")
    axes.set(xlabel="predicted", ylabel="label")
    axes.set_title(f"{heading}, {title}")
    figure.savefig(path)


def _shown(confusion: Confusion) -> tuple[np.ndarray, str]:
    """The classes to draw, ascending, and what to call them."""
    classes = len(confusion.examples)
    if classes <= WHOLE:
        return np.arange(classes), f"{classes} classes"
    wrong = mistakes(confusion)
    pairs = np.stack([wrong.label, wrong.predicted], axis=1).ravel()
    confused, first = np.unique(pairs, return_index=True)
    if not len(confused):
        return np.arange(PART), f"no mistakes\nthe first {PART} of {classes:,} classes"
    shown = np.sort(confused[np.argsort(first)][:PART])
    return shown, f"{classes:,} classes\nonly the {len(shown)} classes that the commonest mistakes are between"


def _name_ticks(axes: Axes, names: Sequence[str]) -> None:
    short = [name if len(name) <= 28 else name[:27] + "…" for name in names]
    size = 9 if len(names) <= 25 else 7 if len(names) <= 60 else 5
    # A name may hold dollars, which would otherwise open a formula.
    axes.set_xticks(range(len(names)), short, rotation=90, fontsize=size, parse_math=False)
    axes.set_yticks(range(len(names)), short, fontsize=size, parse_math=False)


def _drawable(name: str, class_id: str, label: int) -> str:
    """The first of them that the font has every character of."""
    font = font_manager.get_font(font_manager.findfont(font_manager.FontProperties()))
    return next((text for text in (name, class_id) if all(font.get_char_index(ord(letter)) for letter in text)),
                f"class {label}")
