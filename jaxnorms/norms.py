"""The matrix norms as functions. Shared by all of them:

* ``a`` has shape ``(..., m, n)``, real or complex, of any floating type (16-bit types are computed
  in float32 and returned in their own); integers and booleans promote as ``jnp`` does. ``axis``
  names the two matrix axes, the others are batch. ``diagonal=True`` reads ``a``, of shape
  ``(..., n)``, as the diagonal of an n x n matrix. The result is real, of shape ``(...)``.
* The derivative is the subgradient G of minimum Frobenius norm: the gradient where there is one, 0
  at 0, independent of the basis that a decomposition returned. ``jax.grad`` returns its conjugate.
* The second derivative is exact wherever the norm is twice differentiable, repeated singular values
  included. At a kink it is the curvature along the manifold on which the norm is smooth, and zero
  across it. Third derivatives raise ``ValueError``.
* Values are right over the whole normal range of the type. NaN gives NaN, an infinite entry an
  infinite norm and a NaN derivative, an empty matrix 0.
* The norms that need only products also take a :class:`jaxnorms.LinearOperator`, with the one derivative
  and the keywords (``method``, ``tol``) that it documents.
* Wrong shapes, axes and parameters raise ``ValueError``, wrong kinds of thing ``TypeError``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Unpack

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxnorms import _checks
from jaxnorms._split import count
from jaxnorms.gauges import Gauge, Lp, Symmetric
from jaxnorms.induced_bounds import LowerBound
from jaxnorms.lifts import EntrywiseLift, SpectralLift, SquaredFrobenius
from jaxnorms.norm_objects import (
    Entrywise,
    Induced,
    KyFan,
    Mixed,
    Norm,
    Schatten,
    UnitarilyInvariant,
    apply,
    inf,
    matrix_norm_of,
)
from jaxnorms.operator_norms import frobenius_estimate
from jaxnorms.operators import LinearOperator
from jaxnorms.options import Options, place, refuse_unknown, request
from jaxnorms.user_gauge import as_gauge, refuse_other_than_gauges


def frobenius_norm(
    a: ArrayLike | LinearOperator, *, samples: int | None = None, key: Array | None = None, **options: Unpack[Options]
) -> Array:
    """Frobenius norm ``(sum_ij |a_ij|^2)^(1/2)``.

    Derivative ``a / ||a||_F``, 0 at 0; twice differentiable elsewhere. Cost: three passes over
    ``a`` for value and derivative, one more than without protection from overflow.

    Of a :class:`LinearOperator` A: exact, by min(m, n) products in blocks. With ``samples`` and ``key`` an
    estimate of it by that many products, ``(mean_j |A x_j|^2)^(1/2)`` over random signs x_j. Its square is
    unbiased, with variance ``(2 / samples) sum_{i != j} (Re N_ij)^2``, ``N = A^H A``, so that the relative
    error of the norm has a standard deviation of at most about ``(2 samples)^(-1/2)``, attained at rank
    one. The derivative is that of the estimate. Source: Hutchinson 1990.

    >>> import jax, jax.numpy as jnp, jaxnorms as jn
    >>> jn.frobenius_norm(jnp.array([[3e19, 0.0], [0.0, 4e19]]))
    Array(5.e+19, dtype=float32)
    >>> jax.grad(jn.frobenius_norm)(jnp.zeros((1, 2)))
    Array([[0., 0.]], dtype=float32)
    """
    if samples is not None or key is not None:
        return frobenius_estimate(a, samples, key, "frobenius_norm", options)
    return matrix_norm_of(Entrywise(2), a, "frobenius_norm", options)


class _SquaredFrobenius(Norm):
    @property
    def lift(self) -> SquaredFrobenius:
        return SquaredFrobenius()


def squared_frobenius_norm(
    a: ArrayLike | LinearOperator, *, samples: int | None = None, key: Array | None = None, **options: Unpack[Options]
) -> Array:
    """Squared Frobenius norm ``sum_ij |a_ij|^2``: smooth everywhere, also at 0.

    Derivative ``2 a``, second derivative ``2 I``. No norm: it is not scaled, so it overflows where
    the square does. Cost: one pass. Of a :class:`LinearOperator` as :func:`frobenius_norm`, with the
    unbiased estimate for ``samples`` and ``key``.

    >>> import jax, jax.numpy as jnp, jaxnorms as jn
    >>> jax.hessian(jn.squared_frobenius_norm)(jnp.zeros((1, 1))).ravel()
    Array([2.], dtype=float32)
    """
    if samples is not None or key is not None:
        return frobenius_estimate(a, samples, key, "squared_frobenius_norm", options, squared=True)
    norm = _SquaredFrobenius()
    return matrix_norm_of(norm, a, "squared_frobenius_norm", options)


def spectral_norm(a: ArrayLike | LinearOperator, **options: Unpack[Options]) -> Array:
    """Spectral norm ``s_1``, the largest singular value: the induced 2 -> 2 norm.

    Derivative ``U_t V_t^H / mu`` over the mu singular values tied with the largest. Kink at ties
    and at 0. Cost for n x n matrices: one SVD up to n = 8, and of a single matrix up to 256; in a batch about 12
    matrix products from 9 to 256 in single precision (in double one SVD up to 127); beyond, some 80 to 130 passes
    over a Gaussian matrix. Kept for the backward pass: 8 triplets.

    **Large matrices** (``method="krylov"``): of more than 4 tied values the derivative is a certified
    subgradient, ``<G, A> = ||A||`` and ``||G||_* = 1``, but not the one of minimum norm.

    Source: Watson 1992; Lewis 1995; Musco and Musco 2015 (block Krylov).

    >>> import jax, jax.numpy as jnp, jaxnorms as jn
    >>> jax.grad(jn.spectral_norm)(jnp.diag(jnp.array([2.0, -2.0, 1.0])))
    Array([[ 0.5,  0. ,  0. ],
           [ 0. , -0.5,  0. ],
           [ 0. ,  0. ,  0. ]], dtype=float32)
    """
    return matrix_norm_of(Schatten(inf), a, "spectral_norm", options)


def nuclear_norm(a: ArrayLike | LinearOperator, *, rank: int | None = None, **options: Unpack[Options]) -> Array:
    """Nuclear (trace) norm ``sum_i s_i``.

    Derivative ``U_r V_r^H`` over the nonzero singular values. Twice differentiable at full rank,
    repeated singular values included; kink where one is 0. Cost: about 25 matrix products, and an SVD
    as well if the matrix is close to rank deficiency; on CPU one SVD in double precision, and of square matrices
    of 1025 rows or more. Source:
    Watson 1992; Amsel et al. 2025 (arXiv 2505.16932) for the products.

    ``rank=k`` promises that no more than k singular values are nonzero, up to rounding: then k triplets
    of a large matrix suffice. Of another matrix the result is the Ky Fan k norm, which is less;
    ``norm_bounds(a, "nuc")`` certifies how much less it can be.

    >>> import jax, jax.numpy as jnp, jaxnorms as jn
    >>> jax.grad(jn.nuclear_norm)(jnp.diag(jnp.array([2.0, 0.0])))
    Array([[1., 0.],
           [0., 0.]], dtype=float32)
    """
    return matrix_norm_of(Schatten(1), a, "nuclear_norm", options, rank)


def schatten_norm(a: ArrayLike, p: ArrayLike, **options: Unpack[Options]) -> Array:
    """Schatten norm ``(sum_i s_i^p)^(1/p)``, 1 <= p <= inf.

    ``p`` may be traced, differentiated, or an array that broadcasts against the batch; a traced p
    below 1 gives NaN. Derivative ``U diag((s/||s||_p)^(p-1)) V^H``. For 1 < p < 2 the curvature is
    infinite where a singular value is 0: those terms are dropped. Cost: one SVD; none for p = 2 and, by Gram
    powers, for even p up to 16.

    >>> import jax.numpy as jnp, jaxnorms as jn
    >>> jn.schatten_norm(jnp.diag(jnp.array([3.0, 4.0])), 100)
    Array(4., dtype=float32)
    """
    p = _checks.order_or_traced(p, "p")
    if not isinstance(p, Array):
        return matrix_norm_of(Schatten(p), a, "schatten_norm", options)
    return _traced_order(SpectralLift, a, p, "schatten_norm", options)


def entrywise_norm(a: ArrayLike, p: ArrayLike, **options: Unpack[Options]) -> Array:
    """Entrywise norm ``(sum_ij |a_ij|^p)^(1/p)``, 1 <= p <= inf.

    ``p`` may be traced as in :func:`schatten_norm`. Derivative ``sign(a) (|a|/||a||_p)^(p-1)``:
    ``sign(0) = 0`` for p = 1, and ties of the largest entry share equally for p = inf. For
    1 < p < 2 the infinite curvature at zero entries is dropped. Cost: three passes over ``a``.

    >>> import jax, jax.numpy as jnp, jaxnorms as jn
    >>> jax.grad(jn.entrywise_norm)(jnp.array([[2.0, -2.0, 1.0]]), float("inf"))
    Array([[ 0.5, -0.5,  0. ]], dtype=float32)
    """
    p = _checks.order_or_traced(p, "p")
    if not isinstance(p, Array):
        return matrix_norm_of(Entrywise(p), a, "entrywise_norm", options)
    return _traced_order(EntrywiseLift, a, p, "entrywise_norm", options)


def _traced_order(lift: Callable[[Gauge], Any], a: ArrayLike, p: Array, function: str, options: Options) -> Array:
    """The l_p gauge with a traced p, lifted; ``p`` broadcasts against the batch axes of ``a``."""
    refuse_unknown(options, function)
    how, (axis, keepdims, diagonal) = request(options), place(options)
    x = _checks.diagonal(a, axis, function) if diagonal else _checks.matrix(a, function)
    axes = (x.ndim - 1,) if diagonal else _checks.axes(axis, x.ndim, 2, function)
    kept = (-2, -1) if diagonal else tuple(i - x.ndim for i in axes)
    x = jnp.moveaxis(x, axes, tuple(range(-len(axes), 0)))
    missing = p.ndim - (x.ndim - len(axes))  # both get the same batch axes, as strict promotion asks
    x, p = jnp.expand_dims(x, tuple(range(missing))), jnp.expand_dims(p, tuple(range(-missing)))
    p = p.astype(jnp.finfo(_checks.working_dtype(x.dtype)).dtype)
    make = EntrywiseLift if diagonal else lift

    def one(a: Array, p: Array) -> Array:
        return apply(make(Lp(p)).using(how), a, tuple(range(len(axes))), False)

    value = jnp.vectorize(one, signature="(n),()->()" if diagonal else "(m,n),()->()")(x, p)
    return jnp.expand_dims(value, kept) if keepdims else value


def ky_fan_norm(a: ArrayLike | LinearOperator, k: int, p: float = 1.0, **options: Unpack[Options]) -> Array:
    """Ky Fan (p, k) norm ``(sum_{i<=k} s_i^p)^(1/p)``, 1 <= k <= min(m, n), 1 <= p <= inf.

    Derivative for p = 1: ``U_a V_a^H + (k - a)/mu U_t V_t^H`` with a values above s_k and mu tied
    with it, the tied term dropped where s_k = 0. Kink where s_k = s_{k+1}. Cost: as for
    :func:`spectral_norm`, with its exception for clusters in large matrices; one SVD if k is no small part
    of min(m, n). Kept for the backward pass: k + 7 triplets. Source: Fan 1951; Watson 1992.

    >>> import jax, jax.numpy as jnp, jaxnorms as jn
    >>> jnp.diag(jax.grad(jn.ky_fan_norm)(jnp.diag(jnp.array([3.0, 2.0, 2.0, 1.0])), 2))
    Array([1. , 0.5, 0.5, 0. ], dtype=float32)
    """
    return matrix_norm_of(KyFan(k, p), a, "ky_fan_norm", options)


@dataclass(frozen=True, eq=False)
class _InducedEstimate(Norm):
    p: float
    q: float

    @property
    def lift(self) -> LowerBound:
        return LowerBound(self.p, self.q)


def induced_norm(
    a: ArrayLike, p: float, q: float | None = None, *, estimate: bool = False, **options: Unpack[Options]
) -> Array:
    """Induced norm ``max ||a x||_q`` over ``||x||_p <= 1``; ``q`` is ``p`` if not given.

    Exact: 1 -> q (largest column l_q norm), p -> inf (largest row l_{p*} norm), 2 -> 2. Any other
    pair is NP-hard in general and raises ``ValueError``. At tied columns (rows) the derivative is
    the convex combination of minimum norm. Cost: two passes over ``a``, or one SVD.

    ``estimate=True`` returns, for the other pairs, a lower bound: the largest ``||a x||_q / ||x||_p`` that a power
    method finds from many fixed starts. Often it is the norm, but how much it may miss only
    :func:`jaxnorms.induced_norm_bounds` tells; cost and source stand there. Its derivative is that of
    ``||a x||_q`` at the x found; a second derivative raises ``ValueError``. Of a diagonal (``diagonal=True``) it is
    the norm. Exact pairs are not affected. In 16-bit types it is rounded to the nearest, which may be above the norm.

    >>> import jax, jax.numpy as jnp, jaxnorms as jn
    >>> jax.grad(jn.induced_norm)(jnp.array([[1.0, 2.0], [1.0, 0.0]]), 1)
    Array([[0.33333334, 0.6666667 ],
           [0.33333334, 0.        ]], dtype=float32)
    >>> print(f"{jn.induced_norm(jnp.eye(4), jnp.inf, 2, estimate=True):.3f}")
    2.000
    """
    estimate = _checks.flag(estimate, "estimate")
    norm = Induced(p, p if q is None else q)
    try:
        _ = norm.lift
    except ValueError as error:
        if not estimate:
            raise ValueError(
                f"induced_norm: {error}; estimate=True gives a lower bound, induced_norm_bounds bounds on both sides"
            ) from None
        return matrix_norm_of(_InducedEstimate(norm.p, norm.q), a, "induced_norm", options)
    return matrix_norm_of(norm, a, "induced_norm", options)


def mixed_norm(a: ArrayLike, p: float, q: float, **options: Unpack[Options]) -> Array:
    """L_{p,q} norm: the l_q norm of the columns' l_p norms, 1 <= p, q <= inf.

    L_{2,1} is the group lasso over columns; for rows swap the two axes, ``axis=(-1, -2)``, or use
    ``Mixed(p, q, axis=-2)``. Zero columns get derivative 0. Cost: a few passes over ``a``.

    >>> import jax.numpy as jnp, jaxnorms as jn
    >>> jn.mixed_norm(jnp.array([[3.0, 0.0], [4.0, 1.0]]), 2, 1)
    Array(6., dtype=float32)
    """
    return matrix_norm_of(Mixed(p, q), a, "mixed_norm", options)


def unitarily_invariant_norm(
    a: ArrayLike, gauge: Callable[[Array], Array] | Gauge, *, check: bool = False, **options: Unpack[Options]
) -> Array:
    """``f(s(a))`` for a symmetric gauge f of the singular values (von Neumann 1937).

    ``gauge`` is a JAX function of the vector of the min(m, n) singular values, or a gauge object. It must
    be a norm, symmetric in its entries. Derivative ``U diag(g) V^H`` with g its ``jax.grad`` averaged over
    ties, 0 on the zero block. A function may close over traced values (weights that are trained, mapped
    over, or arguments of ``jit``): it is differentiated in them too, up to the second order; they are
    converted to the type of the singular values. Cost: one SVD; the second derivative takes the Hessian of
    f. Every new function object compiles anew, so define it once where nothing traced is closed over.

    ``check=True`` evaluates f at some fifty fixed vectors first, of the right length, and raises
    ``ValueError`` with a witness if it is not zero at zero, finite, positive, symmetric, positively
    homogeneous, monotone and subadditive there, within ``16 n eps``. It works at trace time, too, except for
    a gauge that closes over traced values: ``ValueError``. What passes need not be a norm.

    >>> import jax, jax.numpy as jnp, jaxnorms as jn
    >>> a = jnp.diag(jnp.array([3.0, 1.0]))
    >>> jn.unitarily_invariant_norm(a, lambda s: jnp.max(s) + jnp.sum(s), check=True)
    Array(7., dtype=float32)
    >>> jax.grad(lambda w: jn.unitarily_invariant_norm(a, lambda s: jnp.sum(s) + w * jnp.max(s)))(2.0)
    Array(3., dtype=float32, weak_type=True)
    """
    function = "unitarily_invariant_norm"
    refuse_unknown(options, function)
    check = _checks.flag(check, "check")
    if isinstance(a, LinearOperator) and callable(gauge):
        gauge = Symmetric(gauge)  # of which operators have no norm
    elif isinstance(gauge, Gauge) or callable(gauge):
        n, dtype = _singular_values_of(a, function, options)
        if n and check:
            refuse_other_than_gauges(gauge, n, dtype)
        if not isinstance(gauge, Gauge):
            gauge = as_gauge(gauge, max(n, 1), dtype)
    return matrix_norm_of(UnitarilyInvariant(gauge), a, function, options)


def _singular_values_of(a: ArrayLike, function: str, options: Options) -> tuple[int, Any]:
    """How many there are of each matrix, and their type while they are computed."""
    how, (axis, _, diagonal) = request(options), place(options)
    if diagonal:
        x = _checks.diagonal(a, axis, function)
        n = x.shape[-1]
    else:
        x = _checks.matrix(a, function)
        sides = zip(_checks.axes(axis, x.ndim, 2, function), how.axis_name, strict=True)
        n = min(x.shape[i] * count(names) for i, names in sides)
    return n, jnp.finfo(_checks.working_dtype(x.dtype)).dtype
