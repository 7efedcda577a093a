"""Polar factor of one finite matrix by matrix products: the gradient of the nuclear norm without an SVD.

``X <- X (a I + b X^H X + c (X^H X)^2)`` drives every nonzero singular value to 1 and keeps the singular
vectors. The best coefficients for singular values in [l, u] (Polar Express: Amsel, Persson, Musco and
Gower 2025, arXiv 2505.16932) depend on l / u alone: they are read from a table while l and u are tracked,
so one compiled step serves every matrix, and a well-conditioned one leaves the loop early.

Rounding errors in the null space are lifted like small singular values. So the loop carries the image of
one more value, the ``tie_tolerance`` below which an SVD counts a value as zero, and the result counts only
if all singular values reached 1 ahead of it: a matrix that is rank-deficient, or nearly so, is refused.

The callers scale the matrix first. No derivative passes through these functions.
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxnorms._split import varying_like
from jaxnorms.decompositions.products import matmul
from jaxnorms.decompositions.thin_svd import tie_tolerance

Product = Callable[[Array, Array], Array]

# Below this ||I - X^H X||_F all singular values are known well enough for a step of Newton-Schulz type.
_NEAR = 0.3
# An image of the tolerance that large is among the values that have reached 1.
_PASSED = 0.7
_MOST_STEPS = 40
# Columns above which saving a quarter of a product, or more, is worth putting blocks together.
_BLOCKS_FROM = 512
_PER_DECADE = 32
# A value at u is where p is steepest: rounding would carry it further beyond u with every step.
_SLACK = 1.01


@functools.cache
def _optimal_quintics() -> np.ndarray:
    """Rows ``(a, b, c, p(l))`` for ``l = 1e-6, ..., 10**(-1/32)``: ``p(x) = a x + b x^3 + c x^5`` with
    the least ``max |1 - p|`` over [l, 1]. Remez: the error alternates over l, q, r, 1, where p' = 0 at q, r.
    """

    def quintic(l: float) -> tuple[float, ...]:
        q, r, last = (3 * l + 1) / 4, (l + 3) / 4, math.inf
        while True:
            rows = [(x, x**3, x**5, sign) for x, sign in ((l, 1), (q, -1), (r, 1), (1, -1))]
            a, b, c, error = np.linalg.solve(rows, np.ones(4))
            if abs(error - last) <= 1e-13:
                return a, b, c, 1 - error
            last = error
            root = math.sqrt(9 * b * b - 20 * a * c)
            q, r = (math.sqrt((-3 * b + sign * root) / (10 * c)) for sign in (-1, 1))

    return np.array([quintic(10 ** (-j / _PER_DECADE)) for j in range(6 * _PER_DECADE, 0, -1)])


def _square_sum(x: Array) -> Array:
    return jnp.sum(jnp.square(x.real) + jnp.square(x.imag) if jnp.iscomplexobj(x) else jnp.square(x))


def _gram(x: Array, product: Product) -> Array:
    """``x^H x``, of which a block below the diagonal is the transpose of one above."""
    n = x.shape[1]
    if n <= _BLOCKS_FROM:
        return product(x.conj().T, x)
    left, right = x[:, : n // 2], x[:, n // 2 :]
    corner = product(left.conj().T, right)
    return jnp.block([[_gram(left, product), corner], [corner.conj().T, _gram(right, product)]])


class _Iterate(NamedTuple):
    """X (or Z with X = A Z), R = X^H X, the c that minimises ``defect = ||I - c^2 R||_F``, bounds of the
    singular values of X, and the image of the tolerance."""

    x: Array
    r: Array
    centre: Array
    defect: Array
    lower: Array
    upper: Array
    floor: Array
    step: Array | int = 0


def _measured(x: Array, r: Array, lower: Array, upper: Array, floor: Array, step: Array | int = 0) -> _Iterate:
    trace, squares = jnp.trace(r).real, _square_sum(r)
    centre = trace / jnp.where(squares > 0, squares, 1)
    defect = jnp.sqrt(_square_sum(jnp.eye(*r.shape, dtype=r.dtype) - centre.astype(r.dtype) * r))
    return _Iterate(x, r, jnp.sqrt(centre), defect, lower, upper, floor, step)


def _iterate(
    start: _Iterate, product: Product, tol: float, limit: float, most_left: float, gram: bool = False
) -> _Iterate:
    """Steps of three products (four on the Gram matrix) until the defect is ``tol`` or the floor at ``limit``.

    Where the bound l was a guess, it can claim convergence while small values are left: they are then
    given another 1.5 decades. More than ``most_left`` of them are those of a rank-deficient matrix: it ends there.
    """
    table = jnp.asarray(_optimal_quintics(), start.defect.dtype)
    eye = jnp.eye(*start.r.shape, dtype=start.r.dtype)

    def step(s: _Iterate) -> _Iterate:
        r2 = _gram(s.r, product)
        upper = jnp.minimum(s.upper, _square_sum(r2) ** 0.125)
        near = s.defect < _NEAR
        row = jnp.floor(_PER_DECADE * jnp.log10(s.lower / (_SLACK * upper))).astype(jnp.int32) + len(table)
        pade = jnp.array([15 / 8, -10 / 8, 3 / 8, 1], table.dtype)
        a, b, c, lower = jnp.where(near, pade, table[jnp.clip(row, 0, len(table) - 1)])
        unit = jnp.where(near, s.centre, 1 / (_SLACK * upper))
        a, b, c = a * unit, b * unit**3, c * unit**5
        p = a.astype(eye.dtype) * eye + b.astype(eye.dtype) * s.r + c.astype(eye.dtype) * r2
        x = product(s.x, p)
        r = product(product(p, s.r), p) if gram else _gram(x, product)
        square = s.floor * s.floor
        floor = jnp.where(near, s.floor, s.floor * (a + square * (b + square * c)))
        after = _measured(x, r, lower, 2 - lower, floor, s.step + 1)
        # The defect of n values in [lower, 2 - lower], and of one that is not.
        possible = len(s.r) * jnp.square(2 * (1 - lower))
        left = jnp.where(lower > 0.97, jnp.square(after.defect) - possible, 0)
        lower = jnp.maximum(jnp.where(left > 0.8, 0.03, lower), floor)
        return after._replace(lower=lower, step=jnp.where(left > most_left, _MOST_STEPS, after.step))

    def unfinished(s: _Iterate) -> Array:
        return (s.defect > tol) & ((s.floor < limit) | (s.defect < _NEAR)) & (s.step < _MOST_STEPS)

    return jax.lax.while_loop(unfinished, step, varying_like(start, start.r))


def _start(x: Array, r: Array, guess: float, tie: float) -> _Iterate:
    """The iterate X with R = X^H X and ``s_n >= guess s_1``, perhaps. As s_1 is at least ``1 / centre``, the
    floor takes the mean of that and the upper bound. It ends the loop where X = 0."""
    upper = jnp.sqrt(jnp.sqrt(_square_sum(r)))
    s = _measured(x, r, upper, upper, upper)
    zero = s.centre == 0
    least = 1 / jnp.where(zero, 1, s.centre)
    return s._replace(lower=guess * least, floor=jnp.where(zero, 1, tie * jnp.sqrt(upper * least)))


def _unit(a: Array) -> Array:
    """``a / ||a||_F``, and 0 for ``a = 0``."""
    size = jnp.sqrt(_square_sum(a))
    return a / jnp.where(size > 0, size, 1).astype(a.dtype)


def _smallest(m: int, n: int, tie: float) -> float:
    """A guess of ``s_n / s_1`` that is right for most Gaussian matrices (Marchenko and Pastur 1967;
    Edelman 1988), and well above the floor, which the loop must tell from ``s_n``."""
    ratio = math.sqrt(n / m)
    return max((1 - ratio) / (1 + ratio) / 4, 0.2 / n, 16 * tie)


def polar_factor(
    a: Array, *, compute_dtype: jnp.dtype | None = None, tol: float | None = None, full: Product = matmul
) -> tuple[Array, Array]:
    """``(q, ok)``: the partial isometry ``q = u @ vh`` of the thin SVD of ``a``, and whether it is accurate.

    ``ok`` is False, and q of no use, if ``s_n / s_1`` is below about ``3 tie_tolerance`` (1e-5 in float32),
    zero included. Else the error of q is a few times that of an SVD. Repeated values do no harm. As the
    last step is ``q = X (3 I - X^H X) / 2``, no singular value of q is above 1 and ``Re <q, a>`` is a lower
    bound of the nuclear norm, with an error of second order in that of q.

    Cost: a step takes three products, of m n^2 or n^3 multiplications each. Orthogonal matrices take one or
    two steps, square Gaussian ones 8 to 10. With m >= 2 n the first steps act on the n x n Gram matrix,
    ``A^H A`` included, as long as its rounding, which grows twice as fast, does no harm.

    With a ``compute_dtype`` (bfloat16, float16; real matrices only) the products round their operands to
    it and add in the type of ``a``; ``ok`` then means orthonormal columns to that precision alone. ``tol`` is how far
    singular values of q may be below 1; with a ``compute_dtype`` the last steps, which bring them there, are at full
    precision. ``full`` multiplies at full precision.
    """
    m, n = a.shape
    if m < n:
        q, ok = polar_factor(a.conj().T, compute_dtype=compute_dtype, tol=tol, full=full)
        return q.conj().T, ok
    tie = tie_tolerance(a.dtype, m, n)
    # The last step turns a defect d into 3/8 d^2, here less than rounding the entries of q.
    rounding = math.sqrt(float(jnp.finfo(compute_dtype or a.dtype).eps) * math.sqrt(n))
    wanted = rounding if tol is None else math.sqrt(8 / 3 * tol)

    def product(x: Array, y: Array) -> Array:
        if compute_dtype is None:
            return full(x, y)
        return jnp.matmul(x.astype(compute_dtype), y.astype(compute_dtype), preferred_element_type=a.dtype)

    # With a compute_dtype nothing is there to take over.
    x, guess, most_left = _unit(a), _smallest(m, n, tie), max(n / 16, 4) if compute_dtype is None else math.inf
    s = _start(x, _gram(x, product), guess, tie)
    if m >= 2 * n:
        z = varying_like(jnp.eye(n, dtype=a.dtype), a)
        warm = _iterate(s._replace(x=z), product, tol=0.03, limit=64 * tie, most_left=most_left, gram=True)
        x = jnp.where(warm.defect < _NEAR, product(x, warm.x), x)
        s = _start(x, _gram(x, product), guess, tie)._replace(step=jnp.where(warm.step < _MOST_STEPS, 0, _MOST_STEPS))
    s = _iterate(s, product, max(wanted, rounding), _PASSED, most_left)
    last: Product = product
    if compute_dtype is not None and tol is not None:
        last, unchecked = full, jnp.zeros_like(s.floor)
        s = _iterate(_measured(s.x, _gram(s.x, last), s.lower, s.upper, unchecked), last, wanted, _PASSED, most_left)
    c = s.centre.astype(a.dtype)
    q = c * last(s.x, 1.5 * jnp.eye(n, dtype=a.dtype) - 0.5 * (c * c) * s.r)
    return q, (s.defect <= max(wanted, rounding)) & (s.floor < _PASSED)
