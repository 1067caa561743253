"""`benchmark input`, `benchmark step` and `benchmark pod` as they are typed."""

import json
import os
import subprocess
import sys
from pathlib import Path

from PIL import Image

from imagenet_jax.prepare.writer import Example, Source, write_dataset

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "configs/demo.py"
# What a machine may lack that trains elsewhere: all that is not JAX, Flax, optax, ml_collections, absl, numpy.
ABSENT = ("tensorflow", "tensorflow_datasets", "clu", "array_record", "orbax", "grain", "matplotlib", "PIL", "sklearn",
          "safetensors", "etils", "tqdm", "google_crc32c", "apache_beam")
WITHOUT = f"""
import runpy, sys
class Absent:
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] in {ABSENT}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent)
sys.argv[0] = "imagenet_jax"
runpy.run_module("imagenet_jax", run_name="__main__", alter_sys=True)
"""


def _benchmark(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "imagenet_jax", "benchmark", *words], capture_output=True, text=True)


def test_it_prints_a_table_and_writes_json(tmp_path: Path) -> None:
    Image.new("RGB", (64, 48), (200, 30, 30)).save(tmp_path / "red.jpg")
    red = (tmp_path / "red.jpg").read_bytes()
    examples = [Example(red, 0, name) for name in "12"]
    write_dataset(tmp_path / "reds", Source("reds", ("a",), ("red",), {"train": examples}))
    ran = _benchmark("input", f"--dataset={tmp_path / 'reds'}", f"--config={DEMO}", "--seconds=0.1", "--want=20000",
                     f"--out={tmp_path / 'figures.json'}")
    assert ran.returncode == 0, ran.stderr
    assert "per core" in ran.stdout and "binds" in ran.stdout and "20,000 img/s " in ran.stdout
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["binds"] in {stage["name"] for stage in figures["stages"]} and figures["examples"] == 2
    assert figures["want"]["img_per_s"] == 20000 and [each["cores"] for each in figures["at"]] == [16, 64, 192]


def test_it_asks_what_to_measure() -> None:
    for words in ((), ("inptu",)):
        ran = _benchmark(*words)
        assert ran.returncode == 2 and "benchmark input" in ran.stderr and "Traceback" not in ran.stderr
        assert "benchmark step" in ran.stderr and "benchmark pod" in ran.stderr


def test_the_step_is_measured_where_tensorflow_is_not_installed(tmp_path: Path) -> None:
    out = tmp_path / "step.json"
    words = ["benchmark", "step", f"--config={DEMO}", "--config.augment.size=32", "--config.model.width=8",
             "--config.model.bn_group=8", "--batches=3", "--seconds=0.1", f"--out={out}"]
    ran = subprocess.run([sys.executable, "-c", WITHOUT, *words], cwd=ROOT, capture_output=True, text=True,
                         env=os.environ | {"XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"})
    assert ran.returncode == 0, ran.stderr
    assert "counted as 3 x forward" in ran.stdout and "MFU is unknown" in ran.stdout and "Best: batch" in ran.stdout
    figures = json.loads(out.read_text())
    assert {"device", "versions", "config", "macs", "peak", "seconds", "batches", "best", "largest"} <= figures.keys()
    assert [(each["batch"], each["bn_group"]) for each in figures["batches"]] == [(3, 3)]
    assert figures["largest"] == 3 and figures["config"]["model"]["width"] == 8 and figures["versions"]["jax"]


def test_batches_are_numbers() -> None:
    for topic, batches in (("step", "--batches=8,many"), ("step", "--batches=0"), ("pod", "--batch_per_device=-4"),
                           ("scaling", "--batch_per_device=64,128")):
        ran = _benchmark(topic, f"--config={DEMO}", batches)
        assert ran.returncode == 2 and batches.partition("=")[0] in ran.stderr and "Traceback" not in ran.stderr


def test_a_pod_is_asked_for_by_its_topology() -> None:
    ran = _benchmark("pod", f"--config={DEMO}")
    assert ran.returncode == 2 and "--topology=" in ran.stderr and "Traceback" not in ran.stderr
