"""The zoo: the networks that were published, at any input size, and messages that name the nearest."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from imagenet_jax import models
from imagenet_jax.errors import UserError
from imagenet_jax.models import counting
from imagenet_jax.models.alexnet import AlexNet
from imagenet_jax.models.resnet import ResNet


def shapes_of(model, *image: int):
    """Shapes and dtypes of (output, variables) for images of a shape; nothing is computed."""
    return jax.eval_shape(lambda x: model.init_with_output(jax.random.key(0), x),
                          jax.ShapeDtypeStruct(image, model.dtype))


def smallest_of_each_family() -> list[str]:
    by_size = sorted(models.REGISTRY, key=lambda name: models.find(name).params)
    return list({models.find(name).module: name for name in reversed(by_size)}.values())


FAMILIES = smallest_of_each_family()


def tiny(name: str = "resnet18", num_classes: int = 5, **options):
    return models.make(name, num_classes, width=8, **options)


def shallow(**options):
    """Two blocks, quickly compiled."""
    return ResNet(**{"blocks": (1, 1), "bottleneck": False, "num_classes": 5, "width": 8, **options})


def drawn(model, x: jax.Array):
    """Variables drawn by numpy, which spares compiling the model's own draws."""
    rng = np.random.default_rng(0)
    variables = jax.eval_shape(model.init, jax.random.key(0), x)
    params = jax.tree.map(lambda leaf: rng.normal(0, 0.1, leaf.shape).astype(np.float32), variables["params"])
    stats = jax.tree.map(lambda leaf: np.ones(leaf.shape, np.float32), variables.get("batch_stats", {}))
    return {"params": params, "batch_stats": stats}


@pytest.mark.parametrize("name", models.REGISTRY)
def test_every_model_has_the_published_parameters_and_multiply_adds(name) -> None:
    spec, model = models.find(name), models.make(name, 1000)
    assert counting.params(model, spec.size) == spec.params
    # Published figures are rounded to two decimals at best; some networks have none.
    assert not spec.gmacs or counting.macs(model, spec.size) / 1e9 == pytest.approx(spec.gmacs, rel=0.01, abs=0.005)


@pytest.mark.parametrize(("name", "height", "width"), [
    ("resnet18", 1, 1), ("resnet18", 33, 70), ("resnet50", 97, 64), ("alexnet", 63, 64), ("alexnet", 300, 225)])
def test_any_image_size_gives_logits_and_the_same_parameters(name, height, width) -> None:
    out, variables = shapes_of(tiny(name), 2, height, width, 3)
    assert (out.shape, out.dtype) == ((2, 5), jnp.float32)
    native = shapes_of(tiny(name), 2, 224, 224, 3)[1]
    assert jax.tree.map(lambda a: a.shape, variables) == jax.tree.map(lambda a: a.shape, native)


@pytest.mark.parametrize(("name", "features"), [("resnet18", 64), ("resnet50", 256), ("alexnet", 512)])
def test_without_classes_pooled_features_come_out(name, features) -> None:
    out, variables = shapes_of(tiny(name, 0), 2, 64, 64, 3)
    assert (out.shape, out.dtype) == ((2, features), jnp.float32)
    assert "head" not in variables["params"]


def test_a_bottleneck_strides_in_its_3x3_convolution() -> None:
    """That is v1.5: the original strides in the first 1x1."""
    model = tiny("resnet50")
    _, state = jax.eval_shape(lambda x: model.init_with_output(jax.random.key(0), x, capture_intermediates=True),
                              jnp.zeros((1, 64, 64, 3)))
    block = state["intermediates"]["layer2_0"]
    sides = [block[conv]["__call__"][0].shape[1] for conv in ("conv1", "conv2", "conv3", "downsample_conv")]
    assert sides == [16, 8, 8, 8]


@pytest.mark.parametrize("name", ["resnet18", "alexnet"])
def test_bfloat16_computes_with_float32_parameters_statistics_and_logits(name) -> None:
    model = tiny(name, dtype="bfloat16")
    out, variables = shapes_of(model, 2, 64, 64, 3)
    assert out.dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    convolutions = str(jax.make_jaxpr(lambda v, x: model.apply(v, x))(variables, jnp.zeros((2, 64, 64, 3)))).split("\n")
    assert {line.split(":")[1].split("[")[0] for line in convolutions if "= conv_general_dilated" in line} == {"bf16"}


def test_bfloat16_logits_are_near_those_of_float32() -> None:
    x = jax.random.normal(jax.random.key(1), (4, 32, 32, 3))
    variables = drawn(shallow(), x)
    full, half = (jax.jit(shallow(dtype=dtype).apply)(variables, x) for dtype in (jnp.float32, jnp.bfloat16))
    np.testing.assert_allclose(full, half, atol=0.05 * np.abs(full).max())
    assert not np.array_equal(full, half)


@pytest.mark.parametrize("model", [
    shallow(num_classes=5, bn_group=8, dropout=0.5), AlexNet(original=False, num_classes=0, width=2, dropout=0.5)],
    ids=lambda model: type(model).__name__)
