"""What is exported computes the same logits without the package, for any batch, and says where it comes from."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax import export

from imagenet_jax import models
from imagenet_jax.errors import UserError
from imagenet_jax.inference import exporting
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
        exporting.export(evaluating.open_trained(path), "stablehlo", str(tmp_path / "out"), images=str(photos / "cut.jpg"))


def test_the_card_has_the_metrics_of_this_checkpoint_alone(weigh, tmp_path):
    trained = evaluating.open_trained(weigh())._replace(directory=str(tmp_path), source="checkpoints/6")
    (tmp_path / "evaluation").mkdir()
    for source, expected in (("checkpoints/6", {"top1": 0.5}), ("checkpoints/4", None)):
        results = {"metrics": {"top1": 0.5}, "protocol": {"checkpoint": source, "evaluated": "weights"}}
        (tmp_path / "evaluation" / "results.json").write_text(json.dumps(results))
        found = exporting._evaluation(trained)
        assert found is None if expected is None else found["metrics"] == expected


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
