"""Start from another run's weights or a file of them: everything by path, but a head of another size stays fresh."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from flax import traverse_util

from imagenet_jax import checkpoint
from imagenet_jax.errors import UserError
from imagenet_jax.models import weights

HEAD = re.compile(r"^params/(.*/)?head/")  # that of the model, and those of auxiliary heads
AUX = re.compile(r"^(aux\d|AuxLogits)\.")  # in files; a model without auxiliary heads leaves theirs out


class Loaded(NamedTuple):
    """What `init_from` took over and what it did not; `str()` tells it to people.

    Attributes:
      source: the checkpoint, `DIRECTORY/STEP`.
      loaded: paths of the arrays that were taken over, as `params/conv1/kernel`.
      reinitialised: (path, shape in the source, shape here) of the arrays that stay fresh.
      left_out: names of the arrays of auxiliary heads that the source has and the model here has not.
    """

    source: str
    loaded: tuple[str, ...]
    reinitialised: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...]
    left_out: tuple[str, ...] = ()

    def __str__(self) -> str:
        total = len(self.loaded) + len(self.reinitialised)
        lines = [f"init_from {self.source}: loaded {len(self.loaded)} of {total} arrays"]
        lines += [
            f"  not loaded, freshly initialised: {path}, {list(theirs)} there, {list(ours)} here"
            for path, theirs, ours in self.reinitialised
        ]
        if self.left_out:
            lines.append(f"  left out: {len(self.left_out)} arrays of auxiliary heads, which this model has not")
        return "\n".join([*lines, "  not loaded: optimizer state, EMA and step start afresh"])


def init_from(
    params: Mapping[str, Any], batch_stats: Mapping[str, Any], source_path: str, model_name: str = ""
) -> tuple[dict[str, Any], dict[str, Any], Loaded]:
    """Takes params and batch_stats from a checkpoint, or from a .safetensors or .pth file of torchvision's or timm's.

    Args:
      params: freshly initialised parameters; the arrays of a `head/` are kept if any of them has
        another shape in the source.
      batch_stats: freshly initialised statistics, {} for a net without BatchNorm.
      source_path: a workdir, a directory of checkpoints, one checkpoint, or a file of weights.
      model_name: whose names a file of weights has.

    Returns:
      New params and batch_stats in the structure given (numpy arrays where loaded), and the report.

    Raises:
      UserError: nothing to load there, or anything but the size of the head differs (with a diff).
    """
    ours = checkpoint.flatten({"params": params, "batch_stats": batch_stats})
    source, theirs = _read(source_path, model_name, list(ours))
    left_out = tuple(name for name in theirs if name not in ours and AUX.match(name))
    theirs = {path: leaf for path, leaf in theirs.items() if path not in left_out}
    fresh = _resized_head(theirs, ours)
    body = [{p: leaf for p, leaf in flat.items() if p not in fresh} for flat in (theirs, ours)]
    differences = checkpoint.diff(*body)
    if differences:
        raise UserError(
            f"init_from: {source} is of another model "
            f"({len(differences)} differences besides a resized head):\n"
            f"{checkpoint.listing(differences)}\n"
            "Choose the model it was trained as, or other weights."
        )
    tree = traverse_util.unflatten_dict(
        {path: leaf if path in fresh else theirs[path] for path, leaf in ours.items()}, sep="/"
    )
    report = Loaded(
        source,
        tuple(path for path in ours if path not in fresh),
        tuple((path, theirs[path].shape, ours[path].shape) for path in fresh),
        left_out,
    )
    return tree["params"], tree.get("batch_stats", {}), report


def _read(path: str, model_name: str, paths: list[str]) -> tuple[str, dict[str, np.ndarray]]:
    """What was read, and its arrays by our paths."""
    if weights.is_file(path):
        return path, weights.from_torch(model_name, weights.read(path), paths)
    directory, step = checkpoint.resolve(path)
    items, _ = checkpoint.read(f"{directory}/{step}")
    return f"{directory}/{step}", checkpoint.flatten(items)


def _resized_head(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> list[str]:
    """Paths of the heads if the source has the same ones and any in another shape, else none."""
    head = sorted(path for path in ours if HEAD.match(path))
    same = head == sorted(path for path in theirs if HEAD.match(path))
    resized = same and any(theirs[path].shape != ours[path].shape for path in head)
    return head if resized else []
