"""The same step on more and more devices, by both modes."""

import jax
import pytest

from imagenet_jax.benchmarking import scaling


def test_every_number_of_devices_and_mode_is_measured(step_config, monkeypatch):
    devices = jax.devices()[:3]
    monkeypatch.setattr(jax, "devices", lambda: devices)
    step_config.model.bn_group = 8
    rows = list(scaling.measure(step_config, 4, seconds=0.05))
    assert [(row.devices, row.mode) for row in rows] == [(n, mode) for n in (1, 2, 3) for mode in scaling.MODES]
    assert all(row.img_per_s == pytest.approx(4e3 * row.devices / row.ms_per_step) for row in rows)
    assert all(row.dispatch_ms > 0 for row in rows)
    table = scaling.words(step_config, 4, [*rows[:2], rows[0]._replace(devices=2, img_per_s=rows[0].img_per_s)])
    assert " 50.0%" in table.splitlines()[-1] and "100.0%" in table.splitlines()[2] and "share the cores" in table


@pytest.mark.parametrize(("available", "counts"), [(1, [1]), (2, [1, 2]), (6, [1, 2, 4, 6]), (8, [1, 2, 4, 8])])
def test_numbers_of_devices_double(available, counts):
    assert scaling.counts(available) == counts
