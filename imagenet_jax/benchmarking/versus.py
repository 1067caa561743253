"""Two recipes on the same devices by turns, so that what else a machine does meanwhile falls on both."""

import ast
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from imagenet_jax import config as config_lib
from imagenet_jax.benchmarking import timing
from imagenet_jax.errors import UserError
from imagenet_jax.training import parallel


class Versus(NamedTuple):
    """Images a second of both (medians), and by how much the second is faster: in the median, least and most.

    The ratios are of pairs of windows, one of each, that follow one another.
    """

    first: float
    second: float
    ratio: float
    lowest: float
    highest: float


def overridden(config: config_lib.Config, changes: Sequence[str]) -> config_lib.Config:
    """A recipe with other values for some keys, each 'section.key=value'.

    Raises:
        UserError: a key that does not exist, or a value that it cannot have.
    """
    config = config.copy_and_resolve_references()
    known = dict(config_lib.flat(config))
    for change in changes:
        key, given, value = change.partition("=")
        if not given or key not in known:
            raise UserError(f"--vs={change}: write KEY=VALUE with a key of the config, such as model.dtype=bfloat16; "
                            "imagenet_jax/config/__init__.py lists every key")
        try:
            config.update_from_flattened_dict({key: _literal(value)})
        except (TypeError, ValueError) as error:
            raise UserError(f"--vs={change}: {error}") from error
    return config


def _literal(value: str) -> object:
    try:
        return ast.literal_eval(value)
    except (SyntaxError, ValueError):
        return value  # a word


def measure(first: config_lib.Config, second: config_lib.Config, *, seconds: float) -> Versus:
    """Trains with both for `seconds` each, by turns; both filled and checked, and on the devices at once."""
    configs = first, second
    sides = [timing.ready(config, parallel.make_layout(config.parallel)) for config in configs]
    states, counts, taken = [], [], ([], [])
    for side in sides:
        state, _ = timing.run(side.step, side.state, side.batch, 1)
        state, each = timing.run(side.step, state, side.batch, 2)
        states.append(state)
        counts.append(max(1, round(seconds / timing.WINDOWS / each)))
    for _ in range(timing.WINDOWS):
        for turn, side in enumerate(sides):
            states[turn], each = timing.run(side.step, states[turn], side.batch, counts[turn])
            taken[turn].append(each)
    return versus(*(np.array([config.global_batch / each for each in times])
                    for config, times in zip(configs, taken, strict=True)))


def versus(first: np.ndarray, second: np.ndarray) -> Versus:
    """What the rates [windows] of both come to."""
    ratios = second / first
    return Versus(*map(float, (np.median(first), np.median(second), np.median(ratios), ratios.min(), ratios.max())))


def words(config: config_lib.Config, changes: Sequence[str], found: Versus) -> str:
    """The same in a sentence."""
    return (f"{config.model.name} with {', '.join(changes)} trains on {found.second:,.2f} img/s, without on "
            f"{found.first:,.2f}: {found.ratio:.3f} times as many ({found.lowest:.3f} to {found.highest:.3f} in "
            f"{timing.WINDOWS} pairs of windows by turns)")
