"""Runs a model over part of a dataset on all devices, for the training loop and for `evaluate` alike."""

import contextlib
import functools
import json
import math
import os
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import linen as nn

from imagenet_jax import checkpoint, hosts, models, trees
from imagenet_jax import config as config_lib
from imagenet_jax import dataset as dataset_lib
from imagenet_jax.classes import Classes, join
from imagenet_jax.dataset.places import local_folder
from imagenet_jax.errors import UserError
from imagenet_jax.evaluation import exact, report
from imagenet_jax.evaluation import probabilities as probabilities_lib
from imagenet_jax.hosts import watchdog
from imagenet_jax.input import loader, order, pixels
from imagenet_jax.models import weights
from imagenet_jax.training import parallel, recalibrating
from imagenet_jax.training.step import make_apply
from imagenet_jax.transfer import load

PyTree = Any
_TO_DEVICE = ("image", "label", "index", "mask")
_BATCH_BYTES = 5 * 10**8  # of pixels that a host has in a batch, at most: with 150 crops one example has 11 MB


class StoppedError(Exception):
    """An evaluation was stopped between two batches."""


class Evaluator(NamedTuple):
    """A compiled evaluation. batch: examples at a time over all devices. view: the keys of `config.view`."""

    run: Callable[[PyTree, PyTree], PyTree]
    layout: parallel.Layout
    batch: int
    view: Mapping[str, Any]
    workers: loader.Workers = loader.DEFAULT


