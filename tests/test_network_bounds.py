"""Bounds of networks hold for a thousand networks each, and are attained where theory says so."""

from functools import cache, partial
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dense_convolution import dense
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from jax.test_util import check_grads
from matrices import REAL, gaussian, needs_double, prescribed, spectra, tolerance

import jaxnorms as jn
from jaxnorms.learning.complexity import frobenius_product_bound, margins, normalized_margins, spectral_complexity
from jaxnorms.learning.lipschitz import lipschitz_bound, stable_rank

inf = float("inf")
ONE, MAX = jn.Induced(1, 1), jn.Induced(inf, inf)
ORDERS = {"spectral": (2, "spectral"), "fro": (2, "fro"), "one": (1, ONE), "max": (inf, MAX)}
WIDTHS, SQUARE = (5, 7, 6, 3), (4, 4, 4, 4)  # the second takes one decomposition
SIZE = 1 + tolerance(REAL)
transposed = partial(jax.tree.map, jnp.transpose)
in_single = pytest.mark.skipif(REAL.itemsize > 4, reason="double precision has the range")
in_double = pytest.mark.skipif(REAL.itemsize < 8, reason="what precision does not touch runs once")


def network(seed=0, count=None, widths=SQUARE):
    """Weights, in x out; ``count`` networks along a first axis."""
    shapes = ((m, n) if count is None else (count, m, n) for m, n in pairwise(widths))
    return [jnp.asarray(gaussian(shape, REAL, seed + i)) for i, shape in enumerate(shapes)]


def outputs(weights, x, act=jax.nn.relu):
    *hidden, last = weights
    for w in hidden:
        x = act(jnp.matmul(x, w, precision="highest"))
    return jnp.matmul(x, last, precision="highest")


def close(found, expected, rtol=SIZE - 1, **absolute):
    np.testing.assert_allclose(found, expected, rtol=rtol, **absolute)


def all_of(test, tree):
    return all(np.all(test(np.asarray(x))) for x in jax.tree.leaves(tree))


@in_single
def test_no_network_is_steeper_than_its_bound():
    """The Jacobians of 1000 networks at 4 points each, in l_2, l_1 and l_inf, and slopes between these points."""

    def steepness(act, p, weights, points):
        jacobians = jax.vmap(jax.jacrev(lambda x: outputs(weights, x, act)))(points)  # outputs x inputs
        moved, apart = jnp.diff(outputs(weights, points, act), axis=0), jnp.diff(points, axis=0)
        slopes = jnp.linalg.norm(moved, p, axis=1) / jnp.linalg.norm(apart, p, axis=1)
        return jnp.maximum(jnp.max(jn.Induced(p, p)(jacobians)), jnp.max(slopes))

    def one(weights, points):
        steep = [[steepness(act, p, weights, points) for p in (2, 1, inf)] for act in (jax.nn.relu, jnp.tanh)]
        bounds = [lipschitz_bound(weights, ord) for _, ord in ORDERS.values()]
        other = [lipschitz_bound(transposed(weights), ord, out_axis=-2) for ord in ("fro", ONE, MAX)]
        return jnp.array(steep), jnp.stack(bounds), jnp.stack(other)

    points = jnp.asarray(gaussian((1000, 4, WIDTHS[0]), REAL, 9))
    run = jax.jit(jax.vmap(one))
    steep, bounds, other = (np.asarray(x) for x in run(network(count=1000, widths=WIDTHS), points))
    ratios = np.max(steep, axis=1)[:, [0, 0, 1, 2]] / bounds
    assert np.all(np.max(ratios, axis=0) > [0.3, 0.1, 0.1, 0.1])
    assert np.max(ratios) <= SIZE
    assert np.all(bounds[:, 0] <= bounds[:, 1] * SIZE)
    close(other, bounds[:, 1:])


