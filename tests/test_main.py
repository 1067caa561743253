"""The command line: lazy, quiet, and every mistake in it told in one message with exit code 2."""

import json
import os
import pathlib
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import pytest
from absl import app

from imagenet_jax import config as config_lib
from imagenet_jax import models
from imagenet_jax.__main__ import main
from imagenet_jax.config.rules import RULES
from imagenet_jax.errors import UserError

ROOT = pathlib.Path(__file__).parents[1]


def run(*arguments):
    return subprocess.run([sys.executable, "-m", "imagenet_jax", *arguments], cwd=ROOT, capture_output=True, text=True)


def test_help_lists_the_commands_and_imports_nothing_heavy():
    code = ("import runpy, sys; sys.argv = ['imagenet_jax', '--help']; "
            "runpy.run_module('imagenet_jax', run_name='__main__'); "
            "print({'jax', 'tensorflow', 'numpy', 'absl'} & set(sys.modules))")
    output = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert output.endswith("set()\n")
    for command in ("draw", "prepare", "train", "evaluate"):
        assert f"\n  {command} " in output


def test_help_of_every_command_has_each_flag_with_its_default():
    """In the order of the file, and none of it wider than a terminal."""
    for command in (path.stem for path in (ROOT / "imagenet_jax/commands").glob("[a-z]*.py")):
        output = run(command, "--help").stdout
        assert output.startswith(f"usage: python -m imagenet_jax {command}") and "None" not in output
        assert max(map(len, output.splitlines())) <= 120
    output = run("prepare", "--help").stdout
    assert output.index("--archives") < output.index("--out") < output.index("--[no]checksum")
    assert "Share of a split, as 0.001 or 0.1%, that may be unusable. Default: 0.1%." in output
    assert "--config.KEY=VALUE" in run("train", "--help").stdout


