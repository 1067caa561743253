"""A run from config to report on a directory that TFDS wrote, used where it is."""

import json

import tensorflow as tf
import tensorflow_datasets as tfds

from imagenet_jax import dataset
from imagenet_jax.training import evaluating, loop


class Small(tfds.core.GeneratorBasedBuilder):
    """The examples of a prepared dataset."""

    VERSION = tfds.core.Version("1.0.0")
    prepared = None

    def _info(self):
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict({
            "image": tfds.features.Image(encoding_format="jpeg"), "label": tfds.features.ClassLabel(num_classes=4),
            "file_name": tfds.features.Text()}))

    def _split_generators(self, manager):
        return {split: self._generate_examples(split) for split in self.prepared.splits}

    def _generate_examples(self, split):
        for i, record in enumerate(dataset.open_split(self.prepared, split).read(range(self.prepared.splits[split]))):
            features = tf.train.Example.FromString(record).features.feature
            image, name = (features[key].bytes_list.value[0] for key in ("image", "file_name"))
            yield i, {"image": image, "file_name": name, "label": features["label"].int64_list.value[0]}


def test_a_run_on_a_tfds_build(small_config, dataset_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(Small, "prepared", dataset.open_dataset(dataset_dir))
    builder = Small(data_dir=str(tmp_path))
    builder.download_and_prepare()
    small_config.dataset.dir = str(builder.data_dir)
    small_config.dataset.holdout = 0.25
    results = loop.train(small_config, str(tmp_path / "run"))
    assert (results["val"]["seen"], results["holdout"]["seen"]) == (53, 24)
    again = evaluating.evaluate_checkpoint(str(tmp_path / "run"), batch=5, out=str(tmp_path / "again"))
    assert again["metrics"]["correct1"] == results["val"]["correct1"]
    assert json.loads((tmp_path / "again/results.json").read_text())["protocol"]["dataset"] == "small"
