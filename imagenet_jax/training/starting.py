"""Where a run starts: at its last checkpoint, at other weights (`init_from`), or afresh."""

import functools
import json
import os
import zlib
from typing import Any, NamedTuple

import jax
import numpy as np

from imagenet_jax import checkpoint, hosts, trees
from imagenet_jax import config as config_lib
from imagenet_jax.classes import Classes
from imagenet_jax.errors import UserError
from imagenet_jax.input import parts
from imagenet_jax.training import schedule
from imagenet_jax.training.recipe import plan
from imagenet_jax.training.run import Run, identity
from imagenet_jax.training.saving import Progress, items_of
from imagenet_jax.training.state import TrainState, init_variables, make_state
from imagenet_jax.transfer.load import init_from

PyTree = Any


class Start(NamedTuple):
    """What a run goes on from, on the host. notes: where it came from, for people."""

    state: TrainState
    progress: Progress
    notes: list[str]


def start(run: Run, *, extended: bool = False) -> Start:
    """The state of the last checkpoint that can be read, of `init_from`, or a fresh one.

    Args:
        extended: the run has another length than when it was saved.

    Raises:
        UserError: checkpoints that cannot be read or look unfinished, or are of other data or another model; nothing
            to initialise from.
    """
    started = _start(run, extended)
    if hosts.several():
        weights = zlib.crc32(json.dumps(trees.digests(items_of(started.state))).encode())
        hosts.check_alike("what they start from", {"step": int(started.state.step), "weights (CRC)": f"{weights:08x}"})
    return started


def _start(run: Run, extended: bool) -> Start:
    initial = functools.partial(init_variables, run.options.model, run.config.augment.size, run.config.seed)
    directory = os.path.join(run.workdir, "checkpoints")
    _check_hosts(directory)
    if checkpoint.latest_step(directory) is not None:
        return _resume(run, directory, jax.eval_shape(lambda: _fresh(run, *initial())), extended)
    if unfinished := checkpoint.unfinished_steps(directory):
        raise UserError(
            f"{directory} holds {', '.join(map(str, unfinished))}, which look unfinished to this release of Orbax, and "
            "no complete checkpoint. If they are whole (copied to a bucket, or of an older release), put an empty file "
            "commit_success.txt into each; if not, remove them and the run starts anew.")
    params, batch_stats = initial()
    notes = []
    if run.config.init_from:
        params, batch_stats, loaded = init_from(params, batch_stats, run.config.init_from, run.config.model.name,
                                                Classes(run.dataset.classes, run.dataset.class_names))
        notes = [str(loaded)]
    return Start(_fresh(run, params, batch_stats), Progress(), notes)


def _check_hosts(directory: str) -> None:
    """Raises UserError, on all hosts, if one sees other checkpoints than the first; for Orbax they read together."""
    there = functools.partial(checkpoint.complete_steps, directory)
    firsts = hosts.from_first("which checkpoints there are", there)
    hosts.shows_up(lambda: there() == firsts)
    hosts.check_alike("the checkpoints they see", {directory: there()})


def _resume(run: Run, directory: str, shapes: TrainState, extended: bool) -> Start:
    items, meta, warnings = checkpoint.restore_latest(directory, items_of(shapes))
    _check_data(run, meta)
    state, progress = TrainState(step=np.int32(meta["step"]), **{"ema": None} | items), Progress.of(meta)
    notes = [*warnings, f"Resumed from step {meta['step']} of {directory}."]
    if extended:
        notes.append(_extension(run, meta))
        progress = progress._replace(finished="")
    return Start(state, progress, notes)


def _check_data(run: Run, meta: dict[str, Any]) -> None:
    """Raises UserError if the checkpoint was trained on other data, or on classes in another order."""
    theirs, ours = meta["dataset"], identity(run)
    other = "Point dataset.dir at the data it began with, or use another --workdir."
    if theirs != ours:
        raise UserError(f"{run.workdir} was trained on other data: {theirs}, now {ours}. {other}")
    ids = tuple(meta["classes"][0]) if "classes" in meta else run.dataset.classes
    if ids != run.dataset.classes:
        label = next(i for i, pair in enumerate(zip(ids, run.dataset.classes, strict=True)) if len(set(pair)) > 1)
        raise UserError(f"{run.workdir} was trained on other classes: its label {label} is {ids[label]!r}, that of "
                        f"{run.dataset.directory} is {run.dataset.classes[label]!r}. {other}")


def _extension(run: Run, meta: dict[str, Any]) -> str:
    """What an extended run does from here, and what it would have done."""
    step, before = meta["step"], config_lib.restored(meta["config"])
    if step >= run.total_steps:
        raise UserError(f"--extend: {run.workdir} has done {step:,} steps already, and duration="
                        f"{run.config.duration!r} is {run.total_steps:,}")
    total, rate = plan(before, parts.epoch(run.train_part, run.config.global_batch))
    last, following = schedule.value(rate, max(step - 1, 0)), schedule.value(run.learning_rate, step)
    return (f"Extended at step {step:,} from {before.duration} ({total:,} steps) to {run.config.duration} "
            f"({run.total_steps:,} steps). From here the learning rate is that of the new schedule "
            f"({run.config.schedule.decay}, over the whole of it): {following:.4g} at the next step; it was "
            f"{last:.4g} at the last one.")


def _fresh(run: Run, params: PyTree, batch_stats: PyTree) -> TrainState:
    """The state before the first step."""
    return make_state(params, batch_stats, run.options.optimizer, run.options.freeze, bool(run.config.ema_decay))