def make_evaluator(model: nn.Module, layout: parallel.Layout, *, batch: int, view: Mapping[str, Any],
                   workers: loader.Workers = loader.DEFAULT, probabilities: bool = False,
                   columns: np.ndarray | None = None) -> Evaluator:
    """Prepares to evaluate `batch` examples at a time, or what memory holds, as many on each device; compiles nothing.

    columns: int32 [classes], the model's logit of each class of the dataset, if they differ.
    """
    step = functools.partial(exact.eval_step, make_apply(model), probabilities=probabilities, columns=columns,
                             mirrored=view.get("crops") in pixels.MIRRORED)
    devices = len(layout.devices)
    batch = -(-min(batch, fitting(view) * jax.process_count()) // devices) * devices
    return Evaluator(parallel.compile_eval(step, layout), layout, batch, view, workers)


def compile_ahead(evaluator: Evaluator, variables: PyTree) -> parallel.Compiled:
    """The program of a batch for variables like these, which `evaluate` then uses; a memory too small is known now."""
    view = evaluator.view
    count = evaluator.batch // jax.process_count()
    shape = (count, *pixels.crop_axes(view.get("crops", 1), view.get("scales", ())), view["size"], view["size"], 3)
    batch = {"image": np.zeros(shape, np.uint8), "label": np.zeros(count, np.int32), "index": np.zeros(count, np.int64),
             "mask": np.zeros(count, np.float32)}
    return parallel.compiled(evaluator.run, variables, parallel.put_batch(batch, evaluator.layout))


def fitting(view: Mapping[str, Any]) -> int:
    """Examples whose pixels a host has in a batch, at most; `view` has the keys of `config.view`."""
    crops = math.prod(pixels.crop_axes(view.get("crops", 1), view.get("scales", ())))
    return max(1, _BATCH_BYTES // (crops * view["size"] ** 2 * 3))


def evaluate(evaluator: Evaluator, variables: PyTree, part: loader.Part,
             keep: probabilities_lib.Keep | None = None,
             is_stopped: Callable[[], bool] = lambda: False) -> tuple[exact.Predictions, list[str]]:
    """Judges every example of `part` once.

    Args:
        variables: params and batch_stats as `parallel.put_state` lays them.
        keep: is given the outputs of every batch, those of all hosts.
        is_stopped: asked before every batch.

    Returns:
        The predictions of all hosts, and the file name of each.

    Raises:
        StoppedError: is_stopped() was true.
    """
    layout, names = evaluator.layout, {}

    def running(batches: Iterator[tuple[loader.Batch, PyTree]]) -> Iterator[PyTree]:
        for batch, device_batch in batches:
            if is_stopped():
                raise StoppedError
            names.update(zip(batch["index"].tolist(), batch["file_name"], strict=True))
            yield evaluator.run(variables, device_batch)

    def judged(results: Iterator[PyTree]) -> Iterator[dict[str, np.ndarray]]:
        for result in parallel.dispatched(results):
            with watchdog.doing("waiting for the devices in an evaluation"):
                outputs = parallel.get_examples(result, layout)
                if keep:
                    keep(exact.join_hosts(outputs))
            watchdog.passed(f"{len(names)} examples of an evaluation")
            yield outputs

    with contextlib.closing(placed(evaluator, part)) as batches:
        predictions = exact.collect(judged(running(batches)), len(part.pool))
    names = exact.join_names(names)
    return predictions, [names[i].decode() for i in predictions.index.tolist()]


def placed(evaluator: Evaluator, part: loader.Part) -> Iterator[tuple[loader.Batch, PyTree]]:
    """This host's batches of a part, each with what of it lies on the devices, ahead of time."""
    layout = evaluator.layout
    batches = loader.eval_batches(
        part, batch=evaluator.batch, view=evaluator.view, workers=evaluator.workers,
        host_slice=loader.Host(jax.process_index(), jax.process_count()), local_devices=len(layout.local_devices))

    def put(batch: loader.Batch) -> tuple[loader.Batch, PyTree]:
        return batch, parallel.put_batch({key: batch[key] for key in _TO_DEVICE}, layout)

    return loader.prefetch(batches, put, evaluator.workers.prefetch)


def protocol(dataset: dataset_lib.Dataset, split: str, config: config_lib.Config, model: nn.Module,
             checkpoint: str, which: str) -> dict[str, Any]:
    """How a result came to be: it is written beside every result. which: 'weights' or 'averaged weights'."""
    view = config.view
    return {"dataset": dataset.name, "variant": dataset.variant, "split": split, "model": config.model.name,
            "crop": view.size, "crops": view.crops, "resize": None if view.scales else view.resize,
            "scales": view.scales, "interpolation": view.interpolation, "antialias": view.antialias,
            "library": view.library, "mean": model.mean, "std": model.std, "precision": config.model.dtype,
            "checkpoint": checkpoint, "evaluated": which}


def variant_warning(dataset: dataset_lib.Dataset) -> str:
    """What to say before evaluating on images that are not the original ones; nothing if they are."""
    if dataset.variant == "original":
        return ""
    return (f"warning: the images of {dataset.name} are not the originals ({dataset.variant}): its accuracies do not "
            "compare with published ones")


class Trained(NamedTuple):
    """What can be evaluated.

    source, which: in results, where from, and 'weights' or 'averaged weights'. directory: of the run, or where
    results of a file go.
    """

    variables: PyTree
    config: config_lib.Config
    classes: Classes
    source: str
    which: str
    directory: str


def open_trained(path: str, model_name: str = "") -> Trained:
    """A checkpoint with its config; or a file of weights, or those published of a network.

    A file is seen in the network's own view, or in that of the run that it was exported from.

    Args:
        path: a workdir, its `best`, one checkpoint, a .safetensors or .pth file, or a name of the zoo.
        model_name: of a file that does not say it.

    Raises:
        UserError: nothing there, or a file of which network or classes are not known.
    """
    file = weights.locate(path)
    if not weights.is_file(file):
        if model_name:
            raise UserError(f"--model={model_name} is for a file of weights; {path} says itself of which network it is")
        directory, step = checkpoint.resolve(path)
        variables, meta, which = checkpoint.read_weights(path)
        if "classes" not in meta:
            raise UserError(f"{directory}/{step} is older than the names of classes in checkpoints: go on with its run "
                            "(train), and evaluate the next one")
        return Trained(variables, config_lib.restored(meta["config"]), Classes(*map(tuple, meta["classes"])),
                       f"{os.path.basename(directory)}/{step}", which, os.path.dirname(directory))
    notes = weights.notes(file)
    name = model_name or (path if path in models.REGISTRY else notes.get("model", ""))
    if not name:
        raise UserError(f"{path} does not say which network it is of: add --model=NAME")
    variables, classes = load.variables_of_file(file, name)
    if classes is None:
        raise UserError(f"{path} does not say which classes it tells apart; only 1000 are taken for ImageNet's")
    config = config_lib.base()
    config.model.name, config.view.library = name, "pil"  # which published accuracies rest on
    if hasattr(models.make(name, 0), "aux"):
        config.model.aux = False
    if "view" in notes:  # of the run that we exported it from
        config.view.update(json.loads(notes["view"]))
    return Trained(variables, models.fill_view(config), classes, os.path.basename(file), "weights", name)


def evaluate_checkpoint(path: str, *, model_name: str = "", dataset_dir: str = "", split: str = "", out: str = "",
                        batch: int = 0, view: Mapping[str, Any] | None = None, bn_examples: int = 0,
                        probabilities: bool = False) -> dict[str, Any]:
    """Evaluates a checkpoint as the config saved with it says, or a file of weights, and writes the results.

    Args:
        path, model_name: see `open_trained`.
        dataset_dir, split, batch: instead of the config's; a batch changes no metric. The split 'holdout' is what the
            run kept out of the training split.
        view: keys of `config.view`, see `set_view`.
        bn_examples: of the training split, in whole groups, that BatchNorm's statistics are taken from; 0 for those of
            the checkpoint.
        out: directory of the results; by default `evaluation` in the workdir the checkpoint lies in, or in a
            directory called like the network.
        probabilities: write those of every class, too, as probabilities.npy.

    Returns:
        What results.json holds.

    Raises:
        UserError: no such checkpoint, dataset, split or holdout, or a dataset with a class that the model has not.
    """
    trained = open_trained(path, model_name)
    _check_hosts(trained, split=split, out=out, batch=batch, view=dict(view or {}), bn_examples=bn_examples,
                 probabilities=probabilities)
    config, classes = trained.config, trained.classes
    set_view(config, view or {})
    dataset = dataset_lib.open_dataset(config_lib.dataset_dir(dataset_dir or config.dataset.dir))
    ours, columns, found = match_classes(dataset, classes)
    if warning := variant_warning(dataset):
        print(warning, file=sys.stderr)
    split = split or config.dataset.eval_split or "holdout"
    part, cut = open_part(config, dataset, split)
    model = models.make(num_classes=len(classes.ids), **config.model)
    evaluator = make_evaluator(model, parallel.make_layout(config.parallel), batch=batch or config.evaluation.batch,
                               view=config.view, workers=loader.Workers(**config.loader), probabilities=probabilities,
                               columns=columns)
    out = out or os.path.join(trained.directory, "evaluation")
    local_folder(out, "out")
    saving = _saving(out, len(part.pool), len(ours.ids)) if probabilities else contextlib.nullcontext()
    with saving as keep, watchdog.watched("batch"):
        variables, taken = recalibrating.recalibrate(config, dataset, model, evaluator.layout, trained.variables,
                                                     bn_examples)
        predictions, names = evaluate(evaluator, parallel.put_state(variables, evaluator.layout), part, keep)
    return hosts.from_first("the results", lambda: report.write_evaluation(
        out, predictions, ours, file_names=names, records=part.records,
        protocol=protocol(dataset, split, config, model, trained.source, trained.which) | cut | found | taken))


def _saving(out: str, examples: int, classes: int) -> contextlib.AbstractContextManager[probabilities_lib.Keep]:
    """Yields what keeps probabilities: they are joined from all hosts, so that each takes part; the first writes."""
    if not hosts.is_first():
        return contextlib.nullcontext(lambda outputs: None)
    return probabilities_lib.saving(os.path.join(out, "probabilities.npy"), examples, classes)


def set_view(config: config_lib.Config, changes: Mapping[str, Any]) -> None:
    """Has evaluation see other crops than the config says.

    A crop of another size keeps its share of the shorter side, and a shorter side replaces several, unless said.

    Raises:
        UserError: no image can be seen so.
    """
    view = config.view
    if "resize" in changes:
        view.scales = ()
    elif "size" in changes:
        view.resize = round(changes["size"] * view.resize / view.size)
    view.update(changes)
    config_lib.check_view(config)


def match_classes(dataset: dataset_lib.Dataset, model: Classes) -> tuple[Classes, np.ndarray | None, dict[str, str]]:
    """A dataset's classes as the model calls them, their columns of its logits, and what the protocol says of it.

    Columns are None where the classes are the model's own.

    Raises:
        UserError: a class that the model has not.
    """
    ours = Classes(dataset.classes, dataset.class_names)
    if ours.ids == model.ids:
        return ours, None, {}
    columns, how = join(ours, model)
    ours = Classes(*(tuple(words[label] for label in columns) for words in model))
    if how == "number":
        print(f"warning: the classes of {dataset.directory} are numbers, taken for labels of the model: "
              f"{dataset.classes[0]} for {ours.names[0]}, ...", file=sys.stderr)
    rest = "; the logits of the others do not count" if len(columns) < len(model.ids) else ""
    return ours, columns, {"classes": f"{len(columns)} of the model's {len(model.ids)}, found by {how}{rest}"}


def _check_hosts(trained: Trained, **choices: Any) -> None:
    """Raises UserError, on all hosts, if one evaluates something else, or otherwise, than the first; names it."""
    if hosts.several():
        weights = zlib.crc32(json.dumps(trees.digests(trained.variables)).encode())
        hosts.check_alike("what they are to do", hosts.of_this_host() | choices | {
            "checkpoint": trained.source, "weights (CRC)": f"{weights:08x}"})


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
        raise UserError("the run kept no holdout: train it with --config.dataset.holdout=0.1, say; or name the --split "
                        f"to evaluate on, {' or '.join(dataset.splits)}")
    return part, cut
