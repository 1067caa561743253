"""A run over a dataset of which the disk has lost some: it ends, resumed or not, and tells; too much of it stops."""

import shutil

import pytest
from small_data import draw
from test_interruption import metrics

from imagenet_jax.errors import UserError
from imagenet_jax.training import damaged, loop

pytestmark = pytest.mark.usefixtures("without_pictures")
LOST = (5, 40, 41)  # of 96


@pytest.fixture
def damaged_config(small_config, tmp_path):
    directory = tmp_path / "damaged"
    shutil.copytree(small_config.dataset.dir, directory)
    (shard,) = directory.glob("*train.array_record*")
    content, images = bytearray(shard.read_bytes()), [example.image for example in draw(96, 4, 0)]
    for i in LOST:
        content[content.index(images[i][700:760])] ^= 8
    shard.write_bytes(content)
    small_config.dataset.dir = str(directory)
    return small_config


def test_a_run_goes_on_and_tells(damaged_config, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(damaged, "LIMIT", 0.05)
    loop.train(damaged_config, str(tmp_path / "whole"))
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("WARNING: example")]
    assert sorted(line.split()[2] for line in told) == ["40", "41", "5"]
    assert all(line.endswith("is shown in its place.") and "damaged" in line for line in told)
    assert "- 3 of the examples shown were damaged" in (tmp_path / "whole/report.md").read_text()
    lines = [line for line in metrics(tmp_path / "whole") if "train/loss" in line]
    assert sum(line.get("train/damaged", 0) * 32 for line in lines) == 3  # of 32 examples each

    damaged_config.duration = "3 steps"
    loop.train(damaged_config, str(tmp_path / "resumed"))
    damaged_config.duration = "6 steps"
    loop.train(damaged_config, str(tmp_path / "resumed"), extend=True)
    assert "- 3 of the examples shown were damaged" in (tmp_path / "resumed/report.md").read_text()


def test_too_much_damage_stops_it(damaged_config, tmp_path):
    said = r"(?s)damaged, and more than 0.1% of an epoch of 96 end a run.\n  example \d+ .*Copy the dataset again"
    with pytest.raises(UserError, match=said):
        loop.train(damaged_config, str(tmp_path / "run"))
