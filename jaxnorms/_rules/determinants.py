"""Determinants: polynomials of the entries, of which the second derivative is the last that is given."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from jaxnorms._mesh import like
from jaxnorms._rules.ends import last_derivative
from jaxnorms._scaling import prepare
from jaxnorms.decompositions import cofactors


@jax.custom_jvp
def determinant(a: Array) -> Array:
    """Of one matrix."""
    return _of_finite(cofactors.determinant, a, a.shape[0])


@determinant.defjvp
def _(primals, tangents):
    (a,), (e,) = primals, tangents
    return determinant(a), jnp.sum(cofactor(a) * e)


@jax.custom_jvp
def cofactor(a: Array) -> Array:
    """The gradient of the determinant."""
    return like(a, _of_finite(cofactors.cofactor, a, a.shape[0] - 1))


@cofactor.defjvp
def _(primals, tangents):
    (a,), (e,) = primals, tangents
    value = cofactor(a)
    a = last_derivative(a)
    return value, like(a, _of_finite(lambda x: cofactors.cofactor_change(x, e), a, a.shape[0] - 2))


def _of_finite(f: Callable[[Array], tuple[Array, Array]], a: Array, degree: int) -> Array:
    """A homogeneous polynomial of the entries."""
    if not a.size:
        return jnp.ones((), a.dtype) if degree == 0 else a
    x, ok, _, power = prepare(a)
    return jnp.where(ok, cofactors.narrow(f(x), degree * power), jnp.nan)
