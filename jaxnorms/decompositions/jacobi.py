"""Singular value decomposition of small matrices by one-sided Jacobi, vectorised over the batch.

Rotations of two columns at a time, ``(x, y) -> (c x + s y, c y - s x)``, make the columns of ``a``
orthogonal; normalised they are the left singular vectors ``u``, and the rows of ``u^H a``,
normalised, the right ones (Hestenes 1958; Demmel and Veselic 1992). A sweep rotates every pair once, here
in the order of a round robin (Brent and Luk 1985): half as many pairs at a time as there are columns, so
that one short loop body serves all sweeps. ``3 m n^2`` multiplications a sweep; convergence is quadratic.

Every scalar of that algorithm is a vector over the batch, the last and contiguous axis. The batch
therefore costs few passes of vector instructions instead of one LAPACK call per matrix.
"""

from collections.abc import Callable
from functools import reduce
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxnorms._batching import batch_last, in_pieces

# Sweeps after which Gaussian matrices are done; the others get more, one at a time.
_SWEEPS = {1: 0, 2: 1, 3: 4, 4: 5}
_SWEEPS_ABOVE = 6
_MOST_SWEEPS = 20


def jacobi_svd(a: Array) -> tuple[Array, Array, Array]:
    """Thin ``(u, s, vh)`` of one finite matrix with entries of size about 1, meant for at most 8 x 8.

    ``u`` and ``vh`` are orthonormal to rounding for every spectrum, zero and rank-deficient ones included.
    """
    if a.shape[0] < a.shape[1]:
        u, s, vh = jacobi_svd(a.T)
        return vh.T, s, u.T
    u, s, vh = _svd(a)
    return u.T, s, vh


@batch_last
@in_pieces
def orthogonal_columns(a: Array) -> Array:
    """``a v`` for an orthonormal ``v`` that makes its columns orthogonal, in no order."""
    return _orthogonal_columns(a).swapaxes(0, 1)


@batch_last
@in_pieces
def _svd(a: Array) -> tuple[Array, Array, Array]:
    """``(u^T, s, vh)``, with vectors as rows, of the matrices ``a[:, :, i]``."""
    m, n, _ = a.shape

    def vectors(x: Array, spare: Array) -> tuple[Array, tuple[Array, Array]]:
        u = _orthonormal(x, spare)
        r = _dots(u[:, None], a.swapaxes(0, 1)[None])
        return jnp.pad(r, [(0, 0), (0, m - n), (0, 0)]), (u, r)

    # The same for the right vectors: what compiles longest, compiles once. Their r is of no use.
    spares = jnp.asarray(np.stack([_basis(n, m), np.pad(_basis(n, n), [(0, 0), (0, m - n)])]), a.dtype)
    _, (w, r) = lax.scan(vectors, _descending(_orthogonal_columns(a)), spares)
    # A tied pair may come out in the wrong order by a few units in the last place.
    return w[0], lax.cummin(jnp.sqrt(_squares(r[0]))), w[1][:, :n]


def _basis(n: int, m: int) -> np.ndarray:
    """n fixed random orthonormal rows."""
    return np.linalg.qr(np.random.default_rng(0).standard_normal((m, n)))[0].T


def _once(f: Callable[..., Any], alike: Callable[..., Any], *x: Array) -> Any:
    """``f(*x)`` in a branch of its own (the other one, of the same shapes, is for NaN). Fused with each of
    its uses XLA would compute it anew for every one, and round it differently."""
    return lax.cond(jnp.isnan(x[0][0, 0, 0]), alike, f, *x)


def _sum(term: Callable[..., Array], *x: Array) -> Array:
    """Sum of ``term`` over the entries of vectors ``x[..., :, i]``; XLA's own reduction is slower for few."""
    m = x[0].shape[-2]
    if m > 16:
        return jnp.sum(term(*x), axis=-2)
    return reduce(jnp.add, [term(*(v[..., i, :] for v in x)) for i in range(m)])


def _squares(x: Array) -> Array:
    return _sum(lambda e: jnp.square(e.real) + jnp.square(e.imag) if jnp.iscomplexobj(e) else jnp.square(e), x)


def _dots(x: Array, y: Array) -> Array:
    """``x^H y``."""
    return _sum(lambda e, f: e.conj() * f, x, y)


