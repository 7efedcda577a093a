"""Leading singular triplets by a thick-restart block Krylov method.

Vectors are stored as *rows* ``v^H``: a product with few of them then reads the large matrix in its own
layout, on either side. The basis Q spans a Krylov space of the normal operator N = A^H A (or A A^H,
whichever is smaller); T = Q N Q^H is projected exactly, with full reorthogonalisation, so the Ritz
pairs of a cycle need one small Hermitian eigenproblem. A restart keeps the leading Ritz vectors and
goes on from the residual block (Wu and Simon 2000; Musco and Musco 2015 for blocks).

Breakdown, an exactly invariant subspace, leaves rows of zeros in the basis: they add zero Ritz values
and nothing is divided by them.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxnorms._mesh import on_mesh
from jaxnorms._scaling import scale
from jaxnorms._split import varying_like
from jaxnorms.decompositions import lapack
from jaxnorms.decompositions.products import matmul
from jaxnorms.decompositions.thin_svd import tie_tolerance

BLOCK = 4  # rows of a block: a product with four costs little more than with one
STEPS = 8  # blocks between two restarts
EARLY = 4  # blocks before the first look: decaying spectra need no more
MAX_PASSES = 320
# Smaller side up to which N of a matrix twice as long is formed: one product with many vectors costs less
# than many with few. Its rounding, eps s_1^2, is that of the products A^H (A v) too.
GRAM_TO = 1024

Product = Callable[[Array], Array]
Until = Literal["subspace", "residuals", "values"]


class Leading(NamedTuple):
    """Approximate triplets, descending, with the residual ``||A^H A v_i - s_i^2 v_i|| / s_1`` of each."""

    u: Array
    s: Array
    vh: Array
    residuals: Array
    passes: Array


def default_tolerance(dtype: Any) -> float:
    """Error allowed in the subgradient: 2e-5 in float32, 4e-11 in float64."""
    return float(jnp.finfo(dtype).eps) ** (2 / 3)


def for_value(tol: float | None) -> Until:
    """What a value alone needs; a ``tol`` is that of the subspace."""
    return "values" if tol is None else "subspace"


def kept_triplets(k: int) -> int:
    """Triplets that a search for k of them holds on to across restarts, and returns."""
    return k + 2 * BLOCK - 1


def affordable(shape: tuple[int, ...], k: int) -> bool:
    """Whether the basis of a search for k triplets is smaller than the matrix."""
    return kept_triplets(k) + BLOCK * STEPS <= min(shape)


def by_gram(shape: tuple[int, ...]) -> bool:
    """Whether a search forms N."""
    return max(shape) >= 2 * min(shape) and min(shape) <= GRAM_TO


def leading_triplets(
    a: Array, k: int, exponent: Array, *, tol: float | None = None, key: Array | None = None, until: Until = "subspace"
) -> Leading:
    """The k leading triplets of ``a 2^-exponent``, and up to BLOCK more; finite ``a`` of any scale.

    Goes on until the "subspace" of the k leading vectors (and all that may be tied with the last of them)
    has an error of ``tol``, estimated as residual / gap; or until their "residuals" are below ``tol`` times
    s_1 s_i; or until the "values" are exact to rounding, for which larger errors of the vectors will do. Or to
    the level of rounding, or for MAX_PASSES products with the matrix, of which every step takes two. Memory:
    the basis, ``k + 40`` vectors of the smaller dimension, and where that is at most GRAM_TO and half the
    larger one, a copy of ``a`` and N.
    """
    m, n = a.shape
    both, normal = products(a, exponent), None
    if by_gram(a.shape) and not on_mesh(a):
        x = scale(a, -exponent)
        normal = partial(matmul, y=matmul(x.conj().T, x) if m >= n else matmul(x, x.conj().T))
    return leading_triplets_of(both, a.shape, a.dtype, k, normal=normal, tol=tol, key=key, until=until)


def leading_triplets_of(
    products: tuple[Product, Product],
    shape: tuple[int, ...],
    dtype: Any,
    k: int,
    *,
    normal: Product | None = None,
    tol: float | None = None,
    key: Array | None = None,
    until: Until = "subspace",
    seed: int = 0,
) -> Leading:
    """The same of an operator A of norm about 1, given by its products ``v^H -> (A v)^H`` and
    ``u^H -> (A^H u)^H`` with rows, or with that of N as well; ``seed`` is that of the fixed start."""
    m, n = shape
    forward, adjoint = products if m >= n else products[::-1]
    squared = normal or (lambda rows: adjoint(forward(rows)))
    kept, residuals, steps = _ritz_vectors(squared, min(m, n), dtype, k, tol, key, until, seed)
    # Rayleigh-Ritz of A itself, not of its square: A X = W R, R = U_r S V_r^H.
    x = lapack.qr(kept.conj().T)[0]
    w, r = lapack.qr(forward(x.conj().T).conj().T)
    u, s, vh = lapack.svd(r)
    left, right = matmul(w, u), matmul(vh, x.conj().T)
    if m < n:
        left, right = right.conj().T, left.conj().T
    largest = jnp.where(s[0] > 0, s[0], 1)
    # Products with N cost nothing next to forming it, by two passes.
    passes = 2 * steps if normal is None else jnp.full_like(steps, 2)
    return Leading(left, s, right, residuals / largest, passes + 1)


def products(a: Array, exponent: Array) -> tuple[Product, Product]:
    """``v^H -> (A v)^H`` and ``u^H -> (A^H u)^H`` for ``A = a 2^-exponent``, without a copy of ``a``."""
    half = exponent // 2

    def forward(rows: Array) -> Array:
        columns = jnp.stack([scale(row, -half).conj() for row in rows], axis=1)
        return scale(_rows(matmul(a, columns)).conj(), half - exponent)

    def adjoint(rows: Array) -> Array:
        return scale(matmul(scale(rows, -half), a), half - exponent)

    return forward, adjoint


def _rows(columns: Array) -> Array:
    """The transpose of a few columns, as a copy: compilers would fold a transpose into the next
    product, and then transpose the large matrix instead."""
    return jnp.stack([columns[:, j] for j in range(columns.shape[1])])


def _ritz_vectors(normal, n, dtype, k, tol, key, until, seed) -> tuple[Array, Array, Array]:
    """Leading Ritz vectors of the normal operator as rows, their residuals, and the steps taken."""
    p = kept_triplets(k)
    size = p + BLOCK * STEPS
    real = jnp.finfo(dtype).dtype
    tol = default_tolerance(dtype) if tol is None else tol
    # A fixed start is a constant: compiling JAX's generator would take as long as the rest of a cycle.
    fixed = np.random.default_rng(seed).standard_normal((BLOCK, n))
    start = jnp.asarray(fixed, dtype) if key is None else jax.random.normal(key, (BLOCK, n), dtype)

    def step(j, state):
        q, t, v, _ = state
        at = p + j * BLOCK
        q = jax.lax.dynamic_update_slice(q, v, (at, 0))
        w = normal(v)
        column = matmul(q, w.conj().T)
        t = jax.lax.dynamic_update_slice(t, column, (0, at))
        size = jnp.max(jnp.linalg.norm(w, axis=1))
        w = w - matmul(column.conj().T, q)
        w = _project_out(w, q)
        v = _orthonormal(w, 10 * jnp.finfo(dtype).eps * size)
        # What was left of a direction already in the basis is rounding; it is not orthogonal to it.
        v = _orthonormal(_project_out(v, q), 0.1)
        return q, t, v, matmul(w, w.conj().T)

    def search(state):
        """Goes on to the end of a cycle, or in the first one looks at the Ritz pairs halfway."""
        q, t, v, _, _, steps, _ = state
        begin = jnp.where(steps == EARLY, EARLY, 0)
        end = jnp.where(steps == 0, EARLY, STEPS)
        gram = jnp.zeros_like(v, shape=(BLOCK, BLOCK))
        q, t, v, gram = jax.lax.fori_loop(begin, end, step, (q, t, v, gram))
        theta, z = lapack.eigh(jnp.triu(t) + jnp.triu(t, 1).conj().T)
        theta, z = theta[::-1][:p], z[:, ::-1][:, :p]
        last = jax.lax.dynamic_slice(z, (p + (end - 1) * BLOCK, 0), (BLOCK, p))
        residuals = jnp.sqrt(jnp.maximum(jnp.sum((last.conj() * matmul(gram, last)).real, axis=0), 0))
        more = _unfinished(theta, residuals, n, k, tol, until)
        kept, restart = matmul(z.conj().T, q), end == STEPS
        q = jnp.where(restart, jnp.zeros_like(q).at[:p].set(kept), q)
        t = jnp.where(restart, jnp.zeros_like(t).at[:p, :p].set(jnp.diag(theta).astype(dtype)), t)
        return q, t, v, kept, residuals, steps + end - begin, more

    initial = (
        jnp.zeros((size, n), dtype),
        jnp.zeros((size, size), dtype),
        _orthonormal(start, 0.0),
        jnp.zeros((p, n), dtype),
        jnp.zeros(p, real),
        jnp.zeros((), jnp.int32),
        jnp.ones((), bool),
    )
    initial = varying_like(initial, normal(start))  # a product of which only the type is used
    most = MAX_PASSES // 2
    *_, kept, residuals, steps, _ = jax.lax.while_loop(lambda s: s[-1] & (s[-2] < most), search, initial)
    return kept, residuals, steps


def _unfinished(theta: Array, residuals: Array, n: int, k: int, tol: float, until: Until) -> Array:
    """Whether to go on (no, if anything is NaN). ``theta`` are squares of singular values."""
    floor = 2 * jnp.finfo(theta.dtype).eps * theta[0]
    if until == "residuals":
        allowed = jnp.maximum(tol * jnp.sqrt(theta[0] * jnp.maximum(theta[:k], 0)), floor)
        return jnp.any(residuals[:k] > allowed)
    # An eigenvalue lies within the residual of each Ritz value, so these may be tied with the k-th.
    tie = jnp.maximum(2 * tie_tolerance(theta.dtype, n) * theta[0], residuals)
    wanted = (theta[k - 1] - theta <= tie) | (jnp.arange(theta.shape[0]) < k)
    gap = theta[k - 1] - jnp.max(jnp.where(wanted, 0, theta))
    unfinished = jnp.any(wanted & (residuals > jnp.maximum(tol * gap, floor)))
    if until == "subspace":
        return unfinished
    # Kato and Temple: a Ritz value is off by residual^2 / gap at most, and by no more than the residual.
    apart = jnp.abs(theta[:k, None] - theta[None, :]) - residuals[None, :]
    gaps = jnp.min(jnp.where(jnp.eye(k, theta.shape[0], dtype=bool), theta[0], apart), axis=1)
    return unfinished & jnp.any(residuals[:k] ** 2 > floor * jnp.maximum(gaps, residuals[:k]))


def _project_out(w: Array, q: Array) -> Array:
    """The part of the rows of ``w`` orthogonal to the rows of ``q``."""
    return w - matmul(matmul(w, q.conj().T), q)


def _orthonormal(w: Array, least: Array | float) -> Array:
    """Orthonormal rows of the same span, by Gram-Schmidt; zero where ``least`` of a row or less was left."""

    def one(i: Array, done: Array) -> Array:
        row = _project_out(w[i], done)
        length = jnp.linalg.norm(row)
        some = length > least
        return done.at[i].set(jnp.where(some, row / jnp.where(some, length, 1).astype(w.dtype), 0))

    return jax.lax.fori_loop(0, BLOCK, one, jnp.zeros_like(w))
