"""Grad-CAM where it is known on paper, and its picture beside each name."""

import jax
import numpy as np
import pytest
from PIL import Image
from small_net import SmallNet

from imagenet_jax import models
from imagenet_jax.errors import UserError
from imagenet_jax.inference import explain, predict
from imagenet_jax.inference.images import pointed_at
from imagenet_jax.training import evaluating
from imagenet_jax.training.step import normalize


def test_before_a_mean_and_a_dense_layer_it_is_the_class_activation_map():
    """Of A [h, w, C] and the head's weights w [C], relu(A @ w) / (h * w): Selvaraju et al. 2017, section 3.1."""
    model = models.make("resnet18", 5, width=8)
    variables = jax.jit(model.init)(jax.random.key(0), np.zeros((1, 64, 64, 3)))
    image = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    heat = jax.jit(lambda image: explain.grad_cam(model, variables, image))(image)
    logits, kept = jax.jit(lambda image: model.apply(
        variables, normalize(image, model), mutable=["features"]))(image)
    maps, kernel = np.asarray(kept["features"]["32"]), np.asarray(variables["params"]["head"]["kernel"])
    for i, best in enumerate(np.asarray(logits).argmax(axis=1)):
        np.testing.assert_allclose(heat[i], np.maximum(maps[i] @ kernel[:, best], 0) / 4, rtol=1e-4, atol=1e-7)
    assert np.asarray(heat).max() > 0


def test_a_network_without_maps_is_told():
    model = SmallNet(num_classes=4)
    variables = jax.jit(model.init)(jax.random.key(0), np.zeros((1, 32, 32, 3)))
    with pytest.raises(UserError, match="SmallNet keeps none of its maps"):
        explain.grad_cam(model, variables, np.zeros((1, 32, 32, 3), np.uint8))


@pytest.mark.parametrize("name, file", [("a/b.jpg", "a/b.jpg.png"), ("/a/b.jpg", "a/b.jpg.png"),
                                        ("../b.jpg", "__/b.jpg.png")])
def test_what_speaks_for_the_class_is_red_and_nothing_is_written_elsewhere(tmp_path, name, file):
    heat = np.zeros((4, 4), np.float32)
    heat[0, 0] = 3
    path = explain.draw(str(tmp_path / "out"), name, np.full((32, 32, 3), 100, np.uint8), heat)
    assert path == str(tmp_path / "out" / file)
    picture = np.asarray(Image.open(path)).astype(int)
    (red, _, blue), (cold, _, _) = picture[0, 0], picture[-1, -1]
    assert picture.shape == (32, 32, 3) and red > blue and red > cold
    assert len(np.unique(picture[16:, 16:].reshape(-1, 3), axis=0)) == 1


def test_without_any_heat_there_is_a_picture(tmp_path):
    explain.draw(str(tmp_path), "cold.jpg", np.zeros((8, 8, 3), np.uint8), np.zeros((2, 2), np.float32))
    assert (tmp_path / "cold.jpg.png").exists()


def test_predictions_bring_heat_and_what_was_seen(weigh, photos, monkeypatch):
    monkeypatch.setattr(SmallNet, "pool", lambda self, x: self.feature(32, x).mean((1, 2)))
    trained, asked = evaluating.open_trained(weigh()), predict.Asked(heat=True)
    pair, _ = pointed_at([str(photos / "cut.jpg"), str(photos / "photo.webp")])
    broken, sound = predict.predict(trained, pair, asked)
    assert broken.heat is None and sound.heat.shape == (16, 16) and sound.crop.shape == (32, 32, 3)
    trained.config.view.crops = 10
    with pytest.raises(UserError, match="is judged by several"):
        next(predict.predict(trained, pair, asked))
