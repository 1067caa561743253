"""The dataset on disk: what is written is read back, and nothing half-written looks finished."""

import functools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import ilsvrc
import numpy as np
import pytest
from PIL import Image

from imagenet_jax import dataset
from imagenet_jax.errors import UserError
from imagenet_jax.prepare import repair, writer
from imagenet_jax.prepare.writer import Checked, Example, Source

_COUNT = 25


def _examples(count: int = _COUNT) -> list[Example]:
    boxes = [np.full((i % 3, 4), i / 32, np.float32) for i in range(count)]
    return [Example(ilsvrc.jpeg(i), i % 2, f"{i}.JPEG", boxes[i]) for i in range(count)]


def _source(**splits: object) -> Source:
    return Source("tiny", ("a", "b"), ("ant", "bee"), splits or {"train": _examples()})


def _parse(record: bytes) -> Example:
    from tensorflow_datasets.proto import tf_example_pb2

    feature = tf_example_pb2.Example.FromString(record).features.feature
    return Example(
        image=feature["image"].bytes_list.value[0],
        label=feature["label"].int64_list.value[0],
        file_name=feature["file_name"].bytes_list.value[0].decode(),
        boxes=np.array(feature["boxes"].float_list.value, np.float32).reshape(-1, 4),
    )


def _same(a: Example, b: Example) -> bool:
    return a[:3] == b[:3] and np.array_equal(a.boxes, b.boxes)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "tiny"
    source = _source(train=_examples(), validation=_examples(4))
    counts = writer.write_dataset(path, source, shard_bytes=8_000)
    assert len(counts["train"].shards) > 2
    assert counts["train"].boxes == sum(len(e.boxes) for e in _examples())
    return path


def test_records_are_read_by_index_in_any_order(written: Path) -> None:
    opened = dataset.open_dataset(written)
    assert opened.splits == {"train": _COUNT, "validation": 4}
    assert (opened.classes, opened.class_names) == (("a", "b"), ("ant", "bee"))
    records = dataset.open_split(opened, "train")
    order = np.random.default_rng(0).permutation(_COUNT).repeat(2)
    assert len(records) == _COUNT
    for index, record in zip(order, records.read(order), strict=True):
        assert _same(_parse(record), _examples()[index])


def test_threads_may_share_records(written: Path) -> None:
    records = dataset.open_split(dataset.open_dataset(written), "train")
    expected = records.read(range(_COUNT))
    with ThreadPoolExecutor(8) as pool:
        orders = [np.random.default_rng(i).permutation(_COUNT) for i in range(40)]
        for order, read in zip(orders, pool.map(records.read, orders), strict=True):
            assert read == [expected[i] for i in order]


def test_tfds_opens_it(written: Path) -> None:
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(written)
    assert builder.info.features["label"].names == ["a", "b"]
    assert builder.info.splits["train"].num_examples == _COUNT
    for row, example in zip(builder.as_data_source("train"), _examples(), strict=True):
        assert (row["label"], row["file_name"].decode()) == (example.label, example.file_name)
        assert row["image"].shape == (16, 24, 3)
        np.testing.assert_array_equal(np.reshape(row["boxes"], (-1, 4)), example.boxes)


def test_any_number_of_workers_gives_the_same_bytes(written: Path, tmp_path: Path) -> None:
    source = _source(train=_examples(), validation=_examples(4))
    writer.write_dataset(tmp_path / "again", source, shard_bytes=8_000, workers=2)
    assert _tree(tmp_path / "again") == _tree(written)


