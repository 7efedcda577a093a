"""Every way of differentiating and every transformation, over all norms."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from matrices import DTYPES, REAL, gaussian, needs_double, prescribed, tolerance
from norm_cases import NORMS, every_norm

import jaxnorms as jn


def close(actual, expected, dtype=REAL, factor=200):
    np.testing.assert_allclose(actual, expected, rtol=tolerance(dtype, factor), atol=tolerance(dtype, factor))


@every_norm
def test_modes_and_transformations_agree(name):
    norm = NORMS[name]
    a = jnp.asarray(prescribed(np.array([3.0, 2.0, 1.0]), (9, 3), REAL))
    batch = jnp.stack([a, 2 * a, jnp.zeros_like(a)])
    e = jnp.asarray(gaussian(a.shape, REAL))
    g, n = jax.grad(norm), a.size

    @jax.jit
    def everything(a, batch, e):
        value, pullback = jax.vjp(norm, a)
        value_lin, pushforward = jax.linearize(norm, a)
        first = {
            "vjp": pullback(jnp.ones_like(value))[0],
            "jacfwd": jax.jacfwd(norm)(a),
            "jacrev": jax.jacrev(norm)(a),
            "vmap": jax.vmap(g)(batch)[0],
            "checkpoint": jax.grad(jax.checkpoint(norm))(a),
            "scan": jax.grad(lambda b: jax.lax.scan(lambda c, x: (c + norm(x), None), jnp.zeros_like(value), b)[0])(
                batch
            )[0],
            "map": jax.grad(lambda b: jnp.sum(jax.lax.map(norm, b)))(batch)[0],
        }
        slope = {
            "jvp": jax.jvp(norm, (a,), (e,))[1],
            "linearize": pushforward(e),
            "vmap of jvp": jax.vmap(lambda b: jax.jvp(norm, (b,), (e,))[1])(batch)[0],
        }
        second = {
            "hessian": jax.hessian(norm)(a),
            "reverse over reverse": jax.jacrev(g)(a),
            "forward over forward": jax.jacfwd(jax.jacfwd(norm))(a),
            "reverse over forward": jax.jacrev(jax.jacfwd(norm))(a),
            "vmap of hessian": jax.vmap(jax.hessian(norm))(batch)[0],
            "checkpoint": jax.jacrev(jax.grad(jax.checkpoint(norm)))(a),
        }
        product = {
            "jvp of grad": jax.jvp(g, (a,), (e,))[1],
            "grad of grad": jax.grad(lambda b: jnp.sum(g(b) * e))(a),
            "linearize of grad": jax.linearize(g, a)[1](e),
            "scan of jvp of grad": jax.lax.scan(lambda c, x: (c, jax.jvp(g, (x,), (e,))[1]), 0.0, batch)[1][0],
        }
        return (value, value_lin), first, slope, second, product

    values, first, slope, second, product = everything(a, batch, e)
    expected, h = g(a), second["hessian"]
    close(values, (norm(a),) * 2)
    for transformed in first.values():
        close(transformed, expected)
    for transformed in slope.values():
        close(transformed, np.sum(np.asarray(expected) * np.asarray(e)))
    for transformed in second.values():
        close(transformed, h, factor=2000)
    for transformed in product.values():
        close(transformed, (np.asarray(h).reshape(n, n) @ np.asarray(e).ravel()).reshape(a.shape), factor=2000)


@pytest.mark.parametrize("name", ["nuclear", "spectral", "frobenius", "mixed_2_1", "ky_fan_2", "induced_1"])
@pytest.mark.parametrize("explicit", [False, True])
def test_batches_inside_shard_map(name, explicit):
    norm = NORMS[name]
    kinds = (jax.sharding.AxisType.Explicit if explicit else jax.sharding.AxisType.Auto,)
    mesh = Mesh(np.array(jax.devices()[:2]), ("batch",), axis_types=kinds)
    assert mesh.size == 2
    spec = PartitionSpec("batch")
    batch = jax.device_put(gaussian((4, 9, 3), REAL), NamedSharding(mesh, spec))

    @jax.jit
    @functools.partial(jax.shard_map, mesh=mesh, in_specs=spec, out_specs=spec)
    def local(b):
        def hvp(x):
            return jax.jvp(jax.grad(norm), (x,), (jnp.ones_like(x),))[1]

        return jax.vmap(jax.value_and_grad(norm))(b), jax.vmap(hvp)(b)

    (value, g), product = local(batch)
    close(value, norm(jnp.asarray(np.asarray(batch))))
    close(g, jax.vmap(jax.grad(norm))(np.asarray(batch)))
    assert np.all(np.isfinite(product))


@pytest.mark.parametrize("norm", [jn.spectral_norm, jn.KyFan(2), jn.KyFan(3, 2)])
def test_residuals_are_small(norm):
    """A loss over 100 layers keeps O(m + n) a layer beside its own inputs, never a dense G."""
    layers = [jnp.asarray(gaussian((64, 48), REAL, seed)) for seed in range(100)]

    inputs = {w.unsafe_buffer_pointer() for w in layers}
    _, pullback = jax.vjp(lambda ws: sum(norm(w) for w in ws), layers)
    kept = [x for x in jax.tree.leaves(pullback) if x.unsafe_buffer_pointer() not in inputs]
    assert sum(x.size for x in kept) <= 100 * 12 * (64 + 48)
    assert max(x.size for x in kept) < 64 * 48
    close(pullback(jnp.ones((), REAL))[0][0], jax.grad(norm)(layers[0]))


def test_traced_order():
    """p of schatten_norm and entrywise_norm: differentiated, batched, NaN below 1, right at 1, 2, inf."""
    a = jnp.asarray(prescribed(np.array([3.0, 2.0, 1.0, 0.0]), (5, 4), REAL))
    orders = jnp.asarray([1, 1.5, 2, 3, jnp.inf, 0.5], REAL)
    for function, norm in ((jn.schatten_norm, jn.Schatten), (jn.entrywise_norm, jn.Entrywise)):
        traced = jax.jit(jax.vmap(jax.value_and_grad(function), in_axes=(None, 0)))
        value, g = traced(a, orders)
        for i, p in enumerate([1, 1.5, 2, 3, np.inf]):
            expected = jax.value_and_grad(norm(p))(a)
            close(value[i], expected[0])
            close(g[i], expected[1])
        assert np.isnan(value[5])
        assert function(a, orders, keepdims=True).shape == (6, 1, 1)
        close(function(jnp.stack([a, 2 * a]), orders[:2]), [norm(1)(a), 2 * norm(1.5)(a)])
        assert function(jnp.stack([a, a]), orders[:2], keepdims=True).shape == (2, 1, 1)
        tied = jnp.asarray(prescribed(np.array([2.0, 2.0, 2.0, 1.0]), (5, 4), REAL))
        close(traced(tied, orders)[1][4], jax.grad(norm(np.inf))(tied))
        slopes = jax.jit(jax.vmap(jax.grad(function, argnums=1), in_axes=(None, 0)))(a, orders[:5])
        assert np.all(np.isfinite(slopes))


@needs_double
@pytest.mark.parametrize("function", [jn.schatten_norm, jn.entrywise_norm])
def test_derivatives_in_the_order(function):
    a, p, h = jnp.asarray(prescribed(np.array([3.0, 3.0, 1.0]), (9, 3), REAL)), 2.5, 1e-5
    slope = jax.grad(function, argnums=1)
    np.testing.assert_allclose(slope(a, p), (function(a, p + h) - function(a, p - h)) / (2 * h), rtol=1e-8)
    (aa, ap), (pa, pp) = jax.hessian(function, argnums=(0, 1))(a, p)
    g = jax.grad(function)
    np.testing.assert_allclose(ap, (g(a, p + h) - g(a, p - h)) / (2 * h), atol=1e-8)
    np.testing.assert_allclose(pa, ap, atol=1e-12)
    np.testing.assert_allclose(pp, (slope(a, p + h) - slope(a, p - h)) / (2 * h), rtol=1e-7)
    np.testing.assert_allclose(aa, jax.hessian(lambda a: function(a, 2.5))(a), atol=1e-12)
    for modes in (jax.jacrev(jax.jacfwd(function, argnums=1)), jax.jacrev(jax.jacrev(function, argnums=1))):
        np.testing.assert_allclose(modes(a, p), ap, atol=1e-12)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_singular_values(dtype):
    a = jnp.asarray(prescribed(np.array([3.0, 2.0, 1.0]), (9, 3), dtype))
    close(jn.singular_values(a), [3, 2, 1], dtype)
    g = jax.jacrev(jn.singular_values)(a) if dtype == REAL else None
    u, _, vh = np.linalg.svd(a, full_matrices=False)
    e = jnp.asarray(gaussian(a.shape, dtype))
    close(jax.jvp(jn.singular_values, (a,), (e,))[1], np.diag(u.conj().T @ e @ vh.conj().T).real, dtype)
    if g is not None:
        close(g, np.einsum("ik,kj->kij", u, vh))
    tied = jnp.asarray(prescribed(np.array([2.0, 2.0, 0.0]), (9, 3), dtype))
    _, nested = jax.jvp(lambda a: jax.jvp(jn.singular_values, (a,), (e,))[0], (tied,), (e,))
    close(nested, jax.jvp(jn.singular_values, (tied,), (e,))[1], dtype)
    slope = jax.jvp(jn.singular_values, (tied,), (tied,))[1]
    close(slope, [2, 2, 0], dtype)


@needs_double
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(3, 3), (9, 3), (3, 4)], ids=str)
def test_second_derivative_of_distinct_singular_values(shape, dtype):
    a = jnp.asarray(prescribed(np.array([3.0, 2.0, 1.0]), shape, dtype))
    e, f = (jnp.asarray(gaussian(shape, dtype, seed)) for seed in (1, 2))

    def slope(a):
        return jax.jvp(jn.singular_values, (a,), (e,))[1]

    h = 1e-5
    np.testing.assert_allclose(
        jax.jvp(slope, (a,), (f,))[1], (slope(a + h * f) - slope(a - h * f)) / (2 * h), atol=1e-8
    )
    tied = jnp.asarray(prescribed(np.array([2.0, 2.0, 0.0]), shape, dtype))
    assert np.all(np.isfinite(jax.jvp(slope, (tied,), (f,))[1]))
    with pytest.raises(ValueError, match="third derivatives"):
        jax.jvp(lambda a: jax.jvp(slope, (a,), (f,))[1], (a,), (f,))


@pytest.mark.parametrize(
    "function",
    [jn.nuclear_norm, jn.spectral_norm, jn.singular_values, jn.cond, jn.det, jn.adjugate, jn.pinv, jn.polar],
    ids=lambda f: f.__name__,
)
def test_vmap_over_no_matrices(function):
    none = jnp.zeros((0, 5, 5))
    assert jax.tree.map(jnp.shape, jax.vmap(function)(none)) == jax.tree.map(jnp.shape, function(none))
    total = jax.grad(lambda a: sum(jnp.sum(x) for x in jax.tree.leaves(function(a))))
    assert jax.vmap(total)(none).shape == none.shape
