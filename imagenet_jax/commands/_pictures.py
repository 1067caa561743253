"""The pictures that a command is asked about, by names or of a dataset."""

import os
import sys
from collections.abc import Sequence
from typing import Any


def named(names: Sequence[str], directory: str = "", split: str = "") -> Any:
    """The `images.Images` that names stand for, - for names on stdin; or those of a dataset's split."""
    from imagenet_jax import dataset
    from imagenet_jax.inference import images

    if directory:
        return images.of_split(dataset.open_split(dataset.open_dataset(directory), split))
    given = [each for name in names for each in (_listed() if name == "-" else [name])]
    found, left_out = images.pointed_at(given)
    if left_out:
        print(f"left out {len(left_out)} files that are no images, {left_out[0]} for one", file=sys.stderr)
    return found


def _listed() -> list[str]:
    """The names on stdin, one a line."""
    return [name for name in os.fsdecode(sys.stdin.buffer.read()).split("\n") if name]
