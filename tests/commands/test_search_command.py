"""`search` as it is typed: an index, lines and a table on stdout, words on stderr, and an exit code."""

import json
from pathlib import Path

import pytest
from PIL import Image
from small_data import make_dataset
from typed import run, weigh

from imagenet_jax.commands import check


def test_an_index_is_made_and_searched(tmp_path: Path) -> None:
    file = weigh(tmp_path)
    (tmp_path / "broken.jpg").write_text("broken")
    Image.new("RGB", (80, 70), "red").save(tmp_path / "red.png")
    done = run("search", f"--checkpoint={file}", f"--dataset={make_dataset(tmp_path / 'data', 2, 12, 2)}",
               f"--index={tmp_path}/index", "--pixels", "--precision", "--query_class=n00000001",
               f"--query={tmp_path}/[br]*g", "--topk=4")
    of_class, broken, red = map(json.loads, done.stdout.splitlines()[:3])
    assert "12 pictures as squeezenet1_1 sees them" in done.stderr and "Traceback" not in done.stderr
    assert done.returncode == 1 and of_class["class"] == "n00000001" and "begins with 'broken'" in broken["error"]
    for line in (of_class, red):
        similarities = [hit["similarity"] for hit in line["nearest"]]
        assert similarities == sorted(similarities, reverse=True) and len(similarities) == 4
        assert all(hit["file"].startswith("image_") and hit["id"] == f"n{hit['label']:08d}" for hit in line["nearest"])
    assert done.stdout.splitlines()[3].split() == ["precision@4", "pictures", "features", "pixels"]
    assert json.loads((tmp_path / "index" / "precision.json").read_text())["all"]["pictures"] == 12
    ((_, damages),) = check.look(f"{tmp_path}/index")
    assert not damages


@pytest.mark.parametrize("arguments, words", [
    ([], "search what?"), (["--query=x.jpg"], "there is no index at"), (["x.jpg", "--dataset=x"], "give one of them")])
def test_a_mistake_is_one_message(tmp_path: Path, arguments: list[str], words: str) -> None:
    done = run("search", f"--index={tmp_path}/index", *arguments)
    assert done.returncode == 2 and words in done.stderr and "Traceback" not in done.stderr
