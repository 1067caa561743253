"""`search` as it is typed: an index, lines and a table on stdout, words on stderr, and an exit code."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image
from small_data import make_dataset

from imagenet_jax import models
from imagenet_jax.models import weights

ROOT = Path(__file__).parents[2]
CLASSES = '[["a", "b", "c"], ["", "", ""]]'


def run(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "imagenet_jax", "search", *arguments], cwd=ROOT, capture_output=True,
                          text=True)


@pytest.fixture
def weigh(tmp_path):
    """Writes weights drawn from a seed; returns the file."""
    def write(seed: int) -> str:
        variables = jax.jit(models.make("squeezenet1_1", 3).init)(jax.random.key(seed), np.zeros((1, 64, 64, 3)))
        file = str(tmp_path / f"{seed}.safetensors")
        weights.write(file, weights.to_torch("squeezenet1_1", jax.device_get(variables["params"]), {}),
                      model="squeezenet1_1", classes=CLASSES, view='{"size": 64, "resize": 64}')
        return file

    return write


def test_an_index_is_made_and_searched_by_its_own_network(weigh, tmp_path: Path) -> None:
    index, data = f"--index={tmp_path}/index", make_dataset(tmp_path / "data", 2, 12, 2)
    made = run(f"--checkpoint={weigh(0)}", f"--dataset={data}", index, "--pixels", "--precision", "--topk=3")
    assert made.returncode == 0, made.stderr
    assert "12 pictures as squeezenet1_1 sees them" in made.stderr
    assert made.stdout.startswith("precision@3") and "all" in made.stdout.splitlines()[-1]
    assert json.loads((tmp_path / "index" / "precision.json").read_text())["all"]["pictures"] == 12
    (tmp_path / "broken.jpg").write_text("broken")
    Image.new("RGB", (80, 70), "red").save(tmp_path / "red.png")
    query = f"--query={tmp_path}/[br]*g"
    found = run(index, "--query_class=n00000001", query, "--topk=4")
    of_class, broken, red = map(json.loads, found.stdout.splitlines())
    assert found.returncode == 1 and of_class["class"] == "n00000001" and "begins with 'broken'" in broken["error"]
    for line in (of_class, red):
        similarities = [hit["similarity"] for hit in line["nearest"]]
        assert similarities == sorted(similarities, reverse=True) and len(similarities) == 4
        assert all(hit["file"].startswith("image_") and hit["id"] == f"n{hit['label']:08d}" for hit in line["nearest"])
    other = run(index, f"--checkpoint={weigh(1)}", query)
    assert (other.returncode, other.stdout) == (2, "") and "is another network" in other.stderr


@pytest.mark.parametrize("arguments, words", [
    ([], "search what?"), (["--query=x.jpg"], "there is no index at"), (["x.jpg"], "which network makes the index?"),
    (["x.jpg", "--dataset=x"], "give one of them")])
def test_a_mistake_is_one_message(tmp_path: Path, arguments: list[str], words: str) -> None:
    done = run(f"--index={tmp_path}/index", *arguments)
    assert done.returncode == 2 and words in done.stderr and "Traceback" not in done.stderr
