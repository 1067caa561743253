"""Cleaning a dataset: what is planted is found, alone, however it is measured; and nothing is altered."""

import hashlib
import json
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
import planted
import pytest

from imagenet_jax.cleaning import clean, flags, manifest, measure
from imagenet_jax.cleaning.flags import FLAGS
from imagenet_jax.dataset import open_dataset
from imagenet_jax.errors import UserError
from imagenet_jax.evaluation.probabilities import saving


def in_this_process(todo) -> None:
    for task in todo:
        measure.measure_range(task)


def lines_of(path: str | Path) -> list[dict]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def digest(directory: Path) -> str:
    return hashlib.sha256(b"".join(path.read_bytes() for path in sorted(directory.iterdir()))).hexdigest()


def predictions(path: Path, labels: np.ndarray, true: np.ndarray, index: np.ndarray, sure: float) -> str:
    """Probabilities of a model that mostly knows the true class."""
    logits = np.random.default_rng(len(index)).normal(size=(len(index), 4))
    logits[np.arange(len(index)), true[index]] += sure
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    with saving(str(path), len(index), 4) as keep:
        for part in np.array_split(np.arange(len(index)), 3):  # the last examples of a batch are padding
            padded = np.r_[part, part[:2]]
            keep({"index": index[padded], "label": labels[index[padded]], "probabilities": p[padded],
                  "mask": np.r_[np.ones(len(part)), 0, 0]})
    return str(path)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("clean")


@pytest.fixture(scope="module")
def known(place):
    return planted.plant(place / "data", bases=120, each=3)


@pytest.fixture(scope="module")
def cleaned(place, known):
    _, true = known
    labels = measured_labels(place)
    half = len(true) // 2
    files = [predictions(place / f"{i}.npy", labels, true, index, 12.0)
             for i, index in enumerate((np.arange(half), np.arange(half, len(true))))]
    before = digest(place / "data")
    result = clean.clean(str(place / "data"), str(place / "out"), files, in_this_process)
    assert digest(place / "data") == before
    return result


def measured_labels(place: Path) -> np.ndarray:
    dataset = open_dataset(place / "data")
    (place / "labels").mkdir()
    tasks = measure.tasks(dataset, str(place / "labels"))
    in_this_process(tasks)
    rows, places = measure.places(tasks)
    assert measure.load(places) == []
    return rows["label"][: dataset.splits["train"]]


def test_what_was_planted_is_found_and_little_else(known, cleaned) -> None:
    truth, _ = known
    found = {flag: set() for flag in FLAGS}
    for line in lines_of(cleaned.manifest)[1:]:
        for flag in line["flags"]:
            if line["split"] == "train":
                found[flag].add(line["index"])
    for flag in ("undecodable", "corrupt", "tiny", "extreme_aspect", "uniform", "grey", "exact_duplicate", "leak"):
        assert found[flag] == truth[flag], flag
    assert found["label_conflict"] >= truth["label_conflict"]  # and each original, and wrong labels that were copied
    for flag in ("blurred", "dark", "near_duplicate", "label_error"):
        both = len(found[flag] & truth[flag])
        assert both >= 0.9 * len(truth[flag]) and both >= 0.85 * len(found[flag]), (flag, found[flag] ^ truth[flag])


def test_the_same_image_under_two_labels_is_a_conflict() -> None:
    """Whatever split it is in; without a label there is none."""
    rows = np.zeros(9, measure.ROW)
    rows["bytes_sha256"][:, 0] = [1, 2, 1, 1, 3, 3, 4, 4, 4]
    rows["label"] = [0, 1, 0, 2, 1, 1, -1, 3, -1]
    found = flags.of_pairs(rows, {"train": 0, "validation": 3}, flags.Thresholds())["label_conflict"]
    assert dict(zip(found.rows.tolist(), (value["row"] for value in found.values), strict=True)) == {0: 3, 2: 3, 3: 0}


def test_a_bucket_is_no_place_for_a_report(place, known) -> None:
    with pytest.raises(UserError, match="--out=gs://bucket/x is no folder of this machine"):
        clean.clean(str(place / "data"), "gs://bucket/x", (), in_this_process)


def test_every_line_tells_its_example_and_the_other_one(cleaned) -> None:
    header, *lines = lines_of(cleaned.manifest)
    assert header["dataset"] == "planted" and list(header["flags"]) == list(FLAGS)
    assert header["counts"] == cleaned.counts and header["label_errors_among"] == header["splits"]["train"]
    assert [(line["split"] != "train", line["index"]) for line in lines] == sorted(
        (line["split"] != "train", line["index"]) for line in lines)
    for line in lines:
        assert line["file_name"] == f"{line['index']:05d}.JPEG" and line["flags"]
        for flag in ("exact_duplicate", "near_duplicate", "leak"):
            if other := line["flags"].get(flag):
                assert other["file_name"] == f"{other['index']:05d}.JPEG"
                assert (other["split"] == line["split"]) == (flag != "leak")
                assert flag == "leak" or other["index"] < line["index"]


def test_the_report_shows_the_worst_of_every_flag(cleaned, known) -> None:
    text = Path(cleaned.report).read_text()
    pictures = Path(cleaned.report).parent / "pictures"
    assert {path.stem for path in pictures.iterdir()} == set(FLAGS)
    assert all(f"## {flag}\n" in text and f"![{flag}]" in text for flag in FLAGS)
    assert f"| grey | {len(known[0]['grey'])} " in " ".join(text.split())


