"""Turn ImageNet archives or image folders into a dataset to train from."""

import functools
import os
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from imagenet_jax.errors import UserError

_ARCHIVES = flags.DEFINE_string(
    "archives", None, "Directory with the archives of ILSVRC2012 or ImageNet-21k as downloaded; they stay packed."
)
_IMAGES = flags.DEFINE_string(
    "images", None, "Directory with images in class folders, a CSV file that lists them, or a layout that README names."
)
_TFDS = flags.DEFINE_string("tfds", None, "Directory that `tfds build imagenet2012` made, to convert.")
_CLASSES = flags.DEFINE_string(
    "classes", None, "File that lists the classes in label order, a line each: ID<TAB>NAME, WNID NAME, or ID."
)
_HOLDOUT = flags.DEFINE_string(
    "holdout", "0", "Share of train, as 0.1 or 10%, that becomes the validation split, class by class."
)
_SEED = flags.DEFINE_integer("seed", 0, "Chooses what --holdout takes.")
_OUT = flags.DEFINE_string("out", None, "Directory to write; must be missing or empty.")
_NAME = flags.DEFINE_string("name", None, "Name of the dataset; by default made from --out.")
_VERIFY = flags.DEFINE_enum(
    "verify", "auto", ["auto", "header", "decode"], "Check each image by its header, or decode it all; auto decodes "
    "all but official archives of ILSVRC2012, told by their checksums."
)
_CHECKSUM = flags.DEFINE_bool("checksum", True, "Compare official archives with their published checksums.")
_WORKERS = flags.DEFINE_integer("workers", 0, "Processes; 0 is one for each core. Changes no byte.", lower_bound=0)
_MAX_QUARANTINED = flags.DEFINE_string(
    "max_quarantined", "0.1%", "Share of a split, as 0.001 or 0.1%, that may be unusable."
)
_MAX_SIDE = flags.DEFINE_integer(
    "max_side", 0, "Encode all images anew, the longer side at most so many px (512), where that saves bytes; "
    "0 keeps them as they are.", lower_bound=0
)
_APPLY_EXIF = flags.DEFINE_bool(
    "apply_exif", False, "Turn the pixels of images that EXIF says to turn; else they are kept as stored."
)
_QUALITY = flags.DEFINE_integer("quality", 90, "JPEG quality of these.", lower_bound=1, upper_bound=100)


def main(argv: Sequence[str]) -> None:
    """Reads the source named by flags, writes the dataset, prints what it came to."""
    if len(argv) > 1:
        raise UserError(f"prepare takes flags only, not '{argv[1]}'.")
    if not _OUT.value or sum(map(bool, (_ARCHIVES.value, _IMAGES.value, _TFDS.value))) != 1:
        raise UserError("prepare needs --out=DIR and one of --archives=DIR, --images=DIR or --tfds=DIR.")
    allowed, held = share("max_quarantined", _MAX_QUARANTINED.value), share("holdout", _HOLDOUT.value)
    if held == 1:
        raise UserError(f"--holdout={_HOLDOUT.value} would leave nothing to train on: give less.")
    from imagenet_jax.prepare import workers

    if (count := _WORKERS.value or os.cpu_count()) > 1:
        workers.warm_up()
    from imagenet_jax.prepare import card, place, repair, writer
    from imagenet_jax.prepare.examples import Options
    from imagenet_jax.prepare.sources import layouts, tars, tfds_examples

    start, made = time.monotonic(), place.make_place(_OUT.value)
    name = _NAME.value or re.sub(r"\W+", "_", os.path.basename(os.path.abspath(_OUT.value)).lower())
    options = Options(_CLASSES.value, held, _SEED.value, memory=made.work, checksum=_CHECKSUM.value)
    if _TFDS.value and (held or _CLASSES.value):
        raise UserError("--tfds brings its own classes and splits: leave out --classes and --holdout.")
    if _TFDS.value:
        source = tfds_examples.open_tfds(_TFDS.value, name)
    else:
        family = layouts.ARCHIVES if _ARCHIVES.value else layouts.IMAGES
        source = layouts.open_source(family, _ARCHIVES.value or _IMAGES.value, name, options)
    decode = _VERIFY.value == "decode" or (_VERIFY.value == "auto" and not source.official)
    print(f"source: {source.layout}, {tars.printable(source.origin)}, {len(source.classes):,} classes; images are "
          f"{'decoded' if decode else 'judged by their headers'}", flush=True)
    check = functools.partial(repair.check, decode=decode)
    if _APPLY_EXIF.value:
        check = functools.partial(check, apply_exif=True)
    if _MAX_SIDE.value:
        source = source._replace(variant=f"max_side={_MAX_SIDE.value}, quality={_QUALITY.value}")
        check = functools.partial(check, max_side=_MAX_SIDE.value, quality=_QUALITY.value)
    elif warning := place.lacking(made, sum(source.sizes.values())):
        print(warning, flush=True)
    try:
        summaries = writer.write_dataset(_OUT.value, source, check, workers=count, max_quarantined=allowed)
    except KeyboardInterrupt as error:
        raise UserError(f"Interrupted. What is done stays in {made.work.parent}: run the same command again, it "
                        "goes on.") from error
    print(table(summaries))
    for ending, count, example in card.left_out(source):
        print(f"left out: {count:,} {ending}, for example {example}")
    if corrupt := sum(len(split.corrupt) for split in summaries.values()):
        print(f"corrupt: {corrupt:,}, of which libjpeg says that part of the picture is lost; kept, see corrupt.jpg")
    print(f"{time.monotonic() - start:.1f} s. Look at it: {Path(_OUT.value) / 'report.md'}")
    if any(split.quarantined for split in summaries.values()):
        print(f"Quarantined images and why: {Path(_OUT.value) / 'quarantine.jsonl'}")
    print(f"Train on it with --config.dataset.dir={_OUT.value}")


def share(flag: str, text: str) -> float:
    """'0.001' or '0.1%' as a number of 0 to 1.

    Raises:
        UserError: it is neither.
    """
    try:
        value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        value = -1
    if not 0 <= value <= 1:
        raise UserError(f"--{flag}={text}: give a share of the images, as 0.001 or 0.1%.")
    return value


def table(summaries: Mapping[str, Any]) -> str:
    """The outcome of a run, a Summary of each split, one line each."""
    row = "{:<12}" + "{:>12}" * 7
    lines = [row.format("split", "examples", "classes", "boxes", "dropped", "repaired", "quarantined", "MB")]
    for split, s in summaries.items():
        counts = (s.examples, len(s.labels), s.boxes, s.dropped_boxes, len(s.repaired), len(s.quarantined))
        lines.append(row.format(split, *(f"{count:,}" for count in counts), f"{s.bytes / 1e6:,.1f}"))
    return "\n".join(lines)
