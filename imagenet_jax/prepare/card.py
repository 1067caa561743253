"""The card of a dataset: report.md and pictures that show what was prepared."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from imagenet_jax import dataset as dataset_lib
from imagenet_jax import markdown
from imagenet_jax.prepare import fonts
from imagenet_jax.prepare.examples import Source
from imagenet_jax.prepare.shard import SIZE_STEP as STEP
from imagenet_jax.prepare.shard import Summary
from imagenet_jax.prepare.sources.tars import printable

_ROWS = 40  # classes of the grid of samples, evenly chosen where there are more
_COLUMNS = 8
_SHOWN = 40  # corrupt images
_TILE, _MARGIN = 96, 200  # px
_LAST = 2048  # px, of the size histogram
_UNEQUAL = 10  # times as many images in the largest class as in the smallest, from where on that is told
_CORRUPT = ("libjpeg says that the data of these are corrupt, if only by a bit: part of the picture is grey or noise. "
            "They are kept; `clean` flags them as `corrupt`, and training can leave them out.")
_NO_DATE = {"metadata": {"Software": None}}  # the same dataset gives the same bytes


def write_card(directory: Path, source: Source, summaries: Mapping[str, Summary]) -> None:
    """Writes report.md, report.html, counts.png and SPLIT_samples.jpg beside the finished shards."""
    opened = dataset_lib.open_dataset(directory)
    _draw_counts(directory / "counts.png", source, summaries)
    for split, summary in summaries.items():
        records = dataset_lib.open_split(opened, split)
        _draw_samples(directory / f"{split}_samples.jpg", source, summary, records)
    _draw_corrupt(directory / "corrupt.jpg", opened, summaries)
    markdown.write(directory / "report.md", "\n".join(_report(source, summaries)) + "\n")


def _report(source: Source, summaries: Mapping[str, Summary]) -> list[str]:
    rows = []
    for split, s in summaries.items():
        counts = [s.labels.get(label, 0) for label in range(len(source.classes))]
        rows.append((split, s.examples, sum(map(bool, counts)), f"{min(counts):,} to {max(counts):,}", s.boxes,
                     s.dropped_boxes, len(s.repaired), len(s.quarantined), len(s.shards), f"{s.bytes / 1e6:,.1f}"))
    head = ("split", "examples", "classes", "per class", "boxes", "boxes dropped", "repaired", "quarantined", "shards",
            "MB")
    origin = markdown.plain(printable(source.origin)) or "memory"
    lines = [f"# {markdown.plain(source.name)}", "", f"From {origin}. Variant: {source.variant}.", ""]
    lines.append(_table(head, rows, 1))
    lines += _balance(source, summaries)
    if counts := [f"{summary.unturned:,} of {split}" for split, summary in summaries.items() if summary.unturned]:
        lines += ["", f"EXIF says to turn some images to see them upright ({', '.join(counts)}); they are kept as "
                  "stored, which is how torchvision reads them too. `--apply_exif` turns them."]
    lines += ["", "![images of each class, and their sizes](counts.png)"]
    for split, summary in summaries.items():
        chosen = " (evenly chosen classes)" if len(summary.samples) > _ROWS else ""
        lines += ["", f"## Samples of {split}{chosen}", "", f"![samples of {split} with boxes]({split}_samples.jpg)"]
    for name in ("repaired", "quarantined", "corrupt"):
        found = [(split, *line[:2]) for split, summary in summaries.items() for line in getattr(summary, name)]
        lines += ["", f"## {name.capitalize()}: {len(found):,}", ""]
        lines += [_CORRUPT, "", "![the first of them](corrupt.jpg)", ""] if name == "corrupt" and found else []
        lines.append(_table(("split", "file", "reason"), found, 3) if found else "None.")
    if source.left_out:
        count = sum(count for count, _ in source.left_out.values())
        lines += ["", f"## Left out: {count:,}", "", "Files that Pillow does not read, or images without a label.", ""]
        lines.append(_table(("ending", "files", "for example"), left_out(source), 1))
    return lines


def _balance(source: Source, summaries: Mapping[str, Summary]) -> list[str]:
    """The largest and the smallest class of each split if they differ, and what to do where they are far apart."""
    lines, unequal = [], False
    for split, summary in summaries.items():
        count = [summary.labels.get(label, 0) for label in range(len(source.classes))]
        small, large = (choose(range(len(count)), key=count.__getitem__) for choose in (min, max))
        if count[small] == count[large]:
            continue
        ratio = count[large] / max(count[small], 1)
        unequal |= split == "train" and ratio > _UNEQUAL
        lines.append(f"- {split}: {count[large]:,} of {_named(source, large)}, the largest class; {count[small]:,} of "
                     f"{_named(source, small)}, the smallest; a ratio of {ratio:,.1f}.")
    if unequal:
        lines += ["", "With classes so unequal a model does well by guessing the large ones: judge it by the accuracy "
                  "of each class and not by top-1 alone, and give the small classes more images or the large ones "
                  "fewer."]
    return ["", *lines] if lines else []


def _named(source: Source, label: int) -> str:
    return markdown.plain(" ".join(dict.fromkeys((source.classes[label], source.class_names[label]))))


def left_out(source: Source) -> list[tuple[str, int, str]]:
    """Ending, number and an example of the files that a source leaves out, the most common first."""
    return sorted(((ending, *found) for ending, found in source.left_out.items()), key=lambda row: (-row[1], row))


def _table(head: Sequence[str], rows: Sequence[Sequence[object]], words: int) -> str:
    """words: how many columns, from the left, are no numbers."""
    cells = [[f"{cell:,}" if isinstance(cell, int) else markdown.plain(str(cell)) for cell in row] for row in rows]
    return markdown.table(head, cells, words)


def _draw_counts(path: Path, source: Source, summaries: Mapping[str, Summary]) -> None:
    """For each split the number of images of each class, by label, and how large images are."""
    from matplotlib.figure import Figure  # a third of a second, not needed before

    figure = Figure(figsize=(12, 2.6 * len(summaries)), dpi=100, layout="constrained")
    rows = figure.subplots(len(summaries), 2, squeeze=False)
    for (left, right), (split, summary) in zip(rows, summaries.items(), strict=True):
        counts = np.array([summary.labels.get(label, 0) for label in range(len(source.classes))])
        left.stairs(counts, np.arange(len(counts) + 1) - 0.5, fill=True, alpha=0.7)
        left.set(title=f"{split}: {counts.sum():,} images, median {np.median(counts):,.0f} a class", xlabel="label",
                 ylabel="images", ylim=(0, None), xlim=(-0.5, len(counts) - 0.5))
        for name, sizes in (("width", summary.widths), ("height", summary.heights)):
            counts = np.bincount(np.minimum([*sizes, _LAST], _LAST) // STEP, [*sizes.values(), 0])
            right.stairs(counts, np.arange(len(counts) + 1) * STEP, fill=True, alpha=0.5, label=name)
        right.set(title=f"{split}: image sizes ({_LAST} and more in the last bar)", xlabel="px",
                  xlim=(0, min(_LAST, max([STEP, *summary.widths, *summary.heights]) * 1.2) + STEP))
        right.legend(loc="upper right")
    figure.savefig(path, **_NO_DATE)


def _draw_samples(path: Path, source: Source, summary: Summary, records: dataset_lib.Records) -> None:
    """A row of images for each class, boxes drawn in."""
    labels = sorted(summary.samples)
    labels = [labels[int(i)] for i in np.linspace(0, len(labels) - 1, min(_ROWS, len(labels)))]
    columns = min(_COLUMNS, max(len(summary.samples[label]) for label in labels))
    sheet = Image.new("RGB", (_MARGIN + columns * (_TILE + 4), len(labels) * (_TILE + 4)), "white")
    draw = ImageDraw.Draw(sheet)
    named = [f"{source.classes[label]}\n{source.class_names[label][:26]}" for label in labels]
    font, drawn = fonts.choose(named)
    for row, label in enumerate(labels):
        top = row * (_TILE + 4)
        draw.text((6, top + _TILE // 3), fonts.drawable(named[row], drawn), "black", font)
        for column, record in enumerate(records.read(summary.samples[label][:columns])):
            sheet.paste(_tile(record), (_MARGIN + column * (_TILE + 4), top))
    sheet.save(path, quality=90, subsampling=0)


def _draw_corrupt(path: Path, opened: dataset_lib.Dataset, summaries: Mapping[str, Summary]) -> None:
    """The first corrupt images of all splits, as decoders show them; no picture where there are none."""
    records = [record for split, summary in summaries.items() if summary.corrupt for record in dataset_lib.open_split(
        opened, split).read([place for *_, place in summary.corrupt[:_SHOWN]])][:_SHOWN]
    sheet = Image.new("RGB", (_COLUMNS * (_TILE + 4), -(-len(records) // _COLUMNS) * (_TILE + 4)), "white")
    for i, record in enumerate(records):
        sheet.paste(_tile(record), (i % _COLUMNS * (_TILE + 4), i // _COLUMNS * (_TILE + 4)))
    if records:
        sheet.save(path, quality=90, subsampling=0)


def _tile(record: bytes) -> Image.Image:
    """A square picture of a record with its boxes; grey where the image cannot be decoded."""
    feature = dataset_lib.features(record)
    try:
        with Image.open(io.BytesIO(feature["image"].bytes_list.value[0])) as image:
            image.draft("RGB", (_TILE, _TILE))
            tile = image.convert("RGB").resize((_TILE, _TILE), Image.Resampling.BICUBIC, reducing_gap=2.0)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return Image.new("RGB", (_TILE, _TILE), "grey")
    draw = ImageDraw.Draw(tile)
    for ymin, xmin, ymax, xmax in np.array(feature["boxes"].float_list.value).reshape(-1, 4) * (_TILE - 1):
        draw.rectangle((xmin, ymin, xmax, ymax), outline="lime", width=2)
    return tile
