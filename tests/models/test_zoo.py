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
from imagenet_jax.models.efficientnet import EfficientNet, Row
from imagenet_jax.models.resnet import ResNet


def shapes_of(model, *image: int):
    """Shapes and dtypes of (output, variables) for images of a shape; nothing is computed."""
    return jax.eval_shape(lambda x: model.init_with_output(jax.random.key(0), x),
                          jax.ShapeDtypeStruct(image, model.dtype))


FAMILIES = ["alexnet", "vgg11_bn", "googlenet", "inception_v3", "resnet18", "squeezenet1_1", "efficientnet_b0",
            "tf_efficientnet_lite0"]


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


@pytest.mark.parametrize("name", FAMILIES)  # `parity.csv` has all
def test_every_family_has_the_published_parameters_and_multiply_adds(name) -> None:
    spec, model = models.find(name), models.make(name, 1000)
    params, macs = counting.params_and_macs(model, spec.size)
    assert params == spec.params
    assert macs / 1e9 == pytest.approx(spec.gmacs, abs=0.0006)  # published to three decimals


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


def test_drop_path_drops_a_branch_for_whole_examples() -> None:
    rows = (Row("block0_0", 8, 1, 3, 1), Row("block0_1", 8, 1, 3, 1))  # the second has a rate of half of drop_path
    model = EfficientNet(rows=rows, stem=8, last=8, lite=True, padding="SAME", num_classes=0, drop_path=0.9,
                         frozen=lambda path: True)
    x = jnp.repeat(jax.random.normal(jax.random.key(1), (1, 8, 8, 3)), 32, 0)
    variables = drawn(model, x)
    train = jax.jit(lambda key: model.apply(variables, x, True, rngs={"dropout": key}))(jax.random.key(2))
    assert len(np.unique(np.round(train, 5), axis=0)) == 2  # one image 32 times: with the branch, and without it
    assert len(np.unique(np.round(jax.jit(model.apply)(variables, x), 5), axis=0)) == 1


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


def test_inception_says_that_its_auxiliary_head_is_what_needs_large_images() -> None:
    variables, _ = abstract(models.make("inception_v3", 5), 299)
    small, rngs = jax.ShapeDtypeStruct((2, 150, 150, 3), jnp.float32), {"dropout": jax.random.key(0)}
    train = lambda **options: jax.eval_shape(lambda v, x: models.make("inception_v3", 5, bn_group=2, **options).apply(
        v, x, True, rngs=rngs, mutable=["batch_stats"])[0], variables, small)
    assert train(aux=False).shape == (2, 5)
    with pytest.raises(UserError, match="299 x 299 px and more, not 150 x 150; .* model.aux=False"):
        train()


def test_alexnet_says_which_images_are_too_small() -> None:
    with pytest.raises(UserError, match="63 x 63 px and more, not 62 x 64"):
        shapes_of(tiny("alexnet"), 1, 62, 64, 3)


def abstract(model, size: int, dtype=jnp.float32):
    """Shapes of the variables, and of a pair of images."""
    images = jax.ShapeDtypeStruct((2, size, size, 3), dtype)
    return jax.eval_shape(model.init, jax.random.key(0), images), images


@pytest.mark.parametrize("name", FAMILIES)
def test_maps_come_out_by_their_stride_when_asked_for(name) -> None:
    size, model = models.find(name).size, models.make(name, 7)
    variables, images = abstract(model, size)
    assert variables.keys() <= {"params", "batch_stats"}
    plain = jax.eval_shape(model.apply, variables, images)
    logits, kept = jax.eval_shape(lambda v, x: model.apply(v, x, mutable=["features", "aux"]), variables, images)
    assert plain.shape == logits.shape == (2, 7) and kept.keys() == {"features"}
    pooled = kept["features"].pop("pooled")
    assert sorted(map(int, kept["features"])) == [4, 8, 16, 32][:3 if name.startswith("squeezenet") else 4]
    for stride, value in kept["features"].items():  # a map that was not padded lacks up to three pixels
        assert size / int(stride) - 4 < value.shape[1] <= size / int(stride)
    features = jax.eval_shape(lambda v, x: models.make(name, 0).apply(v, x), variables, images)
    assert features.shape == pooled.shape and features.ndim == 2 and features.dtype == jnp.float32