def _tree(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_refused_and_mended_images_are_listed(tmp_path: Path) -> None:
    def check(example: Example) -> Checked:
        if example.file_name == "3.JPEG":
            return Checked(None, "broken")
        mended = example._replace(image=b"new", boxes=example.boxes[:1])
        if example.file_name == "5.JPEG":
            return Checked(mended, "odd")
        return Checked(example, corrupt="noise" if example.file_name in ("6.JPEG", "20.JPEG") else "")

    counts = writer.write_dataset(tmp_path / "tiny", _source(), check)["train"]
    assert (counts.examples, len(counts.quarantined), len(counts.repaired)) == (_COUNT - 1, 1, 1)
    assert counts.dropped_boxes == 1  # of the mended image; the refused one counts elsewhere
    for name, listed in {"quarantine": {"3.JPEG": "broken"}, "repairs": {"5.JPEG": "odd"},
                         "corrupt": {"6.JPEG": "noise", "20.JPEG": "noise"}}.items():
        lines = [json.loads(line) for line in (tmp_path / f"tiny/{name}.jsonl").read_text().splitlines()]
        assert lines == [{"split": "train", "file_name": file, "reason": reason} for file, reason in listed.items()]
    assert [place for *_, place in counts.corrupt] == [5, 19]  # one before them was refused
    with Image.open(tmp_path / "tiny/corrupt.jpg") as sheet:
        assert sheet.size == (800, 100)
    records = dataset.open_split(dataset.open_dataset(tmp_path / "tiny"), "train")
    assert [_parse(r).file_name for r in records.read([2, 3, 4])] == ["2.JPEG", "4.JPEG", "5.JPEG"]
    assert _parse(records.read([4])[0]).image == b"new"


def test_a_class_left_without_images_stops(tmp_path: Path) -> None:
    def check(example: Example) -> Checked:
        return Checked(None, "broken") if example.label else Checked(example)

    with pytest.raises(UserError, match="'train' split has no readable image of class b; 12 imag"):
        writer.write_dataset(tmp_path / "tiny", _source(), check)
    with pytest.raises(UserError, match="no readable image of any class"):
        writer.write_dataset(tmp_path / "tiny", _source(test=[]))
    counts = writer.write_dataset(tmp_path / "tiny", _source(validation=_examples(1)))
    assert len(counts["validation"].labels) == 1  # a split to evaluate on need not hold every class


@pytest.mark.parametrize(("labels", "told"), [([0] * 22 + [1] * 2, True), ([0] * 20 + [1] * 2, False)])
def test_the_card_tells_how_unequal_classes_are(tmp_path: Path, labels: list[int], told: bool) -> None:
    writer.write_dataset(tmp_path / "tiny", _source(train=[Example(ilsvrc.jpeg(0), i, "a.JPEG") for i in labels]))
    text = (tmp_path / "tiny/report.md").read_text()
    assert f"train: {labels.count(0)} of a ant, the largest class; 2 of b bee, the smallest; a ratio of" in text
    assert ("With classes so unequal" in text) == told


def test_a_failure_leaves_no_dataset_and_the_next_run_goes_on(tmp_path: Path) -> None:
    def fails() -> Iterator[Example]:
        yield from _examples()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        writer.write_dataset(tmp_path / "tiny", _source(train=fails()), shard_bytes=8_000)
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.incomplete"]
    judged = []

    def check(example: Example) -> Checked:
        judged.append(example.file_name)
        return Checked(example)

    check.__qualname__ = Checked.__qualname__  # the same judge, as far as a resumed run can tell
    writer.write_dataset(tmp_path / "tiny", _source(), check, shard_bytes=8_000)
    assert 0 < len(judged) < _COUNT / 2
    assert judged[-1] == f"{_COUNT - 1}.JPEG"
    writer.write_dataset(tmp_path / "whole", _source(), shard_bytes=8_000)
    assert _tree(tmp_path / "tiny") == _tree(tmp_path / "whole")


def test_leftovers_of_a_killed_run_are_not_a_dataset_and_make_way(tmp_path: Path) -> None:
    leftover = tmp_path / "tiny.incomplete" / "dataset"
    leftover.mkdir(parents=True)
    (leftover / "tiny-train.array_record-00000").write_bytes(b"half")
    with pytest.raises(UserError, match="not a prepared dataset"):
        dataset.open_dataset(leftover)
    writer.write_dataset(tmp_path / "tiny", _source())
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]


def _die(example: Example) -> Checked:
    os._exit(9)


def test_a_killed_worker_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="A worker process was killed.*goes on.*fewer --workers than 2"):
        writer.write_dataset(tmp_path / "tiny", _source(), _die, workers=2)
    assert not (tmp_path / "tiny").exists()


