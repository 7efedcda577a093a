"""Singular values, truncated decompositions and polar factors as functions of the matrix."""

from typing import NamedTuple, Unpack

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxnorms import _checks, _rules
from jaxnorms._batching import over_batch
from jaxnorms._scaling import exponent, prepare, quotient, scale
from jaxnorms.decompositions import matmul
from jaxnorms.decompositions.truncated_svd import by_krylov, residual
from jaxnorms.decompositions.truncated_svd import truncated_svd as find_triplets
from jaxnorms.gauges import Lp
from jaxnorms.lifts import SpectralLift
from jaxnorms.operator_norms import leading_of_operator, missed_by
from jaxnorms.operators import LinearOperator, checked
from jaxnorms.options import How, Request, refuse_unknown, request


class TruncatedSVD(NamedTuple):
    """``u`` (..., m, k), ``s`` (..., k) descending, ``vh`` (..., k, n), and a bound of what they miss.

    >>> import jax.numpy as jnp, jaxnorms as jn
    >>> jn.truncated_svd(jnp.zeros((3, 2)), 1)._fields
    ('u', 's', 'vh', 'error_bound')
    """

    u: Array
    s: Array
    vh: Array
    error_bound: Array


class SpectrumSummary(NamedTuple):
    """What the singular values s of a matrix say, each of shape (...).

    >>> import jax.numpy as jnp, jaxnorms as jn
    >>> jn.spectrum_summary(jnp.ones((2, 2))).numerical_rank
    Array(1, dtype=int32)
    """

    spectral_norm: Array
    nuclear_norm: Array
    frobenius_norm: Array
    stable_rank: Array
    effective_rank: Array
    numerical_rank: Array
    cond: Array


def singular_values(a: ArrayLike | LinearOperator, k: int | None = None) -> Array:
    """The ``k`` largest singular values (default: all) of ``(..., m, n)`` matrices, descending, ``(..., k)``.

    The derivative of tied values is averaged over their block, ``tr(Re U_t^H da V_t)/mu``, and is 0
    for the zero block, so that it does not depend on the basis. A second derivative exists only
    where the values are distinct and nonzero; it is finite elsewhere, with the terms between tied
    values dropped. For a smooth function of all of them use a norm. Third derivatives raise
    ``ValueError``, as do shapes of fewer than two axes and k beyond min(m, n). Cost: one SVD; for few
    values of a large matrix the products of :func:`truncated_svd`. Of a :class:`LinearOperator` A those products,
    and the first derivative alone.

    >>> import jax, jax.numpy as jnp, jaxnorms as jn
    >>> jn.singular_values(jnp.array([[3.0, 0.0], [0.0, -4.0]]))
    Array([4., 3.], dtype=float32)
    """
    if isinstance(a, LinearOperator):
        least = min(a.shape)
        return leading_of_operator(checked(a), least if k is None else _checks.count(k, "k", least), None, None)[1]
    x = _checks.matrix(a, "singular_values")
    least = min(x.shape[-2:])
    k = least if k is None else _checks.count(k, "k", least)
    return over_batch(_values, x, k=k)


def _values(a: Array, k: int) -> Array:
    if a.size == 0:
        return jnp.zeros(k, jnp.finfo(a.dtype).dtype)
    search = _search(a.shape, k)
    return (_rules.spectrum(a) if search is _rules.every_triplet else _rules.leading(search, a)[1])[:k]


def eigvalsh(a: ArrayLike) -> Array:
    """The eigenvalues of the Hermitian part of ``(..., n, n)`` matrices, ascending, of shape ``(..., n)``.

    The derivative of tied values is averaged over their block, ``tr(V_t^H da V_t)/mu``, so that it does not depend on
    the basis. A second derivative exists only where the values are distinct; it is finite elsewhere, with the terms
    between tied values dropped: for a smooth function of all of them use :func:`spectral_sum`. Third derivatives
    raise ``ValueError``, as do shapes other than ``(..., n, n)``. NaN or infinite entries give NaN. Cost: one
    decomposition. Source: Magnus 1985.

    >>> import jax, jax.numpy as jnp, jaxnorms as jn
    >>> jax.jacobian(jn.eigvalsh)(jnp.eye(2))[0]
    Array([[0.5, 0. ],
           [0. , 0.5]], dtype=float32)
    """
    return over_batch(_eigenvalues, _checks.square(a, "eigvalsh"))


def _eigenvalues(a: Array) -> Array:
    return _rules.eigenvalues(a) if a.size else jnp.zeros(0, jnp.finfo(a.dtype).dtype)


def _search(shape: tuple[int, ...], k: int, tol: float | None = None) -> _rules.Search:
    if not by_krylov(shape, k):
        return _rules.every_triplet
    return lambda a, key: find_triplets(a, k, tol, key)


