"""Our networks beside the stored references, and one train step of each.

    PYTHONPATH=. python tests/models/parity.py [MODEL...]       (by default every model)

writes a row a model into parity.csv beside this file: the reference, parameters and 1e9 multiply-adds; the largest
difference from the reference as a share of its range, of logits (native size, another size), and in training of
auxiliary logits and of running statistics (as a share of the largest); and of one train step at `train_px`, on two
devices by pmap and by shard_map, the loss and whether every parameter has a finite gradient other than zero.
"""

import csv
import functools
import os
import pathlib
import sys
from typing import Any

os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=2 --xla_backend_optimization_level=0 "
                      "--xla_llvm_disable_expensive_passes=true")  # compiling takes most of the time

import drawn_weights
import jax
import jax.numpy as jnp
import numpy as np
import optax
from drawn_weights import draw, draw_images
from flax import traverse_util

from imagenet_jax import models
from imagenet_jax.models import counting, weights
from imagenet_jax.training import losses, parallel
from imagenet_jax.training.state import make_state
from imagenet_jax.training.step import StepOptions, train_step

HERE = pathlib.Path(__file__).parent
TABLE, REFERENCES = HERE / "parity.csv", HERE / "references"
COLUMNS = ("model", "reference", "params", "gmacs", "native", "other", "aux", "statistics", "train_px", "loss", "pmap",
           "shard_map")
FAST_COMPILE = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


def sizes(name: str) -> tuple[int, int, int]:
    """px of the images: native, another, and in training."""
    return drawn_weights.sizes(name, models.find(name).size)


@functools.cache
def build(name: str) -> Any:
    """The model without dropout or drop path, with BatchNorm over the four training images."""
    model = models.make(name, 1000)
    off = {"dropout": 0.0, "aux_dropout": 0.0, "drop_path": 0.0, "bn_group": 4}
    if models.find(name).reference == "timm":
        off["bn_momentum"] = 0.9  # timm's default, where the authors have 0.99
    return models.make(name, 1000, **{field: value for field, value in off.items() if hasattr(model, field)})


@functools.lru_cache(1)
def drawn_variables(name: str) -> Any:
    """Variables whose tensors are drawn by the names that the model's reference gives them."""
    shapes = jax.eval_shape(build(name).init, jax.random.key(0), jnp.zeros((1, 299, 299, 3)))
    flat = traverse_util.flatten_dict(shapes, sep="/")
    if not models.find(name).reference:
        return traverse_util.unflatten_dict({path: draw(path, leaf.shape) for path, leaf in flat.items()}, sep="/")
    empty = jax.tree.map(lambda leaf: np.broadcast_to(np.float32(0), leaf.shape), shapes)
    state = weights.to_torch(name, empty["params"], empty.get("batch_stats", {}))
    ours = weights.from_torch(name, {word: draw(word, leaf.shape) for word, leaf in state.items()}, list(flat))
    assert {path: leaf.shape for path, leaf in ours.items()} == {path: leaf.shape for path, leaf in flat.items()}
    return traverse_util.unflatten_dict(ours, sep="/")


def logits(name: str, size: int) -> np.ndarray:
    """Every tenth logit of two drawn images, in evaluation."""
    apply = jax.jit(build(name).apply, compiler_options=FAST_COMPILE)
    return np.asarray(apply(drawn_variables(name), draw_images(size, 2)))[:, ::10]


def trained(name: str) -> tuple[np.ndarray, np.ndarray]:
    """In training, of four drawn images: auxiliary logits, [heads, 4, every tenth class], and running statistics of
    four channels of every BatchNorm in the order of its name in the reference, [layers, mean and var, 4]."""
    forward = jax.jit(functools.partial(build(name).apply, train=True, mutable=["batch_stats", "aux"]),
                      compiler_options=FAST_COMPILE)
    _, updated = jax.device_get(forward(drawn_variables(name), draw_images(sizes(name)[2], 4)))
    state = weights.to_torch(name, {}, updated.get("batch_stats", {}))
    norms = sorted(key.removesuffix(".running_mean") for key in state if key.endswith(".running_mean"))
    heads = updated.get("aux", {})
    return (np.array([heads[key][:, ::10] for key in sorted(heads)]),
            np.array([[state[f"{norm}.running_mean"][:4], state[f"{norm}.running_var"][:4]] for norm in norms]))


def step(name: str, mode: str, size: int) -> tuple[float, dict[str, np.ndarray]]:
    """Loss and gradients by path of one train step on four images of noise, on two devices."""
    layout = parallel.make_layout(mode, jax.devices()[:2])
    options = StepOptions(build(name), optax.trace(decay=0.0), losses.cross_entropy, aux_weight=0.3)
    variables, rng = drawn_variables(name), np.random.default_rng(0)
    state = parallel.put_state(make_state(variables["params"], variables.get("batch_stats", {}), options.optimizer),
                               layout)
    batch = {"image": rng.integers(0, 256, (4, size, size, 3), np.uint8), "label": np.arange(4, dtype=np.int32)}
    compiled = parallel.compile_step(functools.partial(train_step, options), layout)
    state, metrics = compiled(state, parallel.put_batch(batch, layout, 1))
    total, count = parallel.get_state(metrics, layout)["loss"]
    return float(total / count), parallel.get_state(state.opt_state, layout).trace


def unlearned(grads: dict[str, np.ndarray]) -> list[str]:
    """Paths of the parameters whose gradient is not finite, or zero throughout."""
    return [path for path, grad in grads.items() if not np.isfinite(grad).all() or not grad.any()]


def reference(name: str) -> dict[str, np.ndarray]:
    """The stored arrays of a model's reference."""
    return dict(np.load(REFERENCES / f"{name}.npz"))


def difference(got: np.ndarray, wanted: np.ndarray) -> float:
    """Largest difference as a share of the range of what is wanted."""
    assert got.shape == wanted.shape, (got.shape, wanted.shape)
    return float(np.abs(got - wanted).max() / np.ptp(wanted)) if wanted.size else 0.0


def rows() -> dict[str, dict[str, str]]:
    """The table as it is stored, by model."""
    return {line["model"]: line for line in csv.DictReader(TABLE.open())} if TABLE.exists() else {}


def row(name: str) -> dict[str, Any]:
    """A model's row of the table."""
    spec, model, (native, other, train) = models.find(name), build(name), sizes(name)
    params, macs = counting.params_and_macs(model, native)
    out = {"model": name, "reference": spec.reference, "params": params, "gmacs": f"{macs / 1e9:.3f}",
           "train_px": train}
    if spec.reference:
        wanted, (aux, statistics) = reference(name), trained(name)
        assert params == wanted["params"]
        got = {"native": logits(name, native), "other": logits(name, other), "aux": aux, "statistics": statistics}
        out |= {key: f"{difference(value, wanted[key]):.1e}" if value.size else "" for key, value in got.items()}
    for mode in ("pmap", "shard_map"):
        loss, grads = step(name, mode, train)
        out |= {"loss": f"{loss:.4g}", mode: " ".join(unlearned(grads)) or f"all {len(grads)}"}
    return out


if __name__ == "__main__":
    for name in sys.argv[1:] or models.REGISTRY:
        made = row(name)
        print(*(f"{key}={value}" for key, value in made.items()), flush=True)
        jax.clear_caches()  # a compiled network holds hundreds of MB
        table = rows() | {name: made}
        with TABLE.open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(table[known] for known in models.REGISTRY if known in table)
