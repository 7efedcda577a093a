"""Characteristic polynomials: coefficients and derivatives equal those of integer matrices in exact arithmetic."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec
from jax.test_util import check_grads
from matrices import COMPLEX, DTYPES, REAL, gaussian, needs_double, prescribed, tolerance

import jaxnorms as jn


def exact(a):
    """By Faddeev and LeVerrier, of (Gaussian) integers: no division has a remainder."""
    n = a.shape[-1]
    c, b = [np.ones(a.shape[:-2], a.dtype)], np.zeros_like(a)
    for k in range(1, n + 1):
        b = a @ b + c[-1][..., None, None] * np.eye(n, dtype=int)
        c.append(-np.trace(a @ b, axis1=-2, axis2=-1) / k)
        assert np.max(np.abs(c[-1]), initial=0) < 2**50
    return np.stack(c, axis=-1)


def integers(n, dtype, seed=0):
    """Regular, of rank 1, of repeated eigenvalues, nilpotent, and zero."""
    rng = np.random.default_rng(seed)

    def draw(*shape):
        x = rng.integers(-2, 3, shape).astype(np.complex128)
        return x + 1j * rng.integers(-1, 2, shape) if dtype == COMPLEX else x.real

    regular, low = draw(n, n), draw(n, 1) @ draw(1, n)
    repeated = 2 * np.eye(n) + np.triu(draw(n, n), 1)
    return np.stack([regular, low, repeated, np.triu(draw(n, n), 1), np.zeros_like(low)])


def sizes(a):
    """What c_k may be as large as, by the spectral norm."""
    return (1 + np.linalg.norm(a, 2, axis=(-2, -1)))[:, None] ** np.arange(a.shape[-1] + 1)


def within(error, allowed):
    assert np.all(np.abs(error) <= allowed), np.max(np.abs(error) / allowed)


@pytest.mark.parametrize(("n", "dtype"), [*((n, REAL) for n in range(1, 7)), (2, COMPLEX), (5, COMPLEX)])
def test_value_and_first_derivative(n, dtype):
    """Each coefficient is a sum of minors, affine in each entry: its differences are its derivatives."""
    stack = integers(n, dtype)
    units = np.eye(n * n).reshape(-1, n, n)
    c, slopes = jax.jit(lambda a: (jn.charpoly(a), jax.vmap(jax.jacrev(jn.charpoly, holomorphic=dtype == COMPLEX))(a)))(
        stack.astype(dtype)
    )
    at, size = exact(stack), sizes(stack)
    expected = np.moveaxis(exact(stack[:, None] + units) - at[:, None], 1, 2)
    assert c.dtype == dtype
    within(c - at, tolerance(REAL) * size)
    within(np.reshape(slopes, expected.shape) - expected, tolerance(REAL) * size[..., None])
    assert not np.any(slopes[:, 0])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_second_derivative(dtype):
    n = 4
    stack = integers(n, dtype)
    e = np.eye(n * n).reshape(-1, n, n)
    one, two = exact(stack[:, None] + e), exact(stack[:, None, None] + e[:, None] + e)
    expected = two - one[:, :, None] - one[:, None] + exact(stack)[:, None, None]
    expected[:, np.arange(n * n), np.arange(n * n)] = 0
    holomorphic = dtype == COMPLEX
    second = jax.jacfwd(jax.jacrev(jn.charpoly, holomorphic=holomorphic), holomorphic=holomorphic)
    h = np.reshape(jax.jit(jax.vmap(second))(stack.astype(dtype)), (-1, n + 1, n * n, n * n))
    within(h - np.moveaxis(expected, -1, 1), tolerance(REAL) * sizes(stack)[..., None, None])


def test_third_derivative():
    """That of ``c_3 = -det a`` is minus the sign of the permutation."""
    third = jax.jit(jax.jacfwd(jax.jacfwd(jax.jacrev(lambda a: jn.charpoly(a)[3]))))(jnp.eye(3))
    for i in itertools.permutations(range(3)):
        for j in itertools.permutations(range(3)):
            expected = -np.linalg.det(np.eye(3)[list(i)]) * np.linalg.det(np.eye(3)[list(j)])
            np.testing.assert_allclose(third[i[0], j[0], i[1], j[1], i[2], j[2]], expected, rtol=tolerance(REAL))
    assert np.count_nonzero(np.abs(third) > 0.5) == 36


@needs_double
def test_every_mode():
    a = gaussian((2, 2), REAL)
    check_grads(jax.jit(jn.charpoly), (a,), order=2, modes=["fwd", "rev"], atol=1e-6, rtol=1e-6)


def test_worked_case():
    np.testing.assert_array_equal(jn.charpoly(jnp.eye(2)), [1, -2, 1])
    np.testing.assert_array_equal(jax.jacobian(jn.charpoly)(jnp.eye(2)), [np.zeros((2, 2)), -np.eye(2), np.eye(2)])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_twenty_rows(dtype):
    """Against Python's integers. The root mean square of the change of c_k by a random perturbation of size t is
    ``t sqrt(n binom(n - 1, k - 1))`` at the identity, where it is as large as at any matrix of norm 1."""
    n, bits = 20, 18
    a = np.round(prescribed(np.linspace(1, 0.3, n), (n, n), dtype) * REAL.type(2**bits)) / REAL.type(2**bits)
    re, im = ([[int(x) for x in row] for row in part * 2**bits] for part in (a.real, a.imag))
    re, im = np.array(re, object), np.array(im, object)
    c, d = [1], [0]
    p, q = np.zeros_like(re), np.zeros_like(re)
    one = np.eye(n, dtype=int).astype(object)
    for k in range(1, n + 1):
        p, q = p + c[-1] * one, q + d[-1] * one
        p, q = re @ p - im @ q, re @ q + im @ p
        c.append(-np.trace(p) // k)
        d.append(-np.trace(q) // k)
    expected = np.array(
        [complex(x / 2 ** (bits * k), y / 2 ** (bits * k)) for k, (x, y) in enumerate(zip(c, d, strict=True))]
    )
    allowed = [tolerance(REAL) * math.sqrt(n * math.comb(n - 1, k - 1)) if k else 0 for k in range(n + 1)]
    within(np.asarray(jn.charpoly(a)) - expected, allowed)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_agreement_with_the_value_at_a_point(dtype):
    a = prescribed(np.linspace(1, 0.2, 6), (6, 6), dtype)
    points = jnp.asarray([-1.0, 0.0, 0.3, 2.0], dtype)
    horner = jnp.polyval(jn.charpoly(a), points)
    direct = jax.vmap(jn.charpoly_value, (None, 0))(a, points)
    np.testing.assert_allclose(horner, direct, atol=tolerance(REAL) * 3**6)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_scaling_and_range(dtype):
    """By exact powers of two; the product of all eigenvalues is in range where that of some is not."""
    a = gaussian((4, 4), dtype)
    for k in (-20, 20):
        np.testing.assert_array_equal(
            jn.charpoly(a * REAL.type(2.0**k)), np.asarray(jn.charpoly(a)) * REAL.type(2.0) ** (k * np.arange(5))
        )
    big = 2.0 ** int(0.4 * jnp.finfo(REAL).maxexp)
    eigenvalues = np.array([big] * 3 + [1 / big] * 3)
    c, d = (
        np.asarray(jn.charpoly(np.diag(eigenvalues).astype(dtype))),
        np.asarray(jn.charpoly(np.eye(6, dtype=dtype) / REAL.type(big))),
    )
    np.testing.assert_allclose(c[[0, 1, 2, 5, 6]], [1, -3 * big, 3 * big**2, -3 * big, 1], rtol=tolerance(REAL))
    assert np.isinf(c[3].real)
    np.testing.assert_allclose(d[[1, 2, 3]], [-6 / big, 15 / big**2, 0], rtol=tolerance(REAL))


def test_derivative_in_range():
    """Of a matrix of any size, where the coefficients themselves are."""
    a = np.diag(np.array([1.0, 2.0, 3.0], REAL))
    small = REAL.type(2.0 ** -(jnp.finfo(REAL).maxexp // 3))
    g = jax.jit(jax.jacrev(jn.charpoly))
    expected = g(a)
    for t in (small, 1 / small):
        np.testing.assert_array_equal(g(a * t), expected * (t ** np.arange(-1, 3))[:, None, None].astype(REAL))


def test_bad_rows_and_empty_ones():
    a = gaussian((4, 3, 3), REAL)
    a[0, 0, 0], a[1, 1, 1] = np.nan, np.inf

    @jax.jit
    def value_and_slopes(a):
        _, slopes = jax.jvp(jn.charpoly, (a,), (jnp.ones_like(a),))
        return jn.charpoly(a), slopes[:, 1:], jax.vmap(jax.grad(lambda a: jnp.sum(jn.charpoly(a))))(a)

    for bad, good in zip(value_and_slopes(a), value_and_slopes(a[2:].repeat(2, axis=0)), strict=True):
        assert np.all(np.isnan(bad[:2]))
        np.testing.assert_array_equal(bad[2:], good[::2])
    np.testing.assert_array_equal(jn.charpoly(jnp.zeros((0, 0))), [1])
    np.testing.assert_array_equal(jn.charpoly(jnp.zeros((3, 0, 0))), np.ones((3, 1)))
    assert jax.jacobian(jn.charpoly)(jnp.zeros((0, 0))).shape == (1, 0, 0)
    assert jn.charpoly(jnp.zeros((0, 2, 2))).shape == (0, 3)
    half = jn.charpoly(jnp.full((2, 2), 3, jnp.bfloat16))
    assert half.dtype == jnp.bfloat16
    np.testing.assert_array_equal(half.astype(REAL), [1, -6, 0])
    np.testing.assert_allclose(jn.charpoly(np.array([[1, 2], [3, 4]])), [1, -5, -2], atol=tolerance(REAL, 1000))


def test_inside_shard_map():
    mesh = Mesh(np.array(jax.devices()[:2]), ("batch",))
    spec = PartitionSpec("batch")
    a = gaussian((4, 3, 3), REAL)
    local = jax.jit(
        jax.shard_map(lambda a: jax.vmap(jax.jacrev(jn.charpoly))(a), mesh=mesh, in_specs=spec, out_specs=spec)
    )
    np.testing.assert_allclose(local(a), jax.vmap(jax.jacrev(jn.charpoly))(a), atol=tolerance(REAL))


def test_what_is_refused():
    with pytest.raises(ValueError, match=r"charpoly: a must have shape \(\.\.\., n, n\), got shape \(2, 3\)"):
        jn.charpoly(jnp.ones((2, 3)))


def test_gradient_of_many_rows_stays_in_range():
    """Entries of size 1/64: of the coefficients none is out of range, but of the powers of 64 a most are."""
    a = jnp.asarray(np.random.default_rng(0).choice([-1, 1], (60, 60)) / 64, REAL)
    g = jax.grad(lambda a: jn.charpoly(a)[2])(a)
    np.testing.assert_allclose(g, np.trace(a) * np.eye(60) - np.asarray(a).T, atol=tolerance(REAL))
