"""What a recipe says of its steps: model, optimizer, loss, learning rate. Of the data it knows the size only."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

from imagenet_jax import config as config_lib
from imagenet_jax import models
from imagenet_jax.errors import UserError
from imagenet_jax.training import losses, optimizer, parallel, schedule
from imagenet_jax.training.mixing import Mix
from imagenet_jax.training.step import StepOptions, train_step
from imagenet_jax.transfer import freeze


def step_options(config: config_lib.Config, num_classes: int, learning_rate: schedule.Schedule) -> StepOptions:
    """What the train step of a config is made of.

    Raises:
        UserError: an unknown model, or an option this model does not have.
    """
    model = models.make(num_classes=num_classes, **config.model)
    patterns = tuple(config.freeze)
    if patterns:
        model = dataclasses.replace(model, frozen=functools.partial(freeze.is_frozen, patterns=patterns))
    stated = dict(config.optimizer)
    sam_rho = stated.pop("sam_rho")
    return StepOptions(model, optimizer.make(learning_rate, **stated),
                       losses.make(**config.loss), config.seed, patterns,
                       config.ema_decay, config.ema_warmup, config.aux_weight, Mix(**config.mix), sam_rho)


def compile_step(config: config_lib.Config, options: StepOptions, layout: parallel.Layout) -> Callable[..., Any]:
    """The train step of a config on a layout, see `parallel.compile_step`."""
    return parallel.compile_step(functools.partial(train_step, options), layout, config.compiler_options)


def plan(config: config_lib.Config, examples: int) -> tuple[int, schedule.Schedule]:
    """Steps of the whole run over `examples`, and its learning rate."""
    total, steps = _durations(config, examples)
    return total, schedule.make(steps, total, epoch=examples / config.global_batch, **_peaks(config))


def augment(config: config_lib.Config, examples: int) -> dict[str, Any]:
    """The section `augment` as the input takes it: the boundaries of its ramp are steps.

    Progressive resizing: from each boundary on images are of another size, as in configs/resnet_ffcv.py. What is judged
    should be larger than the last of them (Touvron et al. 2019, https://arxiv.org/abs/1906.06423).

    Raises:
        UserError: boundaries that do not rise from after the first step to before the end.
    """
    total, steps = _durations(config, examples)
    ramp = tuple((steps(boundary), px) for boundary, px in config.augment.ramp)
    marks = [step for step, _ in ramp]
    if sorted({0, *marks, total}) != [0, *marks, total]:
        raise UserError(f"augment.ramp={config.augment.ramp!r} has its boundaries at steps {marks}, but they must rise "
                        f"from after step 0 to before the end of the run, step {total}. Shorten them like the "
                        "duration, or write them as percentages")
    return {**config.augment, "ramp": ramp}


def _durations(config: config_lib.Config, examples: int) -> tuple[int, Callable[[str], int]]:
    """Steps of the whole run over `examples`, and what turns a duration inside it into steps."""
    total = config_lib.steps(config.duration, examples, config.global_batch, stretch=config.stretch)
    if total < 1:
        raise UserError(f"duration={config.duration!r} is less than one step of {config.global_batch} examples")
    if total >= 2**31:
        raise UserError(f"duration={config.duration!r} is {total:,} steps, more than are counted (2^31)")
    return total, functools.partial(config_lib.steps, examples=examples, global_batch=config.global_batch, total=total,
                                    stretch=config.stretch)


def scaling(config: config_lib.Config) -> str:
    """What the recipe's rule makes of its learning rate for a batch that is not its own, in words; else nothing."""
    stated, batch = config.schedule, config.schedule.batch
    if batch in (None, config.global_batch):
        return ""
    return (f"The learning rate is {_peaks(config)['peak']:.4g} at its peak for a batch of {config.global_batch:,}: "
            f"the recipe has {stated.peak:.4g} for {batch:,}, and the {stated.scaling} rule for others.")


def _peaks(config: config_lib.Config) -> dict[str, Any]:
    """The schedule with those of its rates that go with the batch as the recipe's rule has them for this one."""
    stated = dict(config.schedule)
    rule = {"batch": stated.pop("batch"), "rule": stated.pop("scaling"), "global_batch": config.global_batch}
    rates = {key: schedule.scaled(stated[key], **rule) for key in ("peak", "final")}
    return stated | rates | {"values": tuple(schedule.scaled(value, **rule) for value in stated["values"])}
