"""Determinants: polynomials of the entries.

Of the determinant the second derivative is the last that is given, of the characteristic polynomial all are.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from jaxnorms._rules.ends import inner, last_derivative
from jaxnorms._scaling import exponent, poison, prepare, scale
from jaxnorms.decompositions import cofactors, hessenberg, matmul


@jax.custom_jvp
def determinant(a: Array) -> Array:
    """Of one matrix."""
    return _of_finite(cofactors.determinant, a, a.shape[0])


@determinant.defjvp
def _(primals, tangents):
    (a,), (e,) = primals, tangents
    value, slope = determinant(a), jnp.sum(cofactor(a) * e)
    return value, slope if a.size else jnp.zeros_like(value)  # of a constant: not a sum over a batch


@jax.custom_jvp
def cofactor(a: Array) -> Array:
    """The gradient of the determinant."""
    return _of_finite(cofactors.cofactor, a, a.shape[0] - 1)


@cofactor.defjvp
def _(primals, tangents):
    (a,), (e,) = primals, tangents
    value = cofactor(a)
    a = last_derivative(a)
    return value, _of_finite(lambda x: cofactors.cofactor_change(x, e), a, a.shape[0] - 2)


@jax.custom_jvp
def charpoly(a: Array) -> Array:
    """Coefficients c_k, of degree k in the entries, of ``det(x I - a) = sum_k c_k x^(n-k)``."""
    if not a.size:
        return jnp.ones(1, a.dtype)
    x, ok, _, power = prepare(a)
    return poison(ok, cofactors.narrow(hessenberg.coefficients(x), _degrees(a, 1) * power))


# By Jacobi, d det(x I - a) = -tr(adj(x I - a) da), and adj(x I - a) = sum_k B_k x^(n-1-k) has, by Horner's scheme for
# a polynomial that vanishes at a,
#
#     d c_{k+1} = -tr(B_k da),    B_0 = I,    B_k = a B_{k-1} + c_k I.
#
# The c_k are those of this function, so that derivatives of every order follow. B_k is formed for ``a 2^-e``.
@charpoly.defjvp
def _(primals, tangents):
    (a,), (da,) = primals, tangents
    value = charpoly(a)
    if not a.size:
        return value, jnp.zeros_like(value)
    x, ok, _, power = prepare(a)
    # With entries of size 1 the powers in B_k would leave the range: eigenvalues are of the size of ||a||_F / n^(1/2).
    more = exponent(jnp.sqrt(inner(x, x) / a.shape[0]))
    x, power = scale(x, -more), power + more
    one = poison(ok, jnp.eye(a.shape[0], dtype=a.dtype))

    def step(b: Array, c: Array) -> tuple[Array, Array]:
        return matmul(x, b) + c * one, -jnp.sum(b.T * da)

    _, slopes = jax.lax.scan(step, one, charpoly(x)[1:])
    slopes = cofactors.narrow((slopes, _degrees(a) * power))
    return value, jnp.concatenate([jnp.zeros_like(slopes[:1]), slopes])


def _degrees(a: Array, more: int = 0) -> Array:
    return jnp.arange(a.shape[0] + more, dtype=jnp.int32)


def _of_finite(f: Callable[[Array], tuple[Array, Array]], a: Array, degree: int) -> Array:
    """A homogeneous polynomial of the entries."""
    if not a.size:
        return jnp.ones((), a.dtype) if degree == 0 else a
    x, ok, _, power = prepare(a)
    return poison(ok, cofactors.narrow(f(x), degree * power))
