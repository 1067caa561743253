"""A directory that TFDS itself wrote: the same records by index, trained from and evaluated as any other."""

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import ilsvrc
import numpy as np
import pytest
import tensorflow_datasets as tfds

from imagenet_jax import dataset
from imagenet_jax.cleaning import clean, measure
from imagenet_jax.dataset import tfds_build
from imagenet_jax.errors import UserError
from imagenet_jax.input import loader

SPLITS = {"train": 23, "validation": 7}
VIEW = {"size": 8, "resize": 9, "interpolation": "bilinear", "antialias": True}


class Tiny(tfds.core.GeneratorBasedBuilder):
    """Three classes, features as imagenet2012's."""

    VERSION = tfds.core.Version("1.2.3")
    FEATURES = {"image": tfds.features.Image(encoding_format="jpeg"), "file_name": tfds.features.Text()}

    def _info(self) -> tfds.core.DatasetInfo:
        label = {"label": tfds.features.ClassLabel(names=["n01", "n02", "n03"])}
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(self.FEATURES | label))

    def _split_generators(self, manager: object) -> dict[str, Iterator]:
        return {split: self._generate_examples(count) for split, count in SPLITS.items()}

    def _generate_examples(self, count: int) -> Iterator:
        for i in range(count):
            yield i, {"image": ilsvrc.jpeg(i), "label": i % 3, "file_name": f"{i}.JPEG"}


def build(root: Path, **options: object) -> Path:
    builder = Tiny(data_dir=root, **options)
    config = tfds.download.DownloadConfig(num_shards=3)
    builder.download_and_prepare(download_config=config)
    return Path(builder.data_dir)


@pytest.fixture(scope="module", params=["tfrecord", "array_record"])
def directory(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("data"), file_format=request.param)


def read_all(directory: Path, split: str) -> dict[str, np.ndarray]:
    records = dataset.open_split(dataset.open_dataset(directory), split)
    (batch,) = loader.eval_batches(loader.Part(records, np.arange(len(records))), batch=SPLITS[split], view=VIEW)
    return batch


def test_it_opens_as_a_dataset(directory) -> None:
    opened = dataset.open_dataset(directory)
    assert (opened.name, opened.classes, opened.splits) == ("tiny", ("n01", "n02", "n03"), SPLITS)
    with pytest.raises(UserError, match="no split 'test'"):
        dataset.open_split(opened, "test")


@pytest.mark.parametrize("split", SPLITS)
def test_every_example_is_there_once_in_the_order_of_tfds(directory, split) -> None:
    batch = read_all(directory, split)
    builder, in_order = tfds.builder_from_directory(directory), tfds.ReadConfig(interleave_cycle_length=1)
    rows = (list(builder.as_data_source(split)) if builder.info.file_format == tfds.core.FileFormat.ARRAY_RECORD else
            list(builder.as_dataset(split=split, read_config=in_order).as_numpy_iterator()))
    assert batch["file_name"].tolist() == [row["file_name"] for row in rows]
    assert batch["label"].tolist() == [row["label"] for row in rows]
    assert sorted(batch["file_name"]) == sorted(f"{i}.JPEG".encode() for i in range(SPLITS[split]))


def test_records_come_in_any_order(directory) -> None:
    records = dataset.open_split(dataset.open_dataset(directory), "train")
    whole = records.read(range(23))
    assert len(records) == 23 and len(set(whole)) == 23
    assert records.read(np.array([22, 0, 9, 9])) == [whole[22], whole[0], whole[9], whole[9]]


def test_examples_without_a_file_name_and_datasets_without_images(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(Tiny, "FEATURES", {"image": tfds.features.Image(encoding_format="jpeg")})
    generate = Tiny._generate_examples
    strip = lambda self, count: ((i, {k: row[k] for k in ("label", *self.FEATURES) if k in row})
                                 for i, row in generate(self, count))
    monkeypatch.setattr(Tiny, "_generate_examples", strip)
    plain = build(tmp_path / "plain")
    assert read_all(plain, "validation")["file_name"].tolist() == [b""] * 7
    cleaned = clean.clean(str(plain), str(tmp_path / "clean"), (), measured_here)
    assert '"file_name": "train_6"' in Path(cleaned.manifest).read_text()
    monkeypatch.setattr(Tiny, "FEATURES", {})
    with pytest.raises(UserError, match="an image and a class label are needed"):
        dataset.open_dataset(build(tmp_path / "none"))


def measured_here(todo: Sequence[measure.Task]) -> None:
    for task in todo:
        measure.measure_range(task)


def test_it_is_cleaned_as_any_other_and_another_one_is_measured_anew(directory, tmp_path) -> None:
    cleaned = clean.clean(str(directory), str(tmp_path / "out"), (), measured_here)
    assert cleaned.counts["leak"] == {"train": 7, "validation": 0}  # the splits begin with the same images
    paths = [task.path for task in measure.tasks(dataset.open_dataset(directory), str(tmp_path))]
    shard = sorted(shutil.copytree(directory, tmp_path / "copy").glob("tiny-*"))[0]
    same = [task.path for task in measure.tasks(dataset.open_dataset(tmp_path / "copy"), str(tmp_path))]
    shard.write_bytes(b"other")
    other = [task.path for task in measure.tasks(dataset.open_dataset(tmp_path / "copy"), str(tmp_path))]
    assert same == paths and not set(other) & set(paths)


def flipped(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


def first_alone(content: bytes) -> bytes:
    return content[: 12 + int.from_bytes(content[:8], "little") + 4]


DAMAGES = {"cut": lambda c: c[:-1], "longer": lambda c: c + c[:40], "missing": None, "fewer": first_alone,
           "length": lambda c: flipped(c, 1), "image": lambda c: flipped(c, 200), "checksum": lambda c: flipped(c, -1)}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_named(tmp_path, damage) -> None:
    directory = build(tmp_path)
    path = sorted(directory.glob("*train*"))[1]
    content = path.read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes(DAMAGES[damage](content))
    with pytest.raises(UserError, match=path.name):
        dataset.open_split(dataset.open_dataset(directory), "train").read(range(SPLITS["train"]))
    assert tfds_build.is_build(directory)