def _orthogonal_columns(a: Array) -> Array:
    """``(a v)^T`` with orthogonal rows, for a ``v`` that is orthonormal to rounding."""
    m, n, _ = a.shape
    if n == 1:
        return a.swapaxes(0, 1)
    half, rounds = n // 2, n - 1 + n % 2
    start = _SWEEPS.get(n, _SWEEPS_ABOVE) * rounds
    rounding = 2 * float(jnp.finfo(a.dtype).eps) * (m + 2) ** 0.5

    def one_round(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        done, worst, x = state
        y, z, idle = x[:half], x[half : 2 * half][::-1], x[2 * half :]
        # Computed once for each use they could disagree on the sign of a vanishing difference.
        phase, c, s = _once(_rotation, lambda y, _: (y[:, 0],) * 3, y, z)
        z = phase[:, None] * z
        y, z = c[:, None] * y + s[:, None] * z, (c[:, None] * z - s[:, None] * y)[::-1]
        # All but one column, or all of an odd number, move one place on.
        x = jnp.concatenate([idle, y, z] if n % 2 else [y[:1], z[-1:], y[1:], z[:-1]])
        worst = lax.cond(done + 1 < start, lambda _: worst, _cosine, x)
        return done + 1, worst, x

    def unfinished(state: tuple[Array, Array, Array]) -> Array:
        return (state[0] < _MOST_SWEEPS * rounds) & (state[1] > rounding)

    zero = jnp.zeros_like(a, shape=(), dtype=jnp.int32)
    state = (zero, jnp.ones_like(zero, dtype=a.real.dtype), a.swapaxes(0, 1))
    return lax.while_loop(unfinished, one_round, state)[2]


def _cosine(columns: Array) -> Array:
    """The largest cosine of the angle between two columns of one matrix."""
    return jnp.max(jnp.abs(_lower_gram(_normalized(columns, 0, jnp.zeros_like(columns[:1])))))


def _rotation(x: Array, y: Array) -> tuple[Array, Array, Array]:
    """``(phase, c, s)`` such that ``c x + s phase y`` and ``c phase y - s x`` are orthogonal, by the smaller
    of the two angles that do it."""
    gamma = _dots(x, y)
    phase = jnp.ones_like(gamma)
    if jnp.iscomplexobj(x):
        size = jnp.abs(gamma)
        # Next to subnormal numbers, flushed or not, the quotient would be no phase.
        tiny = size <= float(jnp.finfo(size.dtype).tiny / jnp.finfo(size.dtype).eps)
        safe = jnp.where(tiny, 1, size)
        phase = jnp.where(tiny, 1, lax.complex(gamma.real / safe, -gamma.imag / safe))
        gamma = size
    difference = _squares(x) - _squares(y)
    twice = 2 * jnp.where(difference < 0, -gamma, gamma)
    scale = jnp.abs(difference) + jnp.sqrt(jnp.square(difference) + jnp.square(twice))
    tan = twice / jnp.where(scale == 0, 1, scale)
    cos = lax.rsqrt(1 + jnp.square(tan))
    return phase, cos.astype(x.dtype), (tan * cos).astype(x.dtype)


def _descending(x: Array) -> Array:
    """The rows ``x[j]`` normalised, in the order of falling lengths, by counting how many go before each."""
    row = jnp.arange(len(x))[:, None]

    def permutation(x: Array) -> Array:
        square = _squares(x)
        before = [(s[None] > square) | ((s[None] == square) & (j < row)) for j, s in enumerate(square)]
        rank = reduce(jnp.add, [b.astype(row.dtype) for b in before])
        inverse = lax.rsqrt(jnp.where(square == 0, jnp.inf, square))
        return jnp.where(rank[None] == row[:, :, None], inverse[None], 0)

    chosen = _once(permutation, lambda x: jnp.broadcast_to(x[:, 0].real, (len(x), *x[:, 0].shape)), x)
    return reduce(jnp.add, [chosen[:, j, None].astype(x.dtype) * xj[None] for j, xj in enumerate(x)])


def _orthonormal(x: Array, spare: Array) -> Array:
    """The rows ``x[j]`` normalised, each freed of what it has in common with those before it.

    Steps ``x - l x``, ``l`` the strictly lower triangle of the Gram matrix of the rows, square the error
    once it is small, and settle at least one more row each before that. Nearly orthogonal rows take two.
    A row of which 1% is left was noise: a row of ``spare`` takes its place, another in each step.
    """
    n, spare = len(x), spare[:, :, None]

    def step(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        done, _, y = state
        lower = _lower_gram(y)
        y -= sum(lower[:, j, None] * row[None] for j, row in enumerate(y))
        return done + 1, jnp.max(jnp.abs(lower)), _normalized(y, 1e-4, jnp.roll(spare, done, axis=0))

    def unfinished(state: tuple[Array, Array, Array]) -> Array:
        return (state[0] < 4 * n) & (state[1] > 0.5 * float(jnp.finfo(x.dtype).eps) ** 0.5)

    zero = jnp.zeros_like(x, shape=(), dtype=jnp.int32)
    state = (zero, jnp.ones_like(zero, dtype=x.real.dtype), _normalized(x, 0, spare))
    return lax.while_loop(unfinished, step, state)[2]


def _normalized(x: Array, least: float, spare: Array) -> Array:
    """The rows of ``x`` normalised, with those of ``spare`` where the squared length is at most ``least``."""
    square = _squares(x)
    inverse = lax.rsqrt(jnp.where(square > least, square, jnp.inf)).astype(x.dtype)[:, None]
    return jnp.where(inverse == 0, spare, x * inverse)


def _lower_gram(x: Array) -> Array:
    """Inner products of rows of length 1 with those before them, 0 elsewhere.

    The division by lengths keeps XLA from computing the products again for every use.
    """
    row = jnp.arange(len(x))[:, None, None]
    square = _squares(x)
    gram = _dots(x[None], x[:, None])
    return jnp.where(row > row.swapaxes(0, 1), gram, 0) / jnp.where(square == 0, 1, square).astype(x.dtype)[None]
