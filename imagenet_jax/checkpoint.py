"""Checkpoints of plain trees: saved asynchronously, used only when complete, restored strictly.

A checkpoint is a directory `DIRECTORY/STEP` written by Orbax, with one nested dict of arrays per item (`params`,
`batch_stats`, `ema`, `opt_state`) and a JSON `meta`. Whatever a tree is made of (dicts, tuples, the NamedTuples of
optax), it lies on disk as nested dicts under the names in its paths, so a checkpoint can be opened without the code
that wrote it. An item without arrays (no EMA, a net without BatchNorm) is not written. Orbax writes into a temporary
directory and renames it when everything is on disk: a killed save leaves no `STEP`.

Orbax and TensorStore notice most damage, but not a flipped bit or a lost page in the values. So `meta` holds a CRC32-C
of every array and of itself, and whatever is read is compared with them.
"""

import contextlib
import json
import logging
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from flax import traverse_util

from imagenet_jax import durable
from imagenet_jax.errors import UserError
from imagenet_jax.trees import diff, digests, flatten, listing

PyTree = Any
ITEMS = ("params", "batch_stats", "ema", "opt_state")
_SET_ASIDE = "damaged-"  # what the directory of a damaged checkpoint is called then, before its step


class DamagedError(UserError):
    """A checkpoint that cannot be read, or not to its end."""


def open_manager(directory: str, *, keep: int, milestone_steps: int = 0) -> ocp.CheckpointManager:
    """Opens a directory for asynchronous saves, creating it and removing what killed saves left.

    Of several hosts the first alone calls this, and what is done with it: Orbax then waits for none of the others.

    Args:
        directory: where `STEP` directories go.
        keep: how many of the latest checkpoints stay.
        milestone_steps: checkpoints at multiples of this stay forever; 0 for none.

    Raises:
        UserError: the directory cannot be created or read.
    """
    _hush_orbax()
    policies = ocp.checkpoint_managers
    kept: list[policies.PreservationPolicy] = [policies.LatestN(keep)]
    if milestone_steps:
        kept.append(policies.EveryNSteps(milestone_steps))
    options = ocp.CheckpointManagerOptions(
        preservation_policy=policies.AnyPreservationPolicy(kept), cleanup_tmp_directories=True, create=False,
        multiprocessing_options=ocp.options.MultiprocessingOptions(primary_host=0, active_processes={0}))
    path = epath.Path(directory).resolve()
    try:
        path.mkdir(parents=True, exist_ok=True)
        return ocp.CheckpointManager(path, options=options)
    except OSError as error:
        raise UserError(f"cannot keep checkpoints in {directory}: {error}") from error


def save(manager: ocp.CheckpointManager, step: int, items: Mapping[str, PyTree], meta: Mapping[str, Any]) -> None:
    """Starts saving a checkpoint; returns as soon as the arrays are copied.

    A step that is already saved is left as it is. A save still under way is waited for first.

    Args:
        manager: from `open_manager`.
        step: the number of finished optimizer steps.
        items: trees of host arrays, named as in `ITEMS`; None and empty trees are allowed.
        meta: what JSON can hold.

    Raises:
        UserError: this save could not start or an earlier one failed (full disk, no permission).
    """
    flat = {name: {path: np.asarray(leaf) for path, leaf in flatten(tree).items()} for name, tree in items.items()}
    trees = {name: traverse_util.unflatten_dict(leaves, sep="/") for name, leaves in flat.items()}
    args = {name: ocp.args.PyTreeSave(tree) for name, tree in trees.items() if tree}
    with _telling_failures(manager):
        manager.wait_until_finished()
        if step not in manager.all_steps():
            written = {name: digests(leaves) for name, leaves in flat.items() if leaves}
            args["meta"] = ocp.args.JsonSave(_sealed({**meta, "digests": written}))
            manager.save(step, args=ocp.args.Composite(**args), force=True)


def finish(manager: ocp.CheckpointManager) -> None:
    """Waits until everything is on disk and closes the manager.

    Raises:
        UserError: the last save failed; the message names the last good checkpoint.
    """
    with _telling_failures(manager):
        manager.close()


def complete_steps(directory: str | os.PathLike[str]) -> list[int]:
    """The steps of the complete checkpoints in a directory, ascending; none without a directory."""
    path = epath.Path(directory)
    if not path.is_dir():
        return []
    return sorted(found.step for found in ocp.path.step.standard_name_format().find_all(path))


def unfinished_steps(directory: str) -> list[int]:
    """The steps of directories that look like checkpoints but are not complete, ascending.

    A killed save leaves none on a local disk. In a bucket completeness is a file, which older releases of Orbax did not
    write, and which a copy may lack.
    """
    path = epath.Path(directory)
    there = {int(child.name) for child in path.iterdir() if child.name.isdecimal()} if path.is_dir() else set()
    return sorted(there - set(complete_steps(path)))


