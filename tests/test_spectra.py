"""Truncated decompositions, polar factors, summaries and bounds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from matrices import COMPLEX, DTYPES, REAL, factory, gaussian, needs_double, prescribed, tolerance

import jaxnorms as jn

inf = float("inf")
LARGE = (150, 130)  # leading values come from products
DECAYING = np.exp(-np.arange(130) / 8)


def close(actual, expected, dtype=REAL, factor=200):
    np.testing.assert_allclose(actual, expected, rtol=tolerance(dtype, factor), atol=tolerance(dtype, factor))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [LARGE, LARGE[::-1], (9, 12)], ids=str)
def test_truncated_svd(shape, dtype):
    a = jnp.asarray(prescribed(DECAYING[: min(shape)], shape, dtype))
    for scale in (1, 2.0**80, 2.0**-80):
        b = a * jnp.asarray(scale, dtype)
        u, s, vh, bound = jn.truncated_svd(b, 5)
        exact = np.linalg.svd(np.asarray(b, np.result_type(dtype, np.float64)), compute_uv=False)
        np.testing.assert_allclose(s, exact[:5], rtol=tolerance(dtype, 50))
        missed = np.linalg.norm(np.asarray(b) / scale - (np.asarray(u) * np.asarray(s / scale)) @ np.asarray(vh))
        assert missed <= bound / scale <= 1.02 * np.linalg.norm(exact[5:] / scale)
        close(u.conj().T @ u, np.eye(5), dtype)
        close(vh @ vh.conj().T, np.eye(5), dtype)


def test_truncated_svd_of_degenerate_matrices():
    """More triplets than the rank: zero values, orthonormal vectors, nothing left out; batches and starts."""
    rank_two = prescribed(np.where(np.arange(130) < 2, 3.0, 0), LARGE, REAL)
    a = jnp.asarray(np.stack([rank_two, np.zeros(LARGE, REAL), np.eye(*LARGE, dtype=REAL)]))
    u, s, vh, bound = jax.jit(lambda a: jn.truncated_svd(a, 4))(a)
    close(s, [[3, 3, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1]])
    close(jnp.swapaxes(u, 1, 2) @ u, np.broadcast_to(np.eye(4), (3, 4, 4)))
    close(vh @ jnp.swapaxes(vh, 1, 2), np.broadcast_to(np.eye(4), (3, 4, 4)))
    np.testing.assert_allclose(bound, [0, 0, np.sqrt(126)], rtol=1e-2, atol=tolerance(REAL, 1000))
    nested = jax.vmap(lambda a: jn.truncated_svd(a, 4, key=jax.random.key(1)))(a)
    close(nested.s, s)
    assert np.all(np.isnan(jn.truncated_svd(a[0] * jnp.nan, 2).s))
    assert np.all(np.isinf(jn.truncated_svd(a[2].at[0, 0].set(jnp.inf), 2).s))


@pytest.mark.parametrize("dtype", [COMPLEX], ids=str)
def test_derivatives_flow_through_the_values(dtype):
    a = jnp.asarray(prescribed(DECAYING, LARGE, dtype))
    e, f = (jnp.asarray(gaussian(LARGE, dtype, seed) / 10) for seed in (1, 2))
    weights = jnp.asarray([1, 2, 3], REAL)

    def few(a):
        return jnp.sum(weights * jn.truncated_svd(a, 3).s)

    def every(a):
        return jnp.sum(weights * jn.singular_values(a)[:3])

    both = [jax.jit(lambda a, f=f: (jax.grad(f)(a), jax.jvp(jax.grad(f), (a,), (e,))[1])) for f in (few, every)]
    for ours, theirs in zip(both[0](a), both[1](a), strict=True):
        close(ours, theirs, factor=2e4)
    close(few(a), jnp.sum(weights * jn.singular_values(a, 3)))
    close(
        jax.jvp(lambda a: jn.truncated_svd(a, 3).s, (a,), (f,))[1],
        jax.jvp(lambda a: jn.singular_values(a, 3), (a,), (f,))[1],
    )
    u, s, vh, bound = jax.jvp(lambda a: jn.truncated_svd(a, 3), (a,), (f,))[1]
    assert not np.any(u)
    assert not np.any(vh)
    assert not np.any(bound)
    assert np.any(s)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(5, 5), (9, 4), (3, 9)], ids=str)
def test_polar(shape, dtype):
    names, matrices = factory(shape, dtype)
    for name, a, u, h in zip(names, matrices, *map(np.asarray, jn.polar(matrices)), strict=True):
        size = np.max(np.abs(a), initial=0) or 1
        np.testing.assert_allclose(u @ (h / size), a / size, atol=tolerance(dtype, 100), err_msg=name)
        np.testing.assert_array_equal(h, h.conj().T)
        assert np.linalg.eigvalsh(h / size)[0] >= -tolerance(dtype, 10)
    q = prescribed(np.ones(min(shape)), shape, dtype)
    close(jn.polar(q)[0], q, dtype)


@needs_double
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("s", [[3, 2, 1], [1, 1, 1], [2, 2, 1]], ids=str)
def test_derivative_of_polar(s, dtype):
    """By finite differences, at orthogonal matrices and repeated values too."""
    for shape in ((3, 3), (5, 3)):
        a = jnp.asarray(prescribed(np.array(s, float), shape, dtype))
        check_grads(jn.polar, (a,), order=1, modes=["fwd", "rev"], atol=1e-6, rtol=1e-6)
    with pytest.raises(ValueError, match="third derivatives"):
        jax.jvp(lambda a: jax.jvp(jn.polar, (a,), (a,))[1], (a,), (a,))


def test_spectrum_summary():
    a = jnp.asarray(np.stack([np.diag([2.0, 2, 1]), np.zeros((3, 3)), np.diag([4.0, 0, 0])]), REAL)
    got = jn.spectrum_summary(a)
    close(got.spectral_norm, [2, 0, 4])
    close(got.nuclear_norm, [5, 0, 4])
    close(got.frobenius_norm, [3, 0, 4])
    close(got.stable_rank, [9 / 4, 0, 1])
    p = np.array([2, 2, 1]) / 5
    close(got.effective_rank, [np.exp(-np.sum(p * np.log(p))), 0, 1])
    np.testing.assert_array_equal(got.numerical_rank, [3, 0, 1])
    np.testing.assert_array_equal(got.cond, [2, inf, inf])
    g = jax.jit(jax.vmap(jax.grad(lambda a: sum(jn.spectrum_summary(a)[:5]))))(a)
    assert np.all(np.isfinite(g))
    close(jax.grad(lambda a: jn.spectrum_summary(a).spectral_norm)(a[0]), jax.grad(jn.spectral_norm)(a[0]))
    close(jax.grad(lambda a: jn.spectrum_summary(a).frobenius_norm)(a[0]), a[0] / 3)
    assert jn.spectrum_summary(jnp.zeros((2, 0, 3))).cond.shape == (2,)
    assert np.all(np.isposinf(jnp.stack(jn.spectrum_summary(jnp.full((2, 2), inf))[:3])))


def test_gradients_of_the_summary_over_the_whole_range():
    """Those of a quotient divide by squares: from 1e20 on in 32 bits they were finite and wrong."""

    @jax.jit
    def gradients(a):
        return jax.jacobian(lambda a: jnp.stack([*jn.spectrum_summary(a)[:5], jn.spectrum_summary(a).cond]))(a)

    a = prescribed(np.array([3.0, 2, 1]), (4, 3), REAL)
    exact = gradients(a)
    for power in (int(0.9 * jnp.finfo(REAL).maxexp), int(0.9 * jnp.finfo(REAL).minexp)):
        found = gradients(np.ldexp(a, power))
        close(found[:3], exact[:3])
        close(np.ldexp(found[3:], power), exact[3:])


ORDS = [jn.Schatten(inf), jn.Schatten(1), jn.Schatten(1.5), jn.Schatten(4), jn.KyFan(3), jn.KyFan(2, 2), "fro"]


@pytest.mark.parametrize("ord", ORDS, ids=str)
def test_norm_bounds_hold(ord):
    for shape, dtype in ((LARGE, REAL), ((6, 9), COMPLEX)):
        a = np.stack(
            [prescribed(np.exp(-np.arange(min(shape))), shape, dtype), gaussian(shape, dtype), np.zeros(shape, dtype)]
        )
        a = np.concatenate([a, a * REAL.type(1e30), a * REAL.type(1e-30)])
        lower, upper = (np.asarray(x, np.float64) for x in jn.norm_bounds(a, ord))
        s = np.linalg.svd(a.astype(np.complex128), compute_uv=False)
        exact = np.stack([_gauge(ord, row) for row in s])
        assert np.all(lower <= exact * (1 + 1e-12))
        assert np.all(exact <= upper * (1 + 1e-12))
        assert np.all(upper[::3] <= 1.2 * lower[::3])  # the decaying ones are bounded tightly


def _gauge(ord, s):
    """The norm from exact singular values, in double precision."""
    if ord == "fro":
        return np.linalg.norm(s)
    k, p = (ord.k, ord.p) if isinstance(ord, jn.KyFan) else (len(s), ord.p)
    return np.linalg.norm(s[:k], p)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_gram_bounds_are_tight_for_every_matrix(dtype):
    for shape in ((40, 30), (5, 70), (130, 130), (1, 1)):
        _, a = factory(shape, dtype)
        lower, upper = (np.asarray(x, np.float64) for x in jn.norm_bounds(a, method="gram"))
        exact = np.linalg.svd(a.astype(np.complex128), compute_uv=False)[:, 0]
        assert np.all((lower <= exact) & (exact <= upper) & (upper <= 1.06 * lower))


def test_bad_arguments():
    a = jnp.ones((4, 3))
    with pytest.raises(ValueError, match=r"k must be between 1 and min\(m, n\) = 3, got 4"):
        jn.truncated_svd(a, 4)
    with pytest.raises(ValueError, match="tol must be None or a number between 0 and 1, got 2"):
        jn.truncated_svd(a, 2, tol=2)
    with pytest.raises(ValueError, match=r"method must be one of 'auto', 'svd'.*got 'krylov'"):
        jn.polar(a, method="krylov")
    with pytest.raises(TypeError, match="polar: unexpected keyword 'axis'"):
        jn.polar(a, axis=(0, 1))
    with pytest.raises(ValueError, match="norm_bounds: ord must be a Schatten, Ky Fan or Frobenius norm"):
        jn.norm_bounds(a, jn.Mixed(2, 1))
    with pytest.raises(ValueError, match="method='gram' is for the spectral norm"):
        jn.norm_bounds(a, "nuc", method="gram")
