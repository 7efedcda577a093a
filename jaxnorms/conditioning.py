"""Condition numbers and the distance to singularity."""

from typing import Any

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxnorms import _checks
from jaxnorms._batching import over_batch
from jaxnorms._rules.inverses import guarded, inverse, steepest
from jaxnorms._scaling import max_abs, prepare, quotient
from jaxnorms.approximation import best_approximation
from jaxnorms.condition_estimate import inverse_operator, refuse_inverse
from jaxnorms.decompositions import tie_tolerance
from jaxnorms.drop_in import norm
from jaxnorms.norm_objects import Norm
from jaxnorms.norms import frobenius_norm, spectral_norm
from jaxnorms.operators import LinearOperator

_ORDERS = "None, 'fro', 'nuc', ±1, ±2, ±inf or a norm object"


def cond(a: ArrayLike, p: Any = None) -> Array:
    """Condition number ``||A|| ||A^-1||`` of ``(..., n, n)`` matrices, of shape ``(...)``; ``s_1 / s_n`` for p = 2.

    ``p`` is read as NumPy does: ``None`` and 2 (``s_1 / s_n``) and -2 (``s_n / s_1``), for ``(..., m, n)`` matrices,
    with ``s_n`` the last of min(m, n) singular values; ``'fro'``, ``'nuc'``, ±1 and ±inf; or a norm object. Static.
    Scale free: ``cond(c a) = cond(a)`` over the whole range of the type. Infinite where ``s_n`` or a pivot of the
    elimination is exactly 0, as at zeros; singular up to rounding it is of the order of ``1 / eps``. NaN gives NaN, an
    infinite entry inf, with a NaN derivative.

    Derivative for p = 2: ``cond (u_1 v_1^H / s_1 - u_n v_n^H / s_n)``, averaged over ties, so that it is 0 at multiples
    of a unitary matrix; and 0 where ``s_n`` is 0 to rounding, by the tolerance of ties. For another p that of the
    norms and of the inverse, and 0 where the value is infinite or so large (about 4e11 / n in single precision,
    3e101 / n in double) that second derivatives leave the range. Second derivatives are those of the norms, third ones
    raise ``ValueError``. Raises ``ValueError`` for an empty matrix, an unknown p or a matrix that is not square,
    ``TypeError`` for a p of another kind. Cost: one SVD, or an inverse and two norms. Source: Golub and Van Loan 2013,
    ch. 2.6; Demmel 1987 (the derivative).

    >>> import jax, jax.numpy as jnp, jaxnorms as jn
    >>> jax.value_and_grad(jn.cond)(jnp.diag(jnp.array([4.0, 2.0])))
    (Array(2., dtype=float32), Array([[ 0.5,  0. ],
           [ 0. , -1. ]], dtype=float32))
    >>> jn.cond(jnp.ones((2, 2)), 1)
    Array(inf, dtype=float32)
    """
    order = _order(p)
    by_values = not isinstance(order, Norm) and order in (2.0, -2.0)
    x = _checks.matrix(a, "cond") if by_values else _checks.square(a, "cond")
    refuse_empty(x, "cond")
    if isinstance(order, Norm):
        order.check(*x.shape[-2:])
    if x.size == 0:
        return jnp.zeros(x.shape[:-2], jnp.finfo(x.dtype).dtype)
    return over_batch(_cond_by_values if by_values else _cond_by_inverse, x, p=order)


def _order(p: Any) -> Any:
    if p is None:
        return 2.0
    if isinstance(p, Norm):
        return p
    order = p if isinstance(p, str) else _checks.real(p, "cond: p", _ORDERS)
    if order not in ("fro", "nuc", 1, -1, 2, -2, float("inf"), -float("inf")):
        raise ValueError(f"cond: p must be {_ORDERS}, got {p!r}")
    return order


