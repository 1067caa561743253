"""What every key may be: one rule a key, and what keys must be to each other."""

import difflib
import math
import re
from collections.abc import Callable
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from imagenet_jax.config import durations
from imagenet_jax.errors import UserError

_LARGEST = 3.4e38  # of float32, in which a step computes
_INTERPOLATIONS = ("bilinear", "bicubic", "nearest", "area")
_PIL_FILTERS = ("bilinear", "bicubic")


class Rule(NamedTuple):
    """What a value must be: a predicate that takes anything, words for it, and the choices where there are some."""

    holds: Callable[[Any], bool]
    wanted: str
    choices: tuple[str, ...] = ()


def _integer(low: int, high: int) -> Rule:
    return Rule(lambda v: _is_number(v, int) and low <= v <= high, f"a whole number from {low} to {high}")


def _one_of(*numbers: int) -> Rule:
    return Rule(lambda v: _is_number(v, int) and v in numbers, f"one of {', '.join(map(str, numbers))}")


def _real(low: float = 0, high: float = _LARGEST, *, above: bool = False, below: bool = False) -> Rule:
    """A finite number from low to high; with `above` and `below` without these ends."""
    words = f"a number {'above' if above else 'of at least'} {low:g}" + \
        (f" and {'below' if below else 'at most'} {high:g}" if high < _LARGEST else ", and finite")
    return Rule(lambda v: _is_number(v, (int, float)) and math.isfinite(v) and (low < v if above else low <= v)
                and (v < high if below else v <= high), words)


def _range(low: float, high: float) -> Rule:
    return Rule(lambda v: isinstance(v, tuple) and len(v) == 2 and all(_is_number(x, (int, float)) for x in v)
                and low < v[0] <= v[1] <= high, f"(least, most), both above {low:g} and at most {high:g}")


def _duration(*, zero: bool = False, empty: bool = False, percent: bool = True) -> Rule:
    def holds(value: Any) -> bool:
        if empty and value == "":
            return True
        try:
            number, unit = durations.parse(value)
        except UserError:
            return False
        return (number > 0 or zero) and (percent or unit != "%")

    examples = "'90 epochs' or '5000 steps'" + (" or '10%'" if percent else "")
    return Rule(holds, f"a duration such as {examples}{'' if zero else ', longer than nothing'}"
                       f"{', or empty' if empty else ''}")


def _choice(*choices: str) -> Rule:
    return Rule(lambda v: isinstance(v, str) and v in choices, f"one of {', '.join(choices)}", choices)


def _optional(rule: Rule) -> Rule:
    return rule._replace(holds=lambda v: v is None or rule.holds(v), wanted=f"{rule.wanted}, or None")


def _many(rule: Rule) -> Rule:
    return Rule(lambda v: isinstance(v, tuple) and all(map(rule.holds, v)), f"a tuple, each {rule.wanted}")


def _each(*rules: Rule) -> Rule:
    return Rule(lambda v: isinstance(v, tuple) and len(v) == len(rules) and
                all(rule.holds(x) for rule, x in zip(rules, v, strict=True)),
                f"({', '.join(rule.wanted for rule in rules)})")


def _is_number(value: Any, kind: Any) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def _is_pattern(value: Any) -> bool:
    try:
        return isinstance(value, str) and re.compile(value) is not None
    except re.error:
        return False


_FLAG = Rule(lambda v: isinstance(v, bool), "True or False")
_TEXT = Rule(lambda v: isinstance(v, str) and "\0" not in v, "text")
_PATTERN = Rule(_is_pattern, "a regular expression")
_WORDS = Rule(lambda v: _TEXT.holds(v) or _many(_TEXT).holds(v), "text or a tuple of it")
_PIXELS = _integer(1, 2**14)
_SHARE = _real(0, 1, below=True)

