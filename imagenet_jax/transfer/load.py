"""Start from another run's weights or a file of them: everything by path, but a head of another size stays fresh."""

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import traverse_util

from imagenet_jax import checkpoint, models, trees
from imagenet_jax.classes import Classes, imagenet
from imagenet_jax.errors import UserError
from imagenet_jax.models import weights

HEAD = re.compile(r"^params/(.*/)?head/")  # that of the model, and those of auxiliary heads
BIAS = "params/head/bias"  # as long as there are classes
AUX = re.compile(r"^(params/|batch_stats/)?(aux\d?|AuxLogits)[./]")  # here and in files


class Loaded(NamedTuple):
    """What `init_from` took over and what it did not; `str()` tells it to people.

    Attributes:
        source: the file, or the checkpoint and which of its weights, `DIRECTORY/STEP (averaged weights)`.
        loaded: paths of the arrays that were taken over, as `params/conv1/kernel`.
        reinitialised: (path, shape in the source, shape here) of the arrays that stay fresh.
        left_out: names of the arrays of auxiliary heads that the source has and the model here has not.
        cast: paths of the arrays that a file holds in another precision than float32.
        head: what became of the head for the classes that source and model tell apart.
    """

    source: str
    loaded: tuple[str, ...]
    reinitialised: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...]
    left_out: tuple[str, ...] = ()
    cast: tuple[str, ...] = ()
    head: str = ""

    def __str__(self) -> str:
        total = len(self.loaded) + len(self.reinitialised)
        lines = [f"init_from {self.source}: loaded {len(self.loaded)} of {total} arrays"]
        lines += [f"  not loaded, freshly initialised: {path}, {list(theirs)} there, {list(ours)} here"
                  for path, theirs, ours in self.reinitialised]
        if self.head:
            lines.append(f"  {self.head}")
        if self.left_out:
            lines.append(f"  left out: {len(self.left_out)} arrays of auxiliary heads, which this model has not")
        if self.cast:
            lines.append(f"  cast to float32: {len(self.cast)} arrays")
        return "\n".join([*lines, "  not loaded: optimizer state, EMA and step start afresh"])


def init_from(params: Mapping[str, Any], batch_stats: Mapping[str, Any], source_path: str, model_name: str = "",
              classes: Classes | None = None) -> tuple[dict[str, Any], dict[str, Any], Loaded]:
    """Takes params and batch_stats from a checkpoint, or from a .safetensors or .pth file of torchvision's or timm's.

    Args:
        params: freshly initialised parameters; the arrays of a `head/` are kept if any of them has another shape in the
            source, or if the source tells other classes apart.
        batch_stats: freshly initialised statistics, {} for a net without BatchNorm.
        source_path: a workdir, a directory of checkpoints, one checkpoint, a file of weights, or the name of a network
            whose published weights are installed.
        model_name: whose names a file of weights has.
        classes: that the model here tells apart, if they are known.

    Returns:
        New params and batch_stats in the structure given (numpy arrays where loaded), and the report.

    Raises:
        UserError: nothing to load there, or anything but the size of the head differs (with a diff).
    """
    ours = trees.flatten({"params": params, "batch_stats": batch_stats})
    return _take_over(ours, *_read(source_path, model_name, list(ours)), classes)


def _take_over(ours: Mapping[str, Any], source: str, theirs: dict[str, Any], their_classes: Classes | None,
               classes: Classes | None = None) -> tuple[dict[str, Any], dict[str, Any], Loaded]:
    cast = ()
    if weights.is_file(source):
        cast = tuple(path for path, leaf in theirs.items() if path in ours and leaf.dtype != np.float32)
        theirs |= {path: theirs[path].astype(np.float32) for path in cast}
    left_out = tuple(name for name in theirs if name not in ours and AUX.match(name))
    theirs = {path: leaf for path, leaf in theirs.items() if path not in left_out}
    theirs, others, head = _match_head(theirs, their_classes, classes)
    fresh = _fresh_head(theirs, ours, others)
    body = [{p: leaf for p, leaf in flat.items() if p not in fresh} for flat in (theirs, ours)]
    differences = trees.diff(*body)
    if differences:
        hint = "; model.aux=False does without auxiliary heads" if any(AUX.match(path) for path in ours) else ""
        raise UserError(f"init_from: {source} is of another model ({len(differences)} differences besides a fresh "
                        f"head):\n{trees.listing(differences)}\n"
                        f"Choose the model it was trained as, or other weights{hint}.")
    tree = traverse_util.unflatten_dict(
        {path: leaf if path in fresh else theirs[path] for path, leaf in ours.items()}, sep="/")
    report = Loaded(source, tuple(path for path in ours if path not in fresh),
                    tuple((path, theirs[path].shape, ours[path].shape) for path in fresh), left_out, cast,
                    head if others or not fresh else "")
    return tree["params"], tree.get("batch_stats", {}), report