def run_code(code):
    """Runs it in a process that none of our settings has reached."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("TF_")}
    return subprocess.run([sys.executable, "-c", textwrap.dedent(code)], cwd=ROOT, env=env, capture_output=True,
                          text=True)


def test_a_memory_too_small_is_one_message(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["imagenet_jax", "models"])
    monkeypatch.setattr(app, "run", lambda *_: jnp.zeros(2**50))
    with pytest.raises(SystemExit, match="2"):
        main()
    said = capsys.readouterr().err
    assert said.startswith("error: a device has too little memory. Out of memory allocating 4503599627370496 bytes.\n")
    assert "--config.max_per_device_batch" in said
    monkeypatch.setattr(app, "run", lambda *_: jax.jit(lambda x: x, compiler_options={"nope": 1})(1.0))
    with pytest.raises(jax.errors.JaxRuntimeError, match="nope"):  # a fault of ours: whole
        main()


def test_nothing_is_heard_of_tensorflow_but_its_warnings_and_errors():
    done = run_code("""
        from imagenet_jax import runtime
        runtime.quiet()
        import clu.metric_writers
        import tensorflow_datasets as tfds
        tfds.features.FeaturesDict({"label": tfds.features.ClassLabel(num_classes=3)}).get_tensor_spec()
        from imagenet_jax.input import loader, service
        list(loader.tf.data.Dataset.range(3).map(lambda i: i + 1))
        """)
    assert (done.returncode, done.stderr) == (0, "")
    done = run_code("""
        from imagenet_jax.input.pixels import tf
        next(iter(tf.data.Dataset.range(3).cache()))
        """)
    assert "did not fully read the dataset being cached" in done.stderr and "oneDNN" not in done.stderr


def test_the_accelerators_are_hidden_from_tensorflow_before_anything_runs_on_them():
    done = run_code("""
        import tensorflow as tf
        real, hidden = tf.config.set_visible_devices, []
        tf.config.set_visible_devices = lambda devices, kind: hidden.append((devices, kind)) or real(devices, kind)
        from imagenet_jax.input import loader, service
        assert hidden == [([], "GPU"), ([], "TPU")], hidden
        assert {device.device_type for device in tf.config.get_visible_devices()} == {"CPU"}
        real([], "CPU")  # which TensorFlow refuses once anything has run
        """)
    assert done.returncode == 0, done.stderr
    done = run_code("""
        import tensorflow as tf
        def refuse(devices, kind):
            raise RuntimeError("Visible devices cannot be modified after being initialized")
        tf.config.set_visible_devices = refuse
        from imagenet_jax.input import loader
        """)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("arguments, words", [
    (["trian"], "did you mean 'train'?"),
    (["train", "--workdri=x", "--config=configs/demo.py"], "did you mean --workdir?"),
    (["train", "--workdir=x"], "--config"),
    (["train", "--workdir=x", "--config=configs/none.py"], "configs/none.py"),
    (["train", "--workdir=x", "--config=configs/demo.py", "--config.optmizer.lr=1"], "did you mean 'optimizer'?"),
    (["train", "--workdir=x", "--config=configs/demo.py", "--config.global_batch=many"], "global_batch=many"),
    (["evaluate"], "workdir"),
    (["compare", "runs/one"], "Name at least two runs"),
    (["compare", "tests", "configs"], "tests is no run"),
    (["evaluate", "--workdir=x", "--scales=256,large"], "--scales=256,large are no whole numbers of px"),
    (["evaluate", "--workdir=x", "--scales=256", "--resize=256"], "resize"),
])
def test_a_mistake_is_one_message_and_exit_code_2(arguments, words):
    done = run(*arguments)
    assert done.returncode == 2 and words in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("key, value, words", [
    ("duration", "90", "a duration"),
    ("duration", "10%", "'90 epochs' or '5000 steps'"),
    ("duration", "0 steps", "longer than nothing"),
    ("early_stopping", "0 steps", "longer than nothing"),
    ("global_batch", 0, "from 1 to"),
    ("seed", 2**32, "from 0 to 4294967295"),
    ("seed", 2**70, "from 0 to 4294967295"),
    ("loader.prefetch", 10**9, "from 0 to 64"),
    ("schedule.peak", float("inf"), "finite"),
    ("schedule.peak", 1e39, "finite"),  # infinite in float32
    ("schedule.peak", float("nan"), "finite"),
    ("optimizer.weight_decay", float("inf"), "finite"),
    ("augment.aspect", (0.75, float("inf")), "(least, most)"),
    ("augment.area", ("a", "b"), "(least, most)"),
    ("augment.area", (0.5,), "(least, most)"),
    ("model.dtype", "float23", "did you mean 'float32'?"),
    ("schedule.boundaries", ("30",), "a tuple, each a duration"),
    ("schedule.decay", "cosin", "did you mean 'cosine'?"),
    ("loss.label_smoothing", 1.5, "below 1"),
    ("augment.area", (0.5, 0.1), "(least, most)"),
    ("model.bn_group", 100, "must divide global_batch=256"),
    ("compiler_options", ("xla_nope",), "a tuple, each 'NAME=VALUE'"),
    ("compiler_options", ("xla_nope=1",), "add --config.parallel=shard_map"),
    ("early_stopping", "5 epochs", "set dataset.holdout"),
    ("dataset.fold", 1, "0..0 with dataset.holdout=0.0"),
    ("view.resize", 10, "at least view.size"),
    ("view.crops", 2, "one of 1, 5, 10, 50"),
    ("view.scales", (256, 200), "at least view.size = 224"),
    ("freeze", ("(",), "a regular expression"),
])
def test_nonsense_is_refused_with_the_key(key, value, words):
    config = config_lib.base()
    config.update_from_flattened_dict({key: value})
    with pytest.raises(UserError) as caught:
        config_lib.check(models.fill_view(config))
    assert key in str(caught.value) and words in str(caught.value)


def test_every_key_has_a_rule_and_every_rule_a_key():
    assert {key for key, _ in config_lib.flat(config_lib.base())} == RULES.keys()


def test_a_saved_config_has_the_default_of_keys_that_are_younger():
    config = config_lib.restored(json.loads(json.dumps({
        "view": {"size": 64, "scales": (64, 80)}, "augment": {"ramp": (("80%", 192),)}, "gone": 1})))
    assert config.augment.ramp == (("80%", 192),)
    assert (config.view.size, config.view.scales, config.view.crops, config.gone) == (64, (64, 80), 1, 1)
    assert config.is_locked


def test_durations():
    assert config_lib.steps("90 epochs", 1281167, 256) == 450410
    assert config_lib.steps("0.5 epochs", 1000, 100) == 5
    assert config_lib.steps("7 steps", 1, 1) == 7
    assert config_lib.steps("10%", 1, 1, 250) == 25
    with pytest.raises(UserError):
        config_lib.steps("10%", 1, 1)


def test_the_network_decides_what_a_config_leaves_open():
    config = config_lib.base()
    config.model.name = "tf_efficientnet_b2"
    filled = models.fill_view(config)
    assert (filled.view.size, filled.view.resize, filled.view.interpolation) == (260, 292, "bicubic")
    assert filled.augment.size == 260 and config.view.size is None and filled.is_locked
    config.view.size, config.augment.size = 130, 100  # the margin keeps its share, and what is said stays
    filled = models.fill_view(config)
    assert (filled.view.size, filled.view.resize, filled.augment.size) == (130, 146, 100)
