"""Parameters and multiply-adds, from shapes: nothing is computed."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.extend import core


def params(model: nn.Module, size: int) -> int:
    """Numbers in the parameters of a model that takes square images of `size` px."""
    tree = jax.eval_shape(model.init, jax.random.key(0), _image(size))
    return sum(leaf.size for leaf in jax.tree.leaves(tree["params"]))


def macs(model: nn.Module, size: int) -> int:
    """Multiply-adds of convolutions and matrix products for one square image of `size` px, in evaluation.

    As papers count them: normalisation, activation, pooling and resizing are left out.
    """
    variables = jax.eval_shape(model.init, jax.random.key(0), _image(size))
    return _macs(jax.make_jaxpr(model.apply)(variables, _image(size)).jaxpr)


def _image(size: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)


def _macs(jaxpr: Any) -> int:
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "conv_general_dilated":
            kernel, numbers = equation.invars[1].aval.shape, equation.params["dimension_numbers"]
            each = math.prod(kernel) // kernel[numbers.rhs_spec[0]]  # products that one number of the output adds
        elif equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            each = math.prod(equation.invars[0].aval.shape[axis] for axis in contracted)
        else:
            # `lax.platform_dependent` is a cond whose last branch is the plain operation.
            inner = list(core.jaxprs_in_params(equation.params))
            total += sum(map(_macs, inner[-1:] if equation.primitive.name == "cond" else inner))
            continue
        total += each * equation.outvars[0].aval.size
    return total
