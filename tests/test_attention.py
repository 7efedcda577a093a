"""Bounds and ranks of attention logits, beside the logits themselves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matrices import REAL, gaussian, prescribed, tolerance

import jaxnorms as jn


def logits(q, k):
    return q @ np.swapaxes(k, -1, -2) / np.sqrt(q.shape[-1])


def test_no_logit_is_larger():
    q, k = gaussian((1000, 6, 4), REAL), gaussian((1000, 9, 4), REAL, 1)
    bound, exact = np.asarray(jn.attention_logit_bound(q, k)), logits(q, k)
    assert np.all(np.max(np.abs(exact), axis=(1, 2)) <= bound * (1 + tolerance(REAL)))
    np.testing.assert_allclose(bound, np.linalg.norm(exact, 2, axis=(1, 2)), rtol=tolerance(REAL))


def test_the_bound_of_weights_is_attained():
    q, k = gaussian((20, 4), REAL), gaussian((20, 4), REAL, 1)
    u, _, vh = np.linalg.svd(q @ k.T)
    np.testing.assert_allclose(u[:, 0] @ logits(q, k) @ vh[0], jn.attention_logit_bound(q, k), rtol=tolerance(REAL))
    np.testing.assert_allclose(logits(q[:1], k[:1])[0, 0].__abs__(), jn.attention_logit_bound(q[:1], k[:1]), rtol=1e-5)


def test_many_tokens_take_no_matrix_of_logits():
    tokens = jax.ShapeDtypeStruct((4, 20000, 64), jnp.float32)
    compiled = jax.jit(jn.attention_logit_bound).lower(tokens, tokens).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 8 * np.prod(tokens.shape) * 4  # logits: 312 times as many


def test_rank_profile():
    q, k = prescribed(np.array([4.0, 2, 2, 0]), (7, 4), REAL), np.eye(5, 4, dtype=REAL)
    q = np.stack([q, 1e10 * q, 0 * q])
    profile = jax.jit(jn.attention_rank_profile)(q, np.broadcast_to(k, (3, 5, 4)))
    s = np.array([2.0, 1, 1, 0])
    np.testing.assert_allclose(profile.singular_values, [s, 1e10 * s, 0 * s], rtol=tolerance(REAL), atol=1e-5)
    np.testing.assert_allclose(profile.energy[:2], [[4 / 6, 5 / 6, 1, 1]] * 2, rtol=tolerance(REAL))
    np.testing.assert_allclose(profile.stable_rank, [1.5, 1.5, 0], rtol=tolerance(REAL))
    np.testing.assert_allclose(profile.effective_rank, [np.exp(1.5 * np.log(2)), 2**1.5, 0], rtol=tolerance(REAL))
    assert profile.numerical_rank.tolist() == [3, 3, 0]
    assert not np.any(profile.energy[2])


def test_gradients_are_those_of_the_logits():
    q, k = gaussian((6, 4), REAL), gaussian((9, 4), REAL, 1)
    ours = jax.grad(jn.attention_logit_bound, argnums=(0, 1))(q, k)
    dense = jax.grad(lambda q, k: jn.spectral_norm(q @ k.T) / 2, argnums=(0, 1))(q, k)
    rank = jax.grad(lambda q: jn.attention_rank_profile(q, k).stable_rank)(q)
    stable = jax.grad(lambda q: jn.spectrum_summary(q @ k.T).stable_rank)(q)
    for x, y in (*zip(ours, dense, strict=True), (rank, stable)):
        np.testing.assert_allclose(x, y, atol=tolerance(REAL, 200))

    @jax.jit
    def of_profile(q):
        return jax.jacobian(lambda q: jn.attention_rank_profile(q, k)[1:4])(q)

    for power in (int(0.8 * jnp.finfo(REAL).maxexp), int(0.8 * jnp.finfo(REAL).minexp)):
        for x, y in zip(of_profile(np.ldexp(q, power)), of_profile(q), strict=True):
            np.testing.assert_allclose(np.ldexp(x, power), y, atol=tolerance(REAL, 200))


def test_sixteen_bits_whose_product_overflows():
    q = jnp.full((400, 16), 10, jnp.float16)
    value = jn.attention_logit_bound(q, q)
    assert value.dtype == jnp.float16
    assert np.isposinf(value)  # 160000
    np.testing.assert_allclose(np.float64(jn.attention_logit_bound(q, q / 4)), 40000, rtol=1e-3)


@pytest.mark.parametrize("f", [jn.attention_logit_bound, jn.attention_rank_profile])
def test_bad_arguments(f):
    q = gaussian((6, 4), REAL)
    with pytest.raises(ValueError, match=r"q and k must have shapes \(\.\.\., n, d\) and \(\.\.\., m, d\), got"):
        f(q, q[:, :3])
    with pytest.raises(TypeError, match="q and k must have one type"):
        f(q, q.astype(np.complex64))
    with pytest.raises(ValueError, match="k must have shape"):
        f(q, q[0])
