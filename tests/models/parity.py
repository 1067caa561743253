"""Our networks beside the stored references, and what one training step of each costs.

    PYTHONPATH=. python tests/models/parity.py [--quick] [MODEL...]       (by default every model)

writes a row a model into parity.csv beside this file: the reference, parameters and 1e9 multiply-adds, the largest
difference of logits as a share of their range (native size, another size), of running statistics after one training
step as a share of the largest one, and of that step at `train` px: seconds to trace and compile (`compiler`:
default, or quick, without LLVM's expensive passes: `--quick`), loss, and whether every parameter's gradient is finite
and some number of it other than zero.
"""

import csv
import pathlib
import sys
import time
from typing import Any

import drawn_weights
import jax
import jax.numpy as jnp
import numpy as np
from drawn_weights import draw, draw_images
from flax import traverse_util

from imagenet_jax import models
from imagenet_jax.models import counting, weights
from imagenet_jax.training import losses
from imagenet_jax.training.step import model_loss

HERE = pathlib.Path(__file__).parent
TABLE, REFERENCES = HERE / "parity.csv", HERE / "references"
COLUMNS = ("model", "reference", "params", "gmacs", "published_gmacs", "native", "other", "statistics", "train_px",
           "compile_s", "compiler", "loss", "gradients")
FAST_COMPILE = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


def sizes(name: str) -> tuple[int, int, int]:
    """px of the images: native, another, and in training."""
    return drawn_weights.sizes(name, models.find(name).size)


def shapes(model: Any, size: int) -> Any:
    """Shapes of the variables for images of a size."""
    return jax.eval_shape(model.init, jax.random.key(0), jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32))


def drawn_variables(name: str, model: Any, size: int) -> Any:
    """Variables whose tensors are drawn by the names that the model's reference gives them."""
    tree = shapes(model, size)
    empty = jax.tree.map(lambda leaf: np.broadcast_to(np.float32(0), leaf.shape), tree)
    if not models.find(name).reference:
        flat = {path: draw(path, leaf.shape) for path, leaf in traverse_util.flatten_dict(empty, sep="/").items()}
        return traverse_util.unflatten_dict(flat, sep="/")
    state = {word: draw(word, leaf.shape)
             for word, leaf in weights.to_torch(name, empty["params"], empty.get("batch_stats", {})).items()}
    flat = traverse_util.flatten_dict(tree, sep="/")
    ours = weights.from_torch(name, state, list(flat))
    assert {path: leaf.shape for path, leaf in ours.items()} == {path: leaf.shape for path, leaf in flat.items()}
    return traverse_util.unflatten_dict(ours, sep="/")


def build(name: str, **options: Any) -> Any:
    """The model without dropout or drop path, with BatchNorm over the four training images."""
    model = models.make(name, 1000)
    off = {field: value for field, value in (("dropout", 0.0), ("drop_path", 0.0), ("bn_group", 4))
           if hasattr(model, field)}
    return models.make(name, 1000, **off, **options)


def logits(name: str, size: int, **options: Any) -> np.ndarray:
    """Every tenth logit of two drawn images, in evaluation."""
    model = build(name, **options)
    variables, images = drawn_variables(name, model, size), draw_images(size, 2)
    apply = jax.jit(model.apply, compiler_options=FAST_COMPILE)
    return np.asarray(apply(variables, images))[:, ::10]


def train(name: str, size: int, **compiler_options: Any) -> tuple[float, float, Any, Any]:
    """Loss, seconds to compile, gradients and BatchNorm statistics of one training step on four drawn images."""
    model = build(name)
    variables, images, labels = drawn_variables(name, model, size), draw_images(size, 4), np.arange(4)
    key = jax.random.key(0)

    def loss(params: Any, batch_stats: Any) -> tuple[jax.Array, Any]:
        variables = {"params": params, "batch_stats": batch_stats}
        per_example, _, updated = model_loss(model, losses.cross_entropy, variables, images, labels, key, 0.3)
        return per_example.mean(), updated

    start = time.perf_counter()
    args = variables["params"], variables.get("batch_stats", {})
    step = jax.jit(jax.value_and_grad(loss, has_aux=True)).lower(*args).compile(compiler_options or None)
    seconds = time.perf_counter() - start
    (value, updated), grads = step(*args)
    return float(value), seconds, jax.device_get(grads), jax.device_get(updated)


def statistics(name: str, batch_stats: Any) -> np.ndarray:
    """Four channels of every BatchNorm in the order of its name in the reference: [layers, mean and var, 4]."""
    state = weights.to_torch(name, {}, batch_stats)
    norms = sorted(key.removesuffix(".running_mean") for key in state if key.endswith(".running_mean"))
    return np.array([[state[f"{norm}.running_mean"][:4], state[f"{norm}.running_var"][:4]] for norm in norms])


def reference(name: str) -> dict[str, np.ndarray]:
    """The stored arrays of a model's reference."""
    return dict(np.load(REFERENCES / f"{name}.npz"))


def difference(got: np.ndarray, wanted: np.ndarray) -> float:
    """Largest difference as a share of the range of what is wanted."""
    assert got.shape == wanted.shape, (got.shape, wanted.shape)
    return float(np.abs(got - wanted).max() / np.ptp(wanted)) if wanted.size else 0.0


def unlearned(grads: Any) -> list[str]:
    """Paths of the parameters whose gradient is not finite, or zero throughout."""
    return [path for path, grad in traverse_util.flatten_dict(grads, sep="/").items()
            if not np.isfinite(grad).all() or not grad.any()]


def rows() -> dict[str, dict[str, str]]:
    """The table as it is stored, by model."""
    return {line["model"]: line for line in csv.DictReader(TABLE.open())} if TABLE.exists() else {}


def row(name: str, quick: bool) -> dict[str, Any]:
    """A model's row of the table."""
    spec = models.find(name)
    native, other, train_px = sizes(name)
    loss, seconds, grads, batch_stats = train(name, train_px, **(FAST_COMPILE if quick else {}))
    out = {"model": name, "reference": spec.reference, "params": counting.params(models.make(name, 1000), native),
           "gmacs": f"{counting.macs(models.make(name, 1000), native) / 1e9:.3f}", "published_gmacs": spec.gmacs,
           "train_px": train_px, "compile_s": f"{seconds:.1f}", "compiler": "quick" if quick else "default",
           "loss": f"{loss:.4g}",
           "gradients": " ".join(unlearned(grads)) or "all"}
    if spec.reference:
        wanted = reference(name)
        out |= {"native": f"{difference(logits(name, native), wanted['native']):.1e}",
                "other": f"{difference(logits(name, other), wanted['other']):.1e}",
                "statistics": f"{difference(statistics(name, batch_stats), wanted['statistics']):.1e}"}
    return out


if __name__ == "__main__":
    named = [word for word in sys.argv[1:] if word != "--quick"]
    for name in named or models.REGISTRY:
        made = row(name, "--quick" in sys.argv)
        print(*(f"{key}={value}" for key, value in made.items()), flush=True)
        table = rows() | {name: made}
        with TABLE.open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(table[known] for known in models.REGISTRY if known in table)
