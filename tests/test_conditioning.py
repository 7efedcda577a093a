"""Condition numbers: exact cases, differences, and what certifies an estimate: the truth in more precision."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from differences import against_differences
from matrices import COMPLEX, DTYPES, REAL, gaussian, needs_double, prescribed, tolerance, unitary

import jaxnorms as jn

inf = float("inf")
NUMPY_ORDERS = [None, "fro", "nuc", 1, -1, 2, -2, inf, -inf]
ORDERS = [2, -2, 1, -inf, "nuc", jn.KyFan(2)]
SMALL = tolerance(REAL)
UNIT = REAL.type(2.0**100)  # which changes no digit


def shifted(n, dtype, seed=0):
    return gaussian((n, n), dtype, seed) + np.asarray(2, dtype) * np.eye(n, dtype=dtype)


def sketch(n, dtype, seed=0):
    return gaussian((n, n), dtype, seed + 100)


@pytest.mark.parametrize("p", NUMPY_ORDERS, ids=str)
def test_values_of_numpy(p):
    for dtype in DTYPES:
        a = np.stack([shifted(9, dtype, seed) for seed in range(6)]).reshape(2, 3, 9, 9)
        expected = np.linalg.cond(a.astype(np.promote_types(dtype, np.float64)), p)
        value = jn.cond(a, p)
        assert value.dtype == REAL
        np.testing.assert_allclose(value, expected, rtol=SMALL * np.max(np.linalg.cond(a)))
    if p in (None, 2, -2):
        a = gaussian((5, 3), REAL)
        np.testing.assert_allclose(jn.cond(a, p), np.linalg.cond(a, p), rtol=SMALL)
        np.testing.assert_allclose(jn.cond(a.T, p), np.linalg.cond(a, p), rtol=SMALL)


def test_norm_objects():
    a = shifted(3, REAL)
    for norm, word in ((jn.Schatten(1), "nuc"), (jn.Entrywise(2), "fro"), (jn.Induced(1, 1), 1), (jn.KyFan(1), 2)):
        np.testing.assert_allclose(jn.cond(a, norm), jn.cond(a, word), rtol=SMALL)


def test_worked_cases():
    np.testing.assert_allclose(jax.grad(jn.cond)(jnp.diag(jnp.array([4.0, 2]))), np.diag([0.5, -1]), atol=SMALL)
    for n in (1, 2, 5):
        np.testing.assert_allclose(jax.grad(jn.cond)(jnp.eye(n)), np.zeros((n, n)), atol=SMALL)
        assert jn.cond(jnp.zeros((n, n))) == inf
    q = unitary(np.random.default_rng(0), 6, 6, REAL).astype(REAL)
    np.testing.assert_allclose(jax.grad(jn.cond)(jnp.asarray(3 * q)), np.zeros((6, 6)), atol=SMALL)
    assert jn.cond(jnp.ones((2, 2))) == inf


def test_ties_are_averaged():
    """cond (u_1 v_1^H / s_1 - u_n v_n^H / s_n), each averaged over its block."""
    stack = jnp.asarray(np.stack([np.diag([3.0, 3, 1]), np.diag([3.0, 1, 1]), np.diag([3.0, 2, 1])]), REAL)
    expected = [np.diag([0.5, 0.5, -3]), np.diag([1, -1.5, -1.5]), np.diag([1.0, 0, -3])]

    def both(a):
        return jax.jvp(jax.grad(jn.cond), (a,), (jnp.ones_like(a),))

    g, along = jax.jit(lambda stack: jax.lax.map(both, stack))(stack)
    np.testing.assert_allclose(g, expected, atol=SMALL)
    assert np.all(np.isfinite(along))


@needs_double
@pytest.mark.parametrize("p", ORDERS, ids=str)
def test_every_mode(p):
    for dtype in DTYPES if p in (1, 2) else [REAL]:
        a, e = (jnp.asarray(np.stack([f(4, dtype, seed) for seed in range(4)])) for f in (shifted, sketch))
        against_differences(lambda a: jn.cond(a, p), (a,), (e,))


@pytest.mark.parametrize("p", ORDERS, ids=str)
def test_bad_rows_leave_the_others_alone(p):
    """Singular, NaN, infinite, tiny and huge matrices in one batch with a good one; value, and three derivatives."""
    good = shifted(9, REAL)
    rank_one = np.outer(2.0 ** np.arange(9), 2.0 ** -np.arange(9)).astype(REAL)
    steep = np.diag([REAL.type(1)] * 8 + [REAL.type(1e-30)])
    rows = np.stack([good, 0 * good, rank_one, steep, good / UNIT, good * UNIT, good, good])
    rows[6, 1, 2], rows[7, 2, 1] = np.nan, inf

    @jax.jit
    @jax.vmap
    def everything(a):
        e, f = jnp.ones_like(a), partial(jn.cond, p=p)
        value, slope = jax.jvp(f, (a,), (e,))
        return value, slope, jax.grad(f)(a), jax.jvp(jax.grad(f), (a,), (e,))[1]

    value, slope, g, h = map(np.asarray, everything(rows))
    one = jn.cond(good, p)
    np.testing.assert_allclose(value[[0, 4, 5]], [one] * 3, rtol=SMALL * np.linalg.cond(good))
    assert value[1] == inf
    assert value[2] == inf if p not in (-2, None, 2) else p == -2 or value[2] > 0.05 / np.finfo(REAL).eps
    assert np.isnan(value[6])
    assert value[7] == inf
    for derivative in (slope, g, h):
        assert np.all(np.isfinite(derivative[:4]))
        assert np.all(np.isnan(derivative[6:]))
        np.testing.assert_array_equal(derivative[1], 0)
    np.testing.assert_allclose(g[5] * UNIT, g[0], atol=10 * SMALL * np.max(np.abs(g[0])))
    np.testing.assert_allclose(g[4] / UNIT, g[0], atol=10 * SMALL * np.max(np.abs(g[0])))


def test_types():
    for dtype in (jnp.bfloat16, jnp.float16):
        a = jnp.asarray(shifted(3, np.float32), dtype)
        wide = a.astype(jnp.float32)
        for f in (jn.cond, lambda a: jn.cond(a, 1), lambda a: jn.condest(a).value, lambda a: jn.tikhonov_cond(a, 0.5)):
            assert f(a).dtype == dtype
            np.testing.assert_array_equal(f(a), f(wide).astype(dtype))
        _, lower, upper = jn.condest(a, certified=True)
        exact = np.linalg.cond(np.asarray(wide, np.float64), 1)
        assert float(lower) <= exact <= float(upper)
        assert jn.tikhonov_solve(a, a[0], 1.0).dtype == dtype
    assert jn.cond(np.array([[1, 2], [3, 4]])).dtype == REAL
    assert jn.cond(jnp.zeros((0, 3, 3), REAL)).shape == jn.tikhonov_cond(jnp.zeros((0, 3, 3), REAL), 1.0).shape == (0,)


def test_what_is_refused():
    a, op = jnp.eye(3), jn.LinearOperator(jnp.eye(3), matvec, None, (3, 3), REAL)
    for use, error, message in [
        (lambda: jn.cond(a, 3), ValueError, r"p must be None, 'fro', 'nuc', ±1, ±2, ±inf or a norm object, got 3"),
        (lambda: jn.cond(a, "max"), ValueError, "p must be .* got 'max'"),
        (lambda: jn.cond(a, [1]), TypeError, r"p must be .* got \[1\]"),
        (lambda: jax.jit(jn.cond)(a, 1), TypeError, "p must be static"),
        (lambda: jn.cond(a[:2], 1), ValueError, r"cond: a must have shape \(\.\.\., n, n\), got shape \(2, 3\)"),
        (lambda: jn.cond(jnp.zeros((2, 0, 0))), ValueError, "with m, n >= 1"),
        (lambda: jn.cond(a, jn.KyFan(4)), ValueError, "k must be between 1 and"),
        (lambda: jn.condest(a, -1), ValueError, "p must be 1, 2 or inf, got -1"),
        (lambda: jn.condest(a, "fro"), TypeError, "p must be 1, 2 or inf, got 'fro'"),
        (lambda: jn.condest(a[:2]), ValueError, r"condest: a must have shape \(\.\.\., n, n\)"),
        (lambda: jn.condest(a[:0, :0]), ValueError, "n >= 1"),
        (lambda: jn.condest(a, certified=1), TypeError, "certified must be True or False, got 1"),
        (lambda: jn.condest(a, inverse=op), ValueError, "inverse is for a LinearOperator"),
        (lambda: jn.condest(op), ValueError, "needs inverse"),
        (lambda: jn.condest(op, inverse=op, certified=True), ValueError, "certified must be False"),
        (lambda: jn.distance_to_singularity(a[:, :0]), ValueError, "with m, n >= 1"),
        (lambda: jn.nearest_singular(a[:, :0]), ValueError, "with m, n >= 1"),
        (lambda: jn.tikhonov_cond(a, jnp.ones(2)), ValueError, "lam must have a shape that broadcasts"),
        (lambda: jn.tikhonov_cond(a, 1j), TypeError, "lam must be real"),
        (lambda: jn.tikhonov_solve(a, jnp.ones(2), 1.0), ValueError, r"b must have shape \(3,\) or \(3, k\)"),
        (lambda: jn.tikhonov_solve(a, a, 1.0, tol=0.1), ValueError, "tol is for a LinearOperator"),
        (lambda: jn.tikhonov_solve(op, jnp.ones(2), 1.0), ValueError, r"b must have shape \(3,\) or \(3, k\)"),
        (
            lambda: jn.tikhonov_solve(op, jnp.ones(3), 1.0, tol=2),
            ValueError,
            "tol must be None or a number between 0",
        ),
    ]:
        with pytest.raises(error, match=message):
            use()


# The estimate.


def exact_inverse(a):
    """By elimination and two Newton steps, in twice the precision or in extended precision."""
    wide = np.result_type(a.dtype, np.longdouble)
    n = a.shape[0]
    m = np.concatenate([a.astype(wide), np.eye(n, dtype=wide)], 1)
    for i in range(n):
        k = i + np.argmax(np.abs(m[i:, i]))
        m[[i, k]] = m[[k, i]]
        m[i] /= m[i, i]
        c = m[:, i].copy()
        c[i] = 0
        m -= c[:, None] * m[i]
    x = m[:, n:]
    for _ in range(2):
        x = x + x @ (np.eye(n, dtype=wide) - a.astype(wide) @ x)
    return x


def structured(n):
    j = np.arange(n)
    yield 1 / (1.0 + j[:, None] + j)  # Hilbert
    yield np.vander(np.linspace(0.1, 1, n))
    yield np.diag(np.sin(1.2) ** j) @ (np.eye(n) - np.triu(np.ones((n, n)), 1) * np.cos(1.2))  # Kahan
    yield np.diag(np.abs(j - (n - 1) / 2)) + np.eye(n, k=1) + np.eye(n, k=-1)  # Wilkinson
    yield np.eye(n) + 0.3 * np.eye(n, k=1)
    if 2.0**n * np.finfo(REAL).eps < 1e-2:  # beyond, the growth of pivots is all that is left
        growth = np.eye(n) - np.tril(np.ones((n, n)), -1)
        growth[:, -1] = 1
        yield growth  # Wilkinson's too
    yield np.eye(n) - np.triu(np.ones((n, n)), 1)


def zoo(n, count):
    """Structured, graded, random and prescribed matrices."""
    rng = np.random.default_rng(n)
    stack = list(structured(n))
    while len(stack) < count:
        c, x = 10 ** rng.uniform(0, 12), rng.standard_normal((n, n))
        spectra = [np.geomspace(1, 1 / c, n), np.r_[np.ones(n - 1), 1 / c], np.r_[1, np.full(n - 1, 1 / c)]]
        stack += [(unitary(rng, n, n, REAL) * s) @ unitary(rng, n, n, REAL) for s in spectra]
        stack += [x, 10.0 ** rng.uniform(-4, 4, (n, 1)) * x, x * 10.0 ** rng.uniform(-4, 4, n)]
        stack += [rng.choice([-1.0, 0, 1], (n, n)) + 1e-8 * x]
    stack = np.stack(stack[:count]).astype(REAL)
    return stack[np.linalg.cond(stack.astype(np.float64)) < 0.01 / np.finfo(REAL).eps]


@pytest.mark.parametrize(("n", "count"), [(3, 400), (8, 400), (24, 300), (45, 60)])
def test_estimates(n, count):
    """Within a factor 3 of the truth, which lies between the bounds, rounding of the truth allowed for."""
    a = zoo(n, count)
    inverses = np.stack([exact_inverse(x) for x in a])
    slack = n * np.finfo(inverses.dtype).eps
    for p in (1, 2, inf):
        if p == 2:  # a norm rounds once more, while s_n would lose all that cond takes
            sizes = np.linalg.norm(a.astype(np.float64), 2, (1, 2)), np.linalg.norm(inverses.astype(float), 2, (1, 2))
        else:
            axis = 1 if p == 1 else 2
            sizes = (np.max(np.sum(np.abs(x.astype(inverses.dtype)), axis), 1) for x in (a, inverses))
        truth = np.prod(list(sizes), axis=0)
        value, lower, upper = map(np.asarray, jax.jit(lambda a, p=p: jn.condest(a, p, certified=True))(a))
        rounding = slack * truth + n * np.finfo(np.float64).eps * (p == 2)
        assert np.all((truth / 3 < value) & (value < 3 * truth))
        assert np.all(lower <= truth * (1 + rounding))
        assert np.all(upper >= truth * (1 - rounding))
        good = truth < 0.02 / (n**2 * np.finfo(REAL).eps)
        assert np.any(good)
        assert np.all(lower[good] > truth[good] / 3)
        assert np.all(upper[good] < 1.5 * truth[good])


def test_estimates_at_the_ends():
    good = shifted(9, REAL)
    rows = np.stack([good, 0 * good, np.ones_like(good), good * UNIT, good / UNIT, good, good])
    rows[5, 0, 0], rows[6, 0, 0] = np.nan, inf
    for p in (1, 2, inf):

        def value(a, p=p):
            found = jn.condest(a, p, certified=True)
            return found.value, found

        g, found = map(np.asarray, jax.jit(jax.vmap(jax.grad(value, has_aux=True)))(rows))
        np.testing.assert_array_equal(found[:, 1], inf)
        # A pivot of 0 after rounding proves nothing: the lower bound is what the solve with the next matrix has shown.
        np.testing.assert_array_equal(found[::2, 2], inf)
        assert 1e-3 / np.finfo(REAL).eps < found[1, 2] < inf
        np.testing.assert_array_equal(found[:, 3:5], found[:, :1] * np.ones(2))
        assert np.all(np.isnan(found[:, 5]))
        np.testing.assert_array_equal(found[:, 6], inf)
        np.testing.assert_array_equal(g[1:3], 0)
        assert np.all(np.isnan(g[5:]))
        exact = np.asarray(jax.grad(lambda a, p=p: jn.cond(a, p))(good))
        np.testing.assert_allclose(g[0], exact, atol=tolerance(REAL, 500) * np.max(np.abs(exact)))
    for p in (1, 2):
        np.testing.assert_allclose(jn.condest(jnp.full((1, 1), -3.0, REAL), p), [1, 1, inf], rtol=10 * SMALL)
    with pytest.raises(ValueError, match="second derivatives of condest"):
        jax.hessian(lambda a: jn.condest(a).value)(good)


@pytest.mark.parametrize("p", [1, 2, inf])
def test_complex_estimates(p):
    a = np.stack([prescribed(np.geomspace(1, 1e-3, 9), (9, 9), COMPLEX, seed) for seed in range(20)])
    exact = np.linalg.cond(a.astype(np.complex128), p)
    value, lower, upper = map(np.asarray, jax.jit(lambda a: jn.condest(a, p, certified=True))(a))
    assert np.all((lower <= exact) & (exact <= upper * (1 + 1e-12)) & (exact < 3 * value) & (upper < 1.1 * exact))
    g = jax.grad(lambda a: jn.condest(a, p).value)(a[0])
    slope = jax.jvp(lambda a: jn.condest(a, p).value, (a[0],), (a[1],))[1]
    np.testing.assert_allclose(np.sum(np.asarray(g) * a[1]).real, slope, rtol=1e-3)
    np.testing.assert_allclose(slope, jax.jvp(lambda a: jn.cond(a, p), (a[0],), (a[1],))[1], rtol=2e-2)


# Operators, whose inverse is known: a diagonal and an update of rank one.


def matvec(params, x):
    return params @ x


def updated(params, x):
    d, u, v = params
    return d * x + u * (v @ x)


def inverse_of_updated(params, x):
    d, u, v = params
    y = x / d
    return y - u / d * (v @ y) / (1 + v @ (u / d))


def operators(params, n):
    return (jn.LinearOperator(params, f, None, (n, n), REAL) for f in (updated, inverse_of_updated))


@pytest.mark.parametrize("p", [1, 2, inf])
@pytest.mark.parametrize("size", [1.0, 1e15])
def test_operators(p, size):
    n, rng = 60, np.random.default_rng(0)
    params = tuple(jnp.asarray(x, REAL) for x in (size * (1 + np.arange(n)), size * rng.random(n), rng.random(n)))

    def estimate(params):
        op, inverse = operators(params, n)
        return jn.condest(op, p, inverse=inverse)

    def exact(params):
        d, u, v = params
        return jn.cond(jnp.diag(d) + u[:, None] * v[None, :], p)

    (value, lower, upper), truth = estimate(params), exact(params)
    assert lower <= truth * (1 + SMALL)
    assert truth <= 1.1 * value
    assert value <= 1.1 * lower
    assert upper == inf
    g, expected = (jax.grad(f)(params) for f in (lambda x: estimate(x).value, exact))
    for x, y in zip(g, expected, strict=True):
        np.testing.assert_allclose(x, y, atol=tolerance(REAL, 5000) * np.max(np.abs(y)))
    op, inverse = operators(params, n)
    matrix = jax.vmap(lambda e: updated(params, e), out_axes=1)(jnp.eye(n, dtype=REAL))
    distance = jn.distance_to_singularity(op, inverse=inverse)
    np.testing.assert_allclose(distance, jn.distance_to_singularity(matrix), rtol=tolerance(REAL, 500))


# Distances.


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_nearest_singular(dtype):
    for shape in ((5, 5), (6, 3), (2, 4), (1, 1)):
        a = gaussian(shape, dtype)
        b = np.asarray(jn.nearest_singular(a))
        s = np.linalg.svd(b, compute_uv=False)
        assert s[-1] <= SMALL
        distance = jn.distance_to_singularity(a)
        for ord in ("fro", 2):
            np.testing.assert_allclose(np.linalg.norm(a - b, ord), distance, rtol=10 * SMALL)
    np.testing.assert_array_equal(jn.distance_to_singularity(jnp.zeros((2, 3, 3), REAL)), 0)


def test_distance_by_an_inverse_of_any_size():
    """The derivative of a quotient divides by a square, which may be out of range where its result is not."""

    @jax.jit
    def along_itself(d):
        def distance(d):
            inverse = jn.LinearOperator(d, lambda d, x: d * x, None, (4, 4), REAL)
            return jn.distance_to_singularity(inverse, inverse=inverse)

        return jax.jvp(distance, (d,), (d,))

    for power in (int(0.8 * jnp.finfo(REAL).maxexp), int(0.8 * jnp.finfo(REAL).minexp)):
        value, slope = along_itself(jnp.asarray(np.ldexp(np.array([4, 3, 2, 1], REAL), power)))
        np.testing.assert_allclose(np.ldexp([value, slope], power), [0.25, -0.25], rtol=tolerance(REAL, 50))
