"""Turn ImageNet archives or image folders into a dataset to train from."""

import functools
import re
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from imagenet_jax.data import archives, repair, writer
from imagenet_jax.errors import UserError

_ARCHIVES = flags.DEFINE_string(
    "archives", None, "Directory with the ILSVRC2012 archives as downloaded; they stay packed."
)
_IMAGES = flags.DEFINE_string(
    "images", None, "Directory with root/split/class/*.jpg|jpeg|png; splits train, val, test."
)
_OUT = flags.DEFINE_string("out", None, "Directory to write; must be missing or empty.")
_NAME = flags.DEFINE_string("name", None, "Name of the dataset; by default made from --out.")
_VERIFY = flags.DEFINE_enum(
    "verify", "header", ["header", "decode"], "Check each image by its header, or decode it all."
)


def main(argv: Sequence[str]) -> None:
    """Reads the source named by flags, writes the dataset, prints what it came to."""
    if len(argv) > 1:
        raise UserError(f"prepare takes flags only, not '{argv[1]}'.")
    if not _OUT.value or bool(_ARCHIVES.value) == bool(_IMAGES.value):
        raise UserError("prepare needs --out=DIR and one of --archives=DIR or --images=DIR.")
    name = _NAME.value or re.sub(r"\W+", "_", Path(_OUT.value).absolute().name.lower())
    read = archives.open_archives if _ARCHIVES.value else archives.open_folders
    source = read(_ARCHIVES.value or _IMAGES.value, name)
    check = functools.partial(repair.check, decode=_VERIFY.value == "decode")
    written = writer.write_dataset(_OUT.value, source, check)
    print(table(written))
    if any(split.quarantined for split in written.values()):
        print(f"Quarantined images and why: {Path(_OUT.value) / 'quarantine.jsonl'}")
    print(f"Train on it with --config.dataset.dir={_OUT.value}")


def table(written: dict[str, writer.Written]) -> str:
    """The outcome of a run, one line a split."""
    row = "{:<12}" + "{:>12}" * 8
    head = "split examples classes boxes dropped repaired quarantined MB seconds"
    lines = [row.format(*head.split())]
    for split, w in written.items():
        counts = (w.examples, w.classes, w.boxes, w.dropped_boxes, w.repaired, w.quarantined)
        size = (f"{w.bytes / 1e6:,.1f}", f"{w.seconds:.1f}")
        lines.append(row.format(split, *(f"{count:,}" for count in counts), *size))
    return "\n".join(lines)
