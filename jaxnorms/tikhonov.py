"""Tikhonov regularisation: how well conditioned it is, and the solution."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxnorms import _checks
from jaxnorms._batching import over_batch
from jaxnorms._mesh import replicated
from jaxnorms._rules.inverses import guarded, steepest
from jaxnorms._scaling import exponent, magnitude, poison, scale
from jaxnorms.conditioning import ends, ratio_or_inf, refuse_empty, where_finite
from jaxnorms.decompositions import matmul
from jaxnorms.operators import LinearOperator, checked, in_working_precision, scaled
from jaxnorms.spectral_functions import scaled_inverse


def tikhonov_cond(a: ArrayLike, lam: ArrayLike) -> Array:
    """Condition number ``(s_1^2 + lam) / (s_n^2 + lam)`` of ``A^H A + lam I`` for ``(..., m, n)`` matrices.

    ``lam``: real, >= 0, of a shape that broadcasts to ``(...)``; it may be traced. NaN if it is negative or not finite.
    For m < n ``s_n`` is 0. Nothing is squared before it is scaled. Infinite where ``lam`` and ``s_n`` are 0; there, and
    where the value is above 4e11 in single precision and 3e101 in double, the derivative is 0. Twice
    differentiable in ``a`` and ``lam``, at ties as the spectral norm; where ``s_n`` is 0 to rounding the curvature
    of ``s_n^2`` is left out. Bad input as for :func:`cond`. Cost: one SVD. Source: Tikhonov 1963; Hansen 1998.

    >>> import jax.numpy as jnp, jaxnorms as jn
    >>> jn.tikhonov_cond(jnp.diag(jnp.array([3.0, 0.0])), 1.0)
    Array(10., dtype=float32)
    """
    x = _checks.matrix(a, "tikhonov_cond")
    refuse_empty(x, "tikhonov_cond")
    weight = _checks.number(lam, "lam", x)
    if x.size == 0:
        return jnp.zeros(x.shape[:-2], weight.dtype)
    return over_batch(_tikhonov_cond, x, along=(weight,))


def _common_exponent(e: Array, present: Array, lam: Array) -> Array:
    """That of the larger of a matrix of exponent e, if ``present``, and ``lam^(1/2)``."""
    least = jnp.iinfo(jnp.int32).min
    common = jnp.maximum(jnp.where(present, e, least), jnp.where(lam > 0, (exponent(lam) + 1) // 2, least))
    return jnp.where(present | (lam > 0), common, 0)


def _tikhonov_cond(a: Array, lam: Array) -> Array:
    ok, largest, e = magnitude(a)
    valid = (lam >= 0) & jnp.isfinite(lam)
    lam = jnp.where(valid, lam, 1)
    e = _common_exponent(e, largest > 0, lam)
    first, last = ends(jnp.where(ok, scale(a, -e), 0))
    lam = scale(scale(lam, -e), -e)
    top, bottom = jnp.square(first) + lam, lam + (jnp.square(last) if a.shape[0] >= a.shape[1] else 0)
    value = guarded(ratio_or_inf, bottom * steepest(lam.dtype) > top, top, bottom)
    return jnp.where(valid, where_finite(ok, value, a), jnp.nan)


def tikhonov_solve(a: ArrayLike | LinearOperator, b: ArrayLike, lam: ArrayLike, *, tol: float | None = None) -> Array:
    """``argmin_x ||a x - b||^2 + lam ||x||^2``, ridge regression: ``(A^H A + lam I)^-1 A^H b``.

    ``a``: ``(..., m, n)``. ``b``: ``(..., m)``, with one axis less than ``a``, or ``(..., m, k)``; the result has n in
    the place of m. ``lam``: real, >= 0, of a shape that broadcasts to ``(...)``; NaN if negative. ``lam = 0`` gives the
    least-squares solution of least length. Twice differentiable in ``a``, ``b`` and ``lam``.

    Of a :class:`LinearOperator`, with ``b`` of shape ``(m,)`` or ``(m, k)`` and a scalar ``lam``, by conjugate
    gradients on the normal equations, until their residual is ``tol`` times the right-hand side (default
    ``eps**(2/3)``): products only, at most 10 n of each kind. It is differentiated, implicitly, in the operator's
    parameters, ``b`` and ``lam``. **Badly conditioned operators** converge slowly, and the relative error of the
    result is up to ``tol`` times :func:`tikhonov_cond`: with ``lam = 0`` that is the square of the condition number,
    and in single precision little is left at 1e3.

    Raises ``ValueError`` for shapes that do not fit and for ``tol`` with an array. Cost: one SVD, or two products a
    step. Source: Hansen 1998; Hestenes and Stiefel 1952.

    >>> import jax.numpy as jnp, jaxnorms as jn
    >>> jn.tikhonov_solve(jnp.diag(jnp.array([1.0, 2.0])), jnp.array([2.0, 5.0]), 1.0)
    Array([1., 2.], dtype=float32)
    """
    right = _checks.as_inexact(b, "b")
    if isinstance(a, LinearOperator):
        return _solve_by_products(checked(a), right, lam, tol)
    if tol is not None:
        raise ValueError(f"tikhonov_solve: tol is for a LinearOperator, got tol={tol!r} with an array")
    x = _checks.matrix(a, "tikhonov_solve")
    rows = x.shape[:-1]
    single = right.shape == rows
    if not single and (right.ndim != x.ndim or right.shape[:-1] != rows):
        wanted = ", ".join(map(str, rows))
        raise ValueError(f"tikhonov_solve: b must have shape {rows} or ({wanted}, k), got shape {right.shape}")
    with jax.numpy_dtype_promotion("standard"):
        dtype = jnp.promote_types(x.dtype, right.dtype)
    columns = right[..., None] if single else right
    along = (_checks.number(lam, "lam", x), columns.astype(_checks.working_dtype(dtype)))
    solution = over_batch(_solve, x.astype(dtype), along=along)
    return solution[..., 0] if single else solution


def _solve(a: Array, lam: Array, b: Array) -> Array:
    y, e = scaled_inverse(a, lam)
    size = jax.vmap(lambda column: magnitude(column)[2], in_axes=1)(b)
    return scale(matmul(y, scale(b, -size[None, :])), (size - e)[None, :])


def _solve_by_products(op: LinearOperator, b: Array, lam: ArrayLike, tol: float | None) -> Array:
    m = op.shape[0]
    if b.ndim not in (1, 2) or b.shape[0] != m:
        raise ValueError(f"tikhonov_solve: b must have shape ({m},) or ({m}, k), got shape {b.shape}")
    tol = _checks.tolerance(tol, "tikhonov_solve: tol")
    if jnp.iscomplexobj(b) and not jnp.issubdtype(op.dtype, jnp.complexfloating):
        raise TypeError(f"tikhonov_solve: b must be real for an operator of dtype {op.dtype}, got dtype {b.dtype}")
    wide = _checks.working_dtype(op.dtype)
    weight = _checks.number(lam, "lam", jnp.zeros((1, 1), wide))
    rows = b.astype(wide)[None] if b.ndim == 1 else b.astype(wide).T
    x = _conjugate_gradients(op, rows, weight, tol).astype(op.dtype)
    return x[0] if b.ndim == 1 else x.T


@partial(jax.jit, static_argnames="tol")
def _conjugate_gradients(op: LinearOperator, rows: Array, lam: Array, tol: float | None) -> Array:
    return replicated(partial(_solved_rows, tol=tol), op, rows, lam)


def _solved_rows(op: LinearOperator, rows: Array, lam: Array, tol: float | None) -> Array:
    op = in_working_precision(op)
    by = scaled(op)
    valid = (lam >= 0) & jnp.isfinite(lam) & by.ok
    lam = jnp.where(valid, lam, 1)
    # A 2^-e and lam 2^-2e, of which the larger one is about 1; then every right-hand side likewise.
    e = _common_exponent(by.e, by.largest > 0, lam)
    shift, lam = by.e - e, scale(scale(lam, -e), -e).astype(op.dtype)
    accuracy = float(jnp.finfo(op.dtype).eps) ** (2 / 3) if tol is None else tol

    def forward(x: Array) -> Array:
        return scale(by.forward(x[None]), shift)[0]

    def adjoint(y: Array) -> Array:
        return scale(by.adjoint(y[None]), shift)[0]

    def one(b: Array) -> Array:
        finite, _, size = magnitude(b)
        right = adjoint(jnp.where(finite, scale(b, -size), 0))
        x, _ = jax.scipy.sparse.linalg.cg(lambda x: adjoint(forward(x)) + lam * x, right, tol=accuracy)
        return poison(finite & valid, scale(scale(x, size), -e))

    return jax.lax.map(one, rows)
