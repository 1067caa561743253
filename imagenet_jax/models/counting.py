"""Parameters and multiply-adds, from shapes: nothing is computed."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.extend import core


def params_and_macs(model: nn.Module, size: int) -> tuple[int, int]:
    """Numbers in the parameters of a model, and multiply-adds for one square image of `size` px in evaluation.

    Counted are those of convolutions and matrix products, as papers do: normalisation, activation, pooling and
    resizing are left out. Auxiliary heads have parameters, and no part in evaluation.
    """
    image = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), image)
    params = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    return params, _macs(jax.make_jaxpr(model.apply)(variables, image).jaxpr)


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
