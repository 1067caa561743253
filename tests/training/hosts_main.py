"""What tests/training/test_hosts.py runs as each of two processes: hosts_main.py SCENARIO PROCESS PORT DIRECTORY."""

import json
import os
import pathlib
import resource
import signal
import sys
import time
import types

from imagenet_jax import runtime

runtime.configure()
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"

from imagenet_jax import hosts  # noqa: E402
from imagenet_jax.errors import UserError  # noqa: E402
from imagenet_jax.hosts import joining, watchdog  # noqa: E402

SCENARIO, PROCESS, PORT, HERE = sys.argv[1], int(sys.argv[2]), sys.argv[3], pathlib.Path(sys.argv[4])


def told(function, *args):
    """What the UserError says."""
    try:
        function(*args)
    except UserError as error:
        return str(error)
    return "nothing"


def agree():
    """Comparisons that fail on both hosts alike, and an agreement between hosts of two speeds."""
    says = {"alike": told(hosts.check_alike, "what they are to do", {"seed": 0, "peak": 0.1 * (PROCESS + 1)}),
            "apart": told(hosts.check_shared, str(HERE / f"own_{PROCESS}")),
            "shared": told(hosts.check_shared, str(HERE / "shared"))}
    stop, save, calls = hosts.agreement("stop"), hosts.agreement("save"), []
    for rounds in (1, 2):
        while not stop.reached():
            calls += ["save"] if save.reached() else ["."]
            time.sleep(0.003 * (PROCESS + 1))
            if len(calls) == 20 * rounds:  # both hosts ask at their own time
                stop.want()
            if len(calls) == 10 and PROCESS:
                save.want()
        calls.append("stop")
    says["calls"], says["names"] = "".join(word[0] for word in calls), hosts.gather("names", f"host {PROCESS}")
    says["late"] = told(hosts.gather, "a late meeting", 0, 0.5) if not PROCESS else time.sleep(1)
    (HERE / f"says_{PROCESS}.json").write_text(json.dumps(says))


def give_up():
    """Host 1 makes a mistake while host 0 waits for it."""
    if PROCESS:
        raise UserError("no such dataset")
    hosts.gather("what will not be", None)


def overflow():
    """The devices of host 1 have no such memory."""
    import jax.numpy as jnp

    jnp.zeros(2**50 if PROCESS else 1).block_until_ready()
    hosts.gather("what will not be", None)


def hang():
    """Host 1 stands still as if its machine did, and host 0 waits for it as for a collective."""
    watchdog.FLOOR, watchdog._ANSWERED_WITHIN, joining._GRACE = 18.0, 0.6, 0.6
    what = ("compiling", "") if SCENARIO == "hang_at_once" else ("waiting for the devices",)
    with watchdog.watched("step"), watchdog.doing(*what):
        for step in range(1, 1 if SCENARIO == "hang_at_once" else 5):
            hosts.gather("a step", step)
            watchdog.passed(f"step {step}")
        if PROCESS:
            os.kill(os.getpid(), signal.SIGSTOP)
        time.sleep(60)


def fill():
    """The disk of host 0 has room for two checkpoints at once, then for none."""
    import jax
    import numpy as np

    from imagenet_jax.training.run import Cadence
    from imagenet_jax.training.saving import Progress, Saver

    saver = Saver(str(HERE), lambda state: state, {"config": {"global_batch": 8}}, Cadence(1, 1, 1, 0, 0), keep=2,
                  minutes=0)
    jax.devices()  # which all hosts make together
    drawn = np.random.default_rng(0).random(10_000, np.float32)
    state = types.SimpleNamespace(params={"a": drawn}, batch_stats={}, ema=None, opt_state=())
    saver.save("best", state, 1, Progress())
    saver.save("checkpoints", state, 1, Progress())
    saver.finish()
    if not PROCESS:  # no file may grow beyond it, which the storage reports like a disk without room
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**11, resource.RLIM_INFINITY))
    saver.save("checkpoints", state, 2, Progress())
    saver.finish()


def train():
    """A run, its evaluation, and another that is stopped twice, in a step and in an evaluation, and ends under pmap."""
    from small_net import SmallNet

    from imagenet_jax import config as config_lib
    from imagenet_jax import models
    from imagenet_jax.training import evaluating, loop, reporting

    models.REGISTRY["small"] = models.Spec(SmallNet)
    config = config_lib.restored(json.loads((HERE / "config.json").read_text()))
    loop.train(config, str(HERE / "two"))
    evaluating.evaluate_checkpoint(str(HERE / "two"), out=str(HERE / "evaluated"), batch=5, probabilities=True,
                                   bn_examples=20, view={"crops": 10, "scales": (32, 36)})

    advance, collect = reporting.Reporter.advance, evaluating.exact.collect
    codes, interrupted = [], []

    def stopped_at_step(self, step):
        advance(self, step)
        if step == 2 and PROCESS == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    def stopped_in_evaluation(*args):
        if PROCESS == 0 and not interrupted:
            interrupted.append(True)
            os.kill(os.getpid(), signal.SIGINT)
        return collect(*args)

    for holder, name, patch in ((reporting.Reporter, "advance", stopped_at_step),
                                (evaluating.exact, "collect", stopped_in_evaluation), (None, "", None)):
        before = getattr(holder, name, None)
        config.parallel = "auto" if holder else "pmap"
        if holder:
            setattr(holder, name, patch)
        try:
            loop.train(config, str(HERE / "cut"))
            codes.append(0)
        except SystemExit as error:
            codes.append(error.code)
        if holder:
            setattr(holder, name, before)
    (HERE / f"codes_{PROCESS}.json").write_text(json.dumps(codes))


try:
    with hosts.joined(coordinator=f"localhost:{PORT}", processes=2, process=PROCESS, seconds=60):
        {"agree": agree, "fill": fill, "give_up": give_up, "hang": hang, "hang_at_once": hang,
         "overflow": overflow, "train": train}[SCENARIO]()
except UserError as error:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(2)
