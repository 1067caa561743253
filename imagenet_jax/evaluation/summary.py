"""An evaluation in words: what a reader wants to know first, from what results.json holds."""

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from imagenet_jax import markdown
from imagenet_jax.evaluation import mistakes
from imagenet_jax.markdown import plain

_WORST = 20  # classes


def write(out_dir: str, results: Mapping[str, Any]) -> None:
    """Writes OUT_DIR/report.md and report.html; confusion.png and the pictures of mistakes lie there already."""
    scores = results["metrics"]
    parts = {"Most confident mistakes": _mistakes(out_dir, results["confident_mistakes"]),
             "Worst classes": _worst(results["per_class"]),
             "Most confused pairs": _pairs(results["most_confused"]),
             "Confusion": ("", "![which classes are taken for which](confusion.png)"),
             "Averages": ("", _averages(results)),
             "Protocol": ("", markdown.table(("what", "value"), [(key, plain(str(value))) for key, value
                                                                 in results["protocol"].items()], words=2))}
    text = [f"# {_title(results['protocol'])}",
            f"**Top-1 {scores['top1']:.2%}** ({scores['correct1']:,} of {scores['seen']:,}), top-5 {scores['top5']:.2%}"
            f", loss {scores['loss']:.4f}.",
            "\n".join(f"- [{title}](#{title.lower().replace(' ', '-')}){first and ': '}{first}"
                      for title, (first, _) in parts.items()),
            *(f"## {title}\n\n{body}" for title, (_, body) in parts.items())]
    markdown.write(os.path.join(out_dir, "report.md"), "\n\n".join(text) + "\n")


def _title(protocol: Mapping[str, Any]) -> str:
    split = "/".join(str(protocol[key]) for key in ("dataset", "split") if key in protocol)
    return plain(" on ".join(filter(None, (str(protocol.get("model", "")), split))) or "Evaluation")


def _mistakes(out_dir: str, found: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    """In a line, and as a list of pictures, true and predicted class, and the probability of that."""
    if not found:
        return "none", "None."
    return (f"{plain(found[0]['label'])} taken for {plain(found[0]['predicted'])} at {found[0]['confidence']:.1%}",
            "What the model is surest of and yet wrong about; it may also be the label that is wrong.\n\n"
            + "\n".join(_cells(out_dir, found)))


def _cells(out_dir: str, found: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for each in found:
        label, predicted, name = (plain(each[key]) for key in ("label", "predicted", "file_name"))
        path = f"{mistakes.FOLDER}/{each['index']}.jpg"
        picture = f"![{label}]({path}) " if os.path.exists(os.path.join(out_dir, path)) else ""
        yield f"- {picture}{label}, taken for **{predicted}** at {each['confidence']:.1%} ({name or each['index']})"


def _worst(per_class: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    """By recall, which is the class's own top-1."""
    rows = sorted((row for row in per_class if row["support"] and row["recall"] < 1), key=lambda row: row["recall"])
    if not rows:
        return "none", "Every example of every class is right."
    first = f"{plain(rows[0]['name'])}, of which {rows[0]['recall']:.1%} are right"
    cells = [(plain(row["name"]), f"{row['recall']:.1%}", f"{row['precision']:.1%}", f"{row['f1-score']:.3f}",
              f"{row['support']:,}") for row in rows[:_WORST]]
    return first, (markdown.table(("class", "recall", "precision", "F1", "examples"), cells)
                   + "\n\nAll classes are in report.txt and results.json.")


def _pairs(found: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    if not found:
        return "none", "None."
    cells = [(plain(each["label"]), plain(each["predicted"]), f"{each['count']:,}") for each in found]
    return (f"{cells[0][0]} taken for {cells[0][1]}, {cells[0][2]} times",
            markdown.table(("class", "taken for", "examples"), cells, words=2))


def _averages(results: Mapping[str, Any]) -> str:
    rows = [(kind, *(f"{row[key]:.4f}" for key in ("precision", "recall", "f1-score")))
            for kind, row in results["averages"].items()]
    without = results["classes_without_examples"]
    note = f"\n\n{without:,} classes have no example; they count as 0 in the macro average." if without else ""
    return markdown.table(("average", "precision", "recall", "F1"), rows) + note
