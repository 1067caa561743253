"""`benchmark input` as it is typed."""

import json
import subprocess
import sys
from pathlib import Path

from PIL import Image

from imagenet_jax.prepare.writer import Example, Source, write_dataset

DEMO = Path(__file__).parents[2] / "configs/demo.py"


def _benchmark(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "imagenet_jax", "benchmark", *words], capture_output=True, text=True)


def test_it_prints_a_table_and_writes_json(tmp_path: Path) -> None:
    Image.new("RGB", (64, 48), (200, 30, 30)).save(tmp_path / "red.jpg")
    red = (tmp_path / "red.jpg").read_bytes()
    examples = [Example(red, 0, name) for name in "12"]
    write_dataset(tmp_path / "reds", Source("reds", ("a",), ("red",), {"train": examples}))
    ran = _benchmark("input", f"--dataset={tmp_path / 'reds'}", f"--config={DEMO}", "--seconds=0.1",
                     f"--out={tmp_path / 'figures.json'}")
    assert ran.returncode == 0, ran.stderr
    assert "per core" in ran.stdout and "binds" in ran.stdout
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["binds"] in {stage["name"] for stage in figures["stages"]} and figures["examples"] == 2


def test_it_asks_what_to_measure() -> None:
    for words in ((), ("inptu",)):
        ran = _benchmark(*words)
        assert ran.returncode == 2 and "benchmark input" in ran.stderr and "Traceback" not in ran.stderr
