"""`recipes`: the table, what two differ in, and the check, which fails over a recipe that does not hold."""

import subprocess
import sys
from pathlib import Path

import pytest

from imagenet_jax import config as config_lib
from imagenet_jax import models
from imagenet_jax.config import recipes
from imagenet_jax.errors import UserError

ROOT = Path(__file__).parents[2]
SMALL = '''"""{title}"""
from imagenet_jax import config as config_lib
from imagenet_jax.config.recipes import Claim


def claim():
    return Claim({claim})


def get_config():
    config = config_lib.base()
    config.model.name = "resnet18"
    config.model.width = 8
    config.model.bn_group = 2
    {change}
    return config
'''
CLAIM = "70.0, 'a paper', 'one crop'"


def run(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "imagenet_jax", "recipes", *arguments], cwd=ROOT, capture_output=True,
                          text=True)


def write(folder: Path, name: str, change: str = "", claim: str = CLAIM, title: str = "A small net.") -> Path:
    (folder / name).write_text(SMALL.format(title=title, claim=claim, change=change))
    return folder / name


def test_every_recipe_of_ours_holds() -> None:
    found = [recipe for path in sorted((ROOT / "configs").glob("*.py")) for recipe in recipes.load(str(path))]
    assert len(found) >= 38
    for recipe in found:
        assert not recipes.faults(recipe._replace(config=models.fill_view(recipe.config)), config_lib.base())
        assert recipe.claim is None or recipe.claim.top1 > 50


def test_the_table_and_differences() -> None:
    lines = run().stdout.splitlines()
    (line,) = (line for line in lines if line.startswith("configs/resnet50.py:256"))
    assert "76.40 +- 0.12" in line and "Goyal et al. 2017, table 1" in line
    assert any(line.startswith("configs/resnet_torchvision.py:resnet152") and "78.31" in line for line in lines)
    differ = run("--diff=configs/resnet50.py:256,configs/resnet_torchvision.py:resnet50").stdout
    assert "schedule.per_epoch           False                          True" in differ and "model.name" not in differ
    done = run("--diff=configs/resnet50.py,configs/resnet_torchvision.py")
    assert done.returncode == 2 and "give two, as FILE or FILE:CHOICE" in done.stderr


def test_check_fails_over_one_that_does_not_hold(tmp_path: Path) -> None:
    path = write(tmp_path, "unread.py", "config.optimizer.betas = (0.5, 0.9)")
    done = run(f"--dir={tmp_path}", "--check")
    assert done.returncode == 2 and "1 of 1 recipes do not hold" in done.stderr, done.stderr
    assert done.stdout == (f"{path}\n    config.optimizer.betas=(0.5, 0.9) is not read: optimizer.name is 'sgd', and "
                           "it is of adamw and lamb\n")


@pytest.mark.parametrize(("change", "claim", "fault"), [
    ("config.schedule.factor = 0.5", CLAIM, "schedule.factor=0.5 is not read: schedule.decay is 'cosine'"),
    ("config.schedule.peak = -1.0", CLAIM, "config.schedule.peak=-1.0 makes no sense"),
    ("", "70.0, '', 'one crop'", "claim: no source"), ("", "0.7, 'a paper', ''", "claim: no protocol"),
    ("", "0.7, 'a paper', 'one crop'", "0.7 is no accuracy in percent"),
])
def test_what_does_not_hold_is_told(tmp_path: Path, change: str, claim: str, fault: str) -> None:
    (recipe,) = recipes.load(str(write(tmp_path, "bad.py", change, claim)))
    faults = recipes.faults(recipe._replace(config=models.fill_view(recipe.config)), config_lib.base())
    assert any(fault in each for each in faults)


@pytest.mark.parametrize(("change", "message"), [
    ("config.schedule.peek = 0.1", "peek"), ("1 / 0", "ZeroDivisionError"), ("import nothing_like_this", "no recipe")])
def test_a_file_that_cannot_be_run_is_told(tmp_path: Path, change: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        list(recipes.load(str(write(tmp_path, "bad.py", change))))
