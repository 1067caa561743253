"""An evaluation on paper: results.json, report.md and .html, report.txt, confusion.png, predictions.csv."""

import csv
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from sklearn.metrics import classification_report, precision_recall_fscore_support

from imagenet_jax import durable
from imagenet_jax.classes import Classes
from imagenet_jax.dataset import Records
from imagenet_jax.errors import UserError
from imagenet_jax.evaluation import confusion, exact, mistakes, summary

_SCORES = ("precision", "recall", "f1-score", "support")
_MOST_CONFUSED = 20  # in results.json


def write_evaluation(out_dir: str, predictions: exact.Predictions, classes: Classes, *,
                     file_names: Sequence[str] | None = None, records: Records | None = None,
                     protocol: Mapping[str, Any]) -> dict[str, Any]:
    """Writes what is known of an evaluation into `out_dir`; on one host only.

    Takes memory in proportion to examples and classes, never to the square of classes.

    Args:
        out_dir: made if missing; earlier results in it are replaced.
        predictions: of N examples.
        classes: of the labels.
        file_names: N names, in the order of `predictions`.
        records: where the pictures of mistakes are read, by `predictions.index`.
        protocol: how the predictions came to be (dataset, split, crop, precision, checkpoint, ...).

    Returns:
        What results.json holds: `metrics`, `protocol`, `averages` (micro, macro, weighted), `per_class`,
        `most_confused` and `confident_mistakes`. A class without examples has scores of 0 and counts as such in the
        macro average; `classes_without_examples` says how many there are.

    Raises:
        UserError: a label or a prediction has no class.
    """
    largest = int(max(predictions.label.max(), predictions.top5.max()))
    if largest >= len(classes.ids):
        raise UserError(f"label {largest} was seen or predicted, but the dataset has {len(classes.ids)} classes: "
                        "evaluate the model on the classes it was trained on")
    os.makedirs(out_dir, exist_ok=True)
    names = [wnid if name in ("", wnid) else f"{wnid} {name.split(',')[0]}"
             for wnid, name in zip(*classes, strict=True)]
    counts = confusion.count(predictions.label, predictions.top5[:, 0], len(names))
    wrong = [column[:_MOST_CONFUSED].tolist() for column in confusion.mistakes(counts)[:3]]
    averages, per_class, text = _scores(predictions, classes.ids, names)
    file_names = file_names or [""] * len(predictions.index)
    surest = mistakes.most_confident(predictions)
    results = {
        "metrics": exact.metrics(predictions),
        "protocol": dict(protocol),
        "averages": averages,
        "classes_without_examples": int((counts.examples == 0).sum()),
        "most_confused": [{"label": names[i], "predicted": names[j], "count": count}
                          for i, j, count in zip(*wrong, strict=True)],
        "confident_mistakes": [
            {"index": int(predictions.index[row]), "file_name": file_names[row], "label": names[predictions.label[row]],
             "predicted": names[predictions.top5[row, 0]], "confidence": float(predictions.confidence[row])}
            for row in surest],
        "per_class": per_class,
    }
    with durable.create(os.path.join(out_dir, "results.json")) as file:
        json.dump(results, file, indent=1)
        file.write("\n")
    with open(os.path.join(out_dir, "report.txt"), "w", encoding="utf-8") as file:
        file.write(_headline(results) + "\n" + text)
    heading = f"top-1 {results['metrics']['top1']:.2%} of {results['metrics']['seen']:,} examples"
    confusion.draw(os.path.join(out_dir, "confusion.png"), counts, classes.ids, names, heading)
    _write_predictions(os.path.join(out_dir, "predictions.csv"), predictions, file_names)
    if records is not None:
        mistakes.draw(out_dir, predictions.index[surest], records)
    summary.write(out_dir, results)
    return results


def _scores(predictions: exact.Predictions, classes: Sequence[str],
            names: Sequence[str]) -> tuple[dict[str, dict[str, float]], list[dict[str, Any]], str]:
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
    rows = (table[str(i)] for i in range(len(classes)))
    per_class = [{"label": i, "class": classes[i], "name": names[i], **row, "support": int(row["support"])}
                 for i, row in enumerate(rows)]
    return averages, per_class, text


def _headline(results: Mapping[str, Any]) -> str:
    scores = results["metrics"]
    lines = [f"top-1 {scores['top1']:.2%} ({scores['correct1']} of {scores['seen']})   top-5 {scores['top5']:.2%}   "
             f"loss {scores['loss']:.4f}"]
    lines += [f"{key}: {value}" for key, value in results["protocol"].items()]
    if results["classes_without_examples"]:
        lines.append(f"classes without examples: {results['classes_without_examples']}")
    return "\n".join(lines) + "\n"


def _write_predictions(path: str, predictions: exact.Predictions, file_names: Sequence[str]) -> None:
    """One example a row; `top5` is label numbers, best first, with a space between."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("index", "file_name", "label", "predicted", "confidence", "loss", "top5"))
        for name, index, label, loss, top5, confidence in zip(file_names, *predictions, strict=True):
            best = " ".join(map(str, top5))
            writer.writerow((index, name, label, top5[0], f"{confidence:.6f}", f"{loss:.6f}", best))
