"""Polar factor by products: right wherever it says so, and it says so wherever it should."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matrices import COMPLEX, DTYPES, REAL, factory, gaussian, prescribed, spectra, tolerance

import jaxnorms as jn
from jaxnorms.decompositions.polar_express import polar_factor
from jaxnorms.decompositions.thin_svd import tie_tolerance


@jax.jit
@jax.vmap
def batched(a):
    """Nuclear norm, polar factor and whether it counts."""
    q, ok = polar_factor(a)
    return jnp.sum((q.conj() * a).real), q, ok


# Square, tall (on the Gram matrix), between the two, wide, a vector.
SHAPES = [(24, 24), (40, 6), (7, 5), (6, 15), (6, 1)]
# Spectra whose polar factor must be found.
EASY = ["distinct", "leading", "repeated", "clustered", "orthogonal"]


def reference(a: np.ndarray, dtype) -> tuple[float, np.ndarray, np.ndarray]:
    """Value, minimum-norm gradient and singular values in double precision."""
    u, s, vh = np.linalg.svd(a.astype(np.complex128 if np.iscomplexobj(a) else np.float64), full_matrices=False)
    keep = s > tie_tolerance(dtype, *a.shape) * s[0]
    return s.sum(), u[:, keep] @ vh[keep], s


def small_last(shape, dtype) -> dict[str, np.ndarray]:
    """Matrices with one or half of the singular values at the level where float arithmetic loses them."""
    n, cases = min(shape), {}
    for seed, size in enumerate([0, 0.1, 1, 5, 20, 100, 1e3, 1e4]):
        for count in {1, max(n // 2, 1)}:
            s = np.linspace(1, 0.3, n)
            s[n - count :] = size * float(jnp.finfo(dtype).eps)
            cases[f"{count} at {size} eps"] = prescribed(s, shape, dtype, seed)
    return cases


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_against_svd(shape, dtype):
    named = {name: prescribed(s, shape, dtype, len(name)) for name, s in spectra(min(shape)).items()}
    named |= {f"gaussian {seed}": gaussian(shape, dtype, seed) for seed in range(4)}
    named |= small_last(shape, dtype)
    names, stack = factory(shape, dtype)
    named |= dict(zip(names, stack, strict=True))
    del named["tiny"], named["huge"]  # the callers scale
    values, factors, accepted = (np.asarray(x) for x in batched(np.stack(list(named.values()))))
    assert values.dtype == REAL
    assert factors.dtype == dtype
    for name, a, value, q, ok in zip(named, named.values(), values, factors, accepted, strict=True):
        right, gradient, s = reference(a, dtype)
        rank = np.linalg.matrix_rank(gradient, tol=0.5)
        if name in EASY or name.startswith("gaussian"):
            assert ok, name
        if rank < min(shape):
            assert not ok, name
        if not ok:
            continue
        size = max(shape) ** 0.5
        # The conditioning of the polar factor (Higham 2008, theorem 8.10): less for real square matrices.
        spread = s[0] / s[-1]
        if dtype == REAL and shape[0] == shape[1] > 1 and spread < 1 / tolerance(dtype, 100, max(shape)):
            spread = s[0] / (s[-1] + s[-2])
        assert np.linalg.norm(q - gradient, 2) <= tolerance(dtype, 20, size) * (1 + spread), name
        assert value == pytest.approx(right, rel=tolerance(dtype, 8)), name
        assert value <= right * (1 + tolerance(dtype, 4)), name
        slim = q if shape[0] >= shape[1] else q.conj().T
        defect = slim.conj().T @ slim - np.eye(min(shape))
        assert np.linalg.norm(defect, 2) <= tolerance(dtype, 4, size), name


@pytest.mark.parametrize("shape", [(12, 12), (30, 8)])
def test_batching(shape):
    stack = gaussian((3, 2, *shape), REAL)
    stack[0, 1] = 0
    nested = jax.jit(jax.vmap(jax.vmap(polar_factor)))(stack)
    single = jax.jit(polar_factor)
    for i in np.ndindex(3, 2):
        q, ok = single(stack[i])
        assert ok == nested[1][i]
        if ok:
            np.testing.assert_allclose(nested[0][i], q, atol=tolerance(REAL, 1e3))
        else:
            assert not np.isnan(q).any()
    looped = jax.jit(
        lambda a: jax.lax.while_loop(lambda s: s[1] < 2, lambda s: (polar_factor(s[0])[0], s[1] + 1), (a, 0))
    )
    np.testing.assert_allclose(looped(stack[1, 1])[0], nested[0][1, 1], atol=tolerance(REAL, 1e3))


def test_scale_invariance():
    """A power of two changes nothing but the value."""
    a = gaussian((9, 9), COMPLEX)
    v, q, _ = batched(np.stack([a, a * REAL.type(4)]))
    assert v[1] == 4 * v[0]
    np.testing.assert_array_equal(q[0], q[1])


@pytest.mark.parametrize("compute_dtype", [jnp.bfloat16, jnp.float16])
def test_low_precision_products(compute_dtype):
    a = prescribed(np.linspace(1, 0.02, 32), (48, 32), REAL)
    q, ok = jax.jit(lambda a: polar_factor(a, compute_dtype=compute_dtype))(a)
    assert ok
    assert q.dtype == REAL
    _, gradient, _ = reference(a, REAL)
    assert np.linalg.norm(q - gradient, 2) < 40 * float(jnp.finfo(compute_dtype).eps)


@pytest.mark.skipif(REAL.itemsize > 4, reason="in double precision it takes twice the steps, to no other end")
def test_many_values_near_one_are_no_alarm():
    """The defect of 2048 values, each off by a little, is not that of one that is missing."""
    q, ok = jax.jit(polar_factor)(gaussian((2048, 2048), REAL))
    assert ok
    assert np.linalg.norm(q.T @ q - np.eye(2048)) <= tolerance(REAL, 10, 2048**0.5)


@pytest.mark.parametrize("compute_dtype", [None, jnp.bfloat16], ids=str)
@pytest.mark.parametrize("n", [24, 160])
def test_tolerance(n, compute_dtype):
    """Singular values within ``tol`` of 1, though products in 16 bits leave some further off."""
    a = gaussian((n, n), np.float32)
    q = np.asarray(jax.jit(lambda a: polar_factor(a, compute_dtype=compute_dtype, tol=1e-2)[0])(a))
    s = np.linalg.svd(q, compute_uv=False)
    assert s[0] <= 1 + tolerance(np.float32)
    assert s[-1] >= 1 - 1e-2


@pytest.mark.parametrize("lead", [(300,), (3, 50)], ids=str)
def test_groups_of_a_batch(lead):
    """Each group takes its own steps and falls back by itself: to the same result, in the order of the batch."""
    a = gaussian((*lead, 16, 17), REAL)
    a[..., 7, :, :] = prescribed(np.where(np.arange(16) < 9, 2.0, 0), (16, 17), REAL)
    a[..., 5, 0, 0] = np.nan
    a[..., 6, :, :] = 0
    results = []
    for method in ("polar", "svd"):
        value, pullback = jax.vjp(lambda a, method=method: jn.nuclear_norm(a, method=method), a)
        results.append((value, pullback(jnp.ones_like(value))[0]))
    for there, expected in zip(*results, strict=True):
        np.testing.assert_allclose(there, expected, atol=tolerance(REAL, 500), rtol=tolerance(REAL))


def test_an_empty_batch():
    assert jax.vmap(jn.nuclear_norm)(jnp.zeros((0, 16, 16))).shape == (0,)
