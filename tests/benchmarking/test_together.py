"""Input and devices, each alone and both together: the slower binds, and its share is told."""

import time

import numpy as np
import pytest

from imagenet_jax import models
from imagenet_jax.benchmarking import together


@pytest.mark.parametrize("topic", together.TOPICS)
def test_the_real_input_and_the_real_step_are_measured(small_config, topic):
    found = together.measure(topic, models.fill_view(small_config), seconds=0.2)
    assert min(found.input, found.devices, found.both) > 0
    assert found.lowest <= found.ratio <= found.highest and 0 <= found.waiting <= 1
    slower = "input" if found.input < found.devices else "devices"
    assert f"of the slower, the {slower}" in together.words(topic, small_config, found)


@pytest.mark.parametrize(("made_in", "used_in", "waits"), [(0.02, 0.0, True), (0.0, 0.02, False)])
def test_what_is_slower_decides_and_waiting_is_counted(made_in, used_in, waits):
    def batches():
        while True:
            time.sleep(made_in)
            yield np.zeros(4)

    def compute(batch):
        time.sleep(used_in)
        return batch

    found = together._measure(batches(), compute, 4, 0.5)
    assert (found.input < found.devices) == waits and found.ratio == pytest.approx(1, abs=0.5)
    assert found.waiting > 0.8 if waits else found.waiting < 0.2


def test_a_step_counts_when_it_is_done_and_not_when_it_is_begun(monkeypatch):
    done = []
    monkeypatch.setattr(together.jax, "block_until_ready", lambda result: (time.sleep(0.02), done.append(result)))
    count, _, passed = together._run(iter(range(1000)), lambda batch: batch, 0.0)
    assert done == [*range(count)] and count >= 1 and passed >= 0.02 * count
