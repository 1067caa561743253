"""Two processes are one run: same numbers, one checkpoint, one report, one end; and what is wrong is told by all."""

import contextlib
import csv
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent import futures

import jax
import numpy as np
import pytest
from small_data import make_dataset
from small_net import SmallNet
from test_interruption import metrics, steps_in
from test_loop import RECIPE, assert_identical, state_at

from imagenet_jax import checkpoint, models
from imagenet_jax import config as config_lib
from imagenet_jax.errors import UserError
from imagenet_jax.hosts import meeting, watchdog
from imagenet_jax.training import evaluating, loop, parallel

ROOT = pathlib.Path(__file__).parents[2]
ENVIRONMENT = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
               "PYTHONPATH": f"{ROOT}:{pathlib.Path(__file__).parent}"}

SMALL_NET = """
import sys
if "-m" in sys.orig_argv:
    from imagenet_jax import models, runtime
    runtime.configure()
    from imagenet_jax.hosts import joining
    from small_net import SmallNet
    joining._GRACE = 0.5
    models.REGISTRY["small"] = models.Spec(SmallNet)
"""


def free_port():
    with socket.create_server(("localhost", 0)) as server:
        return server.getsockname()[1]


def run_two(scenario, here):
    """Runs hosts_main.py twice; the exit codes, and what each said."""
    command = [sys.executable, str(pathlib.Path(__file__).with_name("hosts_main.py")), scenario]
    port = str(free_port())
    running = [subprocess.Popen([*command, str(i), port, str(here)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                text=True, env=os.environ | ENVIRONMENT) for i in range(2)]
    said = [running[0].communicate(timeout=300)[0]]
    if scenario.startswith("hang"):
        running[1].kill()
    said.append(running[1].communicate(timeout=300)[0])
    return [process.returncode for process in running], said


@pytest.fixture(scope="module")
def config():
    config = config_lib.base()
    config.duration, config.log_every = "6 steps", "2 steps"
    config.global_batch, config.model.bn_group, config.evaluation.batch = 16, 8, 24
    config.augment.size = config.view.size = config.view.resize = 32
    config.augment.ramp = (("4 steps", 40),)
    config.model.name = "small"
    config.evaluation.every, config.checkpoint.every = "3 steps", "2 steps"
    config.dataset.holdout = 0.25
    return config


@pytest.fixture(scope="module")
def here(config, tmp_path_factory):
    """one: of one process with four devices; two: of two with two each; cut: of these two, stopped twice."""
    here = tmp_path_factory.mktemp("hosts")
    config.dataset.dir = make_dataset(here / "small", 96, 53, 4)
    (here / "config.json").write_text(json.dumps(config.to_dict()))
    codes, said = run_two("train", here)
    assert codes == [0, 0] and "4 x cpu under shard_map, " in said[0] and "4 x cpu under pmap, " in said[0], said
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(models.REGISTRY, "small", models.Spec(SmallNet))
        patch.setattr(parallel, "make_layout", lambda mode: parallel.Layout("pmap", tuple(jax.devices()[:4])))
        loop.train(config, str(here / "one"))
        evaluating.evaluate_checkpoint(str(here / "one"), out=str(here / "evaluated_by_one"), bn_examples=20,
                                       view={"crops": 10, "scales": (32, 36)})
    return here


def test_two_hosts_are_one(here):
    (one, meta), (two, others) = state_at(here / "one"), state_at(here / "two")
    assert one.keys() == two.keys() and meta["progress"]["evaluated"] == others["progress"]["evaluated"] == 6
    for path, value in one.items():
        np.testing.assert_allclose(two[path], value, rtol=1e-5, atol=1e-5, err_msg=path)
    lines = metrics(here / "one"), metrics(here / "two")
    for ours, theirs in zip(*lines, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-4)
    assert steps_in(here / "two/checkpoints") == ["4", "6"] and (here / "two/report.md").exists()
    assert {path.name for path in here.glob("one/*") if "tfevents" not in path.name} == \
        {path.name for path in here.glob("two/*") if "tfevents" not in path.name}


def test_evaluation_by_two_hosts_is_that_of_one(here):
    one, two = (json.loads((here / name / "results.json").read_text()) for name in ("evaluated_by_one", "evaluated"))
    assert one["metrics"]["seen"] == 53 and one["metrics"] == pytest.approx(two["metrics"], abs=1e-4)
    with open(here / "evaluated/predictions.csv", newline="") as file:
        assert [row["file_name"] for row in csv.DictReader(file)] == [f"image_{i}.JPEG" for i in range(53)]
    assert np.load(here / "evaluated/probabilities.npy")["index"].tolist() == list(range(53))


def test_a_signal_to_one_host_stops_all_and_the_run_goes_on_bit_for_bit(here):
    """SIGTERM to host 1 in a step, Ctrl-C to host 0 in an evaluation."""
    codes = [json.loads((here / f"codes_{i}.json").read_text()) for i in range(2)]
    assert codes == [[143, 143, 0]] * 2
    assert_identical(here / "two", here / "cut")
    assert_identical(here / "two/best", here / "cut/best")
    assert metrics(here / "two") == metrics(here / "cut")


def test_hosts_that_differ_are_told_on_all_of_them_and_the_others_agree(tmp_path):
    codes, said = run_two("agree", tmp_path)
    assert codes == [0, 0], said
    says = [json.loads((tmp_path / f"says_{i}.json").read_text()) for i in range(2)]
    late = [each.pop("late") for each in says]
    assert says[0] == says[1] and says[0]["names"] == ["host 0", "host 1"] and says[0]["shared"] == "nothing"
    assert "differ in what they are to do (host 1):\n  host 1: peak: 0.2, but 0.1 on host 0" in says[0]["alike"]
    assert "workdir is not shared (host 1)" in says[0]["apart"] and not list(tmp_path.glob("own_*"))
    assert says[0]["calls"].count("s") == 3
    assert "host 1 did not come to a late meeting within" in late[0]


def test_a_mistake_on_one_host_ends_all(tmp_path):
    codes, said = run_two("give_up", tmp_path)
    assert codes == [2, 2]
    assert said[1] == "error: no such dataset\n" and said[0] == "error: ended by host 1: no such dataset\n"


def test_a_memory_too_small_on_one_host_ends_all(tmp_path):
    codes, said = run_two("overflow", tmp_path)
    words = "a device has too little memory. Out of memory allocating 4503599627370496 bytes.\nFor training"
    assert codes == [2, 2] and said[1].startswith(f"error: {words}")
    assert said[0].startswith(f"error: ended by host 1: {words}") and "Traceback" not in said[0] + said[1]


def test_a_disk_without_room_ends_all_hosts_with_one_message(tmp_path):
    codes, said = run_two("fill", tmp_path)
    assert codes == [2, 2], said
    words = (f"could not save a checkpoint in {tmp_path}/checkpoints (last good: {tmp_path}/checkpoints/1): File too "
             "large\nMake room or permission there and run the same command again.\n")
    assert said[0].endswith(f"error: {words}") and "Traceback" not in said[0]
    assert said[1] == f"error: ended by host 0: {words}"
    assert steps_in(tmp_path / "best") == ["1"]
    np.testing.assert_array_equal(*(checkpoint.read(str(tmp_path / kind))[0]["params"]["a"]
                                    for kind in ("best", "checkpoints")))


@pytest.mark.parametrize("scenario, usual, doing", [
    ("hang", " (a step takes", "waiting for the devices, after step 4"),
    ("hang_at_once", ":", "compiling, after the start"),
])
def test_a_host_that_hangs_is_named_and_the_others_end(tmp_path, scenario, usual, doing):
    codes, said = run_two(scenario, tmp_path)
    assert codes == [watchdog.STALLED, -signal.SIGKILL], said
    assert f"error: ended by host 0: nothing has gone on for 1 s{usual}" in said[0]
    assert "\n  host 1: no answer; the process or its machine hangs" in said[0]
    assert f"\n  host 0: {doing}" in said[0]
    assert 'hosts_main.py", line' in said[0] and "in hang" in said[0]  # where it stood


def test_the_launcher_starts_again_after_a_kill_and_hands_sigterm_on(here, config, tmp_path):
    config = config.copy_and_resolve_references()
    config.duration, config.checkpoint.every = "2000 steps", "1 steps"
    (tmp_path / "sitecustomize.py").write_text(SMALL_NET)
    (tmp_path / "recipe.py").write_text(RECIPE.format(values=json.dumps(config.to_dict())))
    command = [sys.executable, str(ROOT / "launch/local.py"), "--devices=1", f"--logs={tmp_path / 'logs'}",
               "--restarts=1", "--backoff=0.1", "--",
               "train", f"--config={tmp_path / 'recipe.py'}", f"--workdir={tmp_path / 'run'}"]
    env = os.environ | {"PYTHONPATH": f"{tmp_path}:{ENVIRONMENT['PYTHONPATH']}"}
    listed = subprocess.run([*command[:2], "--dry_run", *command[2:]], capture_output=True, text=True).stdout
    assert "--process=0" in listed and "--process=1" in listed and not (tmp_path / "logs").exists()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env) as process:
        def wait_for_step_after(step):
            while (checkpoint.latest_step(tmp_path / "run/checkpoints") or 0) <= step and process.poll() is None:
                time.sleep(0.1)

        wait_for_step_after(0)
        children = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(children[1]), signal.SIGKILL)
        while os.path.exists(f"/proc/{children[0]}"):
            time.sleep(0.1)
        saved = checkpoint.latest_step(tmp_path / "run/checkpoints")
        wait_for_step_after(saved)
        process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=300)[0]
    assert process.returncode == 143 and "is saved in" in said, said
    assert "exit code 137; all are started again" in said and f"Resumed from step {saved} of" in said
    assert "Traceback" not in said + (tmp_path / "logs/host_1.log").read_text()


