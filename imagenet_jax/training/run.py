"""What a run is made of: data, model, optimizer, layout, step; nothing is compiled and nothing written."""

import functools
import os
import zlib
from typing import Any, NamedTuple

import jax
import numpy as np

from imagenet_jax import config as config_lib
from imagenet_jax import dataset as dataset_lib
from imagenet_jax.cleaning import manifest
from imagenet_jax.dataset import cache
from imagenet_jax.errors import UserError
from imagenet_jax.input import loader, order, parts
from imagenet_jax.training import adding, optimizer, parallel, schedule
from imagenet_jax.training.recipe import augment, plan, scaling, step_options
from imagenet_jax.training.state import TrainState, init_variables
from imagenet_jax.training.step import StepOptions
from imagenet_jax.transfer import freeze


class Cadence(NamedTuple):
    """How many steps lie between two lines of metrics, evaluations, checkpoints, checkpoints kept for ever (0: none).

    patience: steps without a better holdout top-1 after which the run stops, 0 for never.
    """

    log: int
    judge: int
    save: int
    milestone: int
    patience: int


class Run(NamedTuple):
    """All that a run is made of and that no step changes."""

    config: config_lib.Config
    workdir: str
    dataset: dataset_lib.Dataset
    train_part: loader.Part
    judged: dict[str, loader.Part]  # 'holdout', 'val' and 'added', where there are such
    layout: parallel.Layout
    micro_batches: int
    total_steps: int
    cadence: Cadence
    learning_rate: schedule.Schedule
    options: StepOptions
    augment: dict[str, Any]  # the section, its ramp in steps
    notes: tuple[str, ...] = ()  # for the report


def build(config: config_lib.Config, workdir: str) -> Run:
    """Opens the data and makes model, optimizer and layout.

    Raises:
        UserError: no such data, a split that is not there, no example to train on, or choices that contradict.
    """
    dataset = dataset_lib.open_dataset(config_lib.dataset_dir(config.dataset.dir))
    train_part, judged, notes = open_parts(config, dataset)
    examples = parts.epoch(train_part, config.global_batch)
    total, learning_rate = plan(config, examples)
    options = step_options(config, len(dataset.classes), learning_rate)
    layout = parallel.make_layout(config.parallel)
    micro = parallel.micro_batches(layout, config.global_batch, config.max_per_device_batch,
                                   getattr(options.model, "bn_group", None))
    section = sized(config, options, examples)
    notes = (*notes, *filter(None, [scaling(config)]))
    return Run(config, workdir, dataset, train_part, judged, layout, micro, total,
               cadence(config, examples, total), learning_rate, options, section, notes)


def sized(config: config_lib.Config, options: StepOptions, examples: int) -> dict[str, Any]:
    """The section `augment` with its ramp in steps, of sizes that the model takes with the same weights.

    Raises:
        UserError: it does not; or as recipe.augment.
    """
    section = augment(config, examples)
    shapes = [jax.eval_shape(functools.partial(init_variables, options.model, size, config.seed))
              for _, size in loader.sizes(section, 0)] if section["ramp"] else []
    for (_, size), found in zip(section["ramp"], shapes[1:], strict=True):
        if found != shapes[0]:
            raise UserError(f"augment.ramp={config.augment.ramp!r}: {config.model.name} has other weights for {size} "
                            f"px than for {config.augment.size}. Train it at one size, or choose another model.name")
    return section


def open_parts(config: config_lib.Config, dataset: dataset_lib.Dataset
               ) -> tuple[loader.Part, dict[str, loader.Part], tuple[str, ...]]:
    """What is trained on, what is judged, and notes of what was left out."""
    records = cache.keep(dataset_lib.open_split(dataset, config.dataset.train_split), config.loader.cache_gb)
    pool, holdout = order.split_holdout(len(records), config.dataset.holdout, config.dataset.fold)
    if config.dataset.holdout and not len(holdout) or not len(pool):
        raise UserError(f"dataset.holdout={config.dataset.holdout} of {len(records):,} examples leaves "
                        f"{len(holdout):,} to judge by and {len(pool):,} to train on")
    pool, notes = without_flagged(config, dataset, pool)
    directory = dataset.directory if "://" in dataset.directory else os.path.abspath(dataset.directory)
    judged = {"holdout": loader.Part(records, holdout)} if len(holdout) else {}
    split = config.dataset.eval_split
    if split and split not in dataset.splits:
        raise UserError(f"{dataset.directory} has no split '{split}' to evaluate on; it has "
                        f"{', '.join(map(repr, dataset.splits))}. Without any, set dataset.eval_split='', and perhaps "
                        "dataset.holdout=0.02 to judge by a part of the training split")
    if split:
        eval_records = dataset_lib.open_split(dataset, split)
        judged["val"] = loader.Part(eval_records, np.arange(len(eval_records)))
    part = loader.Part(records, pool, (directory, config.dataset.train_split))
    if second := adding.open_added(config, dataset):
        part, judged, notes = part._replace(added=second.added), judged | second.judged, (*notes, *second.notes)
    return part, judged, notes