def truncated_svd(
    a: ArrayLike | LinearOperator, k: int, *, key: Array | None = None, tol: float | None = None
) -> TruncatedSVD:
    """The ``k`` leading singular triplets of ``(..., m, n)`` matrices, ``1 <= k <= min(m, n)``.

    Large matrices: a block Krylov method, which stops when ``||A^H A v_i - s_i^2 v_i|| <= tol s_1 s_i`` for
    each (default ``eps**(2/3)``: 2e-5 in float32; the values are then right to about ``tol**2`` over their
    relative gap). Others: one SVD. ``key`` draws another start than the fixed default. ``error_bound`` is at
    least ``||A - U diag(s) V^H||_F``, measured, rounding included, and so bounds the spectral norm of what is
    left out, too.

    Derivatives flow through ``s``, as in :func:`singular_values`; ``u`` and ``vh`` are constants, and
    so is the bound. Cost: two passes over ``a`` per step of 4 vectors, 8 at least, and one for the bound.
    Of a :class:`LinearOperator` the bound takes min(m, n) products, which can be much more than the rest; within
    ``jit`` a bound that nobody uses is not computed.
    Source: Musco and Musco 2015; Wu and Simon 2000.

    >>> import jax.numpy as jnp, jaxnorms as jn
    >>> svd = jn.truncated_svd(jnp.diag(jnp.array([3.0, 2.0, 1.0])), 2)
    >>> svd.s, bool(1 <= svd.error_bound < 1.0001)
    (Array([3., 2.], dtype=float32), True)
    """
    tol, key = request({"tol": tol}).tol, None if key is None else _checks.key(key)
    if isinstance(a, LinearOperator):
        op = checked(a)
        u, s, vh = leading_of_operator(op, _checks.count(k, "k", min(op.shape)), tol, key)
        return TruncatedSVD(u, s, vh, _rules.constant(missed_by, op, u, s, vh))
    x = _checks.matrix(a, "truncated_svd")
    k = _checks.count(k, "k", min(x.shape[-2:]))
    return over_batch(_truncated, x, key, k=k, tol=tol)


def _truncated(a: Array, key: Array | None, k: int, tol: float | None) -> TruncatedSVD:
    u, s, vh = _rules.leading(_search(a.shape, k, tol), a, key)
    u, s, vh = u[:, :k], s[:k], vh[:k]
    return TruncatedSVD(u, s, vh, _rules.constant(_missed, a, u, s, vh))


def _missed(a: Array, u: Array, s: Array, vh: Array) -> Array:
    x, ok, largest, e = prepare(a)
    return jnp.where(ok, scale(residual(x, u * scale(s, -e)[None, :].astype(a.dtype), vh), e), largest)


def polar(a: ArrayLike, **how: Unpack[How]) -> tuple[Array, Array]:
    """Polar decomposition ``a = u h`` of ``(..., m, n)`` matrices: ``h = (a^H a)^(1/2)``, ``u = U_r V_r^H``.

    Where ``a`` has full column rank, ``u`` is the nearest matrix with orthonormal columns; at rank r it
    is the partial isometry on the row space, which is the subgradient of the nuclear norm. Both are
    differentiable, at orthogonal matrices too, since the rule divides by the sums ``s_i + s_j`` alone;
    directions that would raise the rank are left out. A second derivative raises ``ValueError``.
    Keywords: :class:`jaxnorms.options.How`. Cost: one SVD, or about 30 matrix products. Source: Higham
    2008, ch. 8.

    >>> import jax.numpy as jnp, jaxnorms as jn
    >>> jn.polar(jnp.array([[3.0], [4.0]]))
    (Array([[0.6],
           [0.8]], dtype=float32), Array([[5.]], dtype=float32))
    """
    refuse_unknown(how, "polar", How)
    return over_batch(_polar, _checks.matrix(a, "polar"), how=request(how))


def _polar(a: Array, how: Request) -> tuple[Array, Array]:
    u = _rules.subgradient(SpectralLift(Lp(1.0)).using(how), a) if a.size else a
    h = matmul(u.conj().T, a)
    return u, (h + h.conj().T) / 2


def spectrum_summary(a: ArrayLike) -> SpectrumSummary:
    """Norms and ranks of ``(..., m, n)`` matrices from one decomposition.

    Of the singular values s: largest; sum; 2-norm; stable rank ``||s||_2^2 / s_1^2``; effective rank
    ``exp(-sum p log p)`` with ``p = s / sum(s)`` (Roy and Vetterli 2007); numerical rank, the number
    above ``max(m, n) eps s_1``; and cond ``s_1 / s_n``, inf if ``s_n`` is 0. Ranks of the zero matrix are 0.
    Differentiable as :func:`singular_values`; the numerical rank is piecewise constant. Cost: one SVD.

    >>> import jax.numpy as jnp, jaxnorms as jn
    >>> summary = jn.spectrum_summary(jnp.diag(jnp.array([2.0, 2.0, 0.0])))
    >>> summary.stable_rank, summary.numerical_rank, summary.cond
    (Array(2., dtype=float32), Array(2, dtype=int32), Array(inf, dtype=float32))
    """
    return over_batch(_summary, _checks.matrix(a, "spectrum_summary"))


def _summary(a: Array) -> SpectrumSummary:
    return summary_of(_values(a, min(a.shape)), max(a.shape))


def summary_of(s: Array, size: int) -> SpectrumSummary:
    """That of a matrix with the singular values ``s`` and ``size`` rows or columns, whichever are more."""
    largest, least = (s[0], s[-1]) if s.size else (jnp.zeros((), s.dtype),) * 2
    zero, e = largest == 0, exponent(largest)
    t = scale(s, -e)  # divided by what is about 1, since derivatives of a quotient divide by squares
    total, squares = jnp.sum(t), jnp.sum(jnp.square(t))
    p = t / jnp.where(zero, 1, total)
    entropy = -jnp.sum(p * jnp.log(jnp.where(p > 0, p, 1)))
    floor = size * jnp.finfo(s.dtype).eps * largest
    singular = least == 0
    return SpectrumSummary(
        spectral_norm=largest,
        nuclear_norm=scale(total, e),
        frobenius_norm=jnp.where(zero, 0, scale(jnp.sqrt(jnp.where(zero, 1, squares)), e)),
        stable_rank=squares / jnp.where(zero, 1, jnp.square(scale(largest, -e))),
        effective_rank=jnp.where(zero, 0, jnp.exp(entropy)),
        numerical_rank=jnp.sum(s > floor),
        cond=jnp.where(singular, jnp.inf, quotient(largest, jnp.where(singular, 1, least))),
    )
