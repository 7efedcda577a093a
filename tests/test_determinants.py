"""Determinants: derivatives equal exact differences of integer polynomials at every rank."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from matrices import COMPLEX, DTYPES, REAL, gaussian, needs_double, prescribed, tolerance

import jaxnorms as jn


def integers(n, rank, dtype, seed=0):
    """Small (Gaussian) integers of this rank, whose determinants round to the exact ones."""
    rng = np.random.default_rng(seed)

    def factor(*shape):
        x = rng.integers(-2, 3, shape).astype(np.complex128)
        return x + 1j * rng.integers(-1, 2, shape) if dtype == COMPLEX else x.real

    return factor(n, rank) @ factor(rank, n)


def exact_det(a):
    return np.round(np.linalg.det(a))


def units(n):
    return np.eye(n * n).reshape(n * n, n, n)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("n", [4, 5, 6])
def test_derivatives_at_every_rank(n, dtype):
    """det is affine in each entry: its mixed differences are its derivatives."""
    stack = np.stack([integers(n, rank, dtype, seed=rank) for rank in range(n, max(n - 4, 0), -1)])
    e = units(n)
    holomorphic = dtype == COMPLEX
    value, first, second = jax.jit(
        lambda a: (
            jn.det(a),
            jax.vmap(jax.grad(jn.det, holomorphic=holomorphic))(a),
            jax.vmap(jax.hessian(jn.det, holomorphic=holomorphic))(a),
        )
    )(stack.astype(dtype))
    for a, d, g, h in zip(stack, value, first, second, strict=True):
        at, one = exact_det(a), exact_det(a + e)
        two = exact_det(a + e[:, None] + e[None, :])
        expected = two - one[:, None] - one[None, :] + at
        expected[np.diag_indices(n * n)] = 0
        size = np.linalg.norm(a, 2)
        np.testing.assert_allclose(d, at, atol=tolerance(REAL) * size**n)
        np.testing.assert_allclose(g.ravel(), one - at, atol=tolerance(REAL) * size ** (n - 1))
        np.testing.assert_allclose(h.reshape(n * n, -1), expected, atol=tolerance(REAL) * size ** (n - 2))


def test_worked_cases():
    tol = tolerance(REAL)
    np.testing.assert_allclose(jax.grad(jn.det)(jnp.array([[1.0, 2], [2, 4]])), [[4, -2], [-2, 1]], atol=4 * tol)
    a = jnp.diag(jnp.array([1.0, 1, 0, 0]))
    assert not np.any(jax.grad(jn.det)(a))
    h = jax.hessian(jn.det)(a)
    assert (h[2, 2, 3, 3], h[2, 3, 3, 2]) == (1, -1)


@needs_double
@pytest.mark.parametrize("n", [1, 2, 4])
def test_every_mode(n):
    a = gaussian((n, n), REAL) + 2 * np.eye(n)
    check_grads(jn.det, (a,), order=2, modes=["fwd", "rev"], atol=1e-6, rtol=1e-6)
    check_grads(jn.cofactor, (a,), order=1, modes=["fwd", "rev"], atol=1e-6, rtol=1e-6)
    check_grads(lambda a: jn.slogdet(a).logabsdet, (a,), order=2, modes=["fwd", "rev"], atol=1e-5, rtol=1e-5)
    check_grads(jn.charpoly_value, (a, np.float64(0.3)), order=2, modes=["fwd", "rev"], atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_range(dtype):
    """Neither the product of all values nor one that leaves some out passes through what is out of range."""
    big = float(jnp.finfo(REAL).max) ** 0.4
    s = np.array([big, big, big, 1 / big, 1 / big, 1 / big])
    a = np.diag(s).astype(dtype) @ np.diag(np.ones(6)).astype(dtype)[::-1]
    scaled = jnp.asarray(a)
    np.testing.assert_allclose(jn.det(scaled), np.linalg.det(np.eye(6)[::-1]), rtol=tolerance(REAL))
    c = np.asarray(jn.cofactor(scaled))
    np.testing.assert_allclose(np.diagonal(c[:, ::-1]) * np.diagonal(a[:, ::-1]), jn.det(scaled), rtol=1e-4)
    for power, limit in ((big, np.inf), (1 / big, 0)):
        assert np.abs(jn.det(jnp.asarray(np.eye(6, dtype=dtype) * power))) == limit
    log = jn.slogdet(jnp.asarray(np.eye(6, dtype=dtype) / REAL.type(big))).logabsdet
    np.testing.assert_allclose(log, -6 * np.log(big), rtol=tolerance(REAL))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_identities(dtype):
    a, b = gaussian((2, 5, 5), dtype)
    tol = tolerance(REAL, 200)
    d, e, c, f, g = map(np.asarray, (jn.det(a), jn.det(b), jn.cofactor(a), jn.cofactor(b), jn.cofactor(a @ b)))
    np.testing.assert_allclose(a @ np.asarray(jn.adjugate(a)), d * np.eye(5), atol=tol * np.linalg.norm(a) ** 5)
    np.testing.assert_allclose(jn.det(a @ b), d * e, rtol=tol)
    np.testing.assert_allclose(g, c @ f, atol=tol * np.linalg.norm(a) ** 8)
    sign, log = map(np.asarray, jn.slogdet(a))
    np.testing.assert_allclose(sign * np.exp(log), jn.det(a), rtol=tol)
    w = np.linalg.eigvals(a.astype(np.complex128))
    np.testing.assert_allclose(jn.charpoly_value(a, 0.3), np.prod(0.3 - w), rtol=tol)


def test_characteristic_polynomial_at_an_eigenvalue():
    a = prescribed(np.array([3.0, 2, 1]), (3, 3), REAL)
    a = (a + a.T) / 2
    w = np.linalg.eigvalsh(a.astype(np.float64))
    slopes = jax.vmap(jax.grad(jn.charpoly_value, argnums=1), (None, 0))(jnp.asarray(a), jnp.asarray(w, REAL))
    expected = [np.prod([x - y for j, y in enumerate(w) if j != i]) for i, x in enumerate(w)]
    np.testing.assert_allclose(slopes, expected, atol=tolerance(REAL, 200))


def test_bad_rows_and_empty_ones():
    a = gaussian((4, 3, 3), REAL)
    a[0, 0, 0], a[1, 1, 1] = np.nan, np.inf
    for f in (jn.det, jn.cofactor, jn.adjugate, lambda a: jn.slogdet(a).logabsdet, lambda a: jn.charpoly_value(a, 1.0)):
        y = np.asarray(f(a))
        assert np.all(np.isnan(y[:2]))
        np.testing.assert_allclose(y[2:], f(a[2:]), rtol=tolerance(REAL))
    assert jn.det(jnp.zeros((0, 0))) == 1
    np.testing.assert_array_equal(jn.det(jnp.zeros((3, 0, 0))), 1)
    assert jn.cofactor(jnp.zeros((0, 0))).shape == (0, 0)
    assert jn.cofactor(jnp.zeros((1, 1))) == 1
    assert jn.det(jnp.eye(3, dtype=jnp.bfloat16) * 2).dtype == jnp.bfloat16
    assert jn.det(np.array([[1, 2], [3, 4]])) == pytest.approx(-2, rel=1e-5)


def test_what_is_refused():
    with pytest.raises(ValueError, match=r"det: a must have shape \(\.\.\., n, n\), got shape \(2, 3\)"):
        jn.det(jnp.ones((2, 3)))
    with pytest.raises(ValueError, match="x must have a shape that broadcasts"):
        jn.charpoly_value(jnp.eye(2), jnp.ones(3))
    with pytest.raises(ValueError, match="third derivatives"):
        jax.jacfwd(jax.jacfwd(jax.jacfwd(jn.det)))(jnp.eye(2))


def test_determinants_of_matrices_without_entries():
    a = jnp.zeros((3, 0, 0))
    value, back = jax.vjp(jn.det, a)
    np.testing.assert_array_equal(value, np.ones(3))
    assert back(jnp.ones(3))[0].shape == a.shape
    assert jax.jacfwd(jn.det)(a).shape == (3, 3, 0, 0)
