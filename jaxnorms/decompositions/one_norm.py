"""The vector that a matrix known by its products stretches most in the 1-norm."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxnorms.decompositions.products import matmul

# Columns of the block, and the most steps of one product with it and one adjoint product each.
COLUMNS, STEPS = 4, 5

Product = Callable[[Array], Array]


def maximiser(product: Product, adjoint: Product, n: int, dtype: Any) -> Array:
    """A vector x for which ``||B x||_1 / ||x||_1`` is large, from products of B and ``B^H`` with columns.

    Algorithm 2.4: the columns with unit vectors whose rows of ``B^H sign(B X)`` are largest, none of them twice, until
    nothing is gained. A column of signs parallel to an earlier one is replaced by random signs.
    """
    t = min(n, COLUMNS)
    signs = np.random.default_rng(0).choice([-1.0, 1.0], (STEPS + 1, n, t))
    signs[0, :, 0] = 1
    signs = jnp.asarray(signs, dtype)
    real = jnp.finfo(dtype).dtype

    def step(state):
        x, s_before, used, best, found, count, _ = state
        y = product(x)
        sizes = jnp.sum(jnp.abs(y), axis=0)
        sizes = jnp.where(jnp.isfinite(sizes), sizes, jnp.inf)
        j = jnp.argmax(sizes)
        better = sizes[j] > best
        found = jnp.where(better, x[:, j], found)
        s = jnp.where(y == 0, 1, jnp.sign(y))
        overlap = jnp.abs(matmul(jnp.concatenate([s, s_before], axis=1).conj().T, s)) > n * (1 - 1e-5)
        repeated = jnp.any(overlap & (jnp.arange(2 * t)[:, None] != jnp.arange(t)[None, :]) & _earlier(t), axis=0)
        s = jnp.where(repeated[None, :], signs[count + 1], s)
        h = jnp.where(used, -1, jnp.max(jnp.abs(adjoint(s)), axis=1))
        chosen = jax.lax.top_k(h, t)[1]
        units = jnp.arange(n, dtype=chosen.dtype)[:, None] == chosen[None, :]
        used, best = used | jnp.any(units, axis=1), jnp.maximum(best, sizes[j])
        return units.astype(dtype), s, used, best, found, count + 1, better

    x = signs[0] / n
    none, zero = jnp.zeros(n, bool), jnp.zeros((), jnp.int32)
    state = (x, jnp.zeros_like(x), none, jnp.zeros((), real), x[:, 0], zero, jnp.ones((), bool))
    return jax.lax.while_loop(lambda state: state[-1] & (state[-2] < STEPS), step, state)[4]


def _earlier(t: int) -> Array:
    """Which of the columns, and those before them, come before a column."""
    return jnp.asarray(np.concatenate([np.triu(np.ones((t, t), bool), 1), np.ones((t, t), bool)]))
