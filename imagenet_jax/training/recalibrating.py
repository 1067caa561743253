"""BatchNorm statistics of weights as they are, taken from training examples as an evaluation sees them.

Running statistics lag behind weights that moved while they were taken, of crops that were drawn for training. Those of
the weights that are judged are the mean over many groups ("precise", Wu & Johnson 2021, section 3,
https://arxiv.org/abs/2105.07576; fvcore/nn/precise_bn.py). Averaged weights need them (Izmailov et al. 2018,
https://arxiv.org/abs/1803.05407), and other resolutions gain by them (Touvron et al. 2019,
https://arxiv.org/abs/1906.06423).
"""

import contextlib
import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from flax import linen as nn
from jax import lax

from imagenet_jax import config as config_lib
from imagenet_jax import dataset as dataset_lib
from imagenet_jax.errors import UserError
from imagenet_jax.hosts import watchdog
from imagenet_jax.input import loader, order
from imagenet_jax.models.layers import AXIS
from imagenet_jax.training import parallel
from imagenet_jax.training.step import normalize

PyTree = Any


def recalibrate(config: config_lib.Config, dataset: dataset_lib.Dataset, model: nn.Module, layout: parallel.Layout,
                variables: PyTree, examples: int) -> tuple[PyTree, dict[str, str]]:
    """Takes the statistics anew from the beginning of the run's training order; its holdout is no part of that.

    Args:
        variables: params and batch_stats, on the host.
        examples: how many at least, in whole groups of `model.bn_group`; 0 keeps the statistics there are.

    Returns:
        The variables with their batch_stats, and what the protocol says of these.

    Raises:
        UserError: a model without BatchNorm, a dataset without the training split.
    """
    if not examples:
        return variables, {}
    if not variables.get("batch_stats"):
        raise UserError(f"{config.model.name} has no BatchNorm whose statistics could be taken anew")
    examples = -(-examples // model.bn_group) * model.bn_group
    records = dataset_lib.open_split(dataset, config.dataset.train_split)
    pool, _ = order.split_holdout(len(records), config.dataset.holdout, config.dataset.fold)
    part = loader.Part(records, pool[order.stream(config.seed, len(pool), np.arange(examples))])
    view = {**config.view, "crops": 1, "scales": ()}
    means = mean_statistics(model, layout, variables, part, view, loader.Workers(**config.loader))
    told = (f"statistics of {examples:,} examples of '{config.dataset.train_split}' in groups of {model.bn_group}, "
            f"centre crops of {view['size']} px at {view['resize']} px")
    return {**variables, "batch_stats": means}, {"batch_norm": told}


def mean_statistics(model: nn.Module, layout: parallel.Layout, variables: PyTree, part: loader.Part,
                    view: Mapping[str, Any], workers: loader.Workers = loader.DEFAULT) -> PyTree:
    """The mean of the batch_stats that each group of `model.bn_group` examples of `part` has, in its order.

    A device takes a group at a time, so that the number of devices decides nothing. Dropout and drop path are off, as
    they are where the statistics are used.

    Args:
        variables: params and batch_stats, on the host.
        part: whole groups.
        view: keys of `config.view` with a single crop.
    """
    off = {field.name: 0.0 for field in dataclasses.fields(model) if field.name in ("dropout", "drop_path")}
    step = functools.partial(summed_statistics, dataclasses.replace(model, bn_momentum=0.0, **off))
    compiled, placed = parallel.compile_eval(step, layout), parallel.put_state(variables, layout)
    batches = loader.eval_batches(
        part, batch=model.bn_group * len(layout.devices), view=view, workers=workers,
        host_slice=loader.Host(jax.process_index(), jax.process_count()), local_devices=len(layout.local_devices))
    total, groups = jax.tree.map(np.zeros_like, variables["batch_stats"]), 0
    with contextlib.closing(batches):
        for batch in batches:
            device_batch = parallel.put_batch({key: batch[key] for key in ("image", "mask")}, layout)
            with watchdog.doing("waiting for the devices, for statistics of BatchNorm"):
                found, count = parallel.get_examples(compiled(placed, device_batch), layout)
            total = jax.tree.map(lambda sums, x: sums + np.float64(x[0]), total, found)
            groups += int(count[0])
            watchdog.passed(f"{groups} groups for statistics of BatchNorm")
    return jax.tree.map(lambda sums, old: (sums / groups).astype(old.dtype), total, variables["batch_stats"])


def summed_statistics(model: nn.Module, variables: PyTree, batch: Mapping[str, jax.Array]) -> tuple[PyTree, jax.Array]:
    """Sums [1, C] of the statistics of a group on each device, without padding, and of how many groups, [1].

    model: one whose running statistics are those of the last group.
    """
    image = normalize(batch["image"], model).astype(model.dtype)
    _, updated = model.apply(variables, image, train=True, mutable=["batch_stats", "aux"])
    real = batch["mask"][:1]
    return lax.psum((jax.tree.map(lambda x: x[None] * real, updated["batch_stats"]), real), AXIS)