def test_two_runs_do_not_write_one_dataset(tmp_path: Path) -> None:
    def source() -> Iterator[Example]:
        with pytest.raises(UserError, match="Another process is writing"):
            writer.write_dataset(tmp_path / "tiny", _source())
        yield from _examples()

    writer.write_dataset(tmp_path / "tiny", _source(train=source()))


def test_other_options_or_sources_redo_what_they_change(tmp_path: Path) -> None:
    """Of five shards the source changed one; another judge changes all of them."""
    def run(examples: list[Example], check: Callable[[Example], Checked]) -> int:
        stopped = _source(train=examples, validation=[])  # an empty split stops at the very end
        with pytest.raises(UserError, match="no readable image"):
            writer.write_dataset(tmp_path / "tiny", stopped, check, shard_bytes=8_000)
        times = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "tiny.incomplete/work").glob("*.json")}
        changed = sum(time != seen.get(name) for name, time in times.items())
        seen.update(times)
        return changed

    seen, examples = {}, _examples()
    shards = run(examples, Checked)
    assert shards > 2
    assert run(examples, Checked) == 0
    examples[3] = examples[3]._replace(label=1 - examples[3].label)
    assert run(examples, Checked) == 1
    assert run(examples, functools.partial(repair.check, decode=True)) == shards
    assert run(examples, functools.partial(repair.check, decode=False)) == shards


def test_too_many_refused_images_stop_at_the_end_and_may_be_accepted(tmp_path: Path) -> None:
    judged = []

    def check(example: Example) -> Checked:
        judged.append(example)
        return Checked(None, "broken") if example.file_name in ("3.JPEG", "9.JPEG") else Checked(example)

    with pytest.raises(UserError, match="2 images of 'train'.*8.00%.*3.JPEG: broken.*--max_quarantined=0.088"):
        writer.write_dataset(tmp_path / "tiny", _source(), check, max_quarantined=0.05)
    written = writer.write_dataset(tmp_path / "tiny", _source(), check, max_quarantined=0.088)
    assert (written["train"].examples, len(judged)) == (_COUNT - 2, _COUNT)


def test_a_chunk_of_nothing_leaves_no_shard(tmp_path: Path) -> None:
    def check(example: Example) -> Checked:
        return Checked(None, "broken") if 5 <= int(example.file_name[:-5]) < 15 else Checked(example)

    written = writer.write_dataset(tmp_path / "tiny", _source(), check, shard_bytes=2_000)["train"]
    records = dataset.open_split(dataset.open_dataset(tmp_path / "tiny"), "train")
    names = [_parse(record).file_name for record in records.read(range(len(records)))]
    assert names == [f"{i}.JPEG" for i in range(_COUNT) if not 5 <= i < 15]
    assert len(list((tmp_path / "tiny").glob("*array_record*"))) == len(written.shards)


@pytest.mark.parametrize(("totals", "told"), [({}, "25 of unknown images"), ({"train": 1025}, "25 of 1,025 images")])
def test_a_log_is_told_how_far_it_is(tmp_path: Path, monkeypatch, capsys, totals: dict[str, int], told: str) -> None:
    monkeypatch.setattr(writer, "_LOG_SECONDS", -1.0)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False, raising=False)
    writer.write_dataset(tmp_path / "tiny", _source()._replace(totals=totals))
    assert told in capsys.readouterr().out


_FULL_DISK = """
import resource, signal, sys
from imagenet_jax.prepare.writer import Example, Source, write_dataset
from imagenet_jax.errors import UserError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
examples = (Example(bytes(10_000), 0, "a.JPEG") for _ in range(200))
try:
    write_dataset(sys.argv[1], Source("tiny", ("a",), ("a",), {"train": examples}))
except UserError as error:
    print(error)
"""


def test_a_full_disk_is_told_and_leaves_no_dataset(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _FULL_DISK, str(tmp_path / "tiny")]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert told.startswith(f"Cannot write {tmp_path / 'tiny'}: ")
    assert "File too large" in told
    assert not (tmp_path / "tiny").exists()


