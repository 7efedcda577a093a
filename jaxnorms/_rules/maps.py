"""Maps of magnitudes carried to matrices (``jaxnorms.carried``), differentiable once in matrix and parameters."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxnorms._rules.ends import end_of_derivatives, inner
from jaxnorms._scaling import max_abs, quotient

only_once = end_of_derivatives(
    "jaxnorms: second derivatives of a proximal operator, projection or spectral map are not defined; "
    "value and first derivative are"
)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def carry(carrier: Any, a: Array, *parameters: Array) -> Array:
    """The image of one matrix."""
    return carrier.image(a, *parameters)


@carry.defjvp
def _(carrier, primals, tangents):
    image = carry(carrier, *primals)
    (a, *parameters), (e, *rates) = only_once(primals), tangents
    return image, carrier.change(a, tuple(parameters), e, tuple(rates))


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def envelope(carrier: Any, gauge: Any, a: Array, step: Array) -> Array:
    """``min f(y) + |a - y|^2 / 2 step`` for a gauge f and the carrier of what its prox leaves, ``a - y``. Its gradient
    is that over the step: a difference would cancel where the step is small."""
    x = carrier.magnitudes(a)
    value, largest = gauge.value(gauge.prox(x, step)) + _half_square(carrier.h(x, step), step), max_abs(x)
    return jnp.where(jnp.isfinite(largest), value, largest)


def _half_square(x: Array, step: Array) -> Array:
    """``|x|^2 / 2 step``, without squaring what is large or small."""
    size = jnp.max(jnp.abs(x), initial=0)
    unit = quotient(x, jnp.where(size > 0, size, 1))
    return inner(unit, unit) * size * quotient(size, 2 * step)


@envelope.defjvp
def _(carrier, gauge, primals, tangents):
    (a, step), (e, rate) = primals, tangents
    value = envelope(carrier, gauge, a, step)
    g = quotient(carry(carrier, a, step), step)
    return value, inner(g, e) - inner(g, g) / 2 * rate
