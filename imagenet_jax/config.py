"""Every key of a run with its default, durations with units, and the check that nothing is nonsense.

A recipe starts from `base()` and overrides; the command line overrides the recipe with
`--config.section.key=value`. Sections are the keyword arguments of the function named beside them.
"""

import difflib
import os
import re
from collections.abc import Callable, Iterator
from typing import Any

import ml_collections
from ml_collections.config_dict import placeholder

from imagenet_jax.errors import UserError

Config = ml_collections.ConfigDict
PIL_FILTERS = ("bilinear", "bicubic")


def base() -> Config:
    """The default of every key. Recipes change what their paper says and leave the rest."""
    config = Config()
    config.seed = 0  # initial weights, order, augmentation, dropout
    config.duration = "90 epochs"  # 'N epochs' or 'N steps'
    config.global_batch = 256  # examples in one optimizer step, whatever the hardware
    config.max_per_device_batch = 256  # a larger share of the global batch is accumulated in micro-batches
    config.parallel = "pmap"  # or 'shard_map': jit + shard_map on a one-axis mesh; same numbers
    config.log_every = "50 steps"
    config.aux_weight = 0.3  # of the loss of each auxiliary head, in models that have them
    config.ema_decay = 0.0  # exponential moving average of the weights, evaluated instead of them; 0 for none

    config.dataset = Config()  # which examples
    config.dataset.dir = ""  # what `prepare` wrote; empty for the environment variable IMAGENET_DIR
    config.dataset.train_split = "train"
    config.dataset.eval_split = "validation"  # reported, never selected on
    config.dataset.holdout = 0.0  # fraction of the training split kept out, for model selection
    config.dataset.fold = 0  # which of the round(1 / holdout) disjoint holdouts
    config.dataset.exclude = ""  # a manifest of `clean`: what it flags is not trained on; empty for none
    config.dataset.exclude_flags = ()  # only what it flags as one of these, such as 'leak'; () for every flag
    config.dataset.service = ""  # 'host:port' of a tf.data service that decodes for training; see input.service

    config.loader = Config()  # input.loader.Workers
    config.loader.threads = 0  # of the tf.data pool; 0 for one a core
    config.loader.prefetch = 2  # batches held on the devices ahead of the step
    config.loader.ram_gb = 0.0  # that tf.data may fill with examples on their way; 0 for half of what is free
    config.loader.cache_gb = 0.0  # of encoded records kept in memory, filled once; 0 for none

    config.augment = Config()  # input.pixels.train_example
    config.augment.size = placeholder(int)  # px, side of the square the network sees; None for view.size
    config.augment.area = (0.08, 1.0)  # fraction of the image's area that a crop covers
    config.augment.aspect = (3 / 4, 4 / 3)  # width / height of a crop
    config.augment.flip = True  # left-right, half of the time
    config.augment.interpolation = "bilinear"  # or 'bicubic', 'nearest', 'area'
    config.augment.antialias = False  # True halves the speed of input; see input.pixels.train_example

    config.view = Config()  # input.pixels.eval_example; None leaves it to the network, see `models` on the command line
    config.view.size = placeholder(int)  # px, side of the centre crop
    config.view.resize = placeholder(int)  # px, shorter side before the crop; None keeps the network's share
    config.view.library = "tf"  # or 'pil': torchvision's pixels bit for bit, which most published accuracies rest on
    config.view.interpolation = placeholder(str)  # 'bilinear', 'bicubic', 'nearest' or 'area'
    config.view.antialias = True  # PIL always does

    config.model = Config()  # models.make; None leaves the family's own value
    config.model.name = "resnet50"
    config.model.dtype = "float32"  # compute type, or 'bfloat16'; parameters stay float32
    config.model.width = placeholder(int)  # channels of the first stage
    config.model.dropout = placeholder(float)
    config.model.drop_path = placeholder(float)  # of the last residual branch, growing from 0 at the first
    config.model.bn_group = placeholder(int)  # examples that share BatchNorm statistics (32)
    config.model.bn_momentum = placeholder(float)  # kept share of the running statistics (0.9)
    config.model.bn_epsilon = placeholder(float)
    config.model.zero_init_residual = placeholder(bool)  # the last BatchNorm scale of a block starts at 0
    config.model.aux = placeholder(bool)  # auxiliary heads (GoogLeNet, Inception v3)

    config.loss = Config()  # training.losses.cross_entropy
    config.loss.label_smoothing = 0.0

    config.optimizer = Config()  # training.optimizer.make
    config.optimizer.momentum = 0.9
    config.optimizer.nesterov = False
    config.optimizer.weight_decay = 1e-4  # coupled L2: added to the gradient before momentum
    config.optimizer.decay = r"kernel$"  # regular expression over parameter paths: what decays
    config.optimizer.clip_norm = 0.0  # of the global gradient; 0 for none

    config.schedule = Config()  # training.schedule.make
    config.schedule.peak = 0.1  # learning rate after warm-up
    config.schedule.warmup = "0 epochs"  # linear from 0
    config.schedule.decay = "cosine"  # or 'step', 'polynomial', 'constant'
    config.schedule.boundaries = ()  # for 'step': when the rate is multiplied by `factor`
    config.schedule.factor = 0.1
    config.schedule.power = 1.0  # for 'polynomial'
    config.schedule.final = 0.0  # learning rate at the end of 'cosine' and 'polynomial'

    config.evaluation = Config()
    config.evaluation.every = "1 epochs"  # the evaluation split, and the holdout where there is one
    config.evaluation.batch = 256  # examples at a time; changes no metric

    config.checkpoint = Config()
    config.checkpoint.every = "1 epochs"
    config.checkpoint.every_minutes = 15.0  # of wall clock, whichever comes first
    config.checkpoint.keep = 2  # last ones kept
    config.checkpoint.milestones = ""  # duration whose multiples are kept for ever; empty for none

    config.init_from = ""  # to finetune from: a workdir, a checkpoint, a .safetensors or .pth file, a published network
    config.freeze = ()  # regular expressions over parameter paths; '!^head/' is everything but the head
    config.early_stopping = ""  # stop after this duration without a better holdout top-1; empty for never
    return config.lock()


