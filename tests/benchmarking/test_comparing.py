"""Two results of the benchmark: what was otherwise comes first, then each figure with its ratio."""

import json

import pytest

from imagenet_jax.benchmarking import comparing
from imagenet_jax.errors import UserError

FIRST = {"config": {"parallel": "pmap", "model": {"name": "resnet50"}}, "device": {"kind": "cpu", "count": 8},
         "batches": [{"batch": 64, "img_per_s": 50.0, "mfu": None, "compiled": "cold"}], "best": 64}
SECOND = {"config": {"parallel": "shard_map", "model": {"name": "resnet50"}}, "device": {"kind": "cpu", "count": 8},
          "batches": [{"batch": 64, "img_per_s": 75.0, "mfu": None, "compiled": "cache"},
                      {"batch": 128, "img_per_s": 80.0}], "best": 128}


def test_what_was_otherwise_and_what_came_of_it():
    setting, figures = comparing.words(FIRST, SECOND).split(f"{'first':>14}{'second':>14}{'times':>10}\n")
    assert setting == "What was otherwise:\n  config.parallel: pmap -> shard_map\n"
    rows = {line.split()[-1]: line.split()[:-1] for line in figures.splitlines()}
    assert rows["batches.64.img_per_s"] == ["50", "75", "1.500"] and rows["best"] == ["64", "128", "2.000"]
    assert rows["batches.128.img_per_s"] == ["-", "80", "-"] and rows["batches.64.compiled"] == ["cold", "cache", "-"]
    assert "batches.64.mfu" not in rows  # not known in either
    assert comparing.words(FIRST, FIRST).startswith("Nothing was otherwise.")


def test_a_history_has_a_result_a_line(tmp_path):
    path = tmp_path / "history.jsonl"
    path.write_text("".join(json.dumps(each) + "\n" for each in (FIRST, SECOND, FIRST)))
    found = {end: comparing.read(f"{path}{end}") for end in ("", ":1", ":2", ":-1", ":-2", ":-3")}
    assert [found[end] == SECOND for end in found] == [False, False, True, False, True, False]
    for end in (":0", ":4", ":-4"):
        with pytest.raises(UserError, match=r"history\.jsonl has 3 results, 1 to 3"):
            comparing.read(f"{path}{end}")


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"top1": 0.5}', "\x00"])
def test_a_file_that_is_none_of_its_results_is_one_message(tmp_path, content):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(UserError, match=r"a\.json .*benchmark --out"):
        comparing.read(str(tmp_path / "a.json"))
    (tmp_path / "b.json").write_text(json.dumps(FIRST))
    assert comparing.read(str(tmp_path / "b.json")) == FIRST
