"""The leading singular triplets of one finite matrix, by whichever way is faster, and what they leave out."""

import jax
import jax.numpy as jnp
from jax import Array

from jaxnorms._mesh import on_mesh
from jaxnorms._scaling import prepare
from jaxnorms.decompositions import krylov
from jaxnorms.decompositions.products import matmul
from jaxnorms.decompositions.thin_svd import thin_svd

# Smaller side from which products with the matrix beat its full decomposition (benchmarks/scale.py).
KRYLOV_FROM = 128
_BLOCK = 2**16  # entries summed in one go


def by_krylov(shape: tuple[int, ...], k: int) -> bool:
    """Whether k triplets of a matrix of this shape are worth a search of their own."""
    return krylov.affordable(shape, k) and min(shape) >= max(KRYLOV_FROM, 8 * k)


def truncated_svd(a: Array, k: int, tol: float | None, key: Array | None) -> tuple[Array, Array, Array]:
    """At least k leading triplets ``(u, s, vh)`` of ``a`` scaled to about 1."""
    x, _, _, e = prepare(a)
    if not by_krylov(a.shape, k):
        return thin_svd(x)
    # Not of x, which would be a copy of a large matrix; non-finite ones end the search by themselves.
    leading = krylov.leading_triplets(a, k, e, tol=tol, key=key, until="residuals")
    return leading.u, leading.s, leading.vh


def residual(a: Array, left: Array, right: Array) -> Array:
    """An upper bound of ``||a - left @ right||_F``, computed in blocks of rows and inflated by its rounding.

    The cheaper difference of squared norms cancels to nothing.
    """
    m, n = a.shape
    height = m if on_mesh(a) else min(m, max(1, _BLOCK // n))
    blocks = m // height

    def square(rows: Array, left: Array) -> Array:
        x = rows - matmul(left, right)
        return jnp.sum(jnp.square(x.real) + jnp.square(x.imag))

    total = square(a[blocks * height :], left[blocks * height :])
    rows = a[: blocks * height].reshape(blocks, height, n), left[: blocks * height].reshape(blocks, height, -1)
    total = jax.lax.fori_loop(0, blocks, lambda i, t: t + square(rows[0][i], rows[1][i]), total)
    # Sums of t nonnegative terms have a relative error of t eps / 2, each entry one of (k + 3) eps / 2.
    k, eps = right.shape[0], float(jnp.finfo(total.dtype).eps)
    rounding = (k + 3) * eps * jnp.sum(jnp.linalg.norm(left, axis=0) * jnp.linalg.norm(right, axis=1))
    return jnp.sqrt(total) * (1 + eps * (height * n + blocks)) + rounding