@pytest.mark.parametrize("given, environment, words", [
    ({"processes": 2}, {}, "--coordinator (or JAX_COORDINATOR_ADDRESS) and --process (or JAX_PROCESS_ID)"),
    ({}, {"JAX_COORDINATOR_ADDRESS": "a:1"}, "--processes (or JAX_NUM_PROCESSES) and --process"),
    ({"process": 2}, {"JAX_COORDINATOR_ADDRESS": "a:1", "JAX_NUM_PROCESSES": "2"}, "no process 2 of 2: .* from 0 to 1"),
    ({"process": 0}, {"JAX_COORDINATOR_ADDRESS": "a", "JAX_NUM_PROCESSES": "2"}, "'a', which is not HOST:PORT"),
    ({}, {"JAX_NUM_PROCESSES": "two"}, "JAX_NUM_PROCESSES='two' is not a number"),
    ({"detect": True}, {}, "JAX did not find them out here"),
])
def test_who_the_hosts_are_is_asked_for(monkeypatch, given, environment, words):
    for name in meeting.VARIABLES.values():
        monkeypatch.delenv(name, raising=False)
    assert meeting.place() is None
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=words.replace("(", r"\(").replace(")", r"\)")):
        meeting.place(**given)


def meet(*places, seconds=1.0):
    """What each process is told that meets the others in a thread of its own; '' for nothing."""
    told = {}

    def go(number, place):
        told[number] = ""
        try:
            meeting.meet(place, seconds)
        except UserError as error:
            told[number] = str(error)

    threads = [threading.Thread(target=go, args=pair) for pair in enumerate(places)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [told[number] for number in range(len(places))]


def test_hosts_learn_the_address_at_which_they_reach_each_other(monkeypatch):
    monkeypatch.setenv("no_grpc_proxy", "")
    place = meeting.Place(f"127.0.0.1:{free_port()}", 3, 0)
    with futures.ThreadPoolExecutor() as pool:
        addresses = list(pool.map(lambda process: meeting.meet(place._replace(process=process), 10.0), range(3)))
    assert addresses == ["127.0.0.1"] * 3  # to which the first host listens by IPv6


def test_who_does_not_come_is_named(monkeypatch):
    monkeypatch.setenv("no_grpc_proxy", "")
    address = f"localhost:{free_port()}"
    place = meeting.Place
    assert meet(place(address, 3, 0), place(address, 3, 2), place(address, 3, 1)) == ["", "", ""]
    late = meet(place(address, 4, 0), place(address, 4, 2))
    assert late[0] == late[1] and "hosts 1, 3 of 4 did not come to localhost" in late[0]
    assert f"nobody answered at {address} within 1 s (Connection refused)" in meet(place(address, 2, 1))[0]
    for other, words in ((place(address, 3, 1), "has --processes=3, host 0 has --processes=2"),):
        told = meet(place(address, 2, 0), other)
        assert told[0] == told[1] and words in told[0]
    twice = meet(place(address, 3, 0), place(address, 3, 1), place(address, 3, 1))
    assert "two processes with --process=1" in twice[0]
    with socket.create_server(("localhost", 0)) as taken, contextlib.suppress(OSError):
        port = taken.getsockname()[1]
        assert f"cannot listen at port {port}" in meet(place(f"localhost:{port}", 2, 0))[0]
