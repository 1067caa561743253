"""What cleaning found, for people: report.md with the worst cases of every flag as pictures."""

import io
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from PIL import Image, ImageFile

from imagenet_jax import markdown
from imagenet_jax.cleaning import flags, measure
from imagenet_jax.dataset import Dataset, Records, features

_COLUMNS, _MOST = 8, 32  # cells of a picture, of one example or of a pair


def write(out: str, dataset: Dataset, records: Mapping[str, Records], found: Mapping[str, flags.Found],
          names: Mapping[int, tuple[str, int]], header: Mapping[str, Any]) -> str:
    """Writes OUT/report.md, OUT/report.html and OUT/pictures/FLAG.png; returns the path of the report.

    Args:
        found: as `clean.find` gives it. names: file name and label of every flagged row. header: the manifest's.
    """
    os.makedirs(os.path.join(out, "pictures"), exist_ok=True)
    lines = [f"# Cleaning {markdown.plain(dataset.name)}", "",
             "Nothing was deleted or altered. Look at the pictures, then leave out of training what should be:", "",
             f"    --config.dataset.exclude={os.path.join(out, 'manifest.jsonl')}",
             "    --config.dataset.exclude_flags=\"('exact_duplicate', 'leak')\"    # or () for every flag", "",
             _table(dataset, found, header), ""]
    if "label_error" not in found:
        lines += ["Label errors were not looked for: they need out-of-fold probabilities (--probabilities)."]
    for flag, each in found.items():
        lines += ["", f"## {flag}", "", _meaning(flag) + "."]
        path = os.path.join(out, "pictures", f"{flag}.png")
        if os.path.exists(path):
            os.remove(path)
        if not len(each.rows):
            lines += ["", "None."]
            continue
        if flag == "label_error":
            lines += ["", _confusions(dataset, each, names, header)]
        worst = np.argsort(-each.severity, kind="stable")[:_MOST]
        _draw(path, [_cell(dataset, records, flag, each, i) for i in worst])
        lines += ["", f"The {len(worst)} clearest of {len(each.rows):,}:", "", f"![{flag}](pictures/{flag}.png)"]
    path = os.path.join(out, "report.md")
    markdown.write(path, "\n".join(lines) + "\n")
    return path


def _table(dataset: Dataset, found: Mapping[str, flags.Found], header: Mapping[str, Any]) -> str:
    rows = []
    for flag in found:
        counts = header["counts"][flag]
        rows.append((flag, *(f"{counts[split]:,} ({counts[split] / n:.2%})" for split, n in dataset.splits.items())))
    return markdown.table(("flag", *(f"{split} of {n:,}" for split, n in dataset.splits.items())), rows)


def _meaning(flag: str) -> str:
    text = flags.FLAGS[flag].format(**flags.Thresholds()._asdict())
    return text[0].upper() + text[1:]


def _confusions(dataset: Dataset, each: flags.Found, names: Mapping[int, tuple[str, int]],
                header: Mapping[str, Any]) -> str:
    """The pairs of classes that most suspects lie between."""
    given = [names[row][1] for row in each.rows.tolist()]
    suggested = [value["suggested"] for value in each.values]
    pairs, counts = np.unique(np.array([given, suggested]), axis=1, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:10]
    rows = [(*(markdown.plain(_class(dataset, label)) for label in pairs[:, i]), f"{counts[i]:,}") for i in order]
    return (f"{len(each.rows):,} suspects among {header['label_errors_among']:,} examples with out-of-fold "
            f"probabilities, which agree with {header['agreement']:.1%} of the labels. The weaker the model, the more "
            "of the suspects are its own mistakes.\n\n" + markdown.table(("label", "suggested", "examples"), rows, 2))


def _cell(dataset: Dataset, records: Mapping[str, Records], flag: str, each: flags.Found,
          i: int) -> tuple[list[Image.Image], str]:
    """What a picture shows of one case: an image, or a pair of them, and words."""
    rows, value = [int(each.rows[i])], each.values[i]
    if flag in flags.PAIRED:
        rows.append(value["row"])
    shown, places = [], []
    for row in rows:
        split, index = measure.locate(dataset, row)
        record = features(records[split].read([index])[0])
        shown.append(_thumbnail(record["image"].bytes_list.value[0]))
        places.append((f"{split} {index}", record["label"].int64_list.value[0]))
    words = [f"{place} {_class(dataset, label)}" for place, label in places]
    if flag == "label_error":
        words.append(f"not {value['given']:.2f} but {value['probability']:.2f} {_class(dataset, value['suggested'])}")
    elif flag not in flags.PAIRED:
        words.append("" if value is True else f"{value:g}")
    return shown, "\n".join(word[:34] for word in words)


def _draw(path: str, cells: list[tuple[list[Image.Image], str]]) -> None:
    columns = min(_COLUMNS, len(cells))
    lines = -(-len(cells) // columns)
    wide = max(len(shown) for shown, _ in cells)
    figure = Figure(figsize=(columns * 1.7 * wide, lines * 2.2), dpi=90, layout="constrained")
    for axes, cell in zip(figure.subplots(lines, columns, squeeze=False).flat, cells + [None] * columns, strict=False):
        axes.axis("off")
        if cell:
            axes.imshow(np.concatenate([np.asarray(image) for image in cell[0]], axis=1))
            axes.set_title(cell[1], fontsize=7, pad=3)
    figure.savefig(path, metadata={"Software": None})


def _thumbnail(encoded: bytes, side: int = 128) -> Image.Image:
    """The image in a square with a border; as much of it as can be decoded."""
    square = Image.new("RGB", (side + 4, side + 4), "white")
    before, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, True
    try:
        image = Image.open(io.BytesIO(encoded)).convert("RGB")
    except Exception:  # damaged beyond that; Pillow's decoders raise a dozen kinds
        return square
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before
    scale = side / max(image.size)
    image = image.resize([max(1, round(length * scale)) for length in image.size])
    square.paste(image, ((side + 4 - image.width) // 2, (side + 4 - image.height) // 2))
    return square


def _class(dataset: Dataset, label: int) -> str:
    return dataset.class_names[label].split(",")[0] if label >= 0 else "no label"

