"""Thin singular value decomposition of one finite matrix: closed forms where small, else LAPACK.

The callers scale the matrix by a power of two and replace non-finite entries first (LAPACK's SVD
hangs on an infinite one). No derivative passes through these functions.
"""

import jax
import jax.numpy as jnp
from jax import Array

from jaxnorms._batching import single_or_batch
from jaxnorms._layout import by_rows
from jaxnorms._mesh import on_mesh
from jaxnorms.decompositions import lapack
from jaxnorms.decompositions.cholesky_qr import tall_svd
from jaxnorms.decompositions.jacobi import jacobi_svd
from jaxnorms.decompositions.products import SMALL
from jaxnorms.decompositions.two_by_two import two_by_two_svd

# Side of a matrix of a batch up to which Jacobi rotations pay: 7 times LAPACK's speed at 4 x 4, 2 at 8 x 8.
JACOBI_TO = SMALL
# Larger side of a matrix on a mesh up to which one device may have all of it.
GATHERED_TO = 128


def tie_tolerance(dtype: jnp.dtype, *shape: int) -> float:
    """Gap, relative to the largest singular value, below which two of them count as tied.

    Just above the backward error of the SVD: measured in float32 with 2 to 1024 rows, the singular
    values of an orthogonal factor spread by 0.5 ``eps`` and the null space of a product reaches
    0.9 ``eps``. The factor 8 leaves room for the rounding of the matrix itself, the weak growth with
    the size for longer sums.
    """
    return 8 * float(jnp.finfo(dtype).eps) * max(shape) ** 0.25


# A matrix by itself LAPACK decomposes as fast, and it takes much less time to compile.
_small_svd = single_or_batch(lapack.svd, jacobi_svd)
_small_values = single_or_batch(lapack.values, lambda a: jacobi_svd(a)[1])


def thin_svd(a: Array) -> tuple[Array, Array, Array]:
    """``(u, s, vh)`` with ``a = u @ diag(s) @ vh``, orthonormal ``u`` and ``vh``, ``s`` descending.

    Of a large matrix on a mesh the vectors of the longer side may be shorter than 1 where s vanishes to rounding.
    """
    m, n = a.shape
    if n == 1:
        u, s = _normalize(a[:, 0])
        return u[:, None], s[None], jnp.ones_like(a, shape=(1, 1))
    if m == 1:
        v, s = _normalize(a[0])
        return jnp.ones_like(a, shape=(1, 1)), s[None], v[None, :]
    if m == n == 2:
        return two_by_two_svd(a)
    if max(m, n) <= JACOBI_TO:
        return _small_svd(a)
    return _svd_of_rows(a) if _spread(a) else lapack.svd(a)


def singular_values(a: Array) -> Array:
    """The singular values alone, descending."""
    if min(a.shape) == 1 or a.shape == (2, 2):
        return thin_svd(a)[1]
    if max(a.shape) <= JACOBI_TO:
        return _small_values(a)
    return _svd_of_rows(a)[1] if _spread(a) else lapack.values(a)


def _spread(a: Array) -> bool:
    """Whether to keep ``a`` apart on the devices it is spread over."""
    return max(a.shape) > GATHERED_TO and on_mesh(a)


def _svd_of_rows(a: Array) -> tuple[Array, Array, Array]:
    """By products: no device holds more of ``a`` than its rows, and matrices of the smaller side."""
    if a.shape[0] < a.shape[1]:
        u, s, vh = _svd_of_rows(a.conj().T)
        return vh.conj().T, s, u.conj().T
    u, s, vh = tall_svd(by_rows(a))
    return u, jax.lax.cummin(s), vh


def _normalize(x: Array) -> tuple[Array, Array]:
    """``(x / |x|, |x|)``, with the first unit vector for ``x = 0``."""
    length = jnp.sqrt(jnp.sum(jnp.square(x.real) + jnp.square(x.imag)))
    zero = length == 0
    first = jnp.zeros_like(x).at[0].set(1)
    return jnp.where(zero, first, x / jnp.where(zero, 1, length).astype(x.dtype)), length
