"""Training and evaluation from a dataset: the input alone, the devices alone, and both together, by turns."""

import functools
import itertools
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import numpy as np

from imagenet_jax import config as config_lib
from imagenet_jax.benchmarking import timing
from imagenet_jax.input import loader
from imagenet_jax.training import evaluating, loop, parallel
from imagenet_jax.training.run import build
from imagenet_jax.training.state import PyTree, init_variables

ROUNDS = 5
TOPICS = ("train", "evaluate")


class Together(NamedTuple):
    """Images a second over all devices, medians of the rounds.

    ratio: of `both` to the slower of the others in the same round, in the median; lowest, highest: of the rounds.
    waiting: the share of the time of `both` in which a batch was waited for.
    """

    input: float
    devices: float
    both: float
    ratio: float
    lowest: float
    highest: float
    waiting: float


def measure(topic: str, config: config_lib.Config, *, seconds: float) -> Together:
    """Measures the training of a filled recipe, or its evaluation, on its dataset.

    Args:
        seconds: that each of the three gets, over all rounds.

    Raises:
        UserError: as training.
    """
    run = build(config, "")
    if topic == "train":
        ready = timing.ready(config, run.layout)
        return _measure(loop.device_batches(run, 0, {}), _steps(ready), config.global_batch, seconds)
    part = next(iter(run.judged.values()))
    evaluator = evaluating.make_evaluator(run.options.model, run.layout, batch=config.evaluation.batch,
                                          view=config.view, workers=loader.Workers(**config.loader))
    params, batch_stats = init_variables(run.options.model, config.augment.size, config.seed)
    variables = parallel.put_state({"params": params, "batch_stats": batch_stats}, run.layout)
    batches = itertools.chain.from_iterable(evaluating.placed(evaluator, part) for _ in itertools.count())
    return _measure((batch for _, batch in batches), functools.partial(evaluator.run, variables), evaluator.batch,
                    seconds)


def _steps(ready: timing.Ready) -> Callable[[PyTree], PyTree]:
    """Trains on a batch, and returns what is there once that is done."""
    state = [ready.state]

    def step(batch: PyTree) -> PyTree:
        state[0], metrics = ready.step(state[0], batch)
        return metrics

    return step


def _measure(batches: Iterator[PyTree], compute: Callable[[PyTree], PyTree], examples: int,
             seconds: float) -> Together:
    batch = next(batches)
    jax.block_until_ready(compute(batch))  # compiled
    turns = {"input": lambda: _rate(batches, None, examples, seconds / ROUNDS),
             "devices": lambda: _rate(itertools.repeat(batch), compute, examples, seconds / ROUNDS),
             "both": lambda: _rate(batches, compute, examples, seconds / ROUNDS)}
    taken = [{name: turn() for name, turn in turns.items()} for _ in range(ROUNDS)]
    rates = {name: np.array([each[name][0] for each in taken]) for name in turns}
    ratios = rates["both"] / np.minimum(rates["input"], rates["devices"])
    return Together(*(float(np.median(rates[name])) for name in turns), float(np.median(ratios)), float(ratios.min()),
                    float(ratios.max()), float(np.median([each["both"][1] for each in taken])))


def _rate(batches: Iterator[PyTree], compute: Callable[[PyTree], PyTree] | None, examples: int,
          seconds: float) -> tuple[float, float]:
    """Images a second, and the share of the time in which a batch was waited for."""
    _run(batches, compute, seconds / 2)  # so that nothing is used up that was made during another turn
    count, waited, passed = _run(batches, compute, seconds)
    return count * examples / passed, waited / passed


def _run(batches: Iterator[PyTree], compute: Callable[[PyTree], PyTree] | None,
         seconds: float) -> tuple[int, float, float]:
    """Takes batches for so long, and two at least: how many; seconds that they were waited for; until all was done."""
    start, waited, count = time.perf_counter(), 0.0, 0

    def results() -> Iterator[PyTree]:
        nonlocal waited
        while (asked := time.perf_counter()) - start < seconds or not count:
            batch = next(batches)
            waited += time.perf_counter() - asked
            yield compute(batch) if compute else batch

    for result in parallel.dispatched(results()):
        jax.block_until_ready(result)
        count += 1
    return count, waited, time.perf_counter() - start


def words(topic: str, config: config_lib.Config, found: Together) -> str:
    """The same for people."""
    slower = "input" if found.input < found.devices else "devices"
    shared = (" These devices are the very cores that make the input."
              if jax.devices()[0].platform == "cpu" else "")
    return (f"{topic} {config.model.name}: input alone {found.input:,.1f} img/s, devices alone {found.devices:,.1f}, "
            f"both together {found.both:,.1f}: {found.ratio:.3f} of the slower, the {slower} ({found.lowest:.3f} to "
            f"{found.highest:.3f} in {ROUNDS} rounds); {found.waiting:.1%} of the time is waiting for input.{shared}")