@in_single
def test_attained_by_aligned_layers():
    """Rank-one layers along common nonnegative directions, and positive diagonals: in l_2."""
    u = [x / np.linalg.norm(x) for x in np.abs(gaussian((4, 4), REAL))]
    aligned = [jnp.asarray(c * np.outer(x, y), REAL) for c, (x, y) in zip((2, 3, 0.5), pairwise(u), strict=True)]
    diagonal = [jnp.diag(jnp.asarray([c, 0.1, 0.2, 0], REAL)) for c in (2, 3, 0.5)]
    for weights, x in ((aligned, u[0]), (diagonal, np.eye(4, dtype=REAL)[0])):
        close([lipschitz_bound(weights), np.linalg.norm(outputs(weights, x))], 3)


@in_double
@pytest.mark.parametrize(("p", "ord", "other", "axis"), [(inf, MAX, ONE, 0), (1, ONE, MAX, 1)])
def test_attained_by_nonnegative_weights_of_equal_sums(p, ord, other, axis):
    """In l_inf if the sums of all outputs are equal, in l_1 those of all inputs; the other norm is larger."""
    weights = [2 * jnp.abs(w) / jnp.sum(jnp.abs(w), axis=axis, keepdims=True) for w in network(widths=WIDTHS)]
    x = jnp.ones(WIDTHS[0], REAL)
    steep = np.linalg.norm(outputs(weights, x), p) / np.linalg.norm(x, p)
    for given, out_axis in ((weights, -1), (transposed(weights), -2)):
        close(lipschitz_bound(given, ord, out_axis=out_axis), steep)
        assert lipschitz_bound(given, other, out_axis=out_axis) > 1.1 * steep


@in_double
def test_chains_of_norms_by_path():
    """l_inf -> l_2 -> l_2 -> l_inf, the first with a certified bound in place of a norm."""
    chain = {"0": jn.Induced(inf, 2), "1": "spectral", "2": jn.Induced(2, inf)}

    @jax.jit
    def run(weights, points):
        a, b, c = weights
        steep = jnp.max(MAX(jax.vmap(jax.jacrev(lambda x: outputs(weights, x)))(points)))
        upper = jn.induced_norm_bounds(a.T, inf, 2).upper
        return lipschitz_bound(weights, chain), upper * jn.spectral_norm(b) * jn.induced_norm(c.T, 2, inf), steep

    found, expected, steep = run(network(), jnp.asarray(gaussian((200, 4), REAL, 3)))
    close(found, expected)
    assert steep <= found


@in_double
def test_activations():
    """Numbers for all or by path, traced, and of stacked layers for each of them."""
    weights = {"a": {"w": network()[0]}, "b": network(1, 3)[0], "bias": jnp.ones(4, REAL)}
    alone, axes = jn.frobenius_norm(weights["a"]["w"]), {"b": 1}
    plain = lipschitz_bound(weights, "fro", batch_axes=axes)
    close(plain, jnp.prod(jn.frobenius_norm(weights["b"])) * alone)
    traced = jax.jit(lambda c: lipschitz_bound(weights, "fro", activations={"a/": 3.0, "b": c}, batch_axes=axes))
    close(traced(0.25), plain * 3 / 4**3)
    close(lipschitz_bound(weights, {"^a": "fro"}, activations=2), 2 * alone)
    assert np.isnan(lipschitz_bound(weights, "fro", activations=-1.0))
    assert [lipschitz_bound(weights, where="nothing"), lipschitz_bound(np.zeros((3, 3, 0, 4), REAL))] == [1, 0]


@in_double
def test_documented_constants_of_activations():
    nn, x = jax.nn, jnp.linspace(-12, 12, 100001, dtype=REAL)
    ones = (nn.relu, nn.leaky_relu, nn.elu, nn.softplus, jnp.tanh, jnp.abs)
    acts = [nn.sigmoid, nn.silu, nn.gelu, lambda x: nn.gelu(x, approximate=False), nn.mish, nn.selu, *ones]
    slopes = jax.jit(lambda x: [jnp.max(jnp.abs(jax.vmap(jax.grad(act))(x))) for act in acts])(x)
    constants = np.array([0.25, 1.09984, 1.129, 1.129, 1.0885, 1.7581, *(1 for _ in ones)])
    assert np.all(slopes <= constants * SIZE)
    close(slopes, constants, rtol=1e-3)


