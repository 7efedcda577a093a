"""Solves with one square finite matrix from its LU decomposition. No derivative passes through them."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxnorms._scaling import max_abs
from jaxnorms.decompositions import lapack
from jaxnorms.decompositions.products import matmul


class LU(NamedTuple):
    """``A[order] = L U``, both factors in ``lu``. A is ``singular`` where a pivot is 0, replaced by rounding there."""

    lu: Array
    order: Array
    singular: Array


def factored(a: Array) -> LU:
    """With partial pivoting."""
    lu, _, order = lapack.lu(a)
    pivots = jnp.diagonal(lu)
    zero, largest = pivots == 0, max_abs(pivots)
    least = jnp.where(largest > 0, float(jnp.finfo(largest.dtype).eps) * largest, 1)
    return LU(lu + jnp.diag(jnp.where(zero, least, 0).astype(a.dtype)), order, jnp.any(zero))


def solve(f: LU, b: Array) -> Array:
    """``A^-1 b`` for the columns of ``b``."""
    y = jax.lax.linalg.triangular_solve(f.lu, b[f.order], left_side=True, lower=True, unit_diagonal=True)
    return jax.lax.linalg.triangular_solve(f.lu, y, left_side=True, lower=False)


def solve_adjoint(f: LU, b: Array) -> Array:
    """``A^-H b`` for the columns of ``b``."""
    y = jax.lax.linalg.triangular_solve(f.lu, b, left_side=True, transpose_a=True, conjugate_a=True)
    y = jax.lax.linalg.triangular_solve(
        f.lu, y, left_side=True, lower=True, unit_diagonal=True, transpose_a=True, conjugate_a=True
    )
    return jnp.zeros_like(y).at[f.order].set(y)


def inverse(a: Array) -> Array:
    """``A^-1``, or zeros where ``a`` is singular or the inverse out of range."""
    f = factored(a)
    x = solve(f, jnp.eye(a.shape[0], dtype=a.dtype))
    return jnp.where(~f.singular & jnp.all(jnp.isfinite(x)), x, 0)


def change_of_inverse(x: Array, e: Array) -> Array:
    """``-A^-1 e A^-1`` for ``x = A^-1``."""
    return -matmul(matmul(x, e), x)