def _match_head(theirs: dict[str, Any], their_classes: Classes | None,
                classes: Classes | None) -> tuple[dict[str, Any], bool, str]:
    """The source's arrays with its heads in the order of our classes, whether it has others, and what was done."""
    if classes is None or their_classes and classes.ids == their_classes.ids:
        return theirs, False, ""
    if their_classes is None:
        return theirs, False, "the source does not say which classes it tells apart: its head was taken over as it is"
    if set(classes.ids) != set(their_classes.ids):
        return theirs, True, "the source tells other classes apart, so nothing of its head was taken over"
    label = {word: i for i, word in enumerate(their_classes.ids)}
    columns = [label[word] for word in classes.ids]
    return ({path: leaf[..., columns] if HEAD.match(path) and leaf.shape[-1] == len(columns) else leaf
             for path, leaf in theirs.items()}, False,
            "the source has the same classes in another order: its head was taken over by their names")


def variables_of_file(path: str, model_name: str) -> tuple[dict[str, Any], Classes | None]:
    """Params and batch_stats of a network as a file of weights has them, without auxiliary heads; and its classes.

    Raises:
        UserError: the file cannot be read, or is of another model (with a diff).
    """
    state = weights.read(path)
    head = weights.from_torch(model_name, state, [BIAS]).get(BIAS, np.zeros(1000))
    without = {"aux": False} if hasattr(models.make(model_name, 0), "aux") else {}
    model = models.make(model_name, len(head), **without)
    size = models.find(model_name).size
    shapes = jax.eval_shape(model.init, jax.random.key(0), jax.ShapeDtypeStruct((1, size, size, 3), np.float32))
    ours = trees.flatten(jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes))
    classes = classes_of_file(path, len(head))
    params, batch_stats, _ = _take_over(ours, path, weights.from_torch(model_name, state, list(ours)), classes)
    return {"params": params, "batch_stats": batch_stats}, classes


def classes_of_file(path: str, count: int) -> Classes | None:
    """What its notes say; else ImageNet's if it tells 1000 apart, as files of libraries do; else None."""
    noted = weights.notes(path).get("classes")
    if noted:
        return Classes(*map(tuple, json.loads(noted)))
    return imagenet() if count == 1000 else None


def _read(path: str, model_name: str, paths: list[str]) -> tuple[str, dict[str, np.ndarray], Classes | None]:
    """What was read, its arrays by our paths, and its classes if they are known."""
    path = weights.locate(path)
    if weights.is_file(path):
        arrays = weights.from_torch(model_name, weights.read(path), paths)
        return path, arrays, classes_of_file(path, len(arrays.get(BIAS, ())))
    directory, step = checkpoint.resolve(path)
    variables, meta, which = checkpoint.read_weights(f"{directory}/{step}")
    classes = Classes(*map(tuple, meta["classes"])) if "classes" in meta else None
    return f"{directory}/{step} ({which})", trees.flatten(variables), classes


def _fresh_head(theirs: Mapping[str, Any], ours: Mapping[str, Any], others: bool) -> list[str]:
    """Paths of the heads if the source has the same ones, and any in another shape or of other classes; else none."""
    head = sorted(path for path in ours if HEAD.match(path))
    same = head == sorted(path for path in theirs if HEAD.match(path))
    return head if same and (others or any(theirs[path].shape != ours[path].shape for path in head)) else []
