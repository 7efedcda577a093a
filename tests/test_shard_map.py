"""Norms inside ``shard_map``: of the whole matrix with ``axis_name``, of the local block without."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P
from matrices import COMPLEX, REAL, factory, gaussian, prescribed, tolerance

import jaxnorms as jn

inf = np.inf
MESH = jax.make_mesh((2, 2), ("x", "y"), axis_types=(AxisType.Auto,) * 2)
BOTH, ROWS, COLUMNS = ("x", "y"), (("y", "x"), None), (None, ("x", "y"))


def on_mesh(f, inputs, outputs):
    return jax.jit(jax.shard_map(f, mesh=MESH, in_specs=inputs, out_specs=outputs))


def derivatives(norm, a, e, second=True):
    """Values and gradients of a batch, and the derivative of the gradients along ``e``."""

    def gradient(a):
        return jax.grad(lambda a: jnp.sum(norm(a)))(a)

    return (norm(a), *(jax.jvp(gradient, (a,), (e,)) if second else (gradient(a),)))


def compare(norms, names, a, split, atol, second=True):
    """Norms of a stack of whole matrices, against those put together from their blocks."""
    e = jnp.asarray(gaussian(a.shape, a.dtype, seed=9))
    a = jnp.asarray(a)
    whole = jax.jit(lambda a, e: [derivatives(norm, a, e, second) for norm in norms])(a, e)

    def local(a, e):
        return [derivatives(partial(norm, axis_name=split), a, e, second) for norm in norms]

    spec = P(None, *split)
    blocks = on_mesh(local, spec, [(P(), spec, spec)[: 3 if second else 2]] * len(norms))(a, e)
    for norm, left, right in zip(norms, blocks, whole, strict=True):
        for i, (x, y) in enumerate(zip(map(np.asarray, left), map(np.asarray, right), strict=True)):
            size = np.maximum(np.max(np.abs(y), axis=tuple(range(1, y.ndim)), keepdims=True), np.finfo(x.dtype).tiny)
            error = np.max(np.abs((x - y) / size).reshape(len(x), -1), axis=1)
            bad = [(name, err) for name, err in zip(names, error, strict=True) if not err <= atol[i]]
            assert not bad, (norm, ("value", "gradient", "second derivative")[i], bad)


ENTRIES = [jn.Entrywise(1), jn.Entrywise(3), jn.Entrywise(inf), jn.Mixed(2, 1), jn.Mixed(1, inf), jn.Mixed(2, inf, -2)]


@pytest.mark.parametrize(("split", "dtype"), [(BOTH, COMPLEX), (ROWS, REAL), (COLUMNS, REAL)], ids=str)
def test_norms_of_entries(split, dtype):
    norms = [*ENTRIES, jn.frobenius_norm] if split is BOTH else ENTRIES[2:5]
    compare(norms, *factory((8, 12), dtype), split, [tolerance(dtype)] * 3)


SPECTRAL = [
    (BOTH, (6, 8), [jn.Schatten(1), jn.KyFan(2)]),
    (ROWS, (12, 8), [jn.Schatten(inf), jn.Schatten(3)]),
    (COLUMNS, (12, 8), [jn.Schatten(1)]),
]


@pytest.mark.parametrize(("split", "shape", "norms"), SPECTRAL, ids=str)
def test_norms_of_singular_values(split, shape, norms):
    dtype = COMPLEX if split is BOTH else REAL
    names, a = factory(shape, dtype)
    # Vectors of "graded" are lost in rounding; gaps of "clustered" are small.
    keep = [i for i, name in enumerate(names) if name not in ("graded", "tiny", "huge")]
    eps = float(jnp.finfo(dtype).eps)
    compare(norms, [names[i] for i in keep], a[keep], split, [50 * eps, 1e4 * eps, 1e6 * eps])


@pytest.mark.parametrize(("split", "shape"), [(BOTH, (44, 50)), (ROWS, (60, 44))], ids=str)
def test_leading_singular_values_by_products(split, shape):
    n = min(shape)
    falling = np.linspace(0.8, 0.1, n)
    spectra = {"simple": 1.0, "double": [1.0, 1.0], "triple": [1.0, 1.0, 1.0], "one": [1.0, *[0] * (n - 1)], "zero": 0}
    dtype = COMPLEX if split is BOTH else REAL
    a = []
    for name, leading in spectra.items():
        s = falling.copy()
        s[: np.size(leading)] = leading
        a.append(prescribed(s if name != "zero" else 0 * s, shape, dtype, seed=len(name)))
    rounding = float(jnp.finfo(dtype).eps)
    norms = [lambda a, **how: jn.spectral_norm(a, method="krylov", **how)]
    norms += [lambda a, **how: jn.ky_fan_norm(a, 3, method="krylov", **how)] if split is BOTH else []
    compare(norms, list(spectra), np.stack(a), split, [50 * rounding, 20 * rounding ** (2 / 3)], second=False)


def test_range_and_bad_entries():
    """One block decides: extreme numbers elsewhere, NaN and infinity reach all of them."""
    a = np.stack([gaussian((8, 6), REAL)] * 5)
    a[1:3] *= np.array([1e-30, 1e30], REAL)[:, None, None]
    a[3, 7, 5], a[4, 7, 5] = np.nan, inf
    norms = [jn.Entrywise(1), jn.Entrywise(2), jn.Entrywise(inf), jn.Mixed(2, inf), jn.Schatten(1), jn.Schatten(4)]

    def local(a):
        return [derivatives(partial(norm, axis_name=BOTH), a, None, False) for norm in norms]

    spec = P(None, *BOTH)
    for norm, (value, g) in zip(norms, on_mesh(local, spec, [(P(), spec)] * len(norms))(a), strict=True):
        scales = value[:3] / value[0]
        np.testing.assert_allclose(scales, [1, 1e-30, 1e30], rtol=tolerance(REAL), err_msg=str(norm))
        assert np.isnan(value[3]), norm
        assert np.all(np.isnan(g[3])), norm
        assert np.isinf(value[4]), norm
        assert np.all(np.isnan(g[4])), norm
        assert np.all(np.isfinite(g[:3])), norm


def test_every_way_of_differentiating():
    """From inside and from outside, forward and reverse, of a batch that is split as well."""
    a, e = (jnp.asarray(gaussian((4, 10, 7), REAL, seed)) for seed in (1, 2))
    spec = P("x", "y", None)

    def norms(a, **how):
        return jn.nuclear_norm(a, **how) * jn.mixed_norm(a, 2, 1, **how)

    def whole(a):
        return jnp.sum(norms(a))

    def split(a):
        return jax.lax.psum(jnp.sum(norms(a, axis_name="y")), "x")

    outside = on_mesh(split, spec, P())
    close = {"rtol": tolerance(REAL), "atol": tolerance(REAL, 1e4)}
    expected = jax.jit(lambda a: jax.jvp(jax.grad(whole), (a,), (e,)))(a)
    for gradient in (jax.grad(outside), on_mesh(jax.grad(split), spec, spec)):
        for x, y in zip(jax.jit(lambda a, g=gradient: jax.jvp(g, (a,), (e,)))(a), expected, strict=True):
            np.testing.assert_allclose(x, y, **close)
    slope = jax.jit(lambda a: jax.jvp(outside, (a,), (e,))[1])(a)
    np.testing.assert_allclose(slope, jnp.sum(expected[0] * e), rtol=tolerance(REAL, 1e3))


def test_traced_order():
    a, p = jnp.asarray(gaussian((6, 8), REAL)), jnp.asarray([1.5, 3.0], REAL)
    for function in (jn.schatten_norm, jn.entrywise_norm):

        def both(a, p, function=function, **how):
            value, pull = jax.vjp(lambda a, p: function(a, p, **how), a, p)
            return value, *pull(jnp.ones_like(value))

        split = on_mesh(lambda a, p, both=both: both(a, p, axis_name=BOTH), (P(*BOTH), P()), (P(), P(*BOTH), P()))
        for x, y in zip(split(a, p), both(a, p), strict=True):
            np.testing.assert_allclose(x, y, rtol=tolerance(REAL, 1e3), atol=tolerance(REAL, 1e2))


LOCAL = {
    "jacobi": (lambda a: jn.nuclear_norm(a.reshape(2, -1, 4)), (20, 4)),
    "closed": (lambda a: jn.nuclear_norm(a.reshape(-1, 2, 2)), (8, 2)),
    "svd": (jn.nuclear_norm, (20, 9)),
    "squaring": (lambda a: jn.spectral_norm(a, method="squaring"), (24, 12)),
    "krylov": (lambda a: jn.spectral_norm(a, method="krylov"), (100, 64)),
    "krylov by the Gram matrix": (lambda a: jn.spectral_norm(a, method="krylov"), (256, 48)),
    "polar": (lambda a: jn.nuclear_norm(a, method="polar"), (80, 20)),
    "gram": (lambda a: jn.schatten_norm(a, 4), (20, 9)),
    "gauge": (jn.UnitarilyInvariant(jnp.max), (20, 9)),
    "triplets": (lambda a: jn.truncated_svd(a, 2).s, (320, 130)),
}


@pytest.mark.parametrize("method", LOCAL)
def test_without_a_name_the_norm_is_that_of_the_block(method):
    norm, shape = LOCAL[method]
    a = jnp.asarray(gaussian(shape, REAL))

    def local(a):
        return jax.value_and_grad(lambda a: jnp.sum(norm(a)))(a)

    value, g = on_mesh(lambda a: jax.tree.map(jnp.atleast_1d, local(a)), P("x"), P("x"))(a)
    for i, block in enumerate(jnp.split(a, 2)):
        expected = jax.jit(local)(block)
        np.testing.assert_allclose(value[i], expected[0], rtol=tolerance(REAL))
        np.testing.assert_allclose(jnp.split(g, 2)[i], expected[1], atol=1e-4 if REAL.itemsize < 8 else 1e-8)


def test_arguments():
    a = jnp.ones((8, 8), REAL)

    def call(norm, **options):
        on_mesh(lambda a: norm(a, **options), P(*BOTH), P())(a)

    call(jn.KyFan(8), axis_name=P(*BOTH))  # more than a block has
    for norm in (jn.spectral_norm, jn.frobenius_norm):
        for wrong, kind in ((("x",), ValueError), (("x", "x"), ValueError), (("x", 1), TypeError), (7, TypeError)):
            with pytest.raises(kind, match="axis_name must"):
                call(norm, axis_name=wrong)
        with pytest.raises(ValueError, match="axis_name must name mesh axes"):
            norm(a, axis_name="x")
        with pytest.raises(ValueError, match="axis_name must be None with diagonal"):
            call(norm, axis_name=BOTH, diagonal=True)
    for method in ("polar", "gram", "squaring", "krylov"):
        with pytest.raises(ValueError, match="one of 'auto', 'svd' with axis_name"):
            call(jn.nuclear_norm, axis_name=BOTH, method=method)
    with pytest.raises(ValueError, match="compute_dtype must be None"):
        call(jn.nuclear_norm, axis_name=BOTH, compute_dtype=jnp.bfloat16)
    with pytest.raises(ValueError, match="k must"):
        call(jn.KyFan(9), axis_name=BOTH)
