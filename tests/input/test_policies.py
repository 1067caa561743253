"""Policies: what they draw and how often, by the definitions of those who published them."""

import collections

import numpy as np
import pytest
import scipy.stats

from imagenet_jax.config import rules
from imagenet_jax.input import learned, operations, order, policies
from imagenet_jax.input.policies import Strength

N = 10_000
MOVES = {"shear_x", "shear_y", "translate_x", "translate_y", "rotate"}
NONE = {"policy": "", "strength": Strength(), "jitter": (0, 0, 0, 0), "lighting": 0.0, "interpolation": "bilinear"}


@pytest.fixture
def steps(monkeypatch):
    """Of a policy, for each of N positions the steps that it does."""

    def run(strength: Strength = NONE["strength"], count: int = N, **keys) -> list[list[tuple[str, float]]]:
        done: list[list[tuple[str, float]]] = []

        def note(name, value, image, sampling):
            done[-1].append((name, value))
            return image

        monkeypatch.setattr(operations, "apply", note)
        augmentation = policies.make(224, **NONE | {"strength": strength} | keys)
        for uniform in order.draws(1, 0, count, augmentation.draws, purpose=1):
            done.append([])
            augmentation.apply(np.zeros((1, 1, 3), np.uint8), uniform)
        return done

    return run


def assert_uniform(values, among) -> None:
    counts = collections.Counter(values)
    assert set(counts) == set(among)
    assert scipy.stats.chisquare([counts[value] for value in among]).pvalue > 1e-3


def test_randaugment_is_torchvisions(steps) -> None:
    done = steps(Strength(2, 9), policy="randaugment")
    assert {len(each) for each in done} == {2}
    names = [name for each in done for name, _ in each]
    assert_uniform(names, sorted(MOVES | {"identity", "brightness", "saturation", "contrast", "sharpness", "posterize",
                                          "solarize", "autocontrast", "equalize"}))
    values = collections.defaultdict(list)
    for name, value in (step for each in done for step in each):
        values[name].append(round(value, 9))
    assert_uniform(values["shear_x"], [-0.09, 0.09])
    assert_uniform(values["rotate"], [-9, 9])
    assert_uniform(values["translate_y"], [-30, 30])  # 150 / 331 * 224 * 9 / 30 = 30.45, cut off
    assert_uniform(values["contrast"], [0.73, 1.27])
    assert set(values["posterize"]) == {7} and set(values["solarize"]) == {178.5}
    assert scipy.stats.chi2_contingency(np.histogram2d(*zip(*(
        [operation_number(name) for name, _ in each] for each in done), strict=True), bins=14)[0]).pvalue > 1e-3


def operation_number(name: str) -> int:
    return list(policies._torchvision(224)).index(name)


def test_trivialaugment_is_wide_and_of_31_strengths(steps) -> None:
    done = steps(policy="trivialaugment", count=4 * N)
    assert {len(each) for each in done} == {1}
    rotations = [value for ((name, value),) in done if name == "rotate"]
    strengths = collections.Counter(round(abs(value) / 135 * 30) for value in rotations)
    assert scipy.stats.chisquare([strengths[i] for i in range(31)]).pvalue > 1e-3
    assert max(value for ((name, value),) in done if name == "translate_x") == 32
    assert max(value for ((name, value),) in done if name == "brightness") == pytest.approx(1.99)
    assert {value for ((name, value),) in done if name == "posterize"} == {2, 3, 4, 5, 6, 7, 8}


def test_randaugment_of_timm_does_half_with_strengths_of_a_normal_distribution(steps) -> None:
    done = steps(Strength(2, 7, 0.5), policy="randaugment_timm")
    counts = collections.Counter(len(each) for each in done)
    assert scipy.stats.chisquare([counts[i] for i in range(3)], [N / 4, N / 2, N / 4]).pvalue > 1e-3
    names = [name for each in done for name, _ in each]
    assert_uniform(names, sorted(MOVES | {"brightness", "saturation", "contrast", "sharpness", "posterize", "solarize",
                                          "solarize_add", "invert", "autocontrast", "equalize"}))
    turns = np.array([abs(value) / 3 for each in done for name, value in each if name == "rotate"])
    assert scipy.stats.kstest(turns, "norm", (7, 0.5)).pvalue > 1e-3
    shifts = [abs(value) / 224 for each in done for name, value in each if name == "translate_x"]
    assert np.mean(shifts) == pytest.approx(0.45 * 0.7, rel=0.02)
    assert {value for each in done for name, value in each if name == "posterize"} == {1, 2}


