"""Eigenvalues of Hermitian matrices, and functions of them, at ties too."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matrices import DTYPES, REAL, eigen, gaussian, hermitian_stack, needs_double, part, tolerance

import jaxnorms as jn

dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=str)


@dtypes
def test_eigenvalues(dtype):
    a = hermitian_stack(dtype)
    np.testing.assert_allclose(jn.eigvalsh(a), np.linalg.eigvalsh(a), atol=tolerance(REAL))
    jacobian = jax.jit(jax.vmap(jax.jacrev(jn.eigvalsh)))(jnp.asarray(a[:4]))
    # A block of ties has one gradient, which turns with the matrix: the mean of its projections.
    for x, slopes in zip(a[:4], np.asarray(jacobian), strict=True):
        w, v = np.linalg.eigh(x.astype(np.complex128))
        for i, slope in enumerate(slopes):
            block = v[:, np.abs(w - w[i]) < 1e-3]
            mean = (block @ block.conj().T / block.shape[1]).conj()
            np.testing.assert_allclose(slope, mean, atol=tolerance(REAL, 500))


@dtypes
def test_hessian_of_a_function_of_eigenvalues(dtype):
    """``sum w^3``: what is nonlinear in the values themselves."""
    a = jnp.asarray(eigen(np.array([-1.0, 0.5, 2, 4]), dtype))
    e, h = (jnp.asarray(gaussian((4, 4), dtype, seed)) for seed in (1, 2))

    def trace(a):
        b = part(a)
        return jnp.trace(b @ b @ b).real

    def twice(f):
        def slope(a):
            return jax.jvp(f, (a,), (e,))

        return jax.tree.leaves(jax.jit(lambda a: jax.jvp(slope, (a,), (h,)))(a))

    for x, y in zip(twice(lambda a: jnp.sum(jn.eigvalsh(a) ** 3)), twice(trace), strict=True):
        np.testing.assert_allclose(x, y, rtol=tolerance(REAL, 500))


@needs_double
@dtypes
def test_second_derivative_of_eigenvalues(dtype):
    a = jnp.asarray(eigen(np.array([-1.0, 0.5, 2, 4]), dtype))
    e, h = (jnp.asarray(gaussian((4, 4), dtype, seed)) for seed in (1, 2))

    def slope(a):
        return jax.jvp(jn.eigvalsh, (a,), (e,))[1]

    step = 1e-5
    expected = (slope(a + step * h) - slope(a - step * h)) / (2 * step)
    np.testing.assert_allclose(jax.jvp(slope, (a,), (h,))[1], expected, atol=1e-8)
    assert np.all(np.isfinite(jax.jvp(slope, (jnp.eye(4, dtype=dtype),), (h,))[1]))