def test_a_taken_place_is_left_alone(written: Path, tmp_path: Path) -> None:
    before = sorted(path.name for path in written.iterdir())
    with pytest.raises(UserError, match="already holds a dataset"):
        writer.write_dataset(written, _source())
    assert sorted(path.name for path in written.iterdir()) == before
    (tmp_path / "notes.txt").touch()
    with pytest.raises(UserError, match="not an empty directory"):
        writer.write_dataset(tmp_path, _source())
    with pytest.raises(UserError, match="cannot name a dataset"):
        writer.write_dataset(tmp_path / "new", _source()._replace(name="9-lives"))
    (tmp_path / "empty").mkdir()
    writer.write_dataset(tmp_path / "empty", _source())


def _copy(written: Path, tmp_path: Path, **index: object) -> Path:
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in written.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    path = copy / "imagenet_jax.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | index))
    return copy


@pytest.mark.parametrize("name", ["imagenet_jax.json", "dataset_info.json", "features.json", "label.labels.txt"])
def test_a_damaged_description_is_told_and_never_another_dataset(written: Path, tmp_path: Path, name: str) -> None:
    """Also where TFDS's own files are all that there is."""
    copy, rng = _copy(written, tmp_path), np.random.default_rng(0)
    if name != "imagenet_jax.json":
        (copy / "imagenet_jax.json").unlink()
    whole, content, told = dataset.open_dataset(copy), (copy / name).read_bytes(), 0
    places = rng.integers(1, len(content) - 1, 10)
    zeroed = [content[:at] + bytes(20) + content[at + 20 :] for at in places]
    for damaged in [b"", b"{}", b"[]", b"\xff" * 9, *(content[:at] for at in places), *zeroed]:
        (copy / name).write_bytes(damaged)
        try:
            assert dataset.open_dataset(copy) == whole
        except UserError as error:
            assert str(copy / name) in str(error) or name in str(error)
            told += 1
    assert told >= 4


def test_a_flipped_bit_of_the_description_is_told(written: Path, tmp_path: Path) -> None:
    copy, changed = _copy(written, tmp_path), 0
    whole, content = dataset.open_dataset(copy), (copy / "imagenet_jax.json").read_bytes()
    for at in range(0, len(content), 3):
        (copy / "imagenet_jax.json").write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        try:
            assert dataset.open_dataset(copy) == whole  # it was in the name of the seal
        except UserError as error:
            assert "imagenet_jax.json is damaged" in str(error) or "has dataset format" in str(error)
            changed += 1
    assert changed >= len(content) // 3 - len("seal")


def test_opening_what_is_not_there(written: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist.*prepare --archives"):
        dataset.open_dataset(tmp_path / "nowhere")
    with pytest.raises(UserError, match="s3://bucket/pets cannot be reached: .* `gcloud auth"):
        dataset.open_dataset("s3://bucket/pets")
    with pytest.raises(UserError, match="'test'; it has 'train', 'validation'"):
        dataset.open_split(dataset.open_dataset(written), "test")
    with pytest.raises(UserError, match="format 99; this version reads up to 1"):
        dataset.open_dataset(_copy(written, tmp_path, format=99))


def test_damaged_datasets(written: Path, tmp_path: Path) -> None:
    opened = dataset.open_dataset(_copy(written, tmp_path))
    shard = tmp_path / "copy" / "tiny-train.array_record-00001"
    shard.write_bytes(shard.read_bytes()[:70_000])
    with pytest.raises(UserError, match="is damaged"):
        dataset.open_split(opened, "train").read(range(_COUNT))
    shard.unlink()
    with pytest.raises(UserError, match="1 of . shards .* tiny-train.array_record-00001"):
        dataset.open_split(opened, "train")
    (tmp_path / "copy" / "imagenet_jax.json").write_text("{")
    with pytest.raises(UserError, match="is damaged"):
        dataset.open_dataset(tmp_path / "copy")


def test_import_needs_no_tensorflow() -> None:
    code = "import sys, imagenet_jax.dataset; assert 'tensorflow' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