@pytest.mark.parametrize(("policy", "table"), [("autoaugment", learned.IMAGENET), ("autoaugment_v0", learned.V0)])
def test_learned_policies_do_their_pairs(steps, policy, table) -> None:
    done = steps(policy=policy)
    expected = sum(sum(prob for name, prob, _ in pair if name == "equalize") for pair in table.pairs) / len(table.pairs)
    equalized = [sum(name == "equalize" for name, _ in each) for each in done]
    assert np.mean(equalized) == pytest.approx(expected, abs=4 * np.std(equalized) / N**0.5)
    pairs = {tuple(name for name, _ in each) for each in done if len(each) == 2}
    assert pairs == {tuple(name for name, _, _ in pair) for pair in table.pairs if all(prob for _, prob, _ in pair)}


def test_jitter_takes_every_order_and_stays_in_its_ranges(steps) -> None:
    done = steps(jitter=(0.4, 0.3, 0.2, 0.1))
    assert len({tuple(name for name, _ in each) for each in done}) == 24
    for name, centre, most in (("brightness", 1, 0.4), ("contrast", 1, 0.3), ("saturation", 1, 0.2), ("hue", 0, 0.1)):
        values = np.array([dict(each)[name] for each in done])
        assert scipy.stats.kstest(values, "uniform", (centre - most, 2 * most)).pvalue > 1e-3
    assert {name for each in steps(jitter=(0, 0.3, 0, 0), count=50) for name, _ in each} == {"contrast"}


def test_inception_has_four_orders(steps) -> None:
    done = steps(policy="inception")
    assert_uniform([tuple(name for name, _ in each) for each in done], policies._INCEPTION_ORDERS)
    assert scipy.stats.kstest([dict(each)["shift"] for each in done], "uniform", (-32, 64)).pvalue > 1e-3


def test_augmix_averages_the_image_and_its_chains() -> None:
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    augmentation = policies.make(32, **NONE | {"policy": "augmix", "strength": Strength(2, 3)})
    uniform = order.draws(0, 0, 100, augmentation.draws, purpose=1)
    mixed = [augmentation.apply(image, each) for each in uniform]
    assert all(each.shape == image.shape and each.dtype == np.uint8 for each in mixed)
    itself = uniform[0].copy()
    itself[0] = 1 - 2**-24  # the share of the image
    assert np.abs(augmentation.apply(image, itself).astype(int) - image).max() <= 1
    errors = [np.abs(each.astype(int) - image).mean() for each in mixed]
    assert np.corrcoef(errors, uniform[:, 0])[0, 1] < -0.3  # the more of the image, the nearer to it


def test_lighting_draws_normal_numbers(monkeypatch) -> None:
    seen = []
    monkeypatch.setattr(operations, "lighting", lambda image, amounts: seen.append(amounts) or image)
    augmentation = policies.make(8, **NONE | {"lighting": 0.1})
    for uniform in order.draws(0, 0, N, augmentation.draws, purpose=1):
        augmentation.apply(np.zeros((1, 1, 3), np.uint8), uniform)
    assert scipy.stats.kstest(np.ravel(seen), "norm", (0, 0.1)).pvalue > 1e-3


def test_the_config_knows_every_policy() -> None:
    assert {"", *policies.POLICIES} == set(rules.RULES["augment.policy"].choices)


def test_every_stage_has_numbers_of_its_own() -> None:
    both = policies.make(8, **NONE | {"policy": "trivialaugment", "jitter": (0.4, 0, 0, 0), "lighting": 0.1})
    assert both.draws == 4 + 8 + 3
    assert policies.make(8, **NONE).draws == 0