@cache
def kernels_and_bounds(count, *shape):
    kernels = jnp.asarray(gaussian((count, *shape), REAL))
    bounds = jax.jit(jax.vmap(lambda k: jnp.stack([lipschitz_bound(k, ord) for _, ord in ORDERS.values()])))(kernels)
    return kernels, np.asarray(bounds)


def norms_of(operators):
    return np.stack([np.linalg.norm(operators, p, axis=(1, 2)) for p, _ in ORDERS.values()], 1)


@in_single
@pytest.mark.parametrize("strides", [1, 2])
@pytest.mark.parametrize("padding", ["circular", "SAME", "VALID"])
def test_no_convolution_exceeds_its_bound(padding, strides):
    """1000 kernels of 3 taps, 2 inputs and 3 outputs, against their dense operators, which are linear in them."""
    basis = np.stack([dense(kernel, (6,), strides, padding).real for kernel in np.eye(18).reshape(18, 3, 2, 3)])
    kernels, bounds = kernels_and_bounds(1000, 3, 2, 3)
    exact = norms_of(np.tensordot(np.asarray(kernels, float).reshape(1000, 18), basis, 1))
    assert np.all(exact <= bounds * SIZE)
    if strides == 1 and padding != "VALID":  # one input, and one output, is far enough from the borders
        close(bounds[:, 2:], exact[:, 2:])
    if strides == 1 and padding == "circular":
        assert np.max(exact[:, 0] / bounds[:, 0]) > 0.98


@in_double
@pytest.mark.parametrize("kind", ["dilated", "grouped", "transposed"])
def test_other_convolutions_are_bounded_too(kind):
    kernels, bounds = kernels_and_bounds(100, 3, 3, 2, 4)
    name = {"dilated": "rhs_dilation", "grouped": "feature_group_count", "transposed": "lhs_dilation"}[kind]
    channels, options = (4, {name: 2}) if kind == "grouped" else (2, {name: (2, 2)})
    images, layout = jnp.eye(16 * channels, dtype=REAL).reshape(-1, 4, 4, channels), ("NHWC", "HWIO", "NHWC")

    def one(k):
        y = jax.lax.conv_general_dilated(images, k, (1, 1), [(2, 2)] * 2, dimension_numbers=layout, **options)
        return y.reshape(len(images), -1).T

    assert np.all(norms_of(jax.jit(lambda kernels: jax.lax.map(one, kernels))(kernels)) <= bounds * (1 + 1e-5))


@in_double
def test_options_of_convolutions():
    layer = {"input_shape": (6,), "strides": 2}

    @jax.jit
    def run(k):
        exact, supremum = jn.conv_spectral_norm(k, **layer), jn.conv_spectral_norm(k, (9,), padding="SAME")
        strided = jn.conv_spectral_norm(k, (9,), padding="VALID", strides=2)
        cases = (
            (layer, exact * exact),
            ({"first": layer, "": None}, exact * supremum),
            ({"first": {"strides": 2, "padding": "circular"}}, strided * supremum),
        )
        found = [lipschitz_bound({"first": k, "last": k}, convolutions=options) for options, _ in cases]
        found.append(lipschitz_bound(jnp.stack([k, 2 * k]), batch_axes=1, activations=3.0))
        turned, orders = jnp.transpose(k, (2, 1, 0)), (ONE, MAX, "spectral")  # OIH, which out_axis means as well
        for how in ({"convolutions": {"dimension_numbers": "OIH"}}, {"out_axis": -2}):
            found += [lipschitz_bound(turned, ord, **how) for ord in orders]
        plain = [lipschitz_bound(k, ord) for ord in orders] * 2
        return jnp.stack(found), jnp.stack([*(value for _, value in cases), 18 * supremum**2, *plain])

    close(*run(jnp.asarray(gaussian((3, 2, 4), REAL))))