def steps(duration: str, examples: int, global_batch: int, total: int | None = None) -> int:
    """Optimizer steps in a duration: '90 epochs' of `examples`, '5000 steps', or '10%' of `total` steps.

    Raises:
        UserError: not a duration, or a percentage where there is no total.
    """
    number, unit = _parse_duration(duration)
    if unit == "%":
        if total is None:
            raise UserError(f"duration {duration!r}: a percentage of what? Use 'N epochs' or 'N steps' here")
        return round(number / 100 * total)
    return round(number * examples / global_batch) if unit == "epochs" else round(number)


def _parse_duration(duration: str) -> tuple[float, str]:
    match = re.fullmatch(r"\s*(\d+(?:\.\d*)?)\s*(epochs?|steps?|%)\s*", str(duration))
    if not match:
        raise UserError(f"{duration!r} is not a duration; write it as '90 epochs', '5000 steps' or '10%'")
    unit = match[2].rstrip("s")
    return float(match[1]), unit if unit == "%" else unit + "s"


def dataset_dir(directory: str = "") -> str:
    """The dataset directory: the one given, or what the environment variable IMAGENET_DIR says.

    Raises:
        UserError: neither is there.
    """
    directory = directory or os.environ.get("IMAGENET_DIR", "")
    if not directory:
        raise UserError("no dataset: set --config.dataset.dir (or --dataset), or the environment variable "
                        "IMAGENET_DIR, to what `python -m imagenet_jax prepare` wrote")
    return directory


