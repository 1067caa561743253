"""Recipe files: what they say, what they claim, and what is wrong with them.

A recipe is a module with a docstring and `get_config() -> ConfigDict`; `get_config(choice="...")` where one file is for
several networks, told as FILE:CHOICE. `claim() -> Claim`, of the same arguments, states what was published for it.
"""

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from imagenet_jax.config import rules
from imagenet_jax.errors import UserError


class Claim(NamedTuple):
    """What a recipe gave where it was published; never measured here.

    Attributes:
        top1: accuracy on ImageNet's validation images, percent.
        source: where that is stated.
        protocol: what was evaluated, in words.
        tolerance: deviation of seeds, percent; None if the source has none.
        hours: hardware and hours there; empty if the source has none.
    """

    top1: float
    source: str
    protocol: str
    tolerance: float | None = None
    hours: str = ""


class Recipe(NamedTuple):
    """A recipe file, or one choice of it. title: the first line of its docstring."""

    name: str
    title: str
    config: ConfigDict
    claim: Claim | None


# Keys that mean something under some values of another key only.
_READ_BY = {
    "augment.area": ("augment.crop", ("random_resized",)),
    "augment.aspect": ("augment.crop", ("random_resized",)),
    "augment.resize": ("augment.crop", ("scale_jitter",)),
    "augment.central": ("augment.crop", ("scale_jitter",)),
    "augment.operations": ("augment.policy", ("randaugment", "randaugment_timm")),
    "augment.magnitude": ("augment.policy", ("randaugment", "randaugment_timm", "augmix")),
    "augment.magnitude_std": ("augment.policy", ("randaugment_timm",)),
    "loss.target_threshold": ("loss.name", ("binary_cross_entropy",)),
    "optimizer.momentum": ("optimizer.name", ("sgd", "lars", "rmsprop")),
    "optimizer.nesterov": ("optimizer.name", ("sgd", "lars")),
    "optimizer.betas": ("optimizer.name", ("adamw", "lamb")),
    "optimizer.rho": ("optimizer.name", ("rmsprop",)),
    "optimizer.epsilon": ("optimizer.name", ("lars", "rmsprop", "adamw", "lamb")),
    "optimizer.trust": ("optimizer.name", ("lars",)),
    "schedule.boundaries": ("schedule.decay", ("step", "piecewise")),
    "schedule.values": ("schedule.decay", ("piecewise",)),
    "schedule.factor": ("schedule.decay", ("step", "exponential")),
    "schedule.every": ("schedule.decay", ("exponential",)),
    "schedule.staircase": ("schedule.decay", ("exponential",)),
    "schedule.power": ("schedule.decay", ("polynomial",)),
    "schedule.final": ("schedule.decay", ("cosine", "polynomial", "piecewise")),
}


def load(path: str) -> Iterator[Recipe]:
    """The recipes of a file, one for each choice that its `CHOICES` names.

    Raises:
        UserError: the file cannot be run, or is no recipe.
    """
    file, _, choice = path.partition(":")
    spec = importlib.util.spec_from_file_location(f"recipe_{Path(file).stem}", file)
    module = importlib.util.module_from_spec(spec) if spec else None
    try:
        spec.loader.exec_module(module)
        title = module.__doc__.strip().splitlines()[0]
        chosen = [choice] if choice else getattr(module, "CHOICES", [""])
        for each in chosen:
            arguments = [each] if each else []
            claim = module.claim(*arguments) if hasattr(module, "claim") else None
            yield Recipe(f"{file}:{each}" if each else file, title, module.get_config(*arguments), claim)
    except UserError:
        raise
    except Exception as error:  # whatever somebody's file may raise
        raise UserError(f"{path} is no recipe ({type(error).__name__}: {error}): it must have a docstring and "
                        "get_config() -> ConfigDict; see configs/resnet50.py") from error


def faults(recipe: Recipe, defaults: ConfigDict) -> list[str]:
    """What is wrong with a filled recipe: values that make no sense, keys that nothing reads, a claim without source.

    Args:
        defaults: of every key.
    """
    found = []
    try:
        rules.check(recipe.config)
    except UserError as error:
        found.append(str(error))
    for key, (chooser, choices) in _READ_BY.items():
        value, chosen = rules.get(recipe.config, key), rules.get(recipe.config, chooser)
        if chosen not in choices and value != rules.get(defaults, key):
            found.append(f"config.{key}={value!r} is not read: {chooser} is {chosen!r}, and it is of "
                         f"{' and '.join(choices)}")
    if recipe.claim is not None:
        found += [f"claim: no {name}" for name in ("source", "protocol") if not getattr(recipe.claim, name).strip()]
        if not 1 < recipe.claim.top1 < 100:
            found.append(f"claim: {recipe.claim.top1} is no accuracy in percent")
    return found


def differences(one: ConfigDict, other: ConfigDict) -> dict[str, tuple[Any, Any]]:
    """The keys in which two configs differ, and both values."""
    return {key: (rules.get(one, key), rules.get(other, key)) for key in rules.RULES
            if rules.get(one, key) != rules.get(other, key)}
