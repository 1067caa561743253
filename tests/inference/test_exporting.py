"""What is exported computes the same logits without the package, for any batch, and says where it comes from."""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax import export

from imagenet_jax import models
from imagenet_jax.errors import UserError
from imagenet_jax.inference import exporting, to_saved_model, to_stablehlo
from imagenet_jax.models.net import Net
from imagenet_jax.training import evaluating
from imagenet_jax.training.step import make_apply


@pytest.mark.parametrize("batch", [1, 3])
def test_the_file_computes_the_logits_of_the_network_for_any_batch(weigh, tmp_path, batch):
    trained = evaluating.open_trained(weigh())
    exporting.export(trained, "stablehlo", str(tmp_path / "out"))
    net = export.deserialize(bytearray((tmp_path / "out" / "model.stablehlo").read_bytes()))
    images = np.random.default_rng(1).integers(0, 256, (batch, 32, 32, 3), dtype=np.uint8)
    model = models.make(num_classes=4, **trained.config.model)
    logits = net.call(images)
    assert logits.dtype == jnp.float32 and set(net.platforms) == {"cpu", "cuda", "tpu"}
    np.testing.assert_allclose(logits, jax.jit(make_apply(model))(trained.variables, images), rtol=1e-5, atol=1e-6)


def test_the_card_says_what_it_takes_and_what_it_was_compared_on(weigh, photos, tmp_path):
    path = weigh('{"size": 32, "resize": 40, "library": "pil", "interpolation": "bicubic"}')
    told = exporting.export(evaluating.open_trained(path), "stablehlo", str(tmp_path / "out"), images=str(photos))
    card = json.loads((tmp_path / "out" / "model.json").read_text())
    assert (card["view"]["resize"], card["view"]["interpolation"], card["view"]["library"]) == (40, "bicubic", "pil")
    assert card["classes"][0] == {"id": "n0", "name": "one, first"} and card["model"]["name"] == "small"
    assert card["read_back"]["images"] == 8 + 14 and card["read_back"]["same_top1"] == 22
    assert card["evaluation"] is None and "on 22 images" in told
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"model.stablehlo", "model.json"}
    with pytest.raises(UserError, match="no image there to compare on"):
        exporting.export(evaluating.open_trained(path), "stablehlo", str(tmp_path / "no"), str(photos / "cut.jpg"))


def test_the_card_has_the_metrics_of_this_checkpoint_alone(weigh, tmp_path):
    trained = evaluating.open_trained(weigh())._replace(directory=str(tmp_path), source="checkpoints/6")
    (tmp_path / "evaluation").mkdir()
    for source, expected in (("checkpoints/6", {"top1": 0.5}), ("checkpoints/4", None)):
        results = {"metrics": {"top1": 0.5}, "protocol": {"checkpoint": source, "evaluated": "weights"}}
        (tmp_path / "evaluation" / "results.json").write_text(json.dumps(results))
        found = exporting._evaluation(trained)
        assert found is None if expected is None else found["metrics"] == expected


def test_a_saved_model_takes_pixels_and_encoded_images(weigh, photos, tmp_path):
    path = weigh('{"size": 32, "resize": 40, "library": "pil", "interpolation": "bilinear"}')
    told = exporting.export(evaluating.open_trained(path), "savedmodel", str(tmp_path / "out"), images=str(photos))
    assert "on 22 images" in told and "fed the images as they are" in told and "TensorFlow's" in told
    net = to_saved_model.tf.saved_model.load(str(tmp_path / "out" / "saved_model"))
    encoded = [file.read_bytes() for file in sorted((photos / "deeper").iterdir())[:3]]
    seen = np.stack([to_saved_model.pixels.eval_example(each, size=32, resize_to=40, interpolation="bilinear",
                                                        antialias=True) for each in encoded])
    outputs = [net.signatures[name](image=to_saved_model.tf.constant(images))
               for name, images in (("serving_default", encoded), ("pixels", seen))]
    np.testing.assert_allclose(outputs[0]["logits"], outputs[1]["logits"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(outputs[0]["probabilities"], jax.nn.softmax(outputs[0]["logits"].numpy()), rtol=1e-5)
    assert len(net.signatures["pixels"](image=to_saved_model.tf.constant(seen[:1]))["logits"]) == 1
    card = json.loads((tmp_path / "out" / "model.json").read_text())
    assert card["encoded"]["images"] < 14 == card["read_back"]["images"] - 8  # mended ones are not as they are


def test_what_was_read_back_must_be_the_network(monkeypatch, weigh, tmp_path):
    read = to_stablehlo.read
    form = exporting.FORMS["stablehlo"]._replace(read=lambda path: lambda images: read(path)(images) + 0.01)
    monkeypatch.setitem(exporting.FORMS, "stablehlo", form)
    with pytest.raises(UserError, match="model.stablehlo was not written: read back, its logits differ by 0.01 "):
        exporting.export(evaluating.open_trained(weigh()), "stablehlo", str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("form", ["onnx", "onnx_int8"])
def test_what_is_not_installed_is_told(monkeypatch, weigh, photos, tmp_path, form):
    monkeypatch.setitem(sys.modules, "jax2onnx", None)
    with pytest.raises(UserError, match="pip install -r requirements-onnx.txt"):
        exporting.export(evaluating.open_trained(weigh()), form, str(tmp_path / "out"), str(photos))


def test_eight_bits_are_calibrated_on_some_images_and_judged_by_others(weigh, photos, tmp_path):
    trained = evaluating.open_trained(weigh())
    with pytest.raises(UserError, match="give --images"):
        exporting.export(trained, "onnx_int8", str(tmp_path / "out"))
    examples = exporting._examples(trained, str(photos), exporting.FORMS["onnx_int8"])
    assert len(examples.image) == len(examples.calibration) == 7
    alike = (examples.image[:, None] == examples.calibration[None]).all((2, 3, 4))
    assert not alike.any()
    compared = {"largest_difference": 1.0, "range": 2.0, "images": 4, "same_top1": 1}
    with pytest.raises(UserError, match="not worth keeping"):
        exporting._check(compared, "a.onnx", 1e-4, 0.5)
    exporting._check(compared | {"same_top1": 2}, "a.onnx", 1e-4, 0.5)


class Eigen(Net):
    """A network with an operation that only CPUs have."""

    @nn.compact
    def __call__(self, x, train=False):
        squares = x[:, :4, :4, 0].astype(jnp.float32)
        return self.classify(jnp.linalg.eigvals(squares).real, train)


def test_what_cannot_be_exported_is_told(monkeypatch, weigh, tmp_path):
    monkeypatch.setitem(models.REGISTRY, "eigen", models.Spec(Eigen, size=32))
    trained = evaluating.open_trained(weigh())
    trained.config.model.name = "eigen"
    variables = Eigen(num_classes=4).init(jax.random.key(0), np.zeros((1, 32, 32, 3)))
    trained.config.model.bn_group = None
    with pytest.raises(UserError, match="eigen cannot be exported as model.stablehlo for any batch: .*eig"):
        exporting.export(trained._replace(variables=variables), "stablehlo", str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()
