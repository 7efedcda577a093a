"""Thresholding by few triplets and by polar factors agrees with all triplets, or falls back to them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matrices import COMPLEX, REAL, gaussian, prescribed, tolerance

import jaxnorms as jn
from jaxnorms import spectral_images
from jaxnorms.gauges import Lp

RANK = 7
MAPS = [("prox", "nuc"), ("project", "nuc"), ("prox", "spectral"), ("project", "spectral")]


def above(*leading, rest=0.9):
    """Singular values, descending, of which the leading ones alone are above 1."""
    return np.concatenate([np.array(leading, float), np.linspace(rest, 0, 160 - len(leading))])


SPECTRA = {
    "few": above(9, 7, 3, 2),
    "at_the_threshold": above(3, 2, 1, 1),
    "low_rank": above(3, 2, 1.5, rest=0),
    "zero": np.zeros(160),
    # More equal ones than there are vectors in a block, just above the threshold, and nothing else but one.
    "five_equal": above(3, 3, 3, 3, 3),
    "five_near": above(*[1.001] * 5, rest=0),
    "six_near": above(*[1.01] * 6, 0.99, rest=0),
    "seven_near": above(*[1.001] * 7, 0.999, rest=0),
    "graded": above(100, 2, 1.2, 1.1),
    "widely_graded": above(1000, 5, 4, 3, rest=0.3),
    "too_many": above(*np.linspace(9, 2, 20)),
    "twelve_equal": above(*[3.0] * 12),
    "orthogonal": np.full(160, 2.0),
    "below": above() / 2,
}


def numbers(s, name, ord):
    """Steps or radii for which the threshold is 1, or near it."""
    given = (name, ord) in (("prox", "nuc"), ("project", "spectral"))
    return 1.0 if given else max(float(np.sum(np.maximum(s - 1, 0))), 0.1)


def way_of(name, ord, method, a, t):
    """The way by itself, and whether it vouches for the result."""
    kind = spectral_images.thresholding(spectral_images.Part(Lp(1.0 if ord == "nuc" else np.inf), name))
    if method == "polar":
        return spectral_images._by_polar_factors(kind, (t,), a)
    return spectral_images._by_leading_triplets(kind, RANK, (t,), a)


@pytest.mark.parametrize(("name", "ord", "dtype"), [(*m, REAL) for m in MAPS] + [("prox", "nuc", COMPLEX)], ids=str)
def test_few_triplets(name, ord, dtype):
    def diagonal(s):  # whose invariant subspaces are exact
        return np.diag(s)[:, ::-1].astype(dtype)

    a = np.stack([prescribed(s, (160, 160), dtype) for s in SPECTRA.values()] + [*map(diagonal, SPECTRA.values())])
    t = np.array([numbers(s, name, ord) for s in SPECTRA.values()] * 2, REAL)
    f, atol = getattr(jn, name), tolerance(REAL) * np.linalg.norm(a, 2, axis=(-2, -1))[:, None, None]
    expected = np.asarray(f(a, t, ord, method="svd"))
    y, good = map(np.asarray, jax.jit(jax.vmap(lambda a, t: way_of(name, ord, "krylov", a, t)))(a, t))
    assert np.all((np.abs(y - expected) <= atol)[good])
    for named in (dict(zip(SPECTRA, x, strict=True)) for x in np.split(good, 2)):
        assert all(named[s] for s in ("few", "at_the_threshold", "zero"))
        assert not any(named[s] for s in ("too_many", "twelve_equal", "orthogonal"))
    if (name, ord) == ("prox", "nuc"):  # with all triplets for the others
        assert np.all(np.abs(f(a, t, ord, rank=RANK) - expected) <= atol)


@pytest.mark.parametrize(("name", "ord"), [("prox", "nuc"), ("project", "spectral")])
@pytest.mark.parametrize(("shape", "dtype"), [((40, 24), REAL), ((24, 40), COMPLEX), ((24, 24), REAL)], ids=str)
def test_polar_factors(name, ord, shape, dtype):
    spectra = {
        "linear": np.linspace(3, 0.1, 24),
        "equal": np.full(24, 3.0),
        "below": np.linspace(0.9, 0.5, 24),
        "above": np.linspace(9, 2, 24),
        "at_the_threshold": np.where(np.arange(24) < 12, 1.0, 0.3),
        "deficient": np.where(np.arange(24) < 12, 2.0, 0),
        "zero": np.zeros(24),
    }
    f = getattr(jn, name)
    a = np.stack([prescribed(s, shape, dtype) for s in spectra.values()])
    t = np.ones(len(a), REAL)
    expected = np.asarray(f(a, t, ord, method="svd"))
    np.testing.assert_allclose(f(a, t, ord, method="polar"), expected, atol=tolerance(REAL, 100))
    y, good = jax.vmap(lambda a, t: way_of(name, ord, "polar", a, t))(a, t)
    good = np.asarray(good)
    assert dict(zip(spectra, good, strict=True)) == {
        s: s not in ("at_the_threshold", "deficient", "zero") for s in spectra
    }
    np.testing.assert_allclose(y[good], expected[good], atol=tolerance(REAL, 100))


@pytest.mark.parametrize("method", ["krylov", "polar"])
def test_scale_derivatives_and_non_finite_entries(method):
    a, e = (gaussian((2, 64, 160), REAL) + np.ones((64, 160), REAL) for _ in range(2))
    t = np.float32(20)

    def f(a, t, method):
        return jn.prox(a, t, "nuc", method=method, rank=1 if method == "krylov" else None)

    expected = f(a, t, "svd" if method == "polar" else "auto")
    for c in (1e-30, 1e30):
        np.testing.assert_allclose(f(a * REAL.type(c), t * c, method) / c, expected, atol=1e-3)
    derivative = jax.jvp(lambda a: f(a, t, method), (a,), (e,))[1]
    np.testing.assert_allclose(
        derivative, jax.jvp(lambda a: jn.prox(a, t, "nuc", method="svd"), (a,), (e,))[1], atol=1e-3
    )
    broken = a.copy()
    broken[0, 0, 0], broken[1, 3, 3] = np.nan, np.inf
    assert np.all(np.isnan(f(broken, t, method)))


@pytest.mark.parametrize(("method", "rank"), [("polar", None), ("krylov", 5)])
def test_small_and_large_numbers(method, rank):
    """Feasible relative to the radius, and nothing is moved inside of a large ball."""
    a = np.stack(
        [prescribed(np.where(np.arange(64) < 3, 3.0 - np.arange(64), 0), (70, 64), REAL), gaussian((70, 64), REAL)]
    )
    size = np.linalg.norm(a, 2, axis=(1, 2))
    f = jax.jit(lambda t: jn.project(a, t, "spectral", method=method, rank=rank))
    g = jax.jit(lambda t: jn.prox(a, t, "nuc", method=method, rank=rank))
    for c in (1e-6, 1e-4, 1e-2, 0.3):
        r = REAL.type(c) * size
        np.testing.assert_allclose(np.linalg.norm(f(r), 2, axis=(1, 2)), r, rtol=tolerance(REAL))
    for r in (2.0, 1e3, 1e5, 1e8, np.inf):
        np.testing.assert_allclose(f(REAL.type(r) * size), a, atol=tolerance(REAL) * size[:, None, None].min())
        np.testing.assert_allclose(g(REAL.type(r) * size), 0, atol=tolerance(REAL) * size.min())


def test_a_small_matrix_takes_all_triplets():
    a = gaussian((24, 24), REAL)
    np.testing.assert_array_equal(jn.prox(a, 2.0, "nuc", rank=3), jn.prox(a, 2.0, "nuc", method="svd"))


def test_what_is_refused():
    a = jnp.eye(4)
    with pytest.raises(ValueError, match="rank must be None except for"):
        jn.prox(a, 1.0, jn.Schatten(3), rank=2)
    with pytest.raises(ValueError, match="rank None for a norm of the entries"):
        jn.project(a, 1.0, jn.Entrywise(1), rank=2)
    with pytest.raises(ValueError, match=r"method must be one of 'auto', 'svd' for this map, got 'polar'"):
        jn.project(a, 1.0, "nuc", method="polar")
    with pytest.raises(ValueError, match=r"rank must be given, .* for method='krylov' .*, got None"):
        jn.prox(a, 1.0, "nuc", method="krylov")
    with pytest.raises(ValueError, match="rank must be between 1 and"):
        jn.prox(a, 1.0, "nuc", rank=5)
    with pytest.raises(ValueError, match="method must be one of 'auto', 'svd', 'krylov', 'polar', got 'gram'"):
        jn.prox(a, 1.0, "nuc", method="gram")
    assert jn.prox(jnp.zeros((0, 4)), 1.0, "nuc", rank=1).shape == (0, 4)
