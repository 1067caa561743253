"""`predict` as it is typed: names on stdin, lines on stdout, counts on stderr, and an exit code."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from imagenet_jax import models
from imagenet_jax.models import weights

ROOT = Path(__file__).parents[2]
CLASSES = '[["a", "b", "c"], ["", "", ""]]'


def run(*arguments: str, names: str = "") -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "imagenet_jax", "predict", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, input=names)


def test_names_on_stdin_a_broken_file_and_exit_code_1(tmp_path: Path) -> None:
    variables = jax.jit(models.make("squeezenet1_1", 3).init)(jax.random.key(0), np.zeros((1, 64, 64, 3)))
    file = str(tmp_path / "drawn.safetensors")
    weights.write(file, weights.to_torch("squeezenet1_1", jax.device_get(variables["params"]), {}),
                  model="squeezenet1_1", classes=CLASSES, view='{"size": 64, "resize": 64}')
    (tmp_path / "broken.jpg").write_text("broken")
    Image.new("RGB", (80, 70), "red").save(tmp_path / "red.gif")
    names = f"{tmp_path}/gone.jpg\n{tmp_path}/red.gif\n"
    done = run(f"--checkpoint={file}", str(tmp_path / "*.jpg"), "-", "--topk=9", names=names)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [Path(line["file"]).name for line in lines] == ["broken.jpg", "gone.jpg", "red.gif"]
    assert lines[1]["error"] == "No such file or directory" and {row["id"] for row in lines[2]["top"]} == {*"abc"}
    assert done.returncode == 1 and done.stderr == (
        "1 of 3 pictures were mended\n2 of 3 pictures could not be read or decoded\n")
    (tmp_path / "classes.txt").write_text("b\nc\n")
    done = run(f"--checkpoint={file}", str(tmp_path / "red.gif"), f"--classes={tmp_path}/classes.txt",
               f"--annotate={tmp_path}/labels.csv")
    _, row = (tmp_path / "labels.csv").read_text().splitlines()
    assert (done.returncode, done.stdout) == (0, "") and row.startswith(("red.gif,b,0.", "red.gif,c,0."))


@pytest.mark.parametrize("arguments, words", [
    ([], "predict what? Name files"), (["--annotate=labels.csv", "some.tar"], "cannot find in a tar"),
    (["--annotate=labels", "photos"], "call it .csv"),
    (["--annotate=labels.csv", "--out=lines", "photos"], "leave out --out")])
def test_a_mistake_is_told(arguments: list[str], words: str) -> None:
    done = run("--checkpoint=squeezenet1_1", *arguments)
    assert done.returncode == 2 and words in done.stderr
