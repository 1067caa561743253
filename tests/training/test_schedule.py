"""Learning-rate schedules against their formulas, above all at the borders."""

import functools
import math

import jax
import numpy as np
import pytest

from imagenet_jax import config
from imagenet_jax.errors import UserError
from imagenet_jax.training import schedule

EXAMPLES, BATCH, TOTAL = 1000, 100, 100  # 10 steps an epoch, 10 epochs


def make(total=TOTAL, **changes):
    defaults = {"peak": 0.4, "warmup": "2 epochs", "decay": "cosine", "boundaries": (), "factor": 0.1, "power": 1.0,
                "final": 0.0}
    duration = functools.partial(config.steps, examples=EXAMPLES, global_batch=BATCH, total=total)
    return schedule.make(duration, total, **defaults | changes)


def check(rate, expected):
    """expected: {step: learning rate}; with a number, inside jit, and in double precision."""
    steps, values = np.array(list(expected), np.int32), list(expected.values())
    np.testing.assert_allclose(rate(int(steps[0])), values[0], rtol=1e-5, atol=1e-8)
    np.testing.assert_allclose(jax.jit(jax.vmap(rate))(steps), values, rtol=1e-5, atol=1e-8)
    with jax.enable_x64(True):
        exact = jax.jit(jax.vmap(rate))(steps)
    assert exact.dtype == np.float64
    np.testing.assert_allclose(exact, values, rtol=1e-14, atol=1e-16)


@pytest.mark.parametrize("warmup", ["2 epochs", "20 steps", "20%"])
@pytest.mark.parametrize("decay", ["cosine", "polynomial", "constant"])
def test_warmup(warmup, decay):
    check(make(warmup=warmup, decay=decay), {0: 0.0, 1: 0.02, 10: 0.2, 19: 0.38, 20: 0.4})


@pytest.mark.parametrize("decay", ["cosine", "polynomial", "constant"])
def test_without_warmup_the_first_step_is_at_the_peak(decay):
    check(make(warmup="0 epochs", decay=decay), {0: 0.4})


def test_cosine():
    formula = lambda step: 0.1 + (0.4 - 0.1) * (1 + math.cos(math.pi * (step - 20) / 80)) / 2
    check(make(final=0.1), {step: formula(step) for step in (20, 21, 60, 99, 100)})
    check(make(), {60: 0.2, 99: 0.4 * (1 + math.cos(math.pi * 79 / 80)) / 2, 100: 0.0})


def test_polynomial():
    formula = lambda step: 0.1 + (0.4 - 0.1) * (1 - (step - 20) / 80) ** 2
    check(make(decay="polynomial", power=2.0, final=0.1), {step: formula(step) for step in (20, 21, 60, 99, 100)})
    check(make(decay="polynomial"), {60: 0.2, 99: 0.4 / 80, 100: 0.0})


def test_constant():
    check(make(decay="constant"), {20: 0.4, 99: 0.4})


def test_boundaries_count_from_step_0_not_from_the_end_of_the_warmup():
    expected = {19: 0.38, 20: 0.4, 29: 0.4, 30: 0.04, 59: 0.04, 60: 0.004, 99: 0.004}
    for boundaries in (("3 epochs", "6 epochs"), ("30 steps", "60%")):
        check(make(decay="step", boundaries=boundaries), expected)
    halved = make(decay="step", boundaries=["3 epochs"], warmup="0 steps", factor=0.5)
    check(halved, {0: 0.4, 29: 0.4, 30: 0.2, 99: 0.2})


@pytest.mark.parametrize("boundaries", [("1 epochs", "6 epochs"), ("2 epochs",), ("6 epochs", "3 epochs"),
                                        ("30 steps", "3 epochs"), ()])
def test_boundaries_must_rise_from_after_the_warmup(boundaries):
    with pytest.raises(UserError, match=r"schedule\.boundaries.*warm-up \(20 steps\)"):
        make(decay="step", boundaries=boundaries)


@pytest.mark.parametrize("boundaries", [("3 epochs", "10 epochs"), ("30 epochs", "60 epochs", "80 epochs")])
def test_boundaries_past_the_end_are_told(boundaries):
    with pytest.raises(UserError, match="the whole run has 100: the rate would not fall there"):
        make(decay="step", boundaries=boundaries)


@pytest.mark.parametrize("warmup", ["100 steps", "10 epochs", "100%", "11 epochs"])
def test_a_warmup_as_long_as_the_run_is_refused(warmup):
    with pytest.raises(UserError, match=rf"schedule\.warmup='{warmup}' is 1[01]0 steps, but the whole run has 100"):
        make(warmup=warmup)


def test_a_run_of_one_step():
    check(make(total=1, warmup="0 epochs"), {0: 0.4, 1: 0.0})
