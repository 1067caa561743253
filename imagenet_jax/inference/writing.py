"""Predictions on paper: JSON lines or CSV, features beside them; labels for people to look through."""

import contextlib
import csv
import json
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any, TextIO

import numpy as np

from imagenet_jax import durable
from imagenet_jax.classes import Classes
from imagenet_jax.errors import UserError
from imagenet_jax.inference.predict import Prediction

Write = Callable[[Prediction], None]


@contextlib.contextmanager
def lines(out: str, form: str, classes: Classes, topk: int) -> Iterator[Write]:
    """Yields what writes a prediction as a line into the file `out`, by default to stdout.

    form: 'json', an object a line: `file`, and `top`, a list of {label, id, name, probability}, best first, or `error`;
    `mended`, where the picture was. 'csv', with a heading: file, error, mended, then label_1, id_1, name_1,
    probability_1, ... up to `topk`.
    """
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(_created(out)) if out else sys.stdout
        yield (_csv if form == "csv" else _json)(file, classes, min(topk, len(classes.ids)))
        file.flush()


@contextlib.contextmanager
def proposals(path: str, classes: Classes) -> Iterator[Write]:
    """Yields what keeps a prediction as a row of a CSV that `prepare --images` reads: path, label, confidence, ...

    The least certain come first, before them those with an error, which have no label; the second best class stands
    beside each. Paths are relative to the CSV. Without an error in between it is there once all are known.

    Raises:
        UserError: there is such a file already, which somebody may have been working on.
    """
    if os.path.exists(path):
        raise UserError(f"{path} is there already, perhaps corrected by hand: remove it, or choose another name")
    folder, rows = os.path.realpath(os.path.dirname(path)), []
    yield lambda prediction: rows.append(_proposal(prediction, classes, folder))
    os.makedirs(folder, exist_ok=True)
    with durable.create(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["path", "label", "confidence", "name", "second", "second_name", "error"])
        writer.writerows(sorted(rows, key=lambda row: (float(row[2] or -1), row[0])))


@contextlib.contextmanager
def features(path: str, count: int) -> Iterator[Write]:
    """Yields what keeps the features of a prediction: float32 [count, D] in a .npy file, a row for each line.

    NaN where a line has an error; there is no file if all have.
    """
    rows, place = None, 0

    def keep(prediction: Prediction) -> None:
        nonlocal rows, place
        if prediction.features is not None:
            if rows is None:
                os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
                rows = np.lib.format.open_memmap(path, "w+", np.float32, (count, len(prediction.features)))
                rows[:] = np.nan
            rows[place] = prediction.features
        place += 1

    yield keep
    if rows is not None:
        rows.flush()


def top(prediction: Prediction, classes: Classes) -> list[dict[str, Any]]:
    """The best classes of a prediction, with what people call them."""
    return [{"label": label, "id": classes.ids[label], "name": classes.names[label].split(",")[0] or classes.ids[label],
             "probability": round(probability, 6)}
            for label, probability in zip(prediction.labels.tolist(), prediction.probabilities.tolist(), strict=True)]


def said(prediction: Prediction, classes: Classes) -> dict[str, Any]:
    """A prediction as an object of JSON, see `lines`."""
    picture = prediction.picture
    found = {"error": picture.fault} if picture.fault else {"top": top(prediction, classes)}
    return {"file": picture.name} | found | ({"mended": picture.mended} if picture.mended else {})


def _proposal(prediction: Prediction, classes: Classes, folder: str) -> list[str]:
    """A row of `proposals`."""
    place, name = os.path.split(prediction.picture.name)
    path = os.path.relpath(os.path.join(os.path.realpath(place), name), folder)
    fault = prediction.picture.fault or ("" if os.path.isfile(prediction.picture.name) else
                                         "no file of that name, as prepare reads them")
    if fault:
        return [path, "", "", "", "", "", fault]
    best, second = (top(prediction, classes) + [{"id": "", "name": ""}])[:2]
    return [path, best["id"], f"{best['probability']:.6f}", best["name"], second["id"], second["name"], ""]


def _created(path: str) -> TextIO:
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    return open(path, "w", newline="", encoding="utf-8")


def _json(file: TextIO, classes: Classes, topk: int) -> Write:
    def write(prediction: Prediction) -> None:
        print(json.dumps(said(prediction, classes), ensure_ascii=False), file=file)

    return write


def _csv(file: TextIO, classes: Classes, topk: int) -> Write:
    keys = ("label", "id", "name", "probability")
    writer = csv.writer(file)
    writer.writerow(["file", "error", "mended", *(f"{key}_{rank}" for rank in range(1, topk + 1) for key in keys)])

    def write(prediction: Prediction) -> None:
        picture = prediction.picture
        best = [] if picture.fault else top(prediction, classes)
        writer.writerow([picture.name, picture.fault, picture.mended, *(row[key] for row in best for key in keys)]
                        + [""] * len(keys) * (topk - len(best)))

    return write
