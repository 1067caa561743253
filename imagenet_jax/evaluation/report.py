"""An evaluation on paper: results.json, report.txt, confusion.png, predictions.csv."""

import csv
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from sklearn.metrics import (
    classification_report,
    confusion_matrix,
    precision_recall_fscore_support,
)

from imagenet_jax.errors import UserError
from imagenet_jax.evaluation import exact

_SCORES = ("precision", "recall", "f1-score", "support")


def write_evaluation(
    out_dir: str,
    predictions: exact.Predictions,
    classes: Sequence[str],
    *,
    class_names: Sequence[str] | None = None,
    file_names: Sequence[str] | None = None,
    protocol: Mapping[str, Any],
) -> dict[str, Any]:
    """Writes what is known of an evaluation into `out_dir`; on one host only.

    Args:
        out_dir: made if missing; earlier results in it are replaced.
        predictions: of N examples.
        classes: the name of each label, all different (wnids).
        class_names: what people call them.
        file_names: N names, in the order of `predictions`.
        protocol: how the predictions came to be (dataset, split, crop, precision, checkpoint, ...).

    Returns:
        What results.json holds: `metrics`, `protocol`, `averages` (micro, macro, weighted), `per_class` and
        `most_confused`. A class without examples has scores of 0 and counts as such in the macro average;
        `classes_without_examples` says how many there are.

    Raises:
        UserError: a label or a prediction has no class.
    """
    largest = int(max(predictions.label.max(), predictions.top5.max()))
    if largest >= len(classes):
        raise UserError(
            f"label {largest} was seen or predicted, but the dataset has {len(classes)} classes: "
            "evaluate the model on the classes it was trained on"
        )
    os.makedirs(out_dir, exist_ok=True)
    names = [
        wnid if name in ("", wnid) else f"{wnid} {name.split(',')[0]}"
        for wnid, name in zip(classes, class_names or classes, strict=True)
    ]
    matrix = confusion_matrix(predictions.label, predictions.top5[:, 0], labels=range(len(classes)))
    averages, per_class, text = _scores(predictions, classes, names)
    results = {
        "metrics": exact.metrics(predictions),
        "protocol": dict(protocol),
        "averages": averages,
        "classes_without_examples": int((matrix.sum(axis=1) == 0).sum()),
        "most_confused": _most_confused(matrix, names),
        "per_class": per_class,
    }
    with open(os.path.join(out_dir, "results.json"), "w", encoding="utf-8") as file:
        json.dump(results, file, indent=1)
        file.write("\n")
    with open(os.path.join(out_dir, "report.txt"), "w", encoding="utf-8") as file:
        file.write(_headline(results) + "\n" + text)
    _draw_confusion(os.path.join(out_dir, "confusion.png"), matrix, names, results)
    _write_predictions(os.path.join(out_dir, "predictions.csv"), predictions, file_names)
    return results


def _scores(
    predictions: exact.Predictions, classes: Sequence[str], names: Sequence[str]
) -> tuple[dict[str, dict[str, float]], list[dict[str, Any]], str]:
    """scikit-learn's report as averages, as one entry a class, and as text."""
    label, predicted = predictions.label, predictions.top5[:, 0]
    kwargs = {"labels": range(len(classes)), "zero_division": 0}
    # scikit-learn leaves the micro average out of its report where it equals the accuracy.
    micro = precision_recall_fscore_support(label, predicted, average="micro", **kwargs)
    micro = dict(zip(_SCORES, (*map(float, micro[:3]), len(label)), strict=True))
    table = classification_report(label, predicted, output_dict=True, **kwargs)
    text = classification_report(label, predicted, target_names=names, digits=4, **kwargs)
    width = max(*map(len, names), len("weighted avg"))
    row = "{:>{width}} " + " {:9.4f}" * 3 + " {:9}\n"
    text += row.format("micro avg", *micro.values(), width=width)
    averages = {"micro": micro, "macro": table["macro avg"], "weighted": table["weighted avg"]}
    averages = {kind: {**row, "support": int(row["support"])} for kind, row in averages.items()}
    per_class = [
        {"label": i, "class": wnid, "name": names[i], **table[str(i)]}
        | {"support": int(table[str(i)]["support"])}
        for i, wnid in enumerate(classes)
    ]
    return averages, per_class, text


def _most_confused(matrix: np.ndarray, names: Sequence[str], most: int = 20) -> list[dict]:
    """The commonest mistakes, largest first: label, predicted, count."""
    wrong = matrix - np.diag(np.diag(matrix))
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    pairs = zip(*np.unravel_index(order, wrong.shape), strict=True)
    return [
        {"label": names[i], "predicted": names[j], "count": int(wrong[i, j])}
        for i, j in pairs
        if wrong[i, j]
    ]


def _headline(results: Mapping[str, Any]) -> str:
    scores = results["metrics"]
    hits = f"{scores['correct1']} of {scores['seen']}"
    top = f"top-1 {scores['top1']:.2%} ({hits})   top-5 {scores['top5']:.2%}"
    lines = [f"{top}   loss {scores['loss']:.4f}"]
    lines += [f"{key}: {value}" for key, value in results["protocol"].items()]
    if results["classes_without_examples"]:
        lines.append(f"classes without examples: {results['classes_without_examples']}")
    return "\n".join(lines) + "\n"


def _draw_confusion(
    path: str, matrix: np.ndarray, names: Sequence[str], results: Mapping[str, Any]
) -> None:
    """Rows are labels, columns predictions, shades the share of the row, white is never."""
    classes = len(names)
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    inches = float(np.clip(0.45 * classes, 5, 11))
    figure = Figure(figsize=(inches + 2, inches + 1), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    # The square root keeps the few per cent of a common mistake visible beside the diagonal.
    shade = np.where(matrix > 0, np.sqrt(share), np.nan)
    image = axes.imshow(shade, cmap="magma_r", vmin=0, vmax=1, interpolation="nearest")
    bar = figure.colorbar(image, ax=axes, shrink=0.8, label="share of the label's examples")
    ticks = np.array([0, 0.01, 0.05, 0.1, 0.25, 0.5, 1])
    bar.set_ticks(np.sqrt(ticks), labels=[f"{tick:.0%}" for tick in ticks])
    if classes <= 60:
        short = [name if len(name) <= 28 else name[:27] + "…" for name in names]
        size = 9 if classes <= 25 else 7
        axes.set_xticks(range(classes), short, rotation=90, fontsize=size)
        axes.set_yticks(range(classes), short, fontsize=size)
    if classes <= 25:
        for i, j in np.argwhere(matrix):
            ink = "white" if share[i, j] > 0.3 else "black"
            axes.text(j, i, matrix[i, j], ha="center", va="center", fontsize=8, color=ink)
    axes.set(xlabel="predicted", ylabel="label")
    scores = results["metrics"]
    axes.set_title(f"top-1 {scores['top1']:.2%} of {scores['seen']} examples, {classes} classes")
    figure.savefig(path)


def _write_predictions(
    path: str, predictions: exact.Predictions, file_names: Sequence[str] | None
) -> None:
    """One example a row; `top5` is label numbers, best first, with a space between."""
    if file_names is None:
        file_names = [""] * len(predictions.index)
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        columns = ("index", "file_name", "label", "predicted", "confidence", "loss", "top5")
        writer.writerow(columns)
        for name, index, label, loss, top5, confidence in zip(
            file_names, *predictions, strict=True
        ):
            best = " ".join(map(str, top5))
            numbers = (f"{confidence:.6f}", f"{loss:.6f}")
            writer.writerow((index, name, label, top5[0], *numbers, best))