@pytest.mark.parametrize("name", FAMILIES)
def test_what_is_added_to_a_map_goes_on_through_the_network(name) -> None:
    """Changes for five images make logits of five out of one image."""
    model = models.make(name, 7)
    variables, image = abstract(model, models.find(name).size)
    image = jax.ShapeDtypeStruct((1, *image.shape[1:]), image.dtype)
    apply = lambda v, x: model.apply(v, x, mutable=["features"])
    maps = jax.eval_shape(apply, variables, image)[1]["features"]
    for stride in filter(str.isdecimal, maps):
        changes = {stride: jax.ShapeDtypeStruct((5, *maps[stride].shape[1:]), maps[stride].dtype)}
        assert jax.eval_shape(apply, {**variables, "perturbations": changes}, image)[0].shape == (5, 7)


@pytest.mark.parametrize(("name", "heads"), [("googlenet", 2), ("inception_v3", 1)])
def test_auxiliary_heads_speak_in_training_only(name, heads) -> None:
    model = models.make(name, 7, bn_group=2)
    variables, images = abstract(model, models.find(name).size)
    rngs = {"dropout": jax.random.key(0)}
    training = lambda model: jax.eval_shape(
        lambda v, x: model.apply(v, x, True, rngs=rngs, mutable=["aux", "batch_stats"])[1], variables, images)
    assert [leaf.shape for leaf in training(model)["aux"].values()] == [(2, 7)] * heads
    assert training(models.make(name, 7, bn_group=2, aux=False)).keys() == {"batch_stats"}
    without = abstract(models.make(name, 7, aux=False), 299)[0]
    assert sum(key.startswith("aux") for key in variables["params"]) == heads
    assert not any(key.startswith("aux") for key in without["params"])


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_computes_in_bfloat16_with_float32_parameters_and_logits(name) -> None:
    model = models.make(name, 7, dtype="bfloat16")
    variables, images = abstract(model, models.find(name).size)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    jaxpr = jax.make_jaxpr(model.apply)(variables, images)
    assert jaxpr.out_avals[0].dtype == jnp.float32
    lines = str(jaxpr).split("\n")
    assert {line.split(":")[1].split("[")[0] for line in lines if "= conv_general_dilated" in line} == {"bf16"}


@pytest.mark.parametrize("name", FAMILIES)
def test_images_that_are_too_small_are_told_and_all_others_are_taken(name) -> None:
    model = models.make(name, 7)
    variables, _ = abstract(model, models.find(name).size)
    taken = []
    for side in (1, 16, 31, 32, 63, 75, 97):
        image = jax.ShapeDtypeStruct((1, side, side + 3, 3), jnp.float32)
        try:
            assert jax.eval_shape(model.apply, variables, image).shape == (1, 7)
            taken.append(side)
        except UserError as error:
            assert f"not {side} x {side + 3}" in str(error) and not taken  # what is larger than a taken size is taken
    assert taken


@pytest.mark.parametrize("name", FAMILIES)
def test_a_frozen_network_in_training_says_what_it_says_in_evaluation(name) -> None:
    """But for dropout: its BatchNorms use the statistics they have, and leave them."""
    off = {field: 0.0 for field in ("dropout", "drop_path") if hasattr(models.make(name, 0), field)}
    model = models.make(name, 0, **off, frozen=lambda path: True)
    variables, images = abstract(model, 97)
    train = jax.make_jaxpr(lambda v, x: model.apply(v, x, train=True))(variables, images)
    assert str(train) == str(jax.make_jaxpr(model.apply)(variables, images))
