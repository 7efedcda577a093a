"""Leading singular triplet of a matrix of medium size by repeated squaring, for batches on CPU.

Products of small matrices vectorise over a batch, LAPACK's SVD does not. With ``g = a a^H`` on the
smaller side, each squaring doubles the power in ``h = g^(2^t)``, where the leading singular values stand apart:
a few products of ``h`` with a block of vectors end in the space of the leading left vectors, and the
Rayleigh-Ritz triplets of ``a`` from that space (Halko, Martinsson, Tropp 2011) have lost nothing to the squaring.
"""

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxnorms.decompositions.jacobi import orthogonal_columns
from jaxnorms.decompositions.products import matmul

# Squarings, so that Gaussian matrices of 16 x 16, or above 32 rows of 64 x 64, are done in one round.
_SQUARINGS, _SQUARINGS_ABOVE_32 = 4, 5
_BLOCK = 4
_ROUNDS = 4


def leading_by_squaring(a: Array) -> tuple[Array, Array, Array, Array]:
    """``(u, s, v, ok)`` of one finite matrix with entries of size about 1: ``a v = s u`` and ``a^H u = s v``.

    ``ok`` says that ``s`` is the largest singular value and simple, and that ``u`` and ``v`` are right to
    ``max(eps^(2/3), 8 eps sqrt(n) s_1 / (s_1 - s_2))``, ``n`` the longer side; elsewhere nothing is claimed.

    The Ritz values ``r_i <= s_i`` prove it: with ``p = 2^(t+1)``, ``tr h = sum s_i^p`` leaves room for
    ``s_2^p <= r_2^p + (tr h - sum r_i^p)`` only. Where a cluster fills that room, ``ok`` is False.
    """
    if a.shape[0] > a.shape[1]:
        v, s, u, ok = leading_by_squaring(a.T)
        return u.conj(), s, v.conj(), ok
    eps = float(jnp.finfo(a.dtype).eps)
    rounding = 4 * eps * max(a.shape) ** 0.5
    squarings = _SQUARINGS if a.shape[0] <= 32 else _SQUARINGS_ABOVE_32
    h, trace = _power(a, squarings)
    start = np.random.default_rng(0).standard_normal((_BLOCK, a.shape[0])) / a.shape[0] ** 0.5
    # A block of vectors is a list of them: XLA multiplies a large matrix by a thin one by transposing it.
    block = _times(h, [jnp.asarray(x, a.dtype) for x in start])

    def more(state):
        rounds, *_, ok = state
        return (rounds < _ROUNDS) & ~ok

    def improve(state):
        rounds, block, *_ = state
        block = _times(h, _times(h, block))
        u, s, v, ritz = _rayleigh_ritz(a, block)
        residual = _length(_rows_times([u], a)[0].conj() - s.astype(a.dtype) * v) / s
        mass = trace / jnp.vdot(u, matmul(h, u), precision=lax.Precision.HIGHEST).real
        p = 2.0 ** (squarings + 1)
        powers = (ritz / s) ** p
        second = (powers[1] + jnp.maximum(mass - jnp.sum(powers), 0) + p * rounding) ** (1 / p)
        gap = 1 - second
        ok = (gap > 16 * rounding) & (residual <= jnp.maximum(gap * eps ** (2 / 3), 2 * rounding))
        return rounds + 1, block, u, s, v, ok & (s > 0)

    zero = jnp.zeros_like(a, shape=())
    blank = (jnp.zeros_like(a[:, 0]), zero.real, jnp.zeros_like(a[0]), zero.real > 0)
    return lax.while_loop(more, improve, (jnp.zeros_like(zero, dtype=jnp.int32), block, *blank))[2:]


def _power(a: Array, squarings: int) -> tuple[Array, Array]:
    """``(a a^H)^(2^t)``, up to a factor, and its trace."""
    h = matmul(a, a.conj().T)
    for _ in range(squarings):
        trace = jnp.trace(h).real
        h = h / jnp.where(trace == 0, 1, trace).astype(h.dtype)
        h = matmul(h, h)
    trace = jnp.trace(h).real
    return h, trace


def _times(h: Array, block: list[Array]) -> list[Array]:
    """Products with a Hermitian matrix, scaled back to about 1."""
    out = [matmul(h, x) for x in block]
    largest = jnp.max(jnp.stack([jnp.max(jnp.abs(x)) for x in out]))
    return [x / jnp.where(largest == 0, 1, largest).astype(x.dtype) for x in out]


def _rows_times(rows: list[Array], a: Array) -> list[Array]:
    return [matmul(x.conj(), a) for x in rows]


def _length(x: Array) -> Array:
    return jnp.sqrt(jnp.sum(jnp.square(x.real) + jnp.square(x.imag)))


def _rayleigh_ritz(a: Array, block: list[Array]) -> tuple[Array, Array, Array, Array]:
    """The leading triplet of ``a`` from the space of ``block``, and all Ritz values, descending."""
    q = _normalized(orthogonal_columns(jnp.stack(block, axis=1)))[0]
    z = orthogonal_columns(jnp.stack(_rows_times(list(q.T), a), axis=1).conj())
    z, ritz = _normalized(z)
    first = (jnp.arange(_BLOCK) == jnp.argmax(ritz)).astype(a.dtype)
    v = jnp.sum(z * first[None], axis=1)
    au = matmul(a, v)
    s = _length(au)
    return au / jnp.where(s == 0, 1, s).astype(a.dtype), s, v, -jnp.sort(-ritz)


def _normalized(x: Array) -> tuple[Array, Array]:
    length = jnp.sqrt(jnp.sum(jnp.square(x.real) + jnp.square(x.imag), axis=0))
    return x / jnp.where(length == 0, 1, length).astype(x.dtype)[None], length
