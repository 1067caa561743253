"""Two recipes by turns: what is changed, whose turn it is, and what comes of it."""

import numpy as np
import pytest

from imagenet_jax.benchmarking import timing, versus
from imagenet_jax.errors import UserError


def test_changes_are_values_of_the_type_of_their_key(step_config):
    changed = versus.overridden(step_config, ["parallel=shard_map", "global_batch=32", "ema_decay=0.5",
                                              "freeze=('a', 'b')"])
    assert (changed.parallel, changed.global_batch, changed.ema_decay) == ("shard_map", 32, 0.5)
    assert tuple(changed.freeze) == ("a", "b")
    assert (step_config.parallel, step_config.global_batch) == ("auto", 64)


@pytest.mark.parametrize("change", ["model.dtyp=bfloat16", "parallel", "global_batch=many", "configs/resnet50.py"])
def test_a_change_that_cannot_be_is_one_message(step_config, change):
    with pytest.raises(UserError, match=f"--vs={change}"):
        versus.overridden(step_config, [change])


def test_the_two_take_turns_through_the_steps_of_their_recipes(step_config, monkeypatch):
    turns, run = [], timing.run

    def told(step, state, batch, count):
        turns.append((batch["label"].size, count))
        return run(step, state, batch, 1)

    monkeypatch.setattr(timing, "run", told)
    other = versus.overridden(step_config, ["parallel=shard_map", "global_batch=32"])
    found = versus.measure(step_config, other, seconds=0.05)
    assert [size for size, _ in turns[4:]] == [64, 32] * timing.WINDOWS  # after the warm-up
    assert found.lowest <= found.ratio <= found.highest and min(found.first, found.second) > 0
    assert "with parallel=shard_map, global_batch=32 trains on" in versus.words(
        step_config, ["parallel=shard_map", "global_batch=32"], found)


def test_ratios_are_of_neighbours_so_that_what_slows_both_cancels():
    machine = np.array([1.0, 0.5, 0.9, 0.2, 1.0])
    assert versus.versus(100 * machine, 150 * machine)[2:] == pytest.approx((1.5, 1.5, 1.5))
