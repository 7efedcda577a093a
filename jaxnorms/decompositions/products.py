"""Products of matrices, at full precision."""

import jax
import jax.numpy as jnp
from jax import Array

# Largest side of a matrix whose algorithms are unrolled over its rows.
SMALL = 8
SUMMED_TO = 32


def matmul(x: Array, y: Array) -> Array:
    """``x @ y`` at full precision; of small matrices as a sum, which vectorises over a batch."""
    if x.ndim == y.ndim == 2 and max(*x.shape, *y.shape) <= SMALL:
        return sum((x[:, i, None] * y[None, i] for i in range(len(y))), jnp.zeros_like(x, shape=(1, 1)))
    return jnp.matmul(x, y, precision=jax.lax.Precision.HIGHEST)


def hermitian_part(a: Array) -> Array:
    return (a + a.conj().T) / 2


def summed(x: Array, y: Array) -> Array:
    """``x @ y`` as a sum, which a CPU does faster for many matrices of up to SUMMED_TO rows and columns."""
    return jnp.sum(x[:, :, None] * y[None, :, :], axis=1)