def test_stable_rank():
    """Of known spectra: n of orthogonal matrices, 1 of rank one, 0 of zero; and between 1 and the rank."""
    values = spectra(4).values()
    stack = jnp.stack([jnp.asarray(prescribed(s, (6, 4), REAL)) for s in values])
    close(jax.jit(stable_rank)(stack), [np.sum(s**2) / (np.max(s) or 1) ** 2 for s in values])
    many = jnp.asarray(gaussian((1000, 3, 5), REAL))
    ranks = jax.jit(lambda x: stable_rank(x, axis=(0, 2), keepdims=True))(jnp.moveaxis(many, 0, 1))
    assert ranks.shape == (1, 1000, 1)
    assert np.all((ranks >= 1) & (ranks <= 3))
    operator = jn.LinearOperator(many[0], lambda a, x: a @ x, lambda a, y: a.T @ y, (3, 5), REAL)
    close(stable_rank(operator), ranks[0, 0, 0])


@in_single
def test_stable_rank_of_any_size_and_bad_entries():
    a = jnp.asarray(prescribed(np.array([3.0, 2.0, 1.0]), (4, 3), REAL))
    bad = (a.at[0, 0].set(x) for x in (jnp.nan, inf))
    largest = a / jnp.max(jnp.abs(a)) * (jnp.finfo(REAL).max / 8)
    batch = jnp.stack([a, a * REAL.type(1e-30), largest, 0 * a, *bad])
    found, slopes = jax.jit(jax.vmap(jax.value_and_grad(stable_rank)))(batch)
    close(found[:4], [14 / 9] * 3 + [0])
    assert all_of(np.isfinite, slopes[:4])
    assert not np.any(slopes[3])
    assert all_of(np.isnan, (found[4:], slopes[4:]))
    half = jax.jit(stable_rank)(a.astype(jnp.bfloat16))
    assert half.dtype == jnp.bfloat16
    close(half.astype(REAL), 14 / 9, rtol=0.02)


@in_double
def test_spectral_complexity_is_the_formula():
    def formula(weights, others, constants):
        norms = np.array([np.linalg.norm(w, 2) for w in weights])
        away = [np.sum(np.linalg.norm(w - m, axis=0)) for w, m in zip(weights, others, strict=True)]
        return np.prod(constants * norms) * np.sum((away / norms) ** (2 / 3)) ** 1.5

    @jax.jit
    def run(weights, start):
        turned = spectral_complexity(transposed(weights), transposed(start), activations=rho, out_axis=-2)
        return spectral_complexity(weights, start, activations=rho), turned, spectral_complexity(weights[1], None)

    rho, (weights, start) = {"^0": 0.25, "^1": 2, "": 1}, (network(i, widths=(5, 3, 3, 5)) for i in (0, 20))
    for others in (start, [0 * w for w in weights]):
        expected = formula(weights, others, np.array([0.25, 2, 1]))
        close(run(weights, others), [expected, expected, formula(weights[1:2], [0], 1)])
    stacked = network(5, 3)[0]
    close(jax.jit(partial(spectral_complexity, batch_axes=1))(stacked), formula(stacked, 0 * stacked, 1))


@in_double
def test_spectral_complexity_exceeds_the_lipschitz_bound():
    """By ``L^(3/2)`` at least, with equality for layers with one output that is not zero; homogeneous in each layer."""

    @jax.jit
    @jax.vmap
    def both(weights):
        scaled = [c * w for c, w in zip((2.0, 3.0, 0.5), weights, strict=True)]
        return spectral_complexity(weights), lipschitz_bound(weights), spectral_complexity(scaled)

    complexity, bound, scaled = both(network(count=1000))
    assert np.all(complexity >= 3**1.5 * bound / SIZE)
    close(scaled, 3 * complexity)
    complexity, bound, _ = both([w.at[:, :, 1:].set(0) for w in network(count=1000)])
    close(complexity, 3**1.5 * bound)


