"""A norm estimated by products with fixed vectors, and division by it."""

from functools import partial
from typing import Any

import jax
from jax import Array

from jaxnorms._rules.ends import inner


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def estimate(operator: Any, w: Array, u: Array, v: Array, value: Array) -> Array:
    """``value``, known to be ``Re <u, W v>``; its derivative in w is ``Re <u, dW v>``, with u and v constant."""
    return value


@estimate.defjvp
def _(operator, primals, tangents):
    (w, u, v, value), (dw, *_) = primals, tangents
    return estimate(operator, w, u, v, value), inner(u, operator.forward(dw, v))


@jax.custom_jvp
def divide(a: Array, s: Array) -> Array:
    """``a / s`` for a real number s, as ``a (1 / s)``: one division. The backward pass keeps the result, not ``a``."""
    return a * (1 / s).astype(a.dtype)


@divide.defjvp
def _(primals, tangents):
    (a, s), (da, ds) = primals, tangents
    y = divide(a, s)
    return y, da * (1 / s).astype(a.dtype) - y * (ds / s).astype(a.dtype)
