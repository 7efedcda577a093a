"""Where derivatives end, with an error that says so."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array


def inner(g: Any, e: Any) -> Array:
    """``Re<g, e>`` of arrays, or of pytrees of them."""
    return jax.tree.reduce(jnp.add, jax.tree.map(_inner, g, e))


def _inner(g: Array, e: Array) -> Array:
    if jnp.iscomplexobj(g):
        return jnp.sum(g.real * e.real + g.imag * e.imag)
    return jnp.sum(g * e)


def end_of_derivatives(message: str) -> Callable[[Any], Any]:
    """The identity on a pytree, beyond which no derivative is defined."""

    @jax.custom_jvp
    def identity(x: Any) -> Any:
        return x

    @identity.defjvp
    def _(primals, tangents):
        raise ValueError(message)

    return identity


last_derivative = end_of_derivatives(
    "jaxnorms: third derivatives of a norm, determinant or spectral function are not defined; "
    "value, first and second derivatives are"
)

without_derivative = end_of_derivatives(
    "jaxnorms: the derivative of an eigenvector bound in the matrix itself is not defined, that in its perturbation "
    "is; pass jax.lax.stop_gradient(a)"
)


def constant(f: Callable[..., Any], *args: Any) -> Any:
    """``f(*args)``, which no derivative sees."""
    return jax.lax.stop_gradient(f(*jax.lax.stop_gradient(args)))
