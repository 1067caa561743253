"""What more cores would give: bound by the processor, then by Python's lock; and it is said in words."""

import math

import pytest

from imagenet_jax.input import width
from imagenet_jax.input.width import Width

NAMES = {"decode": "decode the crop", "resize": "+ resize"}
WIDE = Width({"decode": 800.0, "resize": 200.0}, 50.0)  # 1,000 img/s a core, 20,000 at most


@pytest.mark.parametrize(("cores", "rate", "binds"), [(1, 1_000, "decode"), (16, 16_000, "decode"),
                                                      (20, 20_000, "decode"), (23, 20_000, width.LOCK),
                                                      (24, 24_000, "decode"), (192, 192_000, "decode")])
def test_cores_help_until_the_lock_of_their_process_binds(cores, rate, binds) -> None:
    assert width.rate(WIDE, cores) == rate and width.binding(WIDE, cores) == binds


@pytest.mark.parametrize(("wanted", "cores"), [(1, 1), (1_000, 1), (1_001, 2), (20_000, 20), (20_001, 24),
                                               (50_000, 50)])
def test_cores_for_a_rate_are_whole(wanted, cores) -> None:
    assert width.cores_for(WIDE, wanted) == cores and width.rate(WIDE, cores) >= wanted


def test_without_a_lock_there_is_no_ceiling() -> None:
    free = WIDE._replace(lock=0.0)
    assert free.ceiling == math.inf and width.rate(free, 10_000) == 1e7


def test_the_words_name_what_binds_and_what_is_assumed() -> None:
    said = width.words(WIDE, 0.0, NAMES)
    assert "1,000 us" in said and "50 us" in said and "(5%)" in said and "up to 20,000 img/s." in said
    assert "16 cores:    16,000 img/s by 1 process, 'decode the crop' binds" in said
    assert "192 cores:   192,000 img/s by 16 processes, 'decode the crop' binds" in said
    assert """16 cores:     5,000 img/s by 1 process, "Python's lock" binds""" in width.words(
        WIDE._replace(lock=200.0), 0.0, NAMES)
    assert "assumes" in said and "need" not in said


@pytest.mark.parametrize(("wanted", "said"), [(1_000.0, "1,000 img/s need 1 core."), (20_000.0, "need 20 cores."),
                                              (30_000.0, "need 30 cores.")])
def test_the_words_say_what_a_rate_needs(wanted, said) -> None:
    assert said in width.words(WIDE, wanted, NAMES).splitlines()[-1]
    assert width.figures(WIDE, wanted)["want"] == {"img_per_s": wanted, "cores": width.cores_for(WIDE, wanted)}
