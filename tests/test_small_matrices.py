"""Decompositions of batches of small matrices: Jacobi, and the leading triplet by squaring."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from matrices import COMPLEX, DTYPES, REAL, factory, gaussian, needs_double, prescribed, tolerance

import jaxnorms as jn
from jaxnorms.decompositions.jacobi import jacobi_svd
from jaxnorms.decompositions.squaring import leading_by_squaring
from jaxnorms.decompositions.two_by_two import two_by_two_svd

SMALL = [(2, 2), (3, 3), (4, 4), (8, 8), (7, 4), (3, 6)]
MEDIUM = [(16, 16), (12, 40)]


def scaled(a: np.ndarray) -> np.ndarray:
    largest = np.abs(a).max((-2, -1), keepdims=True)
    return a / np.where(largest == 0, 1, largest).astype(a.dtype)


def adversaries(shape: tuple[int, int], dtype) -> np.ndarray:
    """The factory, integer matrices of low rank, ties, values over nine decades, tiny gaps and many random ones."""
    rng, k = np.random.default_rng(1), min(shape)
    stacks = [factory(shape, dtype)[1], gaussian((100, *shape), dtype)]
    stacks.append(rng.integers(-1, 2, (100, *shape)).astype(dtype))
    for seed in range(40):
        gap = np.ones(k)
        gap[: k // 2] += 10.0 ** rng.uniform(-8, 0)
        single = 1 - 10.0 ** rng.uniform(-8, 0) * (np.arange(k) > 0)
        ties = -np.sort(-rng.integers(0, 3, k)).astype(float)
        spectra = [gap, single, ties, 10.0 ** -np.sort(rng.integers(0, 9, k)), np.ones(k)]
        stacks.append(np.stack([prescribed(s, shape, dtype, seed) for s in spectra]))
    return scaled(np.concatenate(stacks))


@pytest.mark.quick
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_two_by_two_factors_are_unitary_at_every_rank(dtype):
    """However the compiler repeats what is rounding alone: JAX 0.12 computed it anew for each use."""
    stack = jnp.asarray(adversaries((2, 2), dtype))
    for run in (jax.jit(jax.vmap(two_by_two_svd)), jax.vmap(jax.jit(two_by_two_svd))):
        u, _, vh = map(exact, run(stack))
        for x in (u, vh):
            error = np.abs(x.conj().swapaxes(-1, -2) @ x - np.eye(2)).max()
            assert error <= tolerance(dtype)


def exact(x) -> np.ndarray:
    return np.asarray(x).astype(complex)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SMALL)
def test_jacobi_is_a_singular_value_decomposition(shape, dtype):
    a = adversaries(shape, dtype)
    u, s, vh = jax.jit(jax.vmap(jacobi_svd))(a)
    assert u.shape[1:] == (shape[0], min(shape))
    assert vh.shape[1:] == (min(shape), shape[1])
    assert np.all(np.diff(s, axis=1) <= 0)
    u, s, vh, reference = exact(u), exact(s), exact(vh), np.linalg.svd(exact(a), compute_uv=False)
    tol, top, eye = tolerance(dtype, 16), reference[:, :1], np.eye(min(shape))
    assert np.abs(u.conj().swapaxes(1, 2) @ u - eye).max() < tol
    assert np.abs(vh @ vh.conj().swapaxes(1, 2) - eye).max() < tol
    assert np.all(np.abs(s - reference) <= tol * top)
    assert np.all(np.abs((u * s[:, None]) @ vh - a) <= tol * top[..., None])


@pytest.mark.parametrize("function", [jacobi_svd, leading_by_squaring])
def test_batches_agree_with_single_matrices(function):
    a = gaussian((2, 3, 8, 8), REAL)
    nested = jax.jit(jax.vmap(jax.vmap(function)))(a)
    other = jax.jit(jax.vmap(jax.vmap(function), in_axes=1, out_axes=1))(a)
    flat = jax.jit(jax.vmap(function))(a.reshape(6, 8, 8))
    single = jax.jit(function)
    for i, x in enumerate(a.reshape(6, 8, 8)):
        for one, n, o, f in zip(single(x), nested, other, flat, strict=True):
            for batched in (n.reshape(f.shape), o.reshape(f.shape), f):
                np.testing.assert_allclose(batched[i], one, atol=tolerance(REAL, 200))


def test_jacobi_in_a_loop():
    a = jnp.asarray(gaussian((4, 3, 3), REAL))

    def polar(x):
        u, _, vh = jacobi_svd(x)
        return u @ vh

    power = jax.jit(
        jax.vmap(lambda x: jax.lax.while_loop(lambda c: c[0] < 2, lambda c: (c[0] + 1, polar(c[1])), (0, x))[1])
    )
    np.testing.assert_allclose(power(a), jax.vmap(polar)(a), atol=tolerance(REAL))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", MEDIUM)
def test_squaring_claims_only_what_holds(shape, dtype):
    a = adversaries(shape, dtype)
    u, s, v, ok = jax.jit(jax.vmap(leading_by_squaring))(a)
    ru, rs, rvh = np.linalg.svd(exact(a), full_matrices=False)
    gap = 1 - rs[:, 1] / np.where(rs[:, 0] == 0, 1, rs[:, 0])
    eps = float(jnp.finfo(dtype).eps)
    error = np.abs(exact(u)[:, :, None] * exact(v).conj()[:, None] - ru[:, :, :1] * rvh[:, :1]).max((1, 2))
    allowed = 4 * np.maximum(eps ** (2 / 3), 16 * eps / np.maximum(gap, eps))
    ok = np.asarray(ok)
    assert np.all(error[ok] <= allowed[ok])
    assert np.all(np.abs(exact(s)[ok] - rs[ok, 0]) <= 16 * eps * rs[ok, 0])
    assert not np.any(ok & (gap < 8 * eps))
    assert np.mean(ok[gap > 0.01]) > 0.95


@pytest.mark.parametrize("dtype", [REAL, COMPLEX])
def test_squaring_finds_rank_one_and_gaussian_leaders(dtype):
    a = np.stack([prescribed(np.eye(16)[0], (16, 16), dtype), *gaussian((255, 16, 16), dtype)])
    *_, ok = jax.jit(jax.vmap(leading_by_squaring))(scaled(a))
    assert np.all(ok)


def test_squaring_notices_a_leader_outside_its_start():
    start = np.random.default_rng(0).standard_normal((4, 16))
    u = np.linalg.qr(np.concatenate([start.T, gaussian((16, 12), np.float64)], axis=1))[0][:, ::-1]
    s = np.zeros(16)
    s[0], s[-4:] = 1.01, [0.25, 0.5, 0.75, 1]
    a = (u * s) @ prescribed(np.ones(16), (16, 16), np.float64)
    _, value, _, ok = jax.jit(leading_by_squaring)(jnp.asarray(a, REAL))
    assert not ok or abs(value - 1.01) < 1e-5


@pytest.mark.parametrize("count", [2049, 4096])
def test_batches_of_several_pieces(count):
    """More matrices than stay in the cache, with and without a last piece that is not full."""
    a = scaled(gaussian((count, 4, 4), REAL))
    u, s, vh = map(np.asarray, jax.jit(jax.vmap(jacobi_svd))(a))
    np.testing.assert_allclose((u * s[:, None]) @ vh, a, atol=tolerance(REAL))
    np.testing.assert_allclose(s, np.linalg.svd(a.astype(float), compute_uv=False), atol=tolerance(REAL))


@needs_double
def test_derivatives_of_a_batch():
    """By Jacobi, where all other tests of derivatives take one matrix, and LAPACK."""
    a = jnp.asarray(np.stack([prescribed(np.array(s), (4, 3), COMPLEX) for s in ([3, 2, 1], [3, 1, 1])]))
    f = jax.jit(lambda a: jnp.sum(jn.nuclear_norm(a)) + jnp.sum(jn.spectral_norm(a)))
    check_grads(f, (a,), order=2, modes=["fwd", "rev"], atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("ord", [jn.Schatten(1), jn.Schatten(float("inf")), jn.KyFan(2), jn.Schatten(3)])
@pytest.mark.parametrize("shape", [(8, 8), (12, 10)])
def test_batches_agree_with_single_matrices_in_value_and_gradient(shape, ord):
    """Which take other ways: Jacobi and squaring are for batches, LAPACK for one matrix."""
    names, a = factory(shape, REAL)
    a = a[[name != "graded" for name in names]]  # its smallest values that count have few digits left
    run = jax.value_and_grad(ord)
    many, one = jax.jit(jax.vmap(run)), jax.jit(run)
    value, g = map(np.asarray, many(a))
    for x, v, h in zip(a, value, g, strict=True):
        alone, exact = one(x)
        np.testing.assert_allclose(v, alone, rtol=tolerance(REAL))
        if np.all(np.isfinite(alone)):
            np.testing.assert_allclose(h, exact, atol=tolerance(REAL, 1e4))
