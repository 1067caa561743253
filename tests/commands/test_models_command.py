"""`models`: what the zoo knows, as a table and as JSON."""

import json
import subprocess
import sys

from imagenet_jax import models


def run(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "imagenet_jax", "models", *arguments], capture_output=True, text=True)


def test_every_network_has_a_line_with_its_figures() -> None:
    lines = run().stdout.splitlines()
    assert {line.split()[0] for line in lines[1 : len(models.REGISTRY) + 1]} == models.REGISTRY.keys()
    (lite,) = (line for line in lines if line.startswith("tf_efficientnet_lite0"))
    assert lite.split()[1:8] == ["2020", "4,652,008", "0.385", "224", "256", "bicubic", "75.1"]
    assert lite.endswith("pixels (x - 127) / 128")
    (resnet,) = (line for line in lines if line.startswith("resnet50 "))
    assert "pixels" not in resnet


def test_json_holds_the_same_and_a_name_that_is_none_is_told() -> None:
    rows = json.loads(run("--json", "--like=vgg16").stdout)
    assert [(row["name"], row["params"]) for row in rows] == [("vgg16", 138_357_544), ("vgg16_bn", 138_365_992)]
    done = run("--like=resnet500")
    assert done.returncode == 2 and "did you mean 'resnet50'?" in done.stderr
