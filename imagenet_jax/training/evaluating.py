"""Runs a model over part of a dataset on all devices, for the training loop and for `evaluate` alike."""

import contextlib
import functools
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import linen as nn

from imagenet_jax import checkpoint, models
from imagenet_jax import config as config_lib
from imagenet_jax.data import dataset as dataset_lib
from imagenet_jax.data import loader, order
from imagenet_jax.errors import UserError
from imagenet_jax.evaluation import exact, report
from imagenet_jax.evaluation import probabilities as probabilities_lib
from imagenet_jax.training import parallel
from imagenet_jax.training.step import make_apply

PyTree = Any
_TO_DEVICE = ("image", "label", "index", "mask")


class Evaluator(NamedTuple):
    """A compiled evaluation. view: size, resize, library, interpolation and antialias of the centre crop."""

    run: Callable[[PyTree, PyTree], PyTree]
    layout: parallel.Layout
    batch: int
    view: Mapping[str, Any]
    workers: loader.Workers = loader.DEFAULT


def make_evaluator(model: nn.Module, layout: parallel.Layout, *, batch: int, view: Mapping[str, Any],
                   workers: loader.Workers = loader.DEFAULT, probabilities: bool = False) -> Evaluator:
    """Prepares to evaluate `batch` examples at a time over all devices; nothing is compiled yet."""
    step = functools.partial(exact.eval_step, make_apply(model), probabilities=probabilities)
    return Evaluator(parallel.compile_eval(step, layout), layout, batch, view, workers)


def evaluate(evaluator: Evaluator, variables: PyTree, part: loader.Part,
             keep: probabilities_lib.Keep | None = None) -> tuple[exact.Predictions, list[str]]:
    """Judges every example of `part` once.

    Args:
        variables: params and batch_stats as `parallel.put_state` lays them.
        keep: is given the outputs of every batch of this host.

    Returns:
        The predictions of all hosts, and the file name of each where this host read it.
    """
    layout, names = evaluator.layout, {}
    batches = loader.eval_batches(
        part, batch=evaluator.batch, view=evaluator.view, workers=evaluator.workers,
        host_slice=loader.Host(jax.process_index(), jax.process_count()), local_devices=len(layout.local_devices))

    def run(batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        names.update(zip(batch["index"].tolist(), batch["file_name"], strict=True))
        device_batch = parallel.put_batch({key: batch[key] for key in _TO_DEVICE}, layout)
        outputs = parallel.get_examples(evaluator.run(variables, device_batch), layout)
        if keep:
            keep(outputs)
        return outputs

    with contextlib.closing(batches):
        predictions = exact.collect(run, batches, len(part.pool))
    return predictions, [names.get(i, b"").decode() for i in predictions.index.tolist()]


def protocol(dataset: dataset_lib.Dataset, split: str, view: Mapping[str, Any], dtype: str,
             checkpoint: str) -> dict[str, Any]:
    """How a result came to be: it is written beside every result."""
    return {"dataset": dataset.name, "variant": dataset.variant, "split": split, "crop": view["size"],
            "resize": view["resize"], "interpolation": view["interpolation"], "antialias": view["antialias"],
            "library": view.get("library", "tf"), "precision": dtype, "checkpoint": checkpoint}


def variant_warning(dataset: dataset_lib.Dataset) -> str:
    """What to say before evaluating on images that are not the original ones; nothing if they are."""
    if dataset.variant == "original":
        return ""
    return (f"warning: the images of {dataset.name} are not the originals ({dataset.variant}): its accuracies do not "
            "compare with published ones")


def evaluate_checkpoint(path: str, *, dataset_dir: str = "", split: str = "", out: str = "",
                        batch: int = 0, probabilities: bool = False) -> dict[str, Any]:
    """Evaluates a checkpoint as the config saved with it says, and writes the results.

    Args:
        path: a workdir, its `best`, or one checkpoint.
        dataset_dir, split, batch: instead of the config's; a batch changes no metric. The split 'holdout' is what
            the run kept out of the training split.
        out: directory of the results; by default `evaluation` in the workdir the checkpoint lies in.
        probabilities: write those of every class, too, as probabilities.npy.

    Returns:
        What results.json holds.

    Raises:
        UserError: no such checkpoint, dataset, split or holdout, or a dataset with another number of classes.
    """
    directory, step = checkpoint.resolve(path)
    items, meta = checkpoint.read(path, ("params", "batch_stats", "ema"))
    config = config_lib.Config(meta["config"])
    dataset = dataset_lib.open_dataset(config_lib.dataset_dir(dataset_dir or config.dataset.dir))
    classes = meta["dataset"]["classes"]
    if len(dataset.classes) != classes:
        raise UserError(f"{directory}/{step} tells {classes} classes apart, {dataset.directory} has "
                        f"{len(dataset.classes)}: give the --dataset it was trained on, or finetune it "
                        "on this one (init_from)")
    if warning := variant_warning(dataset):
        print(warning, file=sys.stderr)
    split = split or config.dataset.eval_split
    part, cut = open_part(config, dataset, split)
    model = models.make(num_classes=classes, **config.model)
    evaluator = make_evaluator(model, parallel.make_layout(config.parallel), batch=batch or config.evaluation.batch,
                               view=config.view, workers=loader.Workers(**config.loader), probabilities=probabilities)
    variables = {"params": items["ema"] or items["params"], "batch_stats": items["batch_stats"]}
    out = out or os.path.join(os.path.dirname(directory), "evaluation")
    path = os.path.join(out, "probabilities.npy")
    saving = probabilities_lib.saving(path, len(part.pool), classes) if probabilities else contextlib.nullcontext()
    with saving as keep:
        predictions, names = evaluate(evaluator, parallel.put_state(variables, evaluator.layout), part, keep)
    return report.write_evaluation(
        out, predictions, dataset.classes, class_names=dataset.class_names, file_names=names,
        protocol=protocol(dataset, split, config.view, config.model.dtype,
                          f"{os.path.basename(directory)}/{step}") | cut)


def open_part(config: config_lib.Config, dataset: dataset_lib.Dataset,
              split: str) -> tuple[loader.Part, dict[str, Any]]:
    """A split, or the holdout of a run's training split; and what the protocol must say of the cut."""
    if split != "holdout" or split in dataset.splits:
        records = dataset_lib.open_split(dataset, split)
        return loader.Part(records, np.arange(len(records))), {}
    records = dataset_lib.open_split(dataset, config.dataset.train_split)
    cut = {"holdout": config.dataset.holdout, "fold": config.dataset.get("fold", 0)}
    part = loader.Part(records, order.split_holdout(len(records), cut["holdout"], cut["fold"])[1])
    if not len(part.pool):
        raise UserError("the run kept no holdout: train it with --config.dataset.holdout=0.1, say")
    return part, cut
