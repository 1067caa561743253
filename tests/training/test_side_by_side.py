"""Runs beside each other: what is there is shown, what is missing is a dash, what is no run is said."""

import json
import math

import numpy as np
import pytest
from PIL import Image
from reading_html import assert_whole

from imagenet_jax import config as config_lib
from imagenet_jax.classes import Classes
from imagenet_jax.errors import UserError
from imagenet_jax.evaluation import exact, report, significance
from imagenet_jax.training import side_by_side, workdirs

PROTOCOL = {"dataset": "drawn", "variant": "original", "split": "validation", "crop": 32}


@pytest.fixture
def make_run(tmp_path):
    """Makes RUN: right in all but the last `wrong` of 40 examples; without an evaluation if that is None."""

    def make(name, wrong=None, protocol=PROTOCOL, **changes):
        workdir = tmp_path / name
        config = config_lib.base()
        config.update_from_flattened_dict(changes)
        workdirs.claim(config, str(workdir))
        lines = [{"step": step, "train/loss": 1 / step if step != 3 else None} for step in range(1, 6)]
        lines.append({"step": 5, "val/top1": 0.5})
        (workdir / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        if wrong is not None:
            index = np.arange(40)
            label = index % 2
            first = np.where(index >= 40 - wrong, 1 - label, label)
            predictions = exact.Predictions(index, label, np.full(40, 0.5), np.stack([first, 1 - first], 1), index / 40)
            report.write_evaluation(str(workdir / "evaluation"), predictions, Classes(("a", "b"), ("a", "b")),
                                    file_names=[f"{i}.jpg" for i in index], protocol=protocol)
        return str(workdir)

    return make


def cells(text, first):
    """Of the row that begins so."""
    line = next(line for line in text.splitlines() if line.startswith(f"| {first} "))
    return [cell.strip() for cell in line.strip("|").split("|")]


def section(text, title):
    return text.split(f"## {title}")[1].split("\n## ")[0]


def test_runs_are_compared_in_a_table_a_page_and_a_picture(make_run, tmp_path):
    paths = [make_run("base", 10, seed=3), make_run("better", 2, seed=3, **{"schedule.peak": 0.2}),
             make_run("elsewhere", 2, PROTOCOL | {"split": "test"}, seed=3), make_run("young", seed=4)]
    runs = side_by_side.read(paths)
    text = side_by_side.words(runs)
    assert cells(text, "base")[1:4] == ["drawn/validation", "40", "75.00% (62.50% to 87.50%)"]
    assert cells(text, "young")[1:] == ["-"] * 5 and f"evaluate --workdir={paths[3]}`" in text
    tested = section(text, "Against base")
    by_name = sorted(range(40), key=lambda i: f"{i}.jpg")
    _, low, high = significance.interval(np.array([30 <= i < 38 for i in by_name]))
    difference, *counts = cells(tested, "better")[1:]
    assert difference == f"+20.00% ({low:+.2%} to {high:+.2%})" and counts == ["0", "8", f"{2 / 2**8:.3g}"]
    assert "- elsewhere is not tested: it was evaluated on another split: test, not validation" in tested
    assert "- young is not tested: it has no evaluation" in tested
    configs = section(text, "What is different in their configs")
    assert cells(configs, "seed") == ["seed", "3", "3", "3", "4"] and "global_batch" not in configs
    assert cells(configs, "schedule.peak")[2] == "0.2"
    assert cells(section(text, "What is different in their evaluations"), "split")[1:] == [
        "validation", "validation", "test", "-"]

    side_by_side.write(str(tmp_path / "out"), runs, text)
    page = assert_whole((tmp_path / "out/compare.html").read_text())
    assert (tmp_path / "out/compare.md").read_text().startswith(text) and len(page.all("img")) == 1
    assert difference in page.words
    assert np.array(Image.open(tmp_path / "out/compare.png")).std() > 5


def test_curves_are_over_examples_whatever_the_batch(make_run, tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(side_by_side.Figure, "savefig", lambda figure, path: figures.append(figure))
    side_by_side.draw("", side_by_side.read([make_run("a", global_batch=10), make_run("$b$", global_batch=20)]))
    loss, top1 = figures[0].axes
    shown = [line for line in loss.lines if len(line.get_xdata())]
    assert [line.get_xdata().tolist() for line in shown] == [[10, 20, 30, 40, 50], [20, 40, 60, 80, 100]]
    assert math.isnan(shown[0].get_ydata()[2])
    assert [(line.get_xdata().tolist(), line.get_ydata().tolist()) for line in top1.lines] == [
        ([50], [50.0]), ([100], [50.0])]
    assert [text.get_text() for text in top1.get_legend().get_texts()] == ["a, val", "$b$, val"]


def test_a_run_is_no_better_than_itself(make_run):
    path = make_run("run", 7)
    text = side_by_side.words(side_by_side.read([path, path]))
    assert cells(section(text, "Against 1: "), f"2: {path}")[1:] == ["+0.00% (+0.00% to +0.00%)", "0", "0", "1"]
    assert section(text, "What is different in their configs").strip() == "Nothing."


def test_an_evaluation_alone_will_do_and_runs_alone_will_do(make_run, tmp_path):
    path = make_run("run", 7)
    text = side_by_side.words(side_by_side.read([path, f"{path}/evaluation"]))
    assert cells(section(text, "Against run"), "evaluation")[-1] == "1"
    side_by_side.write(str(tmp_path / "out"), side_by_side.read([f"{path}/evaluation"] * 2), text)
    text = side_by_side.words(side_by_side.read([make_run("a"), make_run("b", 3)]))
    assert "Nothing is tested: a has no evaluation." in text


def test_what_is_no_run_is_one_message(make_run, tmp_path):
    good, empty = make_run("good", 1), tmp_path / "empty"
    empty.mkdir()
    for path in (empty, tmp_path / "none"):
        with pytest.raises(UserError, match=f"{path} is no run: .*`train`, or a folder that `evaluate` wrote"):
            side_by_side.read([good, str(path)])
    (tmp_path / "good/config.json").write_text("{")
    with pytest.raises(UserError, match=r"config\.json is damaged"):
        side_by_side.read([good, good])