def test_dropout_acts_in_training_only(model) -> None:
    x = jax.random.normal(jax.random.key(1), (8, 63, 63, 3))
    variables = drawn(model, x)
    train = jax.jit(lambda key: model.apply(variables, x, True, rngs={"dropout": key}, mutable=["batch_stats"])[0])
    first, second = train(jax.random.key(2)), train(jax.random.key(3))
    assert not np.array_equal(first, second)
    assert np.array_equal(first, train(jax.random.key(2)))
    evaluate = jax.jit(lambda key: model.apply(variables, x, rngs={"dropout": key}))
    assert np.array_equal(evaluate(jax.random.key(2)), evaluate(jax.random.key(3)))


@pytest.mark.parametrize(("bottleneck", "last"), [(False, "bn2"), (True, "bn3")])
def test_zero_init_residual_zeroes_the_last_scale_of_a_block_and_nothing_else(bottleneck, last) -> None:
    model, x = shallow(bottleneck=bottleneck, zero_init_residual=True), jnp.zeros((1, 8, 8, 3))
    paths = lambda params: traverse_util.flatten_dict(params, sep="/").items()
    scales = jax.jit(lambda: {path: leaf for path, leaf in paths(model.init(jax.random.key(0), x)["params"])
                              if path.endswith("scale")})()
    assert {path for path, scale in scales.items() if not scale.any()} == {f"layer{i}_0/{last}/scale" for i in (1, 2)}
    assert all((scale == 1).all() for scale in scales.values() if scale.any())


def test_the_head_starts_small() -> None:
    """Goyal et al.: standard deviation 0.01, bias 0."""
    init, x = shallow(num_classes=1000).init, jnp.zeros((1, 8, 8, 3))
    head = jax.jit(lambda: init(jax.random.key(0), x)["params"]["head"])()
    assert abs(np.std(head["kernel"]) - 0.01) < 2e-4
    assert not head["bias"].any()


@pytest.mark.parametrize(("name", "options", "message"), [
    ("resnet51", {}, "model.name: there is no model 'resnet51'; did you mean 'resnet50'"),
    ("zzz", {}, "there is alexnet, alexnet_2012"),
    ("resnet18", {"droput": 0.5}, "model.droput: resnet18 has no such option; did you mean 'dropout'"),
    ("alexnet", {"bn_group": 32}, "model.bn_group: alexnet has no such option"),
    ("resnet18", {"blocks": (1,)}, "model.blocks: resnet18 has no such option"),
    ("resnet18", {"dtype": "float16"}, "model.dtype: 'float16' is not a compute type; choose among float32"),
])
def test_a_wrong_name_is_told_with_the_nearest(name, options, message) -> None:
    with pytest.raises(UserError, match=message):
        models.make(name, 10, **options)


def test_an_option_that_is_none_keeps_its_default() -> None:
    assert models.make("alexnet", 10, bn_group=None, dropout=None).dropout == 0.5


def test_alexnet_says_which_images_are_too_small() -> None:
    with pytest.raises(UserError, match="63 x 63 px and more, not 62 x 64"):
        shapes_of(tiny("alexnet"), 1, 62, 64, 3)


@pytest.mark.parametrize("name", FAMILIES)
def test_intermediate_outputs_are_a_pyramid_with_its_strides(name) -> None:
    size, model = models.find(name).size, models.make(name, 7)
    images = jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    logits, state = jax.eval_shape(lambda v, x: model.apply(v, x, mutable=["intermediates"]), variables, images)
    kept = state["intermediates"]
    assert kept["logits"].shape == logits.shape == (2, 7)
    maps = {int(key.removeprefix("stride")): value for key, value in kept.items() if key.startswith("stride")}
    assert maps
    for stride, value in maps.items():  # valid padding loses up to three pixels of a map
        assert -3 <= value.shape[1] - size / stride <= 1, (stride, value.shape)
    features = jax.eval_shape(lambda v, x: models.make(name, 0).apply(v, x), variables, images)
    assert features.shape == kept["pooled"].shape and features.ndim == 2 and features.dtype == jnp.float32


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_computes_in_bfloat16_with_float32_parameters_and_logits(name) -> None:
    model, size = models.make(name, 7, dtype="bfloat16"), models.find(name).size
    images = jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32)
    out, variables = jax.eval_shape(lambda x: model.init_with_output(jax.random.key(0), x), images)
    assert out.dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    lines = str(jax.make_jaxpr(model.apply)(variables, images)).split("\n")
    types = {line.split(":")[1].split("[")[0] for line in lines if "= conv_general_dilated" in line}
    assert types == {"bf16"}


@pytest.mark.parametrize("name", FAMILIES)
def test_images_that_are_too_small_are_told_and_all_others_are_taken(name) -> None:
    model, size = models.make(name, 7), models.find(name).size
    variables = jax.eval_shape(model.init, jax.random.key(0), jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32))
    image = lambda side: jax.ShapeDtypeStruct((1, side, side + 3, 3), jnp.float32)
    apply = lambda side: jax.eval_shape(model.apply, variables, image(side))
    taken = []
    for side in (1, 2, 7, 16, 31, 32, 47, 63, 75, 97, 128):
        try:
            assert apply(side).shape == (1, 7)
            taken.append(side)
        except UserError as error:
            assert f"not {side} x {side + 3}" in str(error) and not taken  # what is larger than a taken size is taken
    assert taken or name.startswith("vit")  # position embeddings are those of one size
