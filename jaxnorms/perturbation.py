"""How far values, eigenvalues and solutions move when a matrix is perturbed: bounds that hold for every perturbation.

Arguments are real or complex arrays of any floating type, whose batch axes broadcast against each other. 16-bit types
are computed in float32 and returned in their own. Bounds are computed in floating point and hold to its rounding.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxnorms import _checks, _rules
from jaxnorms._batching import over_batch
from jaxnorms._scaling import exponent, max_abs, prepare, scale
from jaxnorms.conditioning import cond, refuse_empty
from jaxnorms.decompositions import lapack, matmul, tie_tolerance
from jaxnorms.decompositions.cofactors import narrow
from jaxnorms.drop_in import norm, vector_norm
from jaxnorms.norm_objects import inf
from jaxnorms.norms import frobenius_norm, spectral_norm

# The order of a matrix norm and that of the vector norm it is consistent with.
_CONSISTENT = {None: (2, 2), 2: (2, 2), 1: (1, 1), inf: (inf, inf), "fro": ("fro", 2), "nuc": ("nuc", 2)}

# Eigenvalues x + iy are told apart by x + _SLOPE y: not a ratio that those of a matrix in practice have.
_SLOPE = 0.7236067977


class BackwardError(NamedTuple):
    """Relative sizes of the smallest perturbation that makes x a solution, each of shape (...).

    >>> import jax.numpy as jnp, jaxnorms as jn
    >>> jn.backward_error(jnp.eye(2), jnp.ones(2), jnp.ones(2))
    BackwardError(normwise=Array(0., dtype=float32), componentwise=Array(0., dtype=float32))
    """

    normwise: Array
    componentwise: Array


def weyl_bound(e: ArrayLike) -> Array:
    """``||e||_2`` of ``(..., m, n)`` matrices: ``|s_i(a + e) - s_i(a)| <= ||e||_2`` for every a and i, shape (...).

    Likewise the eigenvalues of Hermitian a and e, in order. Attained by ``e = t a``, for the largest singular value.
    Derivatives, errors and bad input as for :func:`spectral_norm`. Source: Weyl 1912; Horn and Johnson 2013, 7.3.

    >>> import jax.numpy as jnp, jaxnorms as jn
    >>> jn.weyl_bound(jnp.diag(jnp.array([0.1, -0.2])))
    Array(0.2, dtype=float32)
    """
    return spectral_norm(_checks.matrix(e, "weyl_bound", "e"))


def mirsky_bound(e: ArrayLike) -> Array:
    """``||e||_F`` of ``(..., m, n)`` matrices: ``(sum_i (s_i(a + e) - s_i(a))^2)^(1/2)`` is at most that, shape (...).

    Attained where a and e are diagonal, nonnegative and descending. Derivatives, errors and bad input as for
    :func:`frobenius_norm`. Source: Mirsky 1960; for Hermitian matrices Hoffman and Wielandt 1953.

    >>> import jax.numpy as jnp, jaxnorms as jn
    >>> jn.mirsky_bound(jnp.diag(jnp.array([0.3, 0.4])))
    Array(0.5, dtype=float32)
    """
    return frobenius_norm(_checks.matrix(e, "mirsky_bound", "e"))


def bauer_fike_bound(a: ArrayLike, e: ArrayLike) -> Array:
    """``cond_2(V) ||e||_2`` for ``(..., n, n)`` matrices, with V the unit eigenvectors of a; of shape (...).

    Every eigenvalue of ``a + e`` lies within that of one of ``a``. V is the one that LAPACK returns; where an
    orthonormal one is found that diagonalises a to rounding, as for normal matrices, the factor is 1, repeated
    eigenvalues included. Where V is singular to rounding, and a perhaps not diagonalisable, the bound is inf, with
    derivative 0; it is 0 for e = 0.

    Differentiable in ``e`` as :func:`spectral_norm`. A derivative in ``a`` is not defined and raises ``ValueError``:
    pass ``jax.lax.stop_gradient(a)``. NaN or infinite entries give NaN. Raises ``ValueError`` for shapes other
    than ``(..., n, n)`` or that differ. **Platforms**: CPU, and NVIDIA GPUs (by LAPACK on the host); none on TPU,
    where JAX has no eigenvectors of general matrices. Cost: one eigendecomposition, one
    Hermitian one, one QR and two SVDs. Source: Bauer and Fike 1960, theorem III.

    >>> import jax.numpy as jnp, jaxnorms as jn
    >>> jn.bauer_fike_bound(jnp.diag(jnp.array([1.0, 2.0])), 0.1 * jnp.ones((2, 2)))
    Array(0.2, dtype=float32)
    """
    x, y = _checks.square(a, "bauer_fike_bound"), _checks.square(e, "bauer_fike_bound", "e")
    _same_shape("bauer_fike_bound", "e", y, 2, x.shape[-2:])
    x, y = _together("bauer_fike_bound", (2, 2), x, y)
    return over_batch(_bauer_fike, x, along=(y,))


def _bauer_fike(a: Array, e: Array) -> Array:
    if not a.size:
        return jnp.zeros((), jnp.finfo(a.dtype).dtype)
    factor, size = _eigenvector_cond(_rules.without_derivative(a)), spectral_norm(e)
    unbounded = jnp.isinf(factor)
    bound = jnp.where(unbounded, 0, factor) * size
    bound = jnp.where(unbounded & (size != 0), jnp.inf, bound)
    return _finite_or_nan(bound, a, e)


def _eigenvector_cond(a: Array) -> Array:
    x, _, _, _ = prepare(a)
    _, v = lapack.eig(x)
    # Unitary whatever x is, so that a small rest proves x normal to rounding. If it is, both diagonalise it: the first
    # unless V is nearly singular, the second unless two eigenvalues differ in a direction that the slope hides.
    h = complex(0.5, -0.5 * _SLOPE) * x.astype(v.dtype)
    candidates = lapack.qr(v)[0], lapack.eigh(h + h.conj().T)[1]
    rest = jnp.min(jnp.stack([_off_diagonal(x.astype(v.dtype), q) for q in candidates]))
    rounding = tie_tolerance(x.dtype, *x.shape)
    normal = rest <= rounding * frobenius_norm(x)
    factor = cond(v)
    return jnp.where(normal, 1, jnp.where(factor * rounding >= 1, jnp.inf, factor))


def _off_diagonal(x: Array, q: Array) -> Array:
    t = matmul(matmul(q.conj().T, x), q)
    return frobenius_norm(t - jnp.diag(jnp.diagonal(t)))


def forward_error_bound(a: ArrayLike, b: ArrayLike, da: ArrayLike, db: ArrayLike, p: Any = None) -> Array:
    """``k (ea + eb) / (1 - k ea)``, with ``k = cond(a, p)``, ``ea = ||da|| / ||a||``, ``eb = ||db|| / ||b||``.

    Bounds ``||x' - x|| / ||x||`` for ``a x = b`` and ``(a + da) x' = b + db``; shapes ``(..., n, n)`` and ``(..., n)``,
    result ``(...)``. ``p`` is static: None or 2, 1, inf, 'fro' or 'nuc', for vectors the norm l_2, l_1 or l_inf that
    goes with it. It is inf where ``k ea >= 1`` or a is singular: without the denominator, as often printed, it would be
    violated by ``a = b = 1``, ``da = -1/2``. ``0 / 0`` is 0 (b and db both zero), and 0 where nothing is perturbed.

    Neither overflows nor vanishes while the result is in range. Derivatives of first and second order through those of
    :func:`cond` and the norms; 0 where the bound is inf. NaN or infinite entries give NaN. Raises ``ValueError`` for
    shapes that do not fit, or another p. Cost: that of cond and four norms, for each matrix of the broadcast batch.
    Source: Higham 2002, theorem 7.2.

    >>> import jax.numpy as jnp, jaxnorms as jn
    >>> jn.forward_error_bound(jnp.eye(1), jnp.ones(1), -0.5 * jnp.eye(1), 0.5 * jnp.ones(1))
    Array(2., dtype=float32)
    """
    function = "forward_error_bound"
    p = _order(function, p)
    x, y = _checks.square(a, function), _checks.as_inexact(b, "b")
    dx, dy = _checks.as_inexact(da, "da"), _checks.as_inexact(db, "db")
    n = x.shape[-1]
    _same_shape(function, "b", y, 1, (n,))
    _same_shape(function, "da", dx, 2, (n, n))
    _same_shape(function, "db", dy, 1, (n,))
    x, y, dx, dy = _together(function, (2, 1, 2, 1), x, y, dx, dy)
    return over_batch(_forward_error, x, along=(y, dx, dy), p=p)


def _forward_error(a: Array, b: Array, da: Array, db: Array, p: Any) -> Array:
    if not a.size:
        return jnp.zeros((), jnp.finfo(a.dtype).dtype)
    of_matrices, of_vectors = _CONSISTENT[p]
    k, ea, eb = cond(prepare(a)[0], p), _relative(da, a, of_matrices), _relative(db, b, of_vectors)
    unbounded = jnp.isinf(k) | jnp.isinf(ea) | jnp.isinf(eb)
    k, ea, eb = (jnp.where(unbounded, 0, x) for x in (k, ea, eb))
    unbounded |= k * ea >= 1
    bound = k * (ea + eb) / jnp.where(unbounded, 1, 1 - k * ea)
    return _finite_or_nan(jnp.where(unbounded, jnp.inf, bound), a, b, da, db)


def _relative(change: Array, x: Array, order: Any) -> Array:
    """``||change|| / ||x||``, where 0/0 is 0."""
    (change, _, _, e), (x, _, _, f) = prepare(change), prepare(x)
    above, below = norm(change, order), norm(x, order)
    ratio = narrow((above / jnp.where(below > 0, below, 1), e - f))
    return jnp.where(below > 0, ratio, jnp.where(above > 0, jnp.inf, 0))


def backward_error(a: ArrayLike, x: ArrayLike, b: ArrayLike) -> BackwardError:
    """The least t for which ``(a + da) x = b + db`` has a solution (da, db) of relative size t, each of shape (...).

    With ``r = b - a x``, for ``a`` (..., m, n), ``x`` (..., n) and ``b`` (..., m):

    * normwise, ``||da||_2 <= t ||a||_2`` and ``||db||_2 <= t ||b||_2``: ``||r||_2 / (||a||_2 ||x||_2 + ||b||_2)``;
    * componentwise, ``|da| <= t |a|`` and ``|db| <= t |b|``: ``max_i |r|_i / (|a| |x| + |b|)_i``.

    Both lie between 0 and 1; 0/0 is 0. Every intermediate result is scaled by exact powers of two, each row by its own.
    They are right to about n eps absolutely, since r is computed in the precision of its terms. Derivatives of first
    and second order as in ``jaxnorms.norms``: 0 where r is, the largest components share equally. NaN or infinite
    entries give NaN. Raises ``ValueError`` for shapes that do not fit. Cost: a spectral norm and a few passes over a.
    Source: Rigal and Gaches 1967; Oettli and Prager 1964; Higham 2002, theorems 7.1 and 7.3.

    >>> import jax.numpy as jnp, jaxnorms as jn
    >>> jn.backward_error(jnp.eye(2), jnp.array([1.0, 3.0]), jnp.array([1.0, 1.0])).componentwise
    Array(0.5, dtype=float32)
    """
    matrix, solution, right = (
        _checks.matrix(a, "backward_error"),
        _checks.as_inexact(x, "x"),
        _checks.as_inexact(b, "b"),
    )
    m, n = matrix.shape[-2:]
    _same_shape("backward_error", "x", solution, 1, (n,))
    _same_shape("backward_error", "b", right, 1, (m,))
    matrix, solution, right = _together("backward_error", (2, 1, 1), matrix, solution, right)
    return BackwardError(*over_batch(_backward_error, matrix, along=(solution, right)))


def _backward_error(a: Array, x: Array, b: Array) -> tuple[Array, Array]:
    # The terms of the residual, b_i and -a_ij x_j, as y 2^e, and each row with the largest of its powers.
    (p, e), (q, f), (y, g) = _unit(a), _unit(x), _unit(b)
    terms = jnp.concatenate([-p * q[None, :], y[:, None]], axis=1)
    powers = jnp.concatenate([e + f[None, :], g[:, None]], axis=1)
    row = _largest(terms, powers, 1)
    terms = narrow((terms, powers - row[:, None]))
    r, size = jnp.sum(terms, axis=1), vector_norm(terms, ord=1, axis=1)
    ratios = vector_norm(r[:, None], axis=1) / jnp.where(size > 0, size, 1)

    (p, _, _, e), (q, _, _, f), (y, _, _, g) = prepare(a), prepare(x), prepare(b)
    sizes = jnp.stack([spectral_norm(p) * vector_norm(q), vector_norm(y)])
    powers = jnp.stack([e + f, g])
    most = _largest(sizes, powers, 0)
    whole = jnp.sum(narrow((sizes, powers - most)))
    normwise = vector_norm(narrow((r, row - most))) / jnp.where(whole > 0, whole, 1)
    return _finite_or_nan(normwise, a, x, b), _finite_or_nan(vector_norm(ratios, ord=inf), a, x, b)


def _unit(x: Array) -> tuple[Array, Array]:
    """Numbers of magnitude about 1, and their powers of two."""
    e = exponent(jnp.maximum(jnp.abs(x.real), jnp.abs(x.imag)))
    return scale(x, -e), e


def _largest(x: Array, e: Array, axis: int) -> Array:
    """The largest power along ``axis`` whose number is not 0."""
    return jnp.max(jnp.where(x == 0, jnp.iinfo(e.dtype).min // 4, e), axis=axis)


def digits_left(a: ArrayLike, p: Any = None) -> Array:
    """``max(0, -log10(eps cond(a, p)))`` of ``(..., n, n)`` matrices: decimal digits that a solve leaves, shape (...).

    ``eps`` is that of the type of a, of which the rounding of the entries alone changes the solution by about
    ``eps cond(a)``. 0, with derivative 0, where a is singular to rounding. ``p`` as for :func:`forward_error_bound`,
    derivatives up to the second and cost as for :func:`cond`; NaN for NaN, 0 for infinite entries. Raises
    ``ValueError`` for shapes other than ``(..., n, n)`` with n >= 1, or another p. Source: Higham 2002, ch. 1.6 and 7.

    >>> import jax.numpy as jnp, jaxnorms as jn
    >>> jn.digits_left(jnp.diag(jnp.array([1.0, 1e-3]))).round(1)
    Array(3.9, dtype=float32)
    """
    x = _checks.square(a, "digits_left")
    p = _order("digits_left", p)
    refuse_empty(x, "digits_left")
    return over_batch(_digits_left, x, p=p, eps=float(jnp.finfo(x.dtype).eps))


def _digits_left(a: Array, p: Any, eps: float) -> Array:
    k = cond(a, p)
    none = k >= 1 / eps
    return jnp.where(none, 0, -jnp.log10(eps * jnp.where(none, 1, k)))


def _order(function: str, p: Any) -> Any:
    allowed = "None, 1, 2, inf, 'fro' or 'nuc'"
    order = p if p is None or isinstance(p, str) else _checks.real(p, f"{function}: p", allowed)
    if order not in _CONSISTENT:
        raise ValueError(f"{function}: p must be {allowed}, got {p!r}")
    return order


def _same_shape(function: str, name: str, x: Array, dims: int, shape: tuple[int, ...]) -> None:
    """Raise ``ValueError`` unless the last axes are those that go with a."""
    if x.ndim < dims or x.shape[x.ndim - dims :] != shape:
        wanted = ", ".join(map(str, shape))
        raise ValueError(f"{function}: {name} must have shape (..., {wanted}) to go with a, got shape {x.shape}")


def _together(function: str, dims: tuple[int, ...], *arrays: Array) -> list[Array]:
    """The arrays in one type, with one batch: all axes but the last ``dims`` of each."""
    batches = [x.shape[: x.ndim - d] for x, d in zip(arrays, dims, strict=True)]
    try:
        batch = jnp.broadcast_shapes(*batches)
    except ValueError as error:
        raise ValueError(f"{function}: the batch axes of all arguments must broadcast, got {batches}") from error
    with jax.numpy_dtype_promotion("standard"):
        dtype = jnp.result_type(*arrays)
    working = _checks.working_dtype(dtype)
    # Only the first, from which the type of the result is read, is left in the type that was given.
    types = [dtype, *[working] * (len(arrays) - 1)]
    return [
        jnp.broadcast_to(x.astype(t), (*batch, *x.shape[x.ndim - d :]))
        for x, d, t in zip(arrays, dims, types, strict=True)
    ]


def _finite_or_nan(value: Array, *arrays: Array) -> Array:
    """``value``; NaN, with NaN derivatives in all arrays, where one of them is not finite."""
    finite = jnp.all(jnp.stack([jnp.isfinite(max_abs(x)) for x in arrays]))
    rest = sum(jnp.sum(jnp.where(finite, 0, x)).real for x in arrays)
    return jnp.where(finite, value, jnp.nan * rest)