@in_single
def test_spectral_complexity_at_zero_layers():
    """The limit as one layer vanishes, 0 where two do and at the reference; derivatives are finite."""
    (first, second, last), start = network(), network(20)
    value = jax.jit(jax.value_and_grad(spectral_complexity))
    for weights in ([0 * first, 0 * second, last], start):
        assert all_of(np.logical_not, value(weights, start))
    found, slopes = value([0 * first, second, last], start)
    close(found, value([REAL.type(1e-30) * first, second, last], start)[0])
    assert all_of(np.isfinite, slopes)


@in_single
def test_no_sample_correlates_more_with_networks_than_the_frobenius_product_bound():
    """Sums over random signs, of the best of 1000 networks with given Frobenius norms, and of all linear functions."""
    count, radius, widths = 50, 2.0, (4, 4, 4, 1)
    x = gaussian((count, 4), REAL, 7)
    x = jnp.asarray(x * radius / np.linalg.norm(x, axis=1, keepdims=True), REAL)
    signs = jnp.asarray(np.random.default_rng(0).choice([-1.0, 1.0], (200, count)), REAL)
    raw = zip((3.0, 0.5, 2.0), network(0, 1000, widths), strict=True)
    weights = [c * w / jn.frobenius_norm(w, keepdims=True) for c, w in raw]
    best = jnp.mean(jnp.max(jnp.abs(signs @ jax.vmap(lambda w: outputs(w, x)[:, 0])(weights).T), axis=1)) / count
    bounds = jax.vmap(lambda w: frobenius_product_bound(w, radius, count))(weights)
    formula = radius * (np.sqrt(2 * np.log(2) * 3) + 1) * 3 / np.sqrt(count)
    close(bounds, formula)
    assert 0 < best <= formula
    linear = 3 * jnp.mean(jnp.linalg.norm(signs @ x, axis=1)) / count  # attained by w along the sum
    assert linear <= frobenius_product_bound(3 * jnp.eye(4, 1, dtype=REAL), radius, count)
    assert np.all(jax.jit(jax.vmap(lipschitz_bound))(weights) * radius / np.sqrt(count) <= bounds)


@in_double
def test_margins():
    logits, labels = gaussian((1000, 5), REAL), np.random.default_rng(0).integers(0, 5, 1000)
    expected = logits[np.arange(1000), labels] - np.max(np.where(np.eye(5)[labels], -inf, logits), 1)
    found, x = margins(logits, labels), gaussian((1000, 2, 3), REAL, 1)
    close(found, expected)
    close(normalized_margins(logits, labels, x, 7), expected * 1000 / (7 * np.linalg.norm(x)))
    np.testing.assert_array_equal(jax.grad(margins)(jnp.array([1.0, 3.0, 3.0]), jnp.array(0)), [1, -0.5, -0.5])
    assert np.all(np.isnan(margins(logits[:2], jnp.array([-1, 5]))))
    assert margins(logits[0].astype(jnp.bfloat16), labels[0]).dtype == jnp.bfloat16
    flat = normalized_margins(jnp.array([[1.0, 0.0], [1.0, 2.0], [0.0, 0.0]]), jnp.zeros(3, int), x[:3], 0.0)
    np.testing.assert_array_equal(flat, [inf, -inf, 0])


SCALARS = {
    **{name: lambda w, ord=ord: lipschitz_bound(w, ord) for name, (_, ord) in ORDERS.items() if name != "one"},
    "frobenius product": lambda w: frobenius_product_bound(w, 2.0, 10),
    "spectral complexity": spectral_complexity,
}


@in_single
@pytest.mark.parametrize("name", SCALARS)
def test_layers_of_every_size(name):
    """Factors from 1e-30 to 1e30 whose product is 1; by one program; 16-bit weights in float32."""
    f = jax.jit(jax.value_and_grad(SCALARS[name]))
    weights = [*network(), *network(30)]
    plain, slopes = f(weights)
    factors = [REAL.type(2.0**k) for k in (100, 100, 100, -100, -100, -100)]
    found, scaled = f([c * w for c, w in zip(factors, weights, strict=True)])
    close(found, plain)
    for c, g, h in zip(factors, slopes, scaled, strict=True):
        close(h * c, g, rtol=tolerance(REAL, 500), atol=tolerance(REAL) * float(np.max(np.abs(g))))
    assert f._cache_size() == 1
    close(f([w.astype(jnp.bfloat16) for w in weights])[0], plain, rtol=0.1)


