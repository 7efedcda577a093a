"""Tikhonov regularisation against the normal equations, over the range, and its derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from differences import against_differences
from matrices import DTYPES, REAL, gaussian, needs_double, tolerance

import jaxnorms as jn

inf = float("inf")
SMALL = tolerance(REAL)


def matvec(params, x):
    return params @ x


def ridge(a, b, lam):
    ah = np.conj(np.swapaxes(a, -1, -2))
    return np.linalg.solve(ah @ a + lam * np.eye(a.shape[-1]), ah @ b)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_tikhonov_values(dtype):
    wide = np.promote_types(dtype, np.float64)
    for shape in ((9, 6), (6, 9)):
        a, b = gaussian((2, *shape), dtype), gaussian((2, shape[0], 6), dtype, 1)
        lam = np.array([0.5, 2.0], REAL)
        gram = np.conj(np.swapaxes(a, 1, 2)) @ a + lam[:, None, None] * np.eye(shape[1])
        np.testing.assert_allclose(jn.tikhonov_cond(a, lam), np.linalg.cond(gram.astype(wide)), rtol=10 * SMALL)
        expected = ridge(a.astype(wide), b.astype(wide), lam[:, None, None])
        np.testing.assert_allclose(jn.tikhonov_solve(a, b, lam), expected, atol=10 * SMALL)
        np.testing.assert_allclose(jn.tikhonov_solve(a, b[..., 0], lam), expected[..., 0], atol=10 * SMALL)
    for shape in ((5, 3), (3, 5)):
        a, b = gaussian(shape, dtype), gaussian((shape[0], 2), dtype, 1)
        expected = ridge(a.astype(wide), b.astype(wide), 0.5)
        op = jn.LinearOperator(jnp.asarray(a), matvec, None, shape, dtype)
        x = jn.tikhonov_solve(op, b, 0.5, tol=SMALL)
        np.testing.assert_allclose(x, expected, atol=tolerance(REAL, 1000))
        np.testing.assert_allclose(jn.tikhonov_solve(op, b[:, 0], 0.5, tol=SMALL), x[:, 0], atol=tolerance(REAL, 1000))


@pytest.mark.parametrize("size", [1e-25, 1e25])
def test_tikhonov_over_the_range(size):
    c = REAL.type(size)
    a = jnp.diag(jnp.asarray([3, 1, 0], REAL)) * c
    b = jnp.asarray([3, 1, 5], REAL) * c
    assert jn.tikhonov_cond(a, 0.0) == inf
    np.testing.assert_array_equal(jax.grad(jn.tikhonov_cond)(a, 0.0), 0)
    assert jax.grad(jn.tikhonov_cond, argnums=1)(a, 0.0) == 0
    assert jn.tikhonov_cond(0 * a, 0.0) == inf
    assert jn.tikhonov_cond(0 * a, 1.0) == 1
    full = a + jnp.diag(jnp.asarray([0, 0, 1], REAL)) * c
    np.testing.assert_allclose(jn.tikhonov_cond(full, 0.0), 9, rtol=SMALL)
    large = jn.tikhonov_cond(a, jnp.finfo(REAL).max / 4)
    assert large >= 1
    assert np.isfinite(large)
    op = jn.LinearOperator(a, matvec, None, (3, 3), REAL)
    np.testing.assert_allclose(jn.tikhonov_solve(op, b, 0.0), [1, 1, 0], atol=1e-4)
    for f in (lambda lam: jn.tikhonov_cond(a, lam), lambda lam: jn.tikhonov_solve(a, b, lam),
              lambda lam: jn.tikhonov_solve(op, b, lam)):  # fmt: skip
        for bad in (-1.0, jnp.nan):
            assert np.all(np.isnan(f(bad)))


@needs_double
@pytest.mark.parametrize("shape", [(4, 3), (3, 4)])
def test_derivatives_of_tikhonov(shape):
    (a, e), (b, d) = (gaussian((2, 3, *size), REAL, len(size)) for size in (shape, shape[:1]))
    lam, mu = np.array([[0.7, 2.0, 0.1], [0.3, -1.0, 0.5]])
    weights = gaussian(shape[1:], REAL, 3)
    against_differences(jn.tikhonov_cond, (a, lam), (e, mu))
    if shape == (4, 3):  # the second derivatives are those of regularized_inverse

        def solve(a, b, lam):
            return weights @ jn.tikhonov_solve(a, b, lam)

        against_differences(solve, (a, b, lam), (e, d, mu), second=False)

    def by_products(a, b, lam):
        op = jn.LinearOperator(a, matvec, None, shape, REAL)
        return weights @ jn.tikhonov_solve(op, b, lam, tol=1e-14)

    against_differences(by_products, (a, b, lam), (e, d, mu))


def test_ties_of_tikhonov():
    """d (s_1^2 + lam)/(s_n^2 + lam), shared by the tied values; at 0 it is smooth."""
    g = jax.grad(jn.tikhonov_cond)(jnp.diag(jnp.asarray([3, 3, 1], REAL)), 1.0)
    np.testing.assert_allclose(g, np.diag([1.5, 1.5, -5]), atol=10 * SMALL)
    g = jax.grad(jn.tikhonov_cond)(jnp.diag(jnp.asarray([2, 0], REAL)), 1.0)
    np.testing.assert_allclose(g, np.diag([4, 0]), atol=10 * SMALL)
