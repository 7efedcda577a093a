"""Operators known by their products alone, ``A(params) x = op.matvec(op.params, x)``.

There is no dense G: a lift offers, in its place, ``pair(op, factors, other)`` = Re<G, B> from products with another
operator B. Its derivative in the parameters of B, with B = A, is that of the norm, and is differentiated no further.
So its factors need no rule of their own.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax import Array

from jaxnorms._rules.ends import end_of_derivatives
from jaxnorms._rules.triplets import Search, average, blocks
from jaxnorms._scaling import poison

only_derivative = end_of_derivatives(
    "jaxnorms: second derivatives of a norm or singular value of a LinearOperator are not defined; value and first "
    "derivative are. The norm of the dense matrix has them"
)


class ProductLift(Protocol):
    """What a norm must offer on an operator."""

    def value(self, op: Any) -> Array: ...
    def factors(self, op: Any) -> tuple[Array, Any]: ...
    def pair(self, op: Any, factors: Any, other: Any) -> Array: ...


@jax.custom_jvp
def evaluate_by_products(lift: ProductLift, op: Any) -> Array:
    """The norm of an operator, differentiable once in its parameters."""
    return lift.value(op)


@evaluate_by_products.defjvp
def _(primals, tangents):
    (lift, op), (_, dop) = primals, tangents
    op = only_derivative(op)
    value, factors = lift.factors(op)
    return value, _slope(lift.pair, op, factors, dop)


def bilinear(op: Any, u: Array, v: Array) -> Array:
    """``Re u_i^H A v_i`` for rows ``u_i`` and ``v_i``."""
    products = jax.vmap(partial(op.matvec, op.params))(v)
    return jnp.sum((u.conj() * products).real, axis=1)


def _slope(pair: Callable[[Any, Any, Any], Array], op: Any, factors: Any, dop: Any) -> Array:
    """The derivative of ``pair(A, factors, B)`` in B = A along ``dop``, rematerialised like that of dense norms.

    It is that of a pairing of products of the primal: JAX 0.8 cannot transpose a loop over tangents.
    """

    def along(a: Any, held: Any) -> Array:
        return jax.jvp(partial(pair, a, held), (a,), (dop,))[1]

    return jax.checkpoint(along, prevent_cse=False)(op, factors)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def leading_by_products(search: Search, op: Any, key: Array | None = None) -> tuple[Array, Array, Array]:
    """Singular triplets of an operator, NaN vectors where it is not finite; :func:`leading` for operators."""
    return search(op, key)


@leading_by_products.defjvp
def _(search, primals, tangents):
    (op, key), (dop, _) = primals, tangents
    op = only_derivative(op)
    u, s, vh = search(op, key)
    # The first argument is there only to fit: vectors are held, no products.
    each = _slope(lambda _, pairs, other: bilinear(other, *pairs), op, (u.T, vh.conj()), dop)
    slopes = poison(jnp.all(jnp.isfinite(s)), average(each, *blocks(op, s)))
    return (u, s, vh), (jnp.zeros_like(u), slopes, jnp.zeros_like(vh))
