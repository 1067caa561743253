"""Trees of arrays by path: flat, compared, told to people, and their checksums."""

from collections.abc import Sequence
from typing import Any

import google_crc32c
import jax
import numpy as np

PyTree = Any


def flatten(tree: PyTree) -> dict[str, Any]:
    """Maps the '/'-joined path of every leaf of a tree, in tree order, to the leaf.

    A step of a path is a dict key, the index in a tuple or list, or the field of a NamedTuple.

    Raises:
        ValueError: two leaves have the same path (a dict key that holds a '/' can do that).
    """
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    flat = {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}
    if len(flat) != len(leaves):
        raise ValueError("two leaves of the tree share one path")
    return flat


def diff(saved: PyTree, wanted: PyTree) -> list[str]:
    """Tells in one line for each differing leaf how `saved` differs from `wanted`.

    Args:
        saved: what the checkpoint holds; leaves have `shape` and `dtype`.
        wanted: what the program needs, likewise.

    Returns:
        Lines in the order of paths; none if paths, shapes and dtypes all agree.
    """
    left, right = flatten(saved), flatten(wanted)
    lines = []
    for path in sorted(left.keys() | right.keys()):
        if path not in left:
            lines.append(f"{path}: missing in the checkpoint, wanted {_spec(right[path])}")
        elif path not in right:
            lines.append(f"{path}: unexpected, the checkpoint has {_spec(left[path])}")
        elif _spec(left[path]) != _spec(right[path]):
            lines.append(f"{path}: {_spec(left[path])} in the checkpoint, {_spec(right[path])} wanted")
    return lines


def listing(lines: Sequence[str], most: int = 20) -> str:
    """Joins lines into an indented block of at most `most` lines and a count of the rest."""
    rest = [f"... and {len(lines) - most} more"] if len(lines) > most else []
    return "\n".join(f"  {line}" for line in [*lines[:most], *rest])


def digests(tree: PyTree) -> dict[str, str]:
    """The CRC32-C of each array with its type and shape, by path."""
    leaves = {path: np.asarray(leaf) for path, leaf in flatten(tree).items()}
    content = {path: np.ascontiguousarray(leaf).reshape(-1).view(np.uint8) for path, leaf in leaves.items()}
    return {path: f"{google_crc32c.extend(google_crc32c.value(_spec(leaf).encode()), content[path]):08x}"
            for path, leaf in leaves.items()}


def _spec(leaf: Any) -> str:
    """Writes dtype and shape as float32[3,3,64,64]."""
    return f"{np.dtype(leaf.dtype).name}[{','.join(map(str, leaf.shape))}]"