RULES = {
    "seed": _integer(0, 2**32 - 1),  # JAX keeps 32 bits: larger ones would repeat these
    "duration": _duration(percent=False),
    "stretch": _real(0, 1e6, above=True),
    "global_batch": _integer(1, 2**24),
    "max_per_device_batch": _integer(1, 2**24),
    "parallel": _choice("auto", "pmap", "shard_map"),
    "compiler_options": _many(Rule(lambda v: _TEXT.holds(v) and bool(re.fullmatch(r"\w+=.+", v)), "'NAME=VALUE'")),
    "log_every": _duration(),
    "aux_weight": _real(),
    "ema_decay": _SHARE,
    "ema_warmup": _FLAG,
    "dataset.dir": _TEXT,
    "dataset.train_split": _TEXT,
    "dataset.eval_split": _TEXT,
    "dataset.holdout": _SHARE,
    "dataset.fold": _integer(0, 2**31),
    "dataset.exclude": _TEXT,
    "dataset.exclude_flags": _WORDS,
    "dataset.add_dir": _TEXT,
    "dataset.add_share": _real(0, 1, above=True, below=True),
    "dataset.service": _TEXT,
    "loader.threads": _integer(0, 1024),
    "loader.prefetch": _integer(0, 64),
    "loader.ram_gb": _real(0, 1e6),
    "loader.cache_gb": _real(0, 1e6),
    "augment.size": _PIXELS,
    "augment.ramp": _many(_each(_duration(), _PIXELS)),
    "augment.crop": _choice("random_resized", "scale_jitter"),
    "augment.area": _range(0, 1),
    "augment.aspect": _range(0, 100),
    "augment.flip": _FLAG,
    "augment.interpolation": _choice(*_INTERPOLATIONS),
    "augment.antialias": _FLAG,
    "augment.resize": _range(0, 2**14),
    "augment.central": _FLAG,
    "augment.repeats": _integer(1, 2**10),
    "augment.policy": _choice("", "autoaugment", "autoaugment_v0", "randaugment", "randaugment_timm", "trivialaugment",
                              "augmix", "inception"),
    "augment.operations": _integer(1, 16),
    "augment.magnitude": _real(0, 30),
    "augment.magnitude_std": _real(0, 10),
    "augment.jitter": _each(_real(0, 1), _real(0, 1), _real(0, 1), _real(0, 0.5)),
    "augment.lighting": _real(0, 10),
    "view.size": _PIXELS,
    "view.crops": _one_of(1, 5, 10, 50),
    "view.resize": _PIXELS,
    "view.scales": _many(_PIXELS),
    "view.library": _choice("tf", "pil"),
    "view.interpolation": _choice(*_INTERPOLATIONS),
    "view.antialias": _FLAG,
    "model.name": _TEXT,
    "model.dtype": _choice("float32", "bfloat16", "float64"),
    "model.width": _optional(_integer(1, 2**14)),
    "model.dropout": _optional(_SHARE),
    "model.drop_path": _optional(_SHARE),
    "model.bn_group": _optional(_integer(1, 2**24)),
    "model.bn_momentum": _optional(_SHARE),
    "model.bn_epsilon": _optional(_real(0, 1, above=True)),
    "model.zero_init_residual": _optional(_FLAG),
    "model.aux": _optional(_FLAG),
    "mix.mixup": _real(),
    "mix.cutmix": _real(),
    "mix.prob": _real(0, 1),
    "mix.switch": _real(0, 1),
    "mix.group": _optional(_integer(1, 2**24)),
    "mix.erase": _real(0, 1),
    "mix.erase_area": _range(0, 1),
    "mix.erase_aspect": _range(0, 100),
    "loss.name": _choice("cross_entropy", "binary_cross_entropy"),
    "loss.label_smoothing": _SHARE,
    "loss.target_threshold": _SHARE,
    "optimizer.name": _choice("sgd", "lars", "rmsprop", "adamw", "lamb"),
    "optimizer.momentum": _SHARE,
    "optimizer.nesterov": _FLAG,
    "optimizer.betas": _each(_SHARE, _SHARE),
    "optimizer.rho": _SHARE,
    "optimizer.epsilon": _real(),
    "optimizer.trust": _real(above=True),
    "optimizer.weight_decay": _real(),
    "optimizer.decay": _PATTERN,
    "optimizer.clip_norm": _real(),
    "optimizer.clip_value": _real(),
    "optimizer.clip_adaptive": _real(),
    "optimizer.rates": _many(_each(_PATTERN, _real())),
    "optimizer.sam_rho": _real(),
    "schedule.peak": _real(),
    "schedule.batch": _optional(_integer(1, 2**24)),
    "schedule.scaling": _choice("linear", "sqrt"),
    "schedule.warmup": _duration(zero=True),
    "schedule.warmup_kind": _choice("linear", "exponential", "constant"),
    "schedule.warmup_from": _real(),
    "schedule.decay": _choice("cosine", "step", "exponential", "polynomial", "piecewise", "constant"),
    "schedule.boundaries": _many(_duration()),
    "schedule.values": _many(_real()),
    "schedule.factor": _real(0, 1, above=True),
    "schedule.every": _duration(),
    "schedule.staircase": _FLAG,
    "schedule.power": _real(0, 100),
    "schedule.final": _real(),
    "schedule.per_epoch": _FLAG,
    "evaluation.every": _duration(),
    "evaluation.batch": _integer(1, 2**24),
    "checkpoint.every": _duration(),
    "checkpoint.every_minutes": _real(0, 1e6),
    "checkpoint.keep": _integer(1, 2**20),
    "checkpoint.milestones": _duration(empty=True),
    "init_from": _TEXT,
    "freeze": _many(_PATTERN),
    "early_stopping": _duration(empty=True),
}