def test_beam_and_processes_give_the_same_manifest_and_measure_nothing_twice(place, known, monkeypatch) -> None:
    without = clean.clean(str(place / "data"), str(place / "again"), (), in_this_process).manifest
    for name, run in (("beam", lambda todo: measure.run_beam(todo, "DirectRunner", [])),
                      ("processes", lambda todo: measure.run_local(todo, 2))):
        out = place / name
        monkeypatch.setattr(measure, "RANGE", 40)
        done = [measure.measure_range(task) for task in cut_tasks(place, out)[:2]]
        times = [Path(path).stat().st_mtime_ns for path in done]
        again = clean.clean(str(place / "data"), str(out), (), run)
        assert Path(again.manifest).read_bytes() == Path(without).read_bytes(), name
        assert [Path(path).stat().st_mtime_ns for path in done] == times
        clean.clean(str(place / "data"), str(out), (), lambda todo: pytest.fail("all was measured"))


def test_damaged_measurements_are_made_again(place, known, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(measure, "RANGE", 40)
    manifest = Path(clean.clean(str(place / "data"), str(tmp_path), (), in_this_process).manifest)
    files, whole, again = sorted((tmp_path / "measured").iterdir()), manifest.read_bytes(), []
    content = [file.read_bytes() for file in files]
    for file, data, damage in zip(files, content, (lambda data: data[:-1], lambda data: b"", lambda data: data + b"x",
                                                   lambda data: data[:99] + bytes([data[99] ^ 4]) + data[100:]),
                                  strict=False):
        file.write_bytes(damage(data))
    clean.clean(str(place / "data"), str(tmp_path), (), lambda todo: [again.extend(todo), in_this_process(todo)])
    assert sorted(Path(task.path) for task in again) == files[:4]
    assert [file.read_bytes() for file in files] == content and manifest.read_bytes() == whole


def cut_tasks(place: Path, out: Path) -> list[measure.Task]:
    (out / "measured").mkdir(parents=True)
    return measure.tasks(open_dataset(place / "data"), str(out / "measured"))


def test_a_place_that_cannot_be_written_is_told(place, known, tmp_path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write .*file"):
        clean.clean(str(place / "data"), str(tmp_path / "file"), (), in_this_process)


def test_a_killed_worker_is_told(place, known, monkeypatch) -> None:
    def die(*_, **__):
        raise BrokenProcessPool

    monkeypatch.setattr(measure, "as_completed", die)
    with pytest.raises(UserError, match="goes on from what is measured"):
        clean.clean(str(place / "data"), str(place / "killed"))


def test_measurements_of_another_dataset_are_not_taken_for_this_one(place, known) -> None:
    dataset = open_dataset(place / "data")
    planted.plant(place / "other", bases=120, each=3, seed=1)
    names = [{Path(task.path).name for task in measure.tasks(open_dataset(place / name), str(place))}
             for name in ("data", "other")]
    assert not names[0] & names[1] and dataset.splits == open_dataset(place / "other").splits


def test_training_leaves_out_what_it_is_told_to(place, known, cleaned) -> None:
    dataset, truth = open_dataset(place / "data"), known[0]
    flagged = {line["index"] for line in lines_of(cleaned.manifest)[1:] if line["split"] == "train"}
    assert manifest.excluded(cleaned.manifest, dataset, "train").tolist() == sorted(flagged)
    some = manifest.excluded(cleaned.manifest, dataset, "train", ("leak", "grey"))
    assert some.tolist() == sorted(truth["leak"] | truth["grey"])


def test_a_manifest_that_does_not_belong_is_refused(place, known, cleaned, tmp_path) -> None:
    dataset = open_dataset(place / "data")
    with pytest.raises(UserError, match="manifest of planted .* but .* is other"):
        manifest.excluded(cleaned.manifest, dataset._replace(name="other"), "train")
    with pytest.raises(UserError, match="did you mean 'blurred'"):
        manifest.excluded(cleaned.manifest, dataset, "train", ("blured",))
    with pytest.raises(UserError, match="no manifest"):
        manifest.excluded(str(tmp_path / "none"), dataset, "train")
    for text in ("", "no json", "[]", '{"a": 1}', '{"manifest": 9}', '{"manifest": 1}'):
        (tmp_path / "bad").write_text(text)
        with pytest.raises(UserError, match="bad"):
            manifest.excluded(str(tmp_path / "bad"), dataset, "train")


def test_probabilities_that_do_not_belong_are_refused(place, known, cleaned, tmp_path) -> None:
    labels, index = np.zeros(400, np.int32), np.arange(50)
    wrong = predictions(tmp_path / "wrong.npy", labels, labels, index, 3.0)
    again = lambda *files: clean.clean(str(place / "data"), str(place / "out"), files, in_this_process)
    with pytest.raises(UserError, match="other labels"):
        again(wrong)
    with pytest.raises(UserError, match=r"both have probabilities of example 0\b"):
        again(str(place / "0.npy"), str(place / "0.npy"))
    (tmp_path / "text.npy").write_text("text")
    with pytest.raises(UserError, match="holds no probabilities"):
        again(str(tmp_path / "text.npy"))
    with pytest.raises(UserError, match="no file"):
        clean.expand([str(tmp_path / "*.json")])
