"""Closed form of the singular value decomposition of 2 x 2 matrices, elementwise over the batch."""

import jax.numpy as jnp
from jax import Array, lax

from jaxnorms._batching import batch_last


@batch_last
def two_by_two_svd(a: Array) -> tuple[Array, Array, Array]:
    """``(u, s, vh)``: one rotation makes the columns orthogonal; the longer one, normalised, is ``u_1``.

    The other vectors are orthogonal complements, so ``u`` and ``v`` are unitary also where ``s_2`` is 0,
    and that value is ``|det a| / s_1`` to rounding.
    """
    u1, _ = _normalized(*_longer_column(a[:, 0], a[:, 1]))
    u2 = -u1[1].conj(), u1[0].conj()
    v1, s1 = _normalized(*_row(u1, a))  # conjugated, as rows of vh
    v2 = -v1[1].conj(), v1[0].conj()
    r = _row(u2, a)
    # Where s_2 vanishes this is rounding alone: computed anew for each use, it would give a phase that is none.
    z = lax.optimization_barrier(r[0] * v2[0].conj() + r[1] * v2[1].conj())
    s2 = jnp.abs(z)
    phase = jnp.where(s2 == 0, 1, z / jnp.where(s2 == 0, 1, s2).astype(a.dtype))
    u = jnp.stack([jnp.stack([u1[0], u2[0] * phase]), jnp.stack([u1[1], u2[1] * phase])])
    # Rounding can leave a tied pair in the wrong order by one unit in the last place.
    return u, jnp.stack([jnp.maximum(s1, s2), jnp.minimum(s1, s2)]), jnp.stack([jnp.stack(v1), jnp.stack(v2)])


def _longer_column(x: Array, y: Array) -> tuple[Array, Array]:
    """``cos t x + sin t phase y`` of the largest length."""
    gamma = x[0].conj() * y[0] + x[1].conj() * y[1]
    size = jnp.abs(gamma)
    zero = size == 0
    phase = jnp.where(zero, 1, gamma.conj() / jnp.where(zero, 1, size).astype(x.dtype))
    difference = _square(x[0]) + _square(x[1]) - _square(y[0]) - _square(y[1])
    # tan 2t = 2 size / difference: half the angle of the point (difference, 2 size) of the upper half plane.
    root = jnp.sqrt(jnp.square(difference) + jnp.square(2 * size))
    adjacent = jnp.abs(difference) + root
    safe = jnp.where(adjacent == 0, 1, adjacent)
    small = jnp.where(adjacent == 0, 0, 2 * size / safe)
    cosine = lax.rsqrt(1 + jnp.square(small))
    sine = small * cosine
    first = difference >= 0
    c, s = jnp.where(first, cosine, sine).astype(x.dtype), jnp.where(first, sine, cosine).astype(x.dtype)
    return c * x[0] + s * phase * y[0], c * x[1] + s * phase * y[1]


def _row(u: tuple[Array, Array], a: Array) -> tuple[Array, Array]:
    """``u^H a``."""
    left, right = (u[0].conj() * a[0, j] + u[1].conj() * a[1, j] for j in range(2))
    return left, right


def _square(x: Array) -> Array:
    return jnp.square(x.real) + jnp.square(x.imag) if jnp.iscomplexobj(x) else jnp.square(x)


def _normalized(x: Array, y: Array) -> tuple[tuple[Array, Array], Array]:
    """The vector over its length, and the length; the first unit vector for 0."""
    length = jnp.sqrt(_square(x) + _square(y))
    zero = length == 0
    safe = jnp.where(zero, 1, length).astype(x.dtype)
    return (jnp.where(zero, 1, x / safe), jnp.where(zero, 0, y / safe)), length
