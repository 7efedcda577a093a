"""Inverses and solves, at the matrices that have them."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxnorms._rules.ends import constant, end_of_derivatives
from jaxnorms._scaling import max_abs
from jaxnorms.decompositions import lu, matmul


@jax.custom_jvp
def inverse(a: Array) -> Array:
    """Of one finite matrix of size about 1, differentiable to every order; zeros where it has none in range. The
    derivative is 0 where that would leave the range."""
    return lu.inverse(a)


@inverse.defjvp
def _(primals, tangents):
    x = inverse(*primals)
    near = jnp.where(max_abs(x) <= steepest(x.dtype) / x.shape[0], x, 0)
    return x, lu.change_of_inverse(near, *tangents)


def steepest(dtype: Any) -> float:
    """How large a reciprocal may be, of which the square and the cube are derivatives."""
    return float(jnp.finfo(dtype).max) ** (1 / 3) / 16


def solved(a: Array, f: lu.LU, b: Array) -> Array:
    """``a^-1 b`` for one vector b, from the decomposition f of a; differentiated in ``a`` and ``b``."""
    f = jax.lax.stop_gradient(f)

    def transposed(_: Any, y: Array) -> Array:
        return lu.solve_adjoint(f, y.conj()[:, None])[:, 0].conj()

    return jax.lax.custom_linear_solve(
        lambda x: matmul(a, x[:, None])[:, 0], b, lambda _, y: lu.solve(f, y[:, None])[:, 0], transposed
    )


only_first = end_of_derivatives(
    "jaxnorms: second derivatives of condest are not defined; value and first derivative are. cond has them"
)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def with_first_derivative(f: Callable[..., Array], *args: Any) -> Array:
    """``f(*args)`` of an f that closes over nothing, differentiable once."""
    return f(*args)


@with_first_derivative.defjvp
def _(f, primals, tangents):
    return with_first_derivative(f, *primals), jax.jvp(f, only_first(primals), tangents)[1]


def guarded(f: Callable[..., Array], safe: Array, *args: Array) -> Array:
    """``f(*args)``, with derivative 0, in both modes, unless ``safe``: what f does there is masked on both sides."""
    value = f(*(jnp.where(safe, x, constant(lambda x: x, x)) for x in args))
    return jnp.where(safe, value, jax.lax.stop_gradient(value))
