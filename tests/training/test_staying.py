"""A run outlives what happens at night: fewer devices after a restart, a disk without room; or it ends and says why."""

import resource
import threading
import time

import jax
import numpy as np
import pytest
from test_interruption import metrics, signal_at_step, steps_in
from test_loop import assert_identical, state_at

from imagenet_jax import checkpoint
from imagenet_jax.errors import UserError
from imagenet_jax.hosts import store, watchdog
from imagenet_jax.training import loop, parallel, reporting

pytestmark = pytest.mark.usefixtures("without_pictures")


@pytest.fixture
def whole(small_config, tmp_path_factory):
    """The run that nothing happened to, made once."""
    path = tmp_path_factory.getbasetemp() / "undisturbed"
    if not path.exists():
        loop.train(small_config, str(path))
    return path


def test_a_run_goes_on_on_fewer_devices(small_config, tmp_path, whole, capsys):
    """Two steps on 8, two on 4, two on 2: BatchNorm's groups of 8 examples lie on four devices, on two, on one."""
    for devices, stop in ((8, 2), (4, 4), (2, None)):
        with pytest.MonkeyPatch.context() as patch:
            layout = parallel.make_layout("pmap", jax.devices()[:devices])
            patch.setattr(parallel, "make_layout", lambda mode, layout=layout: layout)
            if stop:
                signal_at_step(patch, stop)
                with pytest.raises(SystemExit, match="143"):
                    loop.train(small_config, str(tmp_path / "cut"))
            else:
                loop.train(small_config, str(tmp_path / "cut"))
    said = capsys.readouterr().out
    assert all(f"{n} x cpu" in said for n in (8, 4, 2)) and "Resumed from step 4" in said
    (undisturbed, _), (cut, _) = state_at(whole), state_at(tmp_path / "cut")
    for path, value in undisturbed.items():
        np.testing.assert_allclose(cut[path], value, rtol=1e-4, atol=1e-5, err_msg=path)
    for ours, theirs in zip(metrics(whole), metrics(tmp_path / "cut"), strict=True):
        assert ours == pytest.approx(theirs, abs=1e-4)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Orbax's threads
def test_a_disk_without_room_ends_the_run_which_goes_on_when_there_is(small_config, tmp_path, whole, monkeypatch,
                                                                       capfd):
    advance, limits = reporting.Reporter.advance, resource.getrlimit(resource.RLIMIT_FSIZE)

    def filled_at_step_3(self, step):
        advance(self, step)
        if step == 3:
            while checkpoint.latest_step(run / "checkpoints") is None:
                time.sleep(0.01)
            # No file may grow beyond it, which the storage reports like a disk without room.
            resource.setrlimit(resource.RLIMIT_FSIZE, (2**11, limits[1]))

    run = tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reporting.Reporter, "advance", filled_at_step_3)
        try:
            with pytest.raises(UserError, match=rf"could not save a checkpoint in {run}/checkpoints \(last good: "
                                                rf"{run}/checkpoints/2\): File too large"):
                loop.train(small_config, str(run))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert steps_in(run / "checkpoints")[0] == "2"
    loop.train(small_config, str(run))
    out, err = capfd.readouterr()
    assert "Resumed from step 2 of" in out and "Traceback" not in err
    assert steps_in(run / "checkpoints") == ["4", "6"]
    assert_identical(whole, run)


def test_the_watchdog_barks_at_a_step_and_not_at_what_takes_its_time(monkeypatch, capfd):
    ended, barked = [], threading.Event()
    monkeypatch.setattr(watchdog, "FLOOR", 0.2)

    def end(code, message):
        ended.append((code, message))
        barked.set()
        threading.Event().wait()  # the real one does not return

    monkeypatch.setattr(watchdog, "end", end)
    with watchdog.watched("step"):
        time.sleep(0.3)  # the first step
        for step in range(1, 5):
            watchdog.passed(f"step {step}")
        for what, kind in (("compiling", ""), ("saving", ""), ("waiting for the input of an evaluation", "batch")):
            with watchdog.doing(what, kind):
                time.sleep(0.3)
        assert not ended
        with watchdog.doing("waiting for input"):
            barked.wait(60)
    (code, message), = ended
    assert code == 75 and message.startswith("error: nothing has gone on for 0 s (a step takes ")
    assert "waiting for input, after step 4.\nThe stacks of all threads are above" in message
    assert "test_staying.py" in capfd.readouterr().err
    monkeypatch.setattr(store, "PATIENCE", 0.2)
    barked.clear()
    with watchdog.watched("batch"), watchdog.doing("saving", ""):
        barked.wait(60)
    assert "saving, after the start" in ended[1][1]
