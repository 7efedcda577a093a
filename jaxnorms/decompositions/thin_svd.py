"""Thin singular value decomposition of one finite matrix: closed forms where small, else LAPACK.

The callers scale the matrix by a power of two and replace non-finite entries first (LAPACK's SVD
hangs on an infinite one). No derivative passes through these functions.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxnorms._batching import single_or_batch
from jaxnorms.decompositions.jacobi import jacobi_svd
from jaxnorms.decompositions.two_by_two import two_by_two_svd

# Largest side of a matrix of a batch for which Jacobi rotations pay: 7 times LAPACK's speed at 4 x 4, 2 at 8 x 8.
JACOBI_TO = 8


def matmul(x: Array, y: Array) -> Array:
    """``x @ y`` at full precision; of small matrices as a sum, which vectorises over a batch."""
    if x.ndim == y.ndim == 2 and max(*x.shape, *y.shape) <= JACOBI_TO:
        return sum((x[:, i, None] * y[None, i] for i in range(len(y))), jnp.zeros_like(x, shape=(1, 1)))
    return jnp.matmul(x, y, precision=jax.lax.Precision.HIGHEST)


def tie_tolerance(dtype: jnp.dtype, *shape: int) -> float:
    """Gap, relative to the largest singular value, below which two of them count as tied.

    Just above the backward error of the SVD: measured in float32 with 2 to 1024 rows, the singular
    values of an orthogonal factor spread by 0.5 ``eps`` and the null space of a product reaches
    0.9 ``eps``. The factor 8 leaves room for the rounding of the matrix itself, the weak growth with
    the size for longer sums.
    """
    return 8 * float(jnp.finfo(dtype).eps) * max(shape) ** 0.25


def on_cpu_one_by_one(svd: Callable[[Array], Any]) -> Callable[[Array], Any]:
    """``svd``, which takes the matrices of a batch in turn on CPU, as one batch elsewhere.

    jaxlib's LAPACK kernels split a batch over XLA's thread pool and wait for the parts *inside* a
    thread of that pool: as many independent batched SVDs as there are threads wait for each other
    for ever. One matrix runs in its own thread, and takes about as long (measured: 0.8 to 1.0 times the
    batched call from 16 x 16 to 256 x 256, 1.5 times for 4 x 4).
    """
    in_turn = jax.custom_batching.sequential_vmap(svd)
    return lambda a: jax.lax.platform_dependent(a, cpu=in_turn, default=svd)


_lapack_svd = on_cpu_one_by_one(lambda a: tuple(jnp.linalg.svd(a, full_matrices=False)))
_lapack_values = on_cpu_one_by_one(partial(jnp.linalg.svd, compute_uv=False))


# A matrix by itself LAPACK decomposes as fast, and it takes much less time to compile.
_small_svd = single_or_batch(_lapack_svd, jacobi_svd)
_small_values = single_or_batch(_lapack_values, lambda a: jacobi_svd(a)[1])


def thin_svd(a: Array) -> tuple[Array, Array, Array]:
    """``(u, s, vh)`` with ``a = u @ diag(s) @ vh``, orthonormal ``u`` and ``vh``, ``s`` descending."""
    m, n = a.shape
    if n == 1:
        u, s = _normalize(a[:, 0])
        return u[:, None], s[None], jnp.ones_like(a, shape=(1, 1))
    if m == 1:
        v, s = _normalize(a[0])
        return jnp.ones_like(a, shape=(1, 1)), s[None], v[None, :]
    if m == n == 2:
        return two_by_two_svd(a)
    return _small_svd(a) if max(m, n) <= JACOBI_TO else _lapack_svd(a)


def singular_values(a: Array) -> Array:
    """The singular values alone, descending."""
    if min(a.shape) == 1 or a.shape == (2, 2):
        return thin_svd(a)[1]
    return _small_values(a) if max(a.shape) <= JACOBI_TO else _lapack_values(a)


def _normalize(x: Array) -> tuple[Array, Array]:
    """``(x / |x|, |x|)``, with the first unit vector for ``x = 0``."""
    length = jnp.sqrt(jnp.sum(jnp.square(x.real) + jnp.square(x.imag)))
    zero = length == 0
    first = jnp.zeros_like(x).at[0].set(1)
    return jnp.where(zero, first, x / jnp.where(zero, 1, length).astype(x.dtype)), length