def refuse_empty(x: Array, function: str) -> None:
    if 0 in x.shape[-2:]:
        raise ValueError(f"{function}: a must have shape (..., m, n) with m, n >= 1, got shape {x.shape}")


def _cond_by_values(a: Array, p: float) -> Array:
    x, ok, _, _ = prepare(a)
    first, last = ends(x)
    if p > 0:
        safe = last > tie_tolerance(first.dtype, *a.shape) * first
        value = guarded(ratio_or_inf, safe, first, last)
    else:
        value = guarded(ratio_or_inf, first > 0, last, first)
    return where_finite(ok, value, a)


def ends(x: Array) -> tuple[Array, Array]:
    """The largest and the smallest singular value; one decomposition under ``jit``."""
    return norm(x, 2, method="svd"), norm(x, -2, method="svd")


def ratio_or_inf(x: Array, y: Array) -> Array:
    return jnp.where(y == 0, jnp.inf, x / jnp.where(y == 0, 1, y))


def _cond_by_inverse(a: Array, p: Any) -> Array:
    x, ok, _, _ = prepare(a)
    y = inverse(x)

    def value(x: Array, y: Array) -> Array:
        return jnp.where(max_abs(y) > 0, norm(x, p) * norm(y, p), jnp.inf)

    size = max_abs(y)
    safe = (size > 0) & (size <= steepest(a.dtype) / a.shape[0])
    return where_finite(ok, guarded(value, safe, x, y), a)


def where_finite(ok: Array, value: Array, a: Array) -> Array:
    """``value``, and for a matrix that is not finite what all norms give: inf or NaN, with a NaN derivative."""
    return jnp.where(ok, value, frobenius_norm(jnp.where(ok, 1, a)))


def distance_to_singularity(a: ArrayLike | LinearOperator, *, inverse: LinearOperator | None = None) -> Array:
    """The smallest singular value ``s_n`` of ``(..., m, n)`` matrices, of shape ``(...)``.

    It is the distance, in the spectral and in the Frobenius norm, to the nearest matrix without full rank, which
    :func:`nearest_singular` returns. Derivatives are those of ``norm(a, -2)``: averaged over ties, 0 where ``s_n`` is.
    Of a :class:`LinearOperator` A it is ``1 / ||A^-1||_2`` by products with ``inverse``, an operator of ``A^-1``
    that alone is differentiated. Raises ``ValueError`` for an empty matrix, or an operator that
    is not square or comes without its inverse. Cost: one SVD, or products. Source: Eckart and Young 1936.

    >>> import jax.numpy as jnp, jaxnorms as jn
    >>> jn.distance_to_singularity(jnp.diag(jnp.array([3.0, 1.0])))
    Array(1., dtype=float32)
    """
    if isinstance(a, LinearOperator):
        size = spectral_norm(inverse_operator(a, inverse, "distance_to_singularity"))
        return quotient(jnp.ones_like(size), size)
    refuse_inverse(a, inverse, "distance_to_singularity")
    x = _checks.matrix(a, "distance_to_singularity")
    refuse_empty(x, "distance_to_singularity")
    return norm(x, -2, axis=(-2, -1))


def nearest_singular(a: ArrayLike) -> Array:
    """``a - s_n u_n v_n^H``, the nearest matrix without full rank in every unitarily invariant norm, ``(..., m, n)``.

    The distance is :func:`distance_to_singularity`. Derivatives, ties and bad input as for
    :func:`best_approximation`, at k = min(m, n) - 1. Cost: one SVD. Source: Mirsky 1960.

    >>> import jax.numpy as jnp, jaxnorms as jn
    >>> jn.nearest_singular(jnp.diag(jnp.array([3.0, 1.0])))
    Array([[3., 0.],
           [0., 0.]], dtype=float32)
    """
    x = _checks.matrix(a, "nearest_singular")
    refuse_empty(x, "nearest_singular")
    return best_approximation(x, min(x.shape[-2:]) - 1).matrix
