"""`clean` as it is typed: what it prints and leaves, and its mistakes."""

import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from imagenet_jax.prepare.writer import Example, Source, write_dataset


def run(*flags):
    return subprocess.run([sys.executable, "-m", "imagenet_jax", "clean", *flags], capture_output=True, text=True)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    def examples(count, seed):
        rng = np.random.default_rng(seed)
        for i in range(count):
            file = io.BytesIO()
            Image.fromarray(rng.integers(0, 256, (40, 50, 3), np.uint8)).save(file, "JPEG")
            yield Example(file.getvalue(), 0, f"{i}.JPEG")

    out = tmp_path_factory.mktemp("data") / "noise"
    write_dataset(out, Source("noise", ("n0",), ("n0",), {"train": examples(5, 0), "validation": examples(3, 0)}))
    return out


def test_manifest_and_report(data, tmp_path):
    done = run(f"--dataset={data}", f"--out={tmp_path}", "--workers=1")
    assert done.returncode == 0, done.stderr
    assert ["leak", "3", "0"] in [line.split() for line in done.stdout.splitlines()]
    assert str(tmp_path / "manifest.jsonl") in done.stdout and (tmp_path / "report.md").exists()


def test_mistakes_end_with_one_message_and_2(data, tmp_path):
    for flags, message in (
        ([f"--dataset={data}"], "--out"),
        ([f"--dataset={tmp_path}", f"--out={tmp_path}/out"], "is not a prepared dataset"),
        ([f"--dataset={data}", f"--out={tmp_path}/out", "--probabilities=none.npy"], "no file none.npy"),
        ([f"--dataset={data}", f"--out={tmp_path}/out", "--runner=NoRunner"], "--runner=NoRunner"),
    ):
        done = run(*flags)
        assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr, done.stderr