def latest_step(directory: str | os.PathLike[str]) -> int | None:
    """The step of the latest complete checkpoint in a directory, None without any."""
    return max(complete_steps(directory), default=None)


def resolve(path: str) -> tuple[str, int]:
    """Finds the checkpoint that a path means.

    Args:
        path: a workdir (its `checkpoints/`), a directory of checkpoints such as `WORKDIR/best` (the latest one), or one
            checkpoint (`WORKDIR/checkpoints/STEP`).

    Returns:
        The directory of checkpoints and the step.

    Raises:
        UserError: there is no complete checkpoint at the path.
    """
    given = epath.Path(path).expanduser().resolve()
    for directory in (given / "checkpoints", given):
        step = latest_step(directory)
        if step is not None:
            return str(directory), step
    names = ocp.path.step.standard_name_format()
    if given.is_dir() and given in (found.path for found in names.find_all(given.parent)):
        return str(given.parent), int(given.name)
    problem = "holds no complete checkpoint" if given.exists() else "does not exist"
    raise UserError(f"no checkpoint: {given} {problem}; give a workdir, its checkpoints/ or best/ directory, or one "
                    "checkpoint in it (checkpoints/STEP)")


def restore_latest(directory: str, like: Mapping[str, PyTree]) -> tuple[dict[str, PyTree], dict[str, Any], list[str]]:
    """Restores the latest checkpoint of a directory that can be read; damaged ones after it are renamed, and told.

    Args:
        directory: of checkpoints, at least one of them complete.
        like: as for `restore`.

    Returns:
        As `restore`; and one warning for each checkpoint that was set aside or passed over.

    Raises:
        UserError: none of them can be read (with every reason), or the latest that can differs from `like`.
    """
    path, steps = epath.Path(directory), complete_steps(directory)[::-1]
    warnings = [f"WARNING: {path / str(step)} looks unfinished and was passed over."
                for step in unfinished_steps(directory) if step > steps[0]]
    reasons = []
    for step in steps:
        try:
            items, meta = restore(str(path / str(step)), like)
        except DamagedError as error:
            reasons.append((step, str(error)))
            continue
        for damaged, reason in reasons:
            aside = path / f"{_SET_ASIDE}{damaged}"
            if jax.process_index() == 0:
                (path / str(damaged)).rename(aside)
            warnings.append(f"WARNING: {reason}\nIt was renamed to {aside}; the run goes on from step {step} instead, "
                            "and what came after is trained again.")
        return items, meta, warnings
    told = "\n".join(reason for _, reason in reasons)
    raise UserError(f"{told}\nNo other checkpoint is left in {path}. To start anew, use another workdir.")


def restore(path: str, like: Mapping[str, PyTree]) -> tuple[dict[str, PyTree], dict[str, Any]]:
    """Restores items into a known structure; every path, shape and dtype must agree.

    Args:
        path: as for `resolve`.
        like: for each wanted item a tree of arrays or `jax.ShapeDtypeStruct`; None for an item that must be absent.
            Items that are not named are neither compared nor read.

    Returns:
        The items in the structure of `like` with numpy arrays as saved, and the meta.

    Raises:
        UserError: no such checkpoint, a damaged one (DamagedError), or one that differs (with the differences).
    """
    directory, step = resolve(path)
    source = epath.Path(directory) / str(step)
    wanted = dict(like)
    with _telling_damage(source), _reader() as reader:
        found = reader.metadata(source).item_metadata
        saved = {name: found[name].tree for name in wanted if found.get(name) is not None}
    differences = diff(saved, wanted)
    if differences:
        raise UserError(f"the checkpoint {source} is of another model or optimizer ({len(differences)} differences):\n"
                        f"{listing(differences)}\nUse the config it was written with, or another workdir.")
    items, meta = read(str(source), tuple(wanted))
    flat = flatten(items)
    leaves = [flat[name] for name in flatten(wanted)]
    return jax.tree.unflatten(jax.tree.structure(wanted), leaves), meta


def read(path: str, items: Sequence[str] = ("params", "batch_stats")) -> tuple[dict[str, PyTree], dict[str, Any]]:
    """Reads items as they lie on disk.

    Args:
        path: as for `resolve`.
        items: names from `ITEMS`.

    Returns:
        For each item a nested dict of numpy arrays, {} where the checkpoint has none; and the meta.

    Raises:
        UserError: no such checkpoint or a damaged one.
    """
    directory, step = resolve(path)
    source = epath.Path(directory) / str(step)
    with _telling_damage(source), _reader() as reader:
        found = reader.metadata(source).item_metadata
        present = {name: ocp.args.PyTreeRestore() for name in items if name in found}
        args = ocp.args.Composite(**present, meta=ocp.args.JsonRestore())
        restored = reader.restore(source, args=args)
        trees = {name: restored.get(name) or {} for name in items}
        if "seal" not in restored["meta"]:
            print(f"warning: {source} has no checksums, it is of an older release: taken as it is", file=sys.stderr)
        return trees, _verified(trees, restored["meta"])