@in_single
@pytest.mark.parametrize("name", SCALARS)
def test_zero_and_bad_layers(name):
    f = jax.jit(jax.value_and_grad(SCALARS[name]))
    first, *rest = network()
    assert f([0 * first, *rest])[0] == 0
    assert all_of(np.isfinite, f([0 * first, *rest]))
    assert all_of(np.isnan, f([first.at[0, 0].set(jnp.nan), *rest]))
    assert not np.isfinite(f([first.at[0, 0].set(inf), *rest])[0])


@needs_double
@pytest.mark.parametrize("name", [*list(SCALARS)[:2], "with reference", "stable rank", "kernels", "margins"])
def test_derivatives(name):
    start, labels = network(20), jnp.array([0, 2, 1, 3])
    f = SCALARS | {
        "with reference": lambda w: spectral_complexity(w, start),
        "stable rank": lambda w: stable_rank(w[0]),
        "kernels": lambda w: sum(lipschitz_bound(w[1].reshape(4, 2, 2), ord) for ord in (MAX, ONE, "fro")),
        "margins": lambda w: jnp.sum(normalized_margins(w[2], labels, w[0], jnp.sum(w[1] ** 2))),
    }
    check_grads(jax.jit(f[name]), (network(),), order=1, modes=["fwd", "rev"], atol=1e-6, rtol=1e-6)
    if name in ("spectral", "with reference", "stable rank"):
        check_grads(jax.jit(f[name]), (network(),), order=2, modes=["rev"], atol=1e-4, rtol=1e-4)


@in_single
def test_on_an_explicit_mesh():
    mesh = jax.make_mesh((2,), ("x",), axis_types=(AxisType.Explicit,))
    weights, axes = [network()[0], network(3, 2)[0], jnp.asarray(gaussian((3, 2, 4), REAL))], {"1": 1}
    along = zip(weights, ("x", "x", (None, "x")), strict=True)
    spread = [jax.device_put(w, NamedSharding(mesh, PartitionSpec(*names))) for w, names in along]

    @jax.jit
    def run(w):
        complexity = spectral_complexity(w[:2], [x / 2 for x in w[:2]], batch_axes=axes)
        return *(lipschitz_bound(w, ord, batch_axes=axes) for ord in ("fro", MAX)), complexity

    close(run(spread), run(weights))


W, K, ROWS, CLASSES = np.ones((2, 3)), np.ones((3, 2, 2)), np.ones((4, 3)), np.zeros(4, int)
REFUSED = [
    (ValueError, "ord must be 'spectral', 'fro' or an Induced", lambda: lipschitz_bound(W, "nuc")),
    (TypeError, "did you mean Entrywise", lambda: lipschitz_bound(W, 2)),
    (ValueError, "for the convolution kernel 'k'", lambda: lipschitz_bound({"k": K}, jn.Induced(1, 2))),
    (TypeError, "unexpected keyword 'stride'", lambda: lipschitz_bound(K, convolutions={"stride": 2})),
    (ValueError, "must have a pattern for the path 'a'", lambda: lipschitz_bound({"a": W}, activations={"b": 1})),
    (ValueError, "got the convolution kernel 'k'", lambda: spectral_complexity({"k": K})),
    (ValueError, "must hold a matrix", lambda: spectral_complexity({"b": np.ones(3)})),
    (ValueError, "reference must have the structure", lambda: spectral_complexity([W], (W,))),
    (ValueError, "labels must have shape", lambda: margins(ROWS, np.zeros(3, int))),
    (ValueError, "inputs must have shape", lambda: normalized_margins(ROWS, CLASSES, W, 1)),
]


@in_double
@pytest.mark.parametrize(("error", "message", "call"), REFUSED)
def test_what_is_refused(error, message, call):
    with pytest.raises(error, match=message):
        call()
