"""Start from another run's weights: everything by path, but a head of another size stays fresh."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from flax import traverse_util

from imagenet_jax import checkpoint
from imagenet_jax.errors import UserError

HEAD = "params/head/"


class Loaded(NamedTuple):
    """What `init_from` took over and what it did not; `str()` tells it to people.

    Attributes:
      source: the checkpoint, `DIRECTORY/STEP`.
      loaded: paths of the arrays that were taken over, as `params/conv1/kernel`.
      reinitialised: (path, shape in the source, shape here) of the arrays that stay fresh.
    """

    source: str
    loaded: tuple[str, ...]
    reinitialised: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...]

    def __str__(self) -> str:
        total = len(self.loaded) + len(self.reinitialised)
        lines = [f"init_from {self.source}: loaded {len(self.loaded)} of {total} arrays"]
        lines += [
            f"  not loaded, freshly initialised: {path}, {list(theirs)} there, {list(ours)} here"
            for path, theirs, ours in self.reinitialised
        ]
        return "\n".join([*lines, "  not loaded: optimizer state, EMA and step start afresh"])


def init_from(
    params: Mapping[str, Any], batch_stats: Mapping[str, Any], source_path: str
) -> tuple[dict[str, Any], dict[str, Any], Loaded]:
    """Takes params and batch_stats from a checkpoint.

    Args:
      params: freshly initialised parameters; the arrays of `head/` are kept if any of them has
        another shape in the source.
      batch_stats: freshly initialised statistics, {} for a net without BatchNorm.
      source_path: a workdir, a directory of checkpoints or one checkpoint.

    Returns:
      New params and batch_stats in the structure given (numpy arrays where loaded), and the report.

    Raises:
      UserError: no checkpoint there, or anything but the size of the head differs (with a diff).
    """
    directory, step = checkpoint.resolve(source_path)
    source = f"{directory}/{step}"
    items, _ = checkpoint.read(source)
    theirs = checkpoint.flatten(items)
    ours = checkpoint.flatten({"params": params, "batch_stats": batch_stats})
    fresh = _resized_head(theirs, ours)
    body = [{p: leaf for p, leaf in flat.items() if p not in fresh} for flat in (theirs, ours)]
    differences = checkpoint.diff(*body)
    if differences:
        raise UserError(
            f"init_from: the checkpoint {source} is of another model "
            f"({len(differences)} differences besides a resized head):\n"
            f"{checkpoint.listing(differences)}\n"
            "Choose the model it was trained as, or another checkpoint."
        )
    tree = traverse_util.unflatten_dict(
        {path: leaf if path in fresh else theirs[path] for path, leaf in ours.items()}, sep="/"
    )
    report = Loaded(
        source,
        tuple(path for path in ours if path not in fresh),
        tuple((path, theirs[path].shape, ours[path].shape) for path in fresh),
    )
    return tree["params"], tree.get("batch_stats", {}), report


def _resized_head(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> list[str]:
    """Paths of the head if the source has the same ones in another shape, else none."""
    head = [path for path in ours if path.startswith(HEAD)]
    same = head == [path for path in theirs if path.startswith(HEAD)]
    resized = same and any(theirs[path].shape != ours[path].shape for path in head)
    return head if resized else []
