"""The block Krylov method: invariants of its triplets, on spectra that make such methods fail."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matrices import COMPLEX, DTYPES, REAL, factory, gaussian, prescribed, tolerance

from jaxnorms._scaling import prepare
from jaxnorms.decompositions import krylov

SHAPES = [(64, 48), (48, 64), (100, 48)]  # the last by its Gram matrix


def search(k: int, **how):
    """Triplets of a stack, of each matrix scaled to about 1."""

    def one(a):
        return krylov.leading_triplets(a, k, prepare(a)[3], **how)

    return jax.jit(jax.vmap(one))


def gap_within(n: int, k: int, gap: float) -> np.ndarray:
    """A spectrum with ``s_{k+1} = (1 - gap) s_k`` and the rest well below."""
    s = np.linspace(0.9, 0.1, n)
    s[:k], s[k] = 1, 1 - gap
    return s


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("shape", "k"), [(SHAPES[0], 1), (SHAPES[1], 4)], ids=str)
def test_triplets(shape, k, dtype):
    _, a = factory(shape, dtype)
    extreme = [prescribed(gap_within(min(shape), k, g), shape, dtype, seed=1) for g in (1e-2, 1e-3, 1e-6)]
    a = np.concatenate([a, np.stack(extreme)])
    u, s, vh, _, _ = map(np.asarray, search(k)(a))
    scaled = np.asarray(jax.vmap(lambda x: prepare(x)[0])(a), np.result_type(dtype, np.float64))
    eye, tol = np.eye(s.shape[1]), tolerance(dtype, 50, np.sqrt(s.shape[1]))
    np.testing.assert_allclose(np.swapaxes(u.conj(), 1, 2) @ u, np.broadcast_to(eye, (len(a), *eye.shape)), atol=tol)
    np.testing.assert_allclose(vh @ np.swapaxes(vh.conj(), 1, 2), np.broadcast_to(eye, (len(a), *eye.shape)), atol=tol)
    exact = np.linalg.svd(scaled, compute_uv=False)
    np.testing.assert_allclose(s[:, :k], exact[:, :k], atol=tol * exact.max())
    assert np.all(np.diff(s) <= 0)
    # Both residuals of the triplets asked for; the square of one is what the method controls.
    v = np.swapaxes(vh.conj(), 1, 2)
    for residual in (scaled @ v - u * s[:, None], np.swapaxes(scaled.conj(), 1, 2) @ u - v * s[:, None]):
        error = np.linalg.norm(residual[..., :k], axis=(1, 2)) / np.where(s[:, 0] > 0, s[:, 0], 1)
        assert np.all(error <= 100 * krylov.default_tolerance(dtype)), error


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_gradient_is_accurate_where_the_gap_is_small(dtype):
    """The error of u v^H is what stops the method: tol, or the backward error over the gap."""
    shape, gaps = (80, 64), np.array([3e-2, 1e-2, 3e-3])
    a = np.stack([prescribed(gap_within(64, 1, g), shape, dtype, seed=2) for g in gaps])
    u, _, vh, _, _ = map(np.asarray, search(1)(a))
    left, _, right = np.linalg.svd(a.astype(np.result_type(dtype, np.float64)))
    g, exact = (x[:, :, :1] @ y[:, :1] for x, y in ((u, vh), (left, right)))
    allowed = 10 * krylov.default_tolerance(dtype) + 10 * float(jnp.finfo(dtype).eps) / gaps
    assert np.all(np.linalg.norm(g - exact, axis=(1, 2)) <= allowed)


def test_clusters_up_to_the_block_are_found_whole():
    """With all of their values, nearly as close together as LAPACK finds such values, 6 eps."""
    shape = (80, 64)
    sizes = np.arange(1, krylov.BLOCK + 1)
    spectra = [np.where(np.arange(64) < mu, 1.0, np.linspace(0.95, 0.1, 64)) for mu in sizes]
    a = np.stack([prescribed(s, shape, REAL, seed=3) for s in spectra])
    _, s, _, _, _ = map(np.asarray, search(1)(a))
    for row, mu in zip(s, sizes, strict=True):
        assert np.all(np.abs(row[:mu] / row[0] - 1) <= tolerance(REAL, 8))
        assert row[mu] < 0.97 * row[0]


def test_another_start_and_the_tolerance():
    a = gaussian((1, 90, 70), REAL)
    loose = search(2, tol=1e-1)(a)
    other = search(2, key=jax.random.key(7))(a)
    tight = search(2)(a)
    assert loose.passes[0] < tight.passes[0]
    assert not np.array_equal(other.u, tight.u)
    np.testing.assert_allclose(other.s[:, :2], tight.s[:, :2], rtol=tolerance(REAL))


def test_the_start_is_fixed():
    a = gaussian((1, 90, 70), REAL)
    first, again = (search(2)(a) for _ in range(2))  # traced anew
    np.testing.assert_array_equal(first.u, again.u)


def test_not_finite_ends_at_once():
    a = np.stack([np.full((60, 50), x, COMPLEX) for x in (np.nan, np.inf)])
    assert np.all(np.asarray(search(1)(a).passes) <= 2 * krylov.EARLY + 1)


def test_decaying_spectra_end_within_the_first_cycle():
    """So do all that have fewer values than one block has vectors."""
    n = 96
    steep, few = 2.0 ** -np.arange(n), np.where(np.arange(n) < 3, 1.0, 0.0)
    a = np.stack([prescribed(s, (n, n), REAL, seed=4) for s in (steep, few)])
    for until in ("subspace", "values", "residuals"):
        found = search(1, until=until)(a)
        np.testing.assert_array_less(found.passes, 2 * krylov.STEPS)
        exact = np.linalg.svd(np.asarray(jax.vmap(lambda x: prepare(x)[0])(a), np.float64), compute_uv=False)
        np.testing.assert_allclose(found.s[:, 0], exact[:, 0], rtol=tolerance(REAL, 10))


def test_values_alone_are_exact_and_take_fewer_passes():
    n, k = 256, 3
    spectra = [np.linspace(1, 0, n), *(gap_within(n, k, gap) for gap in (1e-3, 1e-5, 0.0))]
    a = np.stack([prescribed(s, (n, n), REAL, seed=5) for s in spectra])
    found, whole = search(k, until="values")(a), search(k)(a)
    exact = np.linalg.svd(np.asarray(jax.vmap(lambda x: prepare(x)[0])(a), np.float64), compute_uv=False)
    np.testing.assert_allclose(found.s[:, :k], exact[:, :k], rtol=tolerance(REAL, 10))
    assert np.all(found.passes <= whole.passes)
    assert found.passes[0] < whole.passes[0]
