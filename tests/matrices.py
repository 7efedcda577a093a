"""Matrices with a prescribed spectrum, in stacks of one shape, so that one compiled function takes all.

``REAL`` and ``COMPLEX`` are the types of the running mode, and ``tolerance`` the one place that
turns a type into an allowed relative error.
"""

import jax.numpy as jnp
import numpy as np
import pytest

REAL = np.dtype(jnp.result_type(float))
COMPLEX = np.dtype(jnp.result_type(complex))
DTYPES = [REAL, COMPLEX]

NEEDS_DOUBLE = "needs double precision: JAX_ENABLE_X64=1"
needs_double = pytest.mark.skipif(REAL.itemsize < 8, reason=NEEDS_DOUBLE)  # differences do, and what peers test

# One square, small enough for Jacobi in a batch, tall and wide; a vector each way; the closed form; one where
# few triplets are kept.
SHAPES = [(5, 5), (9, 4), (3, 9), (6, 1), (1, 6), (2, 2), (24, 40)]


def tolerance(dtype, factor: float = 50.0, size: float = 1.0) -> float:
    """``factor * size`` units in the last place."""
    return factor * size * float(jnp.finfo(dtype).eps)


# Central differences with step 1e-5 of a gradient of size 1 and curvature up to 100, in float64.
difference_tolerance = 1e-6


def spectra(n: int) -> dict[str, np.ndarray]:
    """Named singular values, descending."""
    j = np.arange(1, n + 1)
    half = max(n // 2, 1)
    return {
        "distinct": np.linspace(3, 1, n),
        "leading": np.where(j == 1, 3.0, 1.0),
        "repeated": np.where(j <= 2, 3.0, 1.0),
        "clustered": 2 - 1e-3 * j,
        "orthogonal": np.ones(n),
        "deficient": np.where(j <= half, 2.0, 0.0),
        "rank_one": np.where(j == 1, 5.0, 0.0),
        "decaying": j**-2.0,
        "graded": 10.0 ** (-30 * (j - 1) / max(n - 1, 1)),
        "zero": np.zeros(n),
    }


def unitary(rng: np.random.Generator, m: int, n: int, dtype) -> np.ndarray:
    """``m x n`` with orthonormal columns, in double precision."""
    x = rng.standard_normal((m, n))
    if np.issubdtype(dtype, np.complexfloating):
        x = x + 1j * rng.standard_normal((m, n))
    return np.linalg.qr(x)[0]


def prescribed(s: np.ndarray, shape: tuple[int, int], dtype, seed: int = 0) -> np.ndarray:
    """A matrix with singular values ``s``, formed in double precision and rounded once."""
    rng, n = np.random.default_rng(seed), len(s)
    return ((unitary(rng, shape[0], n, dtype) * s) @ unitary(rng, shape[1], n, dtype).conj().T).astype(dtype)


def gaussian(shape: tuple[int, ...], dtype, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(shape)
    return (x + 1j * rng.standard_normal(shape) if np.issubdtype(dtype, np.complexfloating) else x).astype(dtype)


def with_entries(shape: tuple[int, int], dtype) -> dict[str, np.ndarray]:
    """Matrices whose *entries* are tied or zero."""
    m, n = shape
    signs = np.where(np.add.outer(np.arange(m), np.arange(n)) % 2, 1.0, -1.0)
    i = 1j if np.issubdtype(dtype, np.complexfloating) else 1
    return {
        "ones": np.ones(shape, dtype),
        "signs": (signs * i).astype(dtype),
        "sparse": np.eye(m, n, dtype=dtype) * 2,
        "zero_column": (np.arange(n)[None, :] * np.ones((m, 1)) * i).astype(dtype),
        "one_entry": np.eye(m, 1, dtype=dtype) @ np.eye(1, n, dtype=dtype),
    }


def factory(shape: tuple[int, int], dtype) -> tuple[list[str], np.ndarray]:
    """Names and a ``(batch, m, n)`` stack of all matrices of one shape."""
    named = {name: prescribed(s, shape, dtype, seed=len(name)) for name, s in spectra(min(shape)).items()}
    named |= {"gaussian": gaussian(shape, dtype)} | with_entries(shape, dtype)
    named |= {"tiny": named["distinct"] * REAL.type(1e-30), "huge": named["repeated"] * REAL.type(1e30)}
    return list(named), np.stack(list(named.values()))


def eigen(w, dtype, seed=0):
    """A Hermitian matrix with eigenvalues ``w``."""
    v = unitary(np.random.default_rng(seed), len(w), len(w), dtype)
    return ((v * w) @ v.conj().T).astype(dtype)


def hermitian_stack(dtype):
    """Hermitian matrices with simple, repeated, zero and close eigenvalues."""
    spectrum = [[-2, -1, 1, 3], [1, 1, 1, 1], [-1, -1, 2, 2], [0, 0, 0, 2], [0, 0, 0, 0], [-1, 1, 1, 1 + 1e-4]]
    return np.stack([eigen(np.array(w, float), dtype, seed) for seed, w in enumerate(spectrum)])


def part(a):
    """The Hermitian part."""
    return (a + jnp.swapaxes(a, -1, -2).conj()) / 2