def check(config: Config) -> None:
    """Stops at the first value that makes no sense, once `models.fill_view` has filled what the network decides.

    Raises:
        UserError: with the key, the value, and what is allowed (the nearest choice for words).
    """
    for key in ("duration", "log_every", "evaluation.every", "checkpoint.every", "schedule.warmup"):
        _check(config, key, _is_duration, "a duration such as '90 epochs', '5000 steps' or '10%'")
    for key in ("duration", "log_every", "evaluation.every", "checkpoint.every"):
        _check(config, key, lambda v: _parse_duration(v)[0] > 0, "longer than nothing")
    _check(config, "duration", lambda v: not str(v).endswith("%"), "a duration in epochs or steps")
    for key in ("early_stopping", "checkpoint.milestones"):
        _check(config, key, lambda v: not v or _is_duration(v), "a duration such as '5 epochs', or empty")
    _check(config, "schedule.boundaries", lambda v: all(map(_is_duration, v)), "durations such as '30 epochs'")
    for key in ("global_batch", "max_per_device_batch", "augment.size", "view.size", "view.resize",
                "evaluation.batch", "checkpoint.keep"):
        _check(config, key, lambda v: v >= 1, "1 or more")
    for key in ("model.width", "model.bn_group"):
        _check(config, key, lambda v: v is None or v >= 1, "1 or more")
    for key in ("optimizer.weight_decay", "optimizer.clip_norm", "schedule.peak", "schedule.final", "seed",
                "loader.threads", "loader.prefetch", "loader.ram_gb", "loader.cache_gb", "schedule.power",
                "checkpoint.every_minutes", "aux_weight"):
        _check(config, key, lambda v: v >= 0, "0 or more")
    for key in ("loss.label_smoothing", "optimizer.momentum", "ema_decay", "dataset.holdout"):
        _check(config, key, lambda v: 0 <= v < 1, "at least 0 and below 1")
    _check(config, "model.bn_epsilon", lambda v: v is None or v > 0, "above 0")
    for key in ("model.dropout", "model.drop_path", "model.bn_momentum"):
        _check(config, key, lambda v: v is None or 0 <= v < 1, "at least 0 and below 1")
    _check(config, "schedule.factor", lambda v: 0 < v <= 1, "above 0 and at most 1")
    _check(config, "augment.area", lambda v: len(v) == 2 and 0 < v[0] <= v[1] <= 1, "(low, high) in 0..1")
    _check(config, "augment.aspect", lambda v: len(v) == 2 and 0 < v[0] <= v[1], "(low, high) above 0")
    _check(config, "view.resize", lambda v: v >= config.view.size, f"at least view.size = {config.view.size}")
    folds = round(1 / config.dataset.holdout) if config.dataset.holdout else 1
    _check(config, "dataset.fold", lambda v: 0 <= v < folds,
           f"0..{folds - 1} with dataset.holdout={config.dataset.holdout}")
    _check_choices(config)
    check_pil(config.view)
    for key in ("optimizer.decay", "freeze"):
        _check(config, key, _are_patterns, "regular expressions")
    if config.early_stopping and not config.dataset.holdout:
        raise UserError("early_stopping selects on the holdout: set dataset.holdout, such as 0.01")
    if config.model.bn_group and config.global_batch % config.model.bn_group:
        raise UserError(f"model.bn_group={config.model.bn_group} must divide global_batch={config.global_batch}")


def check_pil(view: Config) -> None:
    """Raises UserError if PIL is to crop as it cannot."""
    if view.library == "pil" and (not view.antialias or view.interpolation not in PIL_FILTERS):
        raise UserError("config.view.library='pil' needs view.antialias=True and view.interpolation one of "
                        + ", ".join(PIL_FILTERS))


def _check_choices(config: Config) -> None:
    interpolations = ("bilinear", "bicubic", "nearest", "area")
    choices = {"parallel": ("pmap", "shard_map"), "schedule.decay": ("cosine", "step", "polynomial", "constant"),
               "augment.interpolation": interpolations, "view.interpolation": interpolations,
               "view.library": ("tf", "pil")}
    for key, allowed in choices.items():
        value = _get(config, key)
        if value not in allowed:
            close = difflib.get_close_matches(str(value), allowed, 1)
            hint = f"did you mean {close[0]!r}?" if close else f"choose among {', '.join(allowed)}"
            raise UserError(f"config.{key}={value!r} is not known; {hint}")


def _get(config: Config, key: str) -> Any:
    for part in key.split("."):
        config = config[part]
    return config


def _check(config: Config, key: str, good: Callable[[Any], bool], wanted: str) -> None:
    value = _get(config, key)
    if not good(value):
        raise UserError(f"config.{key}={value!r} makes no sense: it must be {wanted}")


def _is_duration(value: str) -> bool:
    try:
        _parse_duration(value)
    except UserError:
        return False
    return True


def _are_patterns(value: str | tuple[str, ...]) -> bool:
    try:
        [re.compile(pattern) for pattern in ([value] if isinstance(value, str) else value)]
    except (re.error, TypeError):
        return False
    return True


def flat(config: Config, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every ('section.key', value) of a config, tuples as they are."""
    for key, value in config.items():
        if isinstance(value, Config):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value
