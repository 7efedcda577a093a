"""QR of tall matrices by products: backward error, orthonormality and singular values on hard spectra."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matrices import DTYPES, factory, gaussian, tolerance

from jaxnorms._scaling import prepare
from jaxnorms.decompositions.cholesky_qr import tall_qr, tall_svd


def hard(shape, dtype):
    """A stack scaled to about 1. In the last matrix equal columns, and nearly equal ones, go before others: the
    inverse of its Cholesky factor would cost half the digits."""
    named, a = factory(shape, dtype)
    twins = gaussian(shape, dtype, seed=5)
    twins[:, 1] = twins[:, 0]
    twins[:, 7] = twins[:, 5] + 1e-6 * twins[:, 6]
    return [*named, "twins"], jax.vmap(lambda x: prepare(x)[0])(np.concatenate([a, twins[None]]))


def adjoint(x):
    return np.swapaxes(x.conj(), -1, -2)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(40, 40), (300, 40)], ids=str)
def test_tall_qr_and_svd(shape, dtype):
    names, a = hard(shape, dtype)
    wide = np.result_type(dtype, np.float64)
    q, r = (np.asarray(x, wide) for x in jax.jit(jax.vmap(tall_qr))(a))
    u, s, vh = (np.asarray(x, wide) for x in jax.jit(jax.vmap(tall_svd))(a))
    a, tol, eye = np.asarray(a, wide), tolerance(dtype, 50), np.eye(shape[1])
    exact = np.linalg.svd(a, compute_uv=False)
    largest = np.where(exact[:, :1] > 0, exact[:, :1], 1)
    for error in (a - q @ r, a - (u * s[:, None, :]) @ vh):
        assert np.all(np.linalg.norm(error, 2, axis=(1, 2)) <= tol * largest[:, 0]), names
    for values in (np.linalg.svd(r, compute_uv=False), -np.sort(-s.real)):
        np.testing.assert_allclose(values / largest, exact / largest, atol=tol)
    # The sum of many singular values that vanish to rounding vanishes as well.
    np.testing.assert_allclose(np.sum(s.real, axis=1) / largest[:, 0], np.sum(exact / largest, axis=1), atol=5 * tol)
    np.testing.assert_allclose(vh @ adjoint(vh), np.broadcast_to(eye, vh.shape), atol=tol)
    # Directions of small singular values are as orthogonal as rounding of the matrix lets them be.
    weights = exact / largest
    defect = np.abs(adjoint(u) @ u - eye) * np.minimum(weights[:, :, None], weights[:, None, :])
    assert np.all(np.linalg.norm(defect, axis=(1, 2)) <= 2 * tol), names
    whole = exact[:, -1] > 1e-2 * largest[:, 0]
    assert np.all(np.linalg.norm((adjoint(q) @ q - eye)[whole], axis=(1, 2)) <= tol)
    assert np.all(np.linalg.norm(q, 2, axis=(1, 2)) <= 1 + tol)


def test_zero_and_one_column():
    q, r = jax.jit(tall_qr)(jnp.zeros((5, 3)))
    assert not np.any(q)
    assert not np.any(r)
    u, s, vh = jax.jit(tall_svd)(jnp.asarray([[0.6], [0.8]]))
    np.testing.assert_allclose(s, [1], rtol=tolerance(s.dtype))
    np.testing.assert_allclose(u @ vh, [[0.6], [0.8]], rtol=tolerance(s.dtype))
