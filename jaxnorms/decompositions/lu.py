"""Solves with one square finite matrix from its LU decomposition. No derivative passes through them."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxnorms.decompositions import lapack
from jaxnorms.decompositions.products import matmul


class LU(NamedTuple):
    """``A[order] = L U``, both factors in ``lu``; the identity there where a pivot is 0, and A is ``singular``."""

    lu: Array
    order: Array
    singular: Array


def factored(a: Array) -> LU:
    """With partial pivoting."""
    lu, _, order = lapack.lu(a)
    singular = jnp.any(jnp.diagonal(lu) == 0)
    eye = jnp.eye(a.shape[0], dtype=a.dtype)
    return LU(jnp.where(singular, eye, lu), order, singular)


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