def read_weights(path: str) -> tuple[dict[str, PyTree], dict[str, Any], str]:
    """Reads what a run is judged by: the moving averages of params and batch_stats where the run has them.

    Returns:
        {"params", "batch_stats"}, the meta, and which they are: 'averaged weights' or 'weights'.

    Raises:
        UserError: no such checkpoint or a damaged one.
    """
    items, meta = read(path, ("params", "batch_stats", "ema"))
    ema = items.pop("ema")
    if not ema:
        return items, meta, "weights"
    if "params" not in ema:  # of a release that averaged the parameters alone, which is of no use
        return items, meta, "weights (its moving average lacks statistics: it is of an older release)"
    return {"batch_stats": {}} | ema, meta, "averaged weights"


def _sealed(meta: Mapping[str, Any]) -> dict[str, Any]:
    """The meta as JSON gives it back, with a checksum of its own."""
    return json.loads(json.dumps(meta)) | {"seal": durable.seal(meta)}


def _verified(trees: Mapping[str, PyTree], meta: dict[str, Any]) -> dict[str, Any]:
    """The meta without digests and seal, once all agrees with them; of an older release, which has none, as it is.

    Raises:
        ValueError: something is not what was written.
    """
    if "seal" not in meta:
        return meta
    meta = dict(meta)
    if meta.pop("seal") != _sealed(meta)["seal"]:
        raise ValueError("its meta is not what was written")
    written = meta.pop("digests")
    for name, tree in trees.items():
        found, wanted = digests(tree), written.get(name, {})
        if wrong := sorted(path for path in found.keys() | wanted.keys() if found.get(path) != wanted.get(path)):
            raise ValueError(f"{name}/{wrong[0]} is not what was written ({len(wrong)} of {len(wanted)} arrays)")
    return meta


def _reader() -> ocp.Checkpointer:
    trees = {name: ocp.PyTreeCheckpointHandler() for name in ITEMS}
    return ocp.Checkpointer(ocp.CompositeCheckpointHandler(**trees, meta=ocp.JsonCheckpointHandler()))


def _hush_orbax() -> None:
    """Keeps off stderr what Orbax logs of failures, which our errors tell.

    Of a read it gives up the others that are under way, and closes their event loop: these complain to asyncio, or to
    Python where nobody is left to complain to.
    """
    logging.getLogger("absl").addFilter(_not_from_orbax)
    logging.getLogger("asyncio").addFilter(_not_given_up)
    if sys.unraisablehook is sys.__unraisablehook__:
        sys.unraisablehook = _tell_unraisable


def _not_from_orbax(record: logging.LogRecord) -> bool:
    return "orbax" not in record.pathname


def _not_given_up(record: logging.LogRecord) -> bool:
    return "exception was never retrieved" not in record.getMessage()


def _tell_unraisable(unraisable: Any) -> None:
    if str(unraisable.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(unraisable)


@contextlib.contextmanager
def _telling_failures(manager: ocp.CheckpointManager) -> Iterator[None]:
    """Turns whatever the storage raises into one message that names the last good checkpoint."""
    try:
        yield
    except Exception as error:
        last = latest_step(manager.directory)
        good = f"last good: {manager.directory / str(last)}" if last is not None else "none before"
        raise UserError(f"could not save a checkpoint in {manager.directory} ({good}): {_reason(error)}\n"
                        "Make room or permission there and run the same command again.") from error


@contextlib.contextmanager
def _telling_damage(source: epath.Path) -> Iterator[None]:
    """Turns whatever reading a checkpoint raises into one message."""
    _hush_orbax()
    try:
        yield
    except Exception as error:
        raise DamagedError(f"the checkpoint {source} cannot be read, it is damaged or not of this program: "
                           f"{_reason(error)}{_others(source)}") from error


def _others(source: epath.Path) -> str:
    """The complete checkpoints beside one, in words."""
    steps = [step for step in complete_steps(source.parent) if str(step) != source.name]
    return f". Beside it there is {', '.join(map(str, steps))}" if steps else ""


def _reason(error: Exception) -> str:
    """The operating system's words for an error where tensorstore or Python kept its number."""
    found = re.search(r"os_error_code='(\d+)'", str(error))
    number = int(found[1]) if found else getattr(error, "errno", None)
    if number is not None:
        return os.strerror(number)
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