def without_flagged(config: config_lib.Config, dataset: dataset_lib.Dataset,
                    pool: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """The training pool without what dataset.exclude flags, and a note of how many that were."""
    if not config.dataset.exclude:
        return pool, ()
    names = (config.dataset.exclude_flags,) if isinstance(config.dataset.exclude_flags, str) else \
        tuple(config.dataset.exclude_flags)
    flagged = manifest.excluded(config.dataset.exclude, dataset, config.dataset.train_split, names)
    kept = np.setdiff1d(pool, flagged)
    if not len(kept):
        raise UserError(f"{config.dataset.exclude} flags every training example: name fewer dataset.exclude_flags")
    return kept, (f"Left out {len(pool) - len(kept):,} of {len(pool):,} training examples that "
                  f"{config.dataset.exclude} flags as {' or '.join(names) or 'anything'}.",)


def cadence(config: config_lib.Config, examples: int, total: int) -> Cadence:
    """The durations of a config in steps; what is shorter than a step is one."""

    def steps(duration: str) -> int:
        return max(1, config_lib.steps(duration, examples, config.global_batch, total)) if duration else 0

    return Cadence(steps(config.log_every), steps(config.evaluation.every), steps(config.checkpoint.every),
                   steps(config.checkpoint.milestones), steps(config.early_stopping))


def identity(run: Run) -> dict[str, Any]:
    """What must not change about the data while a run goes on."""
    same = {"name": run.dataset.name, "train_examples": len(run.train_part.records),
            "classes": len(run.dataset.classes)}
    pool = zlib.crc32(run.train_part.pool.tobytes())  # the path of a manifest may stay while its flags change
    added = run.train_part.added
    return (same | ({"pool": pool} if run.config.dataset.exclude else {})
            | ({"added_examples": len(added.part.records)} if added else {}))


def describe(run: Run, state: TrainState) -> str:
    """What is about to happen, in a few lines."""
    config, devices = run.config, run.layout.devices
    count = sum(x.size for x in jax.tree.leaves(state.params))
    share = config.global_batch // len(devices)
    splits = ", ".join(f"{split} {len(part.pool):,}" for split, part in run.judged.items()) or "nothing to judge by"
    ramp = "".join(f", {size} from step {first:,} on" for first, size in run.augment["ramp"])
    accumulated = f" in {run.micro_batches} micro-batches" if run.micro_batches > 1 else ""
    trainable, frozen = freeze.split(state.params, run.options.freeze)
    held = f", {len(frozen)} of {len(trainable) + len(frozen)} arrays frozen" if frozen else ""
    decaying = optimizer.decaying(trainable, config.optimizer.decay) if config.optimizer.weight_decay else ()
    return (f"{config.model.name}: {count:,} parameters, {config.model.dtype} compute{held}, weight decay on "
            f"{len(decaying)} of {len(trainable)} trained arrays\n"
            f"{run.dataset.name}: {len(run.train_part.pool):,} training examples of {len(run.dataset.classes)} "
            f"classes, {splits}\n{_added(run)}"
            f"{run.total_steps:,} steps of {config.global_batch}: {len(devices)} x {devices[0].device_kind} under "
            f"{run.layout.mode}, {share} examples each{accumulated}"
            + (f"\nimages of {config.augment.size} px{ramp}" if ramp else ""))


def _added(run: Run) -> str:
    """How a second dataset is trained on, a line; nothing where there is none."""
    if not run.train_part.added:
        return ""
    (part, count), batch = run.train_part.added, run.config.global_batch
    return (f"added from {part.origin[0]}: {len(part.pool):,} training examples, {count} of every {batch}: "
            f"{run.total_steps * count / len(part.pool):.1f} epochs of them\n")
