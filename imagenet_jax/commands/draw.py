"""Draw a small ILSVRC in official archive layout, and handwritten digits to finetune on."""

from __future__ import annotations

import time
from collections.abc import Sequence

from absl import flags

_OUT = flags.DEFINE_string("out", None, "Directory to create.", required=True)
_CLASSES = flags.DEFINE_integer("classes", 12, "Number of classes, 2 to 16.")
_TRAIN = flags.DEFINE_integer("train", 3600, "Train images over all classes.")
_VAL = flags.DEFINE_integer("val", 600, "Val images over all classes.")
_SEED = flags.DEFINE_integer("seed", 0, "The same seed gives the same bytes.")


def main(argv: Sequence[str]) -> None:
    """Runs the command; `argv` holds nothing but its name."""
    del argv
    from imagenet_jax.prepare import drawn

    start = time.monotonic()
    counts = drawn.draw(
        _OUT.value, classes=_CLASSES.value, train=_TRAIN.value, val=_VAL.value, seed=_SEED.value
    )
    print(
        f"Drew {counts.train:,} train and {counts.val:,} val images of {_CLASSES.value} classes "
        f"in {time.monotonic() - start:.1f} s, {counts.bad} of them faulty on purpose, "
        f"{counts.boxed:,} with boxes: {_OUT.value}\n"
        f"Wrote {counts.digits_train:,} train and {counts.digits_val:,} val handwritten digits: "
        f"{_OUT.value}/digits"
    )