def check(config: ConfigDict) -> None:
    """Stops at the first value that makes no sense, once `models.fill_view` has filled what the network decides.

    Raises:
        UserError: with the key, the value, and what is allowed (the nearest choice for words).
    """
    for key in RULES:
        _check_rule(config, key)
    folds = round(1 / config.dataset.holdout) if config.dataset.holdout else 1
    if config.dataset.fold >= folds:
        raise UserError(f"config.dataset.fold={config.dataset.fold} makes no sense: it must be 0..{folds - 1} with "
                        f"dataset.holdout={config.dataset.holdout}")
    if config.dataset.add_dir:
        _check_added(config)
    check_view(config)
    largest = max([config.augment.size, *(px for _, px in config.augment.ramp)])
    if config.augment.crop == "scale_jitter" and config.augment.resize[0] < largest:
        raise UserError(f"config.augment.resize={config.augment.resize} makes no sense: both must be at least "
                        f"{largest} px, the most that augment.size and augment.ramp have")
    if config.augment.repeats > config.global_batch:
        raise UserError(f"config.augment.repeats={config.augment.repeats} makes no sense: it must be at most "
                        f"global_batch={config.global_batch}")
    least, most = {"randaugment_timm": (0, 10), "augmix": (1, 10)}.get(config.augment.policy, (0, 30))
    if not least <= config.augment.magnitude <= most:
        raise UserError(f"config.augment.magnitude={config.augment.magnitude} makes no sense: with augment.policy="
                        f"{config.augment.policy!r} it must be {least}..{most}")
    if config.compiler_options and config.parallel != "shard_map":
        raise UserError(f"config.compiler_options={config.compiler_options} makes no sense with parallel="
                        f"{config.parallel!r}: JAX's pmap takes none; add --config.parallel=shard_map")
    if config.early_stopping and not config.dataset.holdout:
        raise UserError("early_stopping selects on the holdout: set dataset.holdout, such as 0.01")
    if config.model.bn_group and config.global_batch % config.model.bn_group:
        raise UserError(f"model.bn_group={config.model.bn_group} must divide global_batch={config.global_batch}")


def check_view(config: ConfigDict) -> None:
    """Raises UserError if what evaluation is to see cannot be cut from an image, or not by PIL if that is to."""
    for key in RULES:
        if key.startswith("view."):
            _check_rule(config, key)
    view = config.view
    key, smallest = ("scales", min(view.scales)) if view.scales else ("resize", view.resize)
    if smallest < view.size:
        raise UserError(f"config.view.{key}={view[key]} makes no sense: it must be at least view.size = {view.size}")
    if view.library == "pil" and (not view.antialias or view.interpolation not in _PIL_FILTERS):
        raise UserError("config.view.library='pil' needs view.antialias=True and view.interpolation one of "
                        + ", ".join(_PIL_FILTERS))


def _check_added(config: ConfigDict) -> None:
    """Raises UserError if a global batch cannot be shared by two datasets as it is asked."""
    count, share = config.global_batch * config.dataset.add_share, config.dataset.add_share
    if abs(count - round(count)) > 1e-6 or not 0 < round(count) < config.global_batch:
        raise UserError(f"config.dataset.add_share={share} makes no sense: of global_batch={config.global_batch} it is "
                        f"{count:g} examples, and must be a whole number of them from 1 to {config.global_batch - 1}")
    if config.dataset.service:
        raise UserError("dataset.service decodes one dataset and not two: leave it out, or dataset.add_dir")


def _check_rule(config: ConfigDict, key: str) -> None:
    """Raises UserError if a value makes no sense by itself."""
    rule, value = RULES[key], get(config, key)
    if not rule.holds(value):
        close = difflib.get_close_matches(str(value), rule.choices, 1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise UserError(f"config.{key}={_shortened(value)} makes no sense: it must be {rule.wanted}{hint}")


def get(config: ConfigDict, key: str) -> Any:
    """The value of 'section.key'."""
    for part in key.split("."):
        config = config[part]
    return config


def _shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}..."
