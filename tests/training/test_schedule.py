"""Learning-rate schedules against their formulas, above all at the borders."""

import functools
import math

import jax
import numpy as np
import pytest

from imagenet_jax import config
from imagenet_jax.errors import UserError
from imagenet_jax.training import recipe, schedule

EXAMPLES, BATCH, TOTAL = 1000, 100, 100  # 10 steps an epoch, 10 epochs


def make(total=TOTAL, **changes):
    defaults = dict(config.base().schedule) | {"peak": 0.4, "warmup": "2 epochs"}
    del defaults["batch"], defaults["scaling"]
    duration = functools.partial(config.steps, examples=EXAMPLES, global_batch=BATCH, total=total)
    return schedule.make(duration, total, epoch=EXAMPLES / BATCH, **defaults | changes)


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


def test_warmup_of_other_kinds():
    check(make(decay="constant", warmup_from=0.1), {0: 0.1, 1: 0.1 + 0.3 / 20, 10: 0.25, 19: 0.385, 20: 0.4})
    check(make(decay="constant", warmup_from=0.1, warmup_kind="constant"), {0: 0.1, 19: 0.1, 20: 0.4, 99: 0.4})
    check(make(decay="constant", warmup_from=0.1, warmup_kind="exponential"), {
        step: 0.1 * 4 ** (min(step, 20) / 20) for step in (0, 1, 10, 19, 20, 99)})
    with pytest.raises(UserError, match="needs schedule.warmup_from and schedule.peak above 0"):
        make(warmup_kind="exponential")


def test_exponential_counts_from_step_0():
    """tf.compat.v1.train.exponential_decay(peak, step, every, factor, staircase), after a warm-up."""
    points = (20, 23, 24, 47, 48, 71, 72, 99)
    check(make(decay="exponential", factor=0.97, every="2.4 epochs"), {s: 0.4 * 0.97 ** (s // 24) for s in points})
    check(make(decay="exponential", factor=0.97, every="2.4 epochs", staircase=False), {
        step: 0.4 * 0.97 ** (step / 24) for step in points})


def test_piecewise_goes_in_straight_lines():
    """As FFCV's recipes: up, down to a tenth, down to nothing."""
    rate = make(decay="piecewise", boundaries=("7 epochs",), values=(0.04,))
    check(rate, {10: 0.2, 20: 0.4, 21: 0.4 - 0.36 / 50, 45: 0.22, 69: 0.04 + 0.36 / 50, 70: 0.04, 85: 0.02,
                 99: 0.04 / 30})
    with pytest.raises(UserError, match="as many schedule.values as boundaries, not 2 and 1"):
        make(decay="piecewise", boundaries=("7 epochs",), values=(0.04, 0.01))


@pytest.mark.parametrize("examples", [1000, 1281, 999])
def test_per_epoch_the_rate_is_that_of_the_beginning(examples):
    """torchvision's LinearLR(0.01, 5 epochs), then CosineAnnealingLR, both stepped once an epoch; and its StepLR."""
    stated = dict(config.base().schedule) | {"peak": 0.5, "warmup": "5 epochs", "warmup_from": 0.005, "per_epoch": True}
    del stated["batch"], stated["scaling"]
    total = config.steps("90 epochs", examples, 10)
    duration = functools.partial(config.steps, examples=examples, global_batch=10, total=total)
    rate = schedule.make(duration, total, epoch=examples / 10, **stated)
    steps = schedule.make(duration, total, epoch=examples / 10, **stated | {
        "decay": "step", "boundaries": ("30 epochs", "60 epochs")})
    for epoch in (0, 1, 4, 5, 30, 31, 60, 89):
        cosine = 0.5 * (1 + math.cos(math.pi * (epoch - 5) / 85)) / 2
        expected = 0.5 * (0.01 + 0.99 * epoch / 5) if epoch < 5 else cosine
        first = round(epoch * examples / 10)
        for step in (first + 1, first + 50, round((epoch + 1) * examples / 10) - 2):
            np.testing.assert_allclose(rate(step), expected, rtol=1e-2, atol=1e-5)
            assert rate(step) == rate(first + 1)
            if epoch >= 5:
                np.testing.assert_allclose(steps(step), 0.5 * 0.1 ** (epoch // 30), rtol=1e-6)


def test_another_batch_scales_the_peak_by_the_rule():
    assert schedule.scaled(0.1, batch=256, rule="linear", global_batch=8192) == pytest.approx(3.2)
    assert schedule.scaled(0.1, batch=256, rule="sqrt", global_batch=1024) == pytest.approx(0.2)
    assert schedule.scaled(0.1, batch=None, rule="sqrt", global_batch=1024) == 0.1
    stated = config.base()
    stated.global_batch, stated.schedule.batch, stated.duration = 1024, 256, "2 epochs"
    stated.schedule.update({"decay": "piecewise", "boundaries": ("1 epochs",), "values": (0.05,), "final": 0.01})
    total, rate = recipe.plan(stated, 102_400)
    assert total == 200
    check(rate, {0: 0.4, 100: 0.2, 200: 0.04})
    assert "is 0.4 at its peak for a batch of 1,024: the recipe has 0.1 for 256" in recipe.scaling(stated)
    stated.schedule.batch = 1024
    assert recipe.scaling(stated) == ""


def test_a_stretched_run_is_longer_all_through():
    stated = config.base()
    stated.global_batch, stated.duration, stated.stretch = 100, "10 epochs", 1.5
    stated.schedule.update({"peak": 0.4, "warmup": "2 epochs", "decay": "step", "boundaries": ("4 epochs", "80%")})
    total, rate = recipe.plan(stated, 1000)
    assert total == 150
    check(rate, {0: 0, 15: 0.2, 30: 0.4, 59: 0.4, 60: 0.04, 119: 0.04, 120: 0.004})


def test_a_run_of_one_step():
    check(make(total=1, warmup="0 epochs"), {0: 0.4, 1: 0.0})
