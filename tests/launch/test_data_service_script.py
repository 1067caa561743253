"""launch/data_service.sh starts the processes of a tf.data service, on one machine or on several, and ends them."""

import pathlib
import signal
import subprocess
import time

import pytest

SCRIPT = pathlib.Path(__file__).parents[2] / "launch/data_service.sh"
SERVING = """#!/usr/bin/env bash
trap 'touch ended_$$; exit 143' TERM
touch started_$$
until [ -e finish ]; do sleep 0.02; done
touch ended_$$
[ "$3 $4" != "data_service --port=5051" ] || exit 7
"""


def dry_run(*flags):
    return subprocess.run([SCRIPT, "--dry_run", *flags], capture_output=True, text=True)


def test_a_dispatcher_with_workers_and_workers_that_join_it():
    serve = "python -m imagenet_jax data_service"
    assert dry_run("--address=cpu-0").stdout.splitlines() == [
        f"{serve} --port=5050 --address=cpu-0",
        f"{serve} --port=5051 --dispatcher=cpu-0:5050 --address=cpu-0",
        f"{serve} --port=5052 --dispatcher=cpu-0:5050 --address=cpu-0"]
    joining = "--dispatcher=cpu-0:5050", "--address=cpu-1", "--workers=1", "--port=7000"
    assert dry_run(*joining).stdout == f"{serve} --port=7001 --dispatcher=cpu-0:5050 --address=cpu-1\n"


@pytest.mark.parametrize("flag, words", [
    ("--dispatcher=cpu-0:5050", "give --address=THIS_HOST"), ("5050", "'5050' is no flag"),
    ("--dispatcher=cpu-0", "is not HOST:PORT"), ("--workers=0", "are numbers from 1 on")])
def test_mistakes_of_a_data_service(flag, words):
    told = dry_run(flag)
    assert told.returncode == 2 and words in told.stderr and not told.stdout


@pytest.mark.parametrize("asked", [True, False])
def test_what_it_started_ends_with_it_and_a_failure_is_handed_on(tmp_path, asked):
    (tmp_path / "launch").mkdir()
    script = tmp_path / "launch/data_service.sh"
    script.write_text(SCRIPT.read_text())
    (tmp_path / "launch/setup.sh").write_text('PATH="$PWD:$PATH"')
    (tmp_path / "python").write_text(SERVING)
    (tmp_path / "python").chmod(0o755)
    with subprocess.Popen(["bash", script], cwd=tmp_path) as service:
        while len(list(tmp_path.glob("started_*"))) < 3:
            time.sleep(0.02)
        if asked:
            service.send_signal(signal.SIGTERM)
        else:
            (tmp_path / "finish").touch()
        assert service.wait(30) == (-signal.SIGTERM if asked else 7)
    deadline = time.monotonic() + 30
    while len(list(tmp_path.glob("ended_*"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert len(list(tmp_path.glob("ended_*"))) == 3
