"""QR and SVD of a tall matrix whose rows are split over devices, by matrix products alone.

CholeskyQR orthogonalises with the Gram matrix, ``x <- x T`` with ``T^H (x^H x) T = I``, which needs one sum
of n x n numbers over the blocks of rows and no other communication. With a Cholesky factor an explicit inverse
T costs digits where x is ill-conditioned, so T comes from eigenvectors here: ``x^H x = V D^2 V^H``,
``T = V D^-1`` (SVQB: Stathopoulos and Wu 2002), where ``x V`` is as accurate as x and D scales columns. The
directions below ``sqrt(eps) s_1``, which the Gram matrix cannot resolve, are lifted to its level by each
step and resolved by the next (as in shifted CholeskyQR: Fukaya et al. 2020). A well-conditioned matrix
takes one step, one with ``s_n`` at the level of rounding three, and then both one of Newton and Schulz.

For rank-deficient matrices x is continued by the rows ``delta I`` with delta at the level of rounding: the
stack is never worse conditioned than that. Every device holds its own copy of that small block.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from jaxnorms._split import varying_like
from jaxnorms.decompositions import lapack
from jaxnorms.decompositions.products import matmul

Total = Callable[[Array], Array]

_MOST_STEPS = 8


def tall_qr(x: Array, total: Total = lambda part: part) -> tuple[Array, Array]:
    """``(q, r)`` with ``x = q r`` for rows ``x`` (m_local, n) of a finite matrix with entries of size about 1.

    ``total`` adds an array over the blocks of rows: the identity for the whole matrix, or a ``psum``. ``q``
    has the same rows, ``r`` is a full n x n matrix (not triangular), the same for all blocks. The error
    of ``q r`` and that of the singular values of ``r`` is a small multiple of ``eps s_1``. The columns of q are
    orthonormal but for the directions in which x vanishes to rounding: there they are shorter.

    Cost: 5 to 9 products of ``m n^2`` multiplications, 3 to 5 sums of n x n numbers, 1 to 3 eigenproblems of
    that size. Memory: two matrices beside x.
    """
    q, _, r = _continued_qr(x, total)
    return q, r


def tall_svd(x: Array, total: Total = lambda part: part) -> tuple[Array, Array, Array]:
    """Thin ``(u, s, vh)`` of the same matrix, u with the rows of x. Where s vanishes to rounding, the columns
    of u may be shorter than 1, and s is not in order."""
    q, y, r = _continued_qr(x, total)
    w, s, vh = lapack.svd(r)
    # What delta added to small singular values is what the columns of u lack: s_i = ||x v_i||.
    length = jnp.sqrt(jnp.maximum(1 - _squares(matmul(y, w), axis=0), 0))
    return matmul(q, w / jnp.where(length > 0.5, length, 1).astype(w.dtype)[None, :]), s * length, vh


def _continued_qr(x: Array, total: Total) -> tuple[Array, Array, Array]:
    """``(q, y, r)`` with ``x = q r``, ``delta I = y r`` and ``q^H q + y^H y = I``; r = 0 for x = 0."""
    eps = float(jnp.finfo(x.dtype).eps)

    def gram(x: Array, y: Array) -> Array:
        return total(matmul(x.conj().T, x)) + matmul(y.conj().T, y)

    def step(state):
        x, y, square, done = state
        values, v = lapack.eigh(square)
        d = jnp.sqrt(jnp.maximum(values, 4 * eps * values[-1])).astype(x.dtype)
        x, y = (matmul(part, v) / d[None, :] for part in (x, y))
        return x, y, gram(x, y), done + 1

    def unfinished(state) -> Array:
        defect = jnp.sqrt(_squares(eye - state[-2]))
        return (defect > eps**0.5) & (state[-1] < _MOST_STEPS)

    square = total(matmul(x.conj().T, x))
    eye = varying_like(jnp.eye(x.shape[1], dtype=x.dtype), square)
    size = _squares(square) ** 0.25
    zero = size == 0
    delta = (eps * jnp.where(zero, 1, size)).astype(x.dtype) * eye
    start = x, delta, square + matmul(delta, delta), jnp.zeros_like(size, dtype=jnp.int32)
    q, y, square, _ = jax.lax.while_loop(unfinished, step, start)
    q, y = (matmul(part, 1.5 * eye - 0.5 * square) for part in (q, y))
    # Not from the factors of each step: the eigenvectors are not orthonormal enough to tell ties.
    r = total(matmul(q.conj().T, x)) + matmul(y.conj().T, delta)
    return q, y, jnp.where(zero, 0, r)


def _squares(x: Array, axis: int | None = None) -> Array:
    return jnp.sum(jnp.square(x.real) + jnp.square(x.imag), axis=axis)
