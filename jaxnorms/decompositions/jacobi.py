"""Singular value decomposition of small matrices by one-sided Jacobi, vectorised over the batch.

Rotations of two columns at a time, ``(x, y) -> (c x + s y, c y - s x)``, make the columns of ``a``
orthogonal; normalised they are the left singular vectors ``u``, and the rows of ``u^H a``,
normalised, the right ones (Hestenes 1958; Demmel and Veselic 1992). A sweep rotates every pair once, here
in the odd-even order of neighbours that change places (Luk and Park 1989), so that one short loop
body serves all sweeps: ``3 m n^2`` multiplications a sweep, and convergence is quadratic.

Every scalar of that algorithm is a vector over the batch, the last and contiguous axis. The batch
therefore costs few passes of vector instructions instead of one LAPACK call per matrix.
"""

from functools import reduce

import jax
import jax.numpy as jnp
from jax import Array, lax

# Until the columns are orthogonal to rounding, with one sweep to spare on Gaussian matrices.
_SWEEPS = {1: 0, 2: 2, 3: 5, 4: 5}
_MORE_SWEEPS = 7


def jacobi_svd(a: Array) -> tuple[Array, Array, Array]:
    """Thin ``(u, s, vh)`` of one finite matrix with entries of size about 1, meant for at most 8 x 8.

    ``u`` and ``vh`` are orthonormal to rounding for every spectrum, zero and rank-deficient ones included.
    """
    if a.shape[0] < a.shape[1]:
        u, s, vh = jacobi_svd(a.T)
        return vh.T, s, u.T
    u, s, vh = _svd(a[:, :, None])
    return u[:, :, 0].T, s[:, 0], vh[:, :, 0]


@jax.custom_batching.custom_vmap
def _svd(a: Array) -> tuple[Array, Array, Array]:
    """``(u^T, s, vh)``, with vectors as rows, of the matrices ``a[:, :, i]``."""
    w = _descending(_orthogonal_columns(a))
    u = _orthonormal(w)
    r = jnp.stack([_dot(x, a) for x in u])
    s = jnp.stack([_length(x) for x in r])
    # A tied pair may come out in the wrong order by a few units in the last place.
    return u, lax.cummin(s), _orthonormal(r)


@_svd.def_vmap
def _svd_of_batch(size: int, _: list[bool], a: Array) -> tuple[tuple[Array, ...], tuple[bool, ...]]:
    out = _svd(jnp.moveaxis(a, 0, -1).reshape(*a.shape[1:3], -1))
    return tuple(jnp.moveaxis(x.reshape(*x.shape[:-1], -1, size), -1, 0) for x in out), (True,) * 3


def _dot(x: Array, y: Array) -> Array:
    """``x^H y`` over the first axis, unrolled: XLA's reductions over leading axes are slower."""
    return reduce(jnp.add, [xi.conj() * yi for xi, yi in zip(x, y, strict=True)])


def _square(x: Array) -> Array:
    return reduce(jnp.add, [jnp.square(xi.real) + jnp.square(xi.imag) for xi in x])


def _length(x: Array) -> Array:
    return jnp.sqrt(_square(x))


def _orthogonal_columns(a: Array) -> list[Array]:
    """``a v`` as a list of its orthogonal columns, for a ``v`` that is orthonormal to rounding."""
    n = a.shape[1]

    def two_rounds(_: int, columns: tuple[Array, ...]) -> tuple[Array, ...]:
        new = list(columns)
        for i in [*range(0, n - 1, 2), *range(1, n - 1, 2)]:
            new[i + 1], new[i] = _rotated(new[i], new[i + 1])
        return tuple(new)

    sweeps = _SWEEPS.get(n, _MORE_SWEEPS)
    columns = lax.fori_loop(0, (sweeps * n + 1) // 2, two_rounds, tuple(a[:, j] for j in range(n)))
    return list(columns)


def _rotated(x: Array, y: Array) -> tuple[Array, Array]:
    """The columns ``x`` and ``y`` made orthogonal, by the smaller angle of the two that do.

    The division keeps XLA from computing the inner products again for every entry.
    """
    gamma = _dot(x, y)
    if jnp.iscomplexobj(x):
        size = jnp.abs(gamma)
        phase = jnp.where(size == 0, 1, gamma.conj() / jnp.where(size == 0, 1, size).astype(x.dtype))
        y, gamma = phase * y, size
    difference = _square(x) - _square(y)
    twice = 2 * jnp.where(difference < 0, -gamma, gamma)
    scale = jnp.abs(difference) + jnp.sqrt(jnp.square(difference) + jnp.square(twice))
    tan = twice / jnp.where(scale == 0, 1, scale)
    cos = lax.rsqrt(1 + jnp.square(tan))
    c, s = cos.astype(x.dtype), (tan * cos).astype(x.dtype)
    return c * x + s * y, c * y - s * x


def _descending(columns: list[Array]) -> list[Array]:
    """The columns in the order of falling lengths, by counting the longer ones of each."""
    n = len(columns)
    size = [_square(x) for x in columns]
    before = [[(size[j] >= size[i]) if j < i else (size[j] > size[i]) for j in range(n)] for i in range(n)]
    rank = lax.optimization_barrier(jnp.stack([sum(b.astype(jnp.int32) for b in row) for row in before]))
    return [reduce(lambda x, i, k=k: jnp.where(rank[i] == k, columns[i], x), range(n), columns[0]) for k in range(n)]


def _orthonormal(columns: Array | list[Array]) -> Array:
    """Gram-Schmidt from the first column on, done twice; basis vectors replace what is left of dependent columns.

    A column with less than half its length outside the span of those before it is noise of the
    size of the rounding errors: the unit vector farthest from that span takes its place.
    """
    done: list[Array] = []
    for x in columns:
        x = _outside(done, _normalized(x))
        square = _square(x)
        x = jnp.where(square < 0.25, _farthest(done, x), x)
        done.append(_normalized(_outside(done, x)))
    return jnp.stack(done)


def _normalized(x: Array) -> Array:
    length = _length(x)
    inverse = 1 / jnp.where(length == 0, 1, length)
    return x * inverse.astype(x.dtype)


def _outside(basis: list[Array], x: Array) -> Array:
    """``x`` less its projection on the span of the orthonormal ``basis``."""
    if not basis:
        return x
    parts = lax.optimization_barrier(jnp.stack([_dot(b, x) for b in basis]))
    return x - reduce(jnp.add, [p * b for p, b in zip(parts, basis, strict=True)])


def _farthest(basis: list[Array], x: Array) -> Array:
    """The unit vector with the smallest projection on the span of ``basis``, the first of equals."""
    inside = [sum((jnp.square(b[i].real) + jnp.square(b[i].imag) for b in basis), jnp.zeros_like(x[i].real)) for i in range(len(x))]
    least = reduce(jnp.minimum, inside)
    first, rows = jnp.zeros_like(least, dtype=bool), []
    for projection in inside:
        rows.append((projection == least) & ~first)
        first = first | rows[-1]
    return jnp.stack(rows).astype(x.dtype)
