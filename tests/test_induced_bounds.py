"""Bounds of induced norms: against brute force, and what the theory of Grothendieck promises of them."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matrices import COMPLEX, REAL, difference_tolerance, gaussian, needs_double, tolerance

import jaxnorms as jn
from jaxnorms.induced_bounds import induced_norm_bounds

inf = float("inf")
ORDER = 12  # 2^12 sign vectors
HARD = {(inf, 1): 1.7823, (inf, 2): 1.2534, (2, 1): 1.2534}
# One of every region: dual bounds, Schur's test, and the ways to interpolate.
PAIRS = [(inf, 1), (3, 1.5), (1.5, 3), (1.2, 1.1)]
TYPES = [(REAL, PAIRS), (COMPLEX, [(inf, 1), (1.5, 1.5)])]
SHAPE = (9, 2)  # so that a dense sample of directions finds the norm


@cache
def compiled(p, q):
    """Both bounds of a batch, and their derivatives."""

    def both(a):
        lower, upper = induced_norm_bounds(a, p, q)
        return jnp.stack([lower, upper])

    def one(a):
        bounds, pull = jax.vjp(both, a)
        return bounds, jax.vmap(lambda e: pull(e)[0])(jnp.eye(2, dtype=bounds.dtype))

    return jax.jit(jax.vmap(one))


def paley():
    """The Hadamard matrix of order 12."""
    residues = {i * i % 11 for i in range(1, 11)}
    character = [[0 if i == j else 1 if (i - j) % 11 in residues else -1 for j in range(11)] for i in range(11)]
    s = np.block([[np.zeros((1, 1)), np.ones((1, 11))], [-np.ones((11, 1)), np.array(character)]])
    h = s + np.eye(12)
    assert np.array_equal(h @ h.T, 12 * np.eye(12))
    return h


def two_hundred():
    rng, shape = np.random.default_rng(0), (ORDER, ORDER)
    square = np.array([[1.0, 1], [1, -1]])
    j = np.arange(ORDER)
    structured = [paley(), np.kron(np.eye(6), square), 1.0 / (1 + np.add.outer(j, j)), np.eye(ORDER), np.ones(shape)]
    structured += [np.tril(np.ones(shape)), np.vander(np.linspace(-1, 1, ORDER)), np.zeros(shape)]
    structured += [np.pad(np.kron(np.kron(square, square), square), (0, 4)), np.outer(j - 5.5, j + 1.0)]
    random = [rng.standard_normal(shape) for _ in range(50)]
    random += [rng.choice([-1.0, 1], shape) for _ in range(50)]
    random += [rng.standard_normal(shape) * (rng.random(shape) < 0.25) for _ in range(30)]
    random += [rng.choice([-1.0, 0, 1], shape, p=[0.1, 0.8, 0.1]) for _ in range(20)]
    random += [rng.standard_normal((ORDER, k)) @ rng.standard_normal((k, ORDER)) for k in (1, 2, 3, 5) for _ in "12345"]
    random += [rng.standard_normal(shape) * 10.0 ** rng.uniform(-3, 3, (ORDER, 1)) for _ in range(20)]
    return np.stack(structured + random).astype(REAL)


def by_signs(a, q):
    """The inf -> q norm of each matrix."""
    half = np.arange(2 ** (ORDER - 1))
    signs = np.where(half[None, :] >> np.arange(ORDER)[:, None] & 1, 1.0, -1.0)
    return np.array([np.linalg.norm(x @ signs, q, axis=0).max() for x in a.astype(np.float64)])


def rounding_of_points(a):
    """A point is right to rounding, as any norm; true bounds to that of the brute force alone."""
    return np.where(np.all((a.real >= 0) & (a.imag == 0), axis=(1, 2)), tolerance(REAL, 5), 1e-14)


def test_dual_bounds_keep_the_constants():
    a = two_hundred()
    assert len(a) == 200
    exact = {(inf, 1): by_signs(a, 1), (inf, 2): by_signs(a, 2), (2, 1): by_signs(np.swapaxes(a, 1, 2), 2)}
    slack = rounding_of_points(a)
    bounds = jax.jit(jax.vmap(lambda a: [induced_norm_bounds(a, *pair) for pair in HARD]))(a)
    for (pair, constant), found in zip(HARD.items(), bounds, strict=True):
        lower, upper = (np.asarray(x, np.float64) for x in found)
        assert np.all(lower <= exact[pair] * (1 + slack)), pair
        assert np.all(exact[pair] * (1 - slack) <= upper), pair
        assert np.all(upper <= constant * lower), pair
        assert np.mean(lower >= exact[pair] * (1 - 1e-5)) >= 0.99, pair


def by_sampling(a, p, q):
    """The norm of m x 2 matrices: the best of a grid of directions, then of a finer one around it."""
    wide, real = np.result_type(a.dtype, np.float64), np.isrealobj(a)
    grid = np.linspace(-1, 1, 2001 if real else 101)

    def best(m, angle, width):
        angles = angle[:, None] + width * (grid[None] if real else np.stack(np.meshgrid(grid, grid)).reshape(2, -1))
        x = np.stack([np.cos(angles[0]), np.sin(angles[0]) * (1 if real else np.exp(1j * angles[1]))])
        values = np.linalg.norm(m @ (x / np.linalg.norm(x, p, axis=0)), q, axis=0)
        return values.max(), angles[:, values.argmax()]

    def norm(m):
        angle, width = np.full(1 if real else 2, np.pi / 4), np.pi
        for _ in range(5 if real else 6):
            value, angle = best(m, angle, width)
            width /= 10
        return value

    return np.array([norm(m) for m in a.astype(wide)])


def sample(dtype):
    a = gaussian((6, *SHAPE), dtype, 1)
    special = [np.abs(a[0]).astype(dtype), np.eye(*SHAPE, dtype=dtype), np.ones(SHAPE, dtype), np.zeros(SHAPE, dtype)]
    special += [np.where(np.arange(9)[:, None] % 3, a[1], 0), a[2] * np.array([1, 0], dtype), np.tril(np.ones(SHAPE))]
    return np.concatenate([a, np.stack(special).astype(dtype)])


@pytest.mark.parametrize(("dtype", "pairs"), TYPES, ids=str)
def test_bounds_hold(dtype, pairs):
    """By sampling the plane; from 1e-30 to 1e30; beside matrices that are not finite; derivatives with them."""
    a = sample(dtype)
    n = len(a)
    broken = np.stack([a[0], a[0], a[0]])
    broken[0, 3, 1], broken[1, 3, 1], broken[2, :2, 0] = np.nan, np.inf, (np.inf, np.nan)
    slack = rounding_of_points(a)
    stack = np.concatenate([a, a * REAL.type(1e-30), a * REAL.type(1e30), broken])
    for p, q in pairs:
        (lower, upper), g = (np.moveaxis(np.asarray(x), 1, 0) for x in compiled(p, q)(stack))
        exact = by_sampling(a, p, q)
        low, up = lower[:n].astype(np.float64), upper[:n].astype(np.float64)
        assert np.all(low <= exact * (1 + 1e-8 + slack)), (p, q)
        assert np.all(exact * (1 - slack) <= up), (p, q)
        assert np.all(low >= exact * (1 - 1e-5)), (p, q)
        assert np.all(up <= 1.5 * exact), (p, q)
        if q <= p:  # Schur's test
            nonnegative = [6, 7, 8, 12]
            np.testing.assert_allclose(up[nonnegative], exact[nonnegative], rtol=1e-4)
        if p == inf or q == 1:
            np.testing.assert_array_equal(lower[[6, 7, 8, 9, 12]], upper[[6, 7, 8, 9, 12]])
        for i, scale in ((1, 1e-30), (2, 1e30)):
            for bound, at_one in ((lower, low), (upper, up)):
                np.testing.assert_allclose(bound[i * n : (i + 1) * n] / scale, at_one, rtol=tolerance(REAL, 5e3))
        np.testing.assert_array_equal(lower[-3:], [np.nan, inf, np.nan])
        np.testing.assert_array_equal(upper[-3:], [np.nan, inf, np.nan])
        assert np.all(np.isnan(g[:, -3:]))
        assert np.all(np.isfinite(g[:, :-3]))
        assert not np.any(g[:, [9, 9 + n, 9 + 2 * n]])
        # They are homogeneous: <G, A> is the bound (jax.grad returns the conjugate of G).
        along = np.sum((g[:, :n] * a).real, axis=(2, 3))
        np.testing.assert_allclose(along, np.stack([low, up]), rtol=tolerance(REAL, 500))


@needs_double
@pytest.mark.parametrize(("dtype", "pairs"), TYPES, ids=str)
def test_derivatives_are_those_of_differences(dtype, pairs):
    a, e = gaussian((42, *SHAPE), dtype, 6), gaussian((42, *SHAPE), dtype, 5) / 5
    a[::4] = np.abs(a[::4])
    for p, q in pairs:
        up, down, (_, g) = (compiled(p, q)(a + step * e) for step in (1e-5, -1e-5, 0))
        along = np.sum((g * e[:, None]).real, axis=(2, 3))
        np.testing.assert_allclose((up[0] - down[0]) / 2e-5, along, atol=difference_tolerance, err_msg=f"{p, q}")


def test_exact_pairs_are_points():
    a = gaussian((3, 4, 3), REAL)
    for p, q in ((1, 1), (1, 2), (3, inf), (2, 2)):
        lower, upper = induced_norm_bounds(a, p, q)
        np.testing.assert_array_equal(lower, upper)
        np.testing.assert_array_equal(lower, jn.induced_norm(a, p, q))
        np.testing.assert_array_equal(lower, jn.induced_norm(a, p, q, estimate=True))
    # One column, or one row: no choice of x, or of the functional.
    for one, p, q in ((a[..., :1], 1, 3), (a[:, :1], 4, inf)):
        exact = jn.induced_norm(one, p, q)
        for bounds in (induced_norm_bounds(one, 4, 3), [jn.induced_norm(one, 4, 3, estimate=True)]):
            for bound in bounds:
                np.testing.assert_allclose(bound, exact, rtol=tolerance(REAL, 5))
    np.testing.assert_array_equal(induced_norm_bounds(a, 1), induced_norm_bounds(a, 1, 1))
    np.testing.assert_array_equal(induced_norm_bounds(np.zeros((2, 0, 3), REAL), 3, 2), np.zeros((2, 2)))


def test_estimate_is_the_lower_bound():
    a = gaussian((6, *SHAPE), REAL, 1)
    p, q = PAIRS[0]
    bounds, _ = compiled(p, q)(a)
    estimate = jax.jit(lambda a: jn.induced_norm(a, p, q, estimate=True, axis=(0, 1), keepdims=True))
    moved = jnp.moveaxis(a, 0, -1)
    np.testing.assert_allclose(estimate(moved)[0, 0], bounds[:, 0], rtol=tolerance(REAL))
    assert estimate(moved).shape == (1, 1, 6)
    d = jnp.asarray([3, -4, 0], REAL)
    of_diagonal = {(inf, 2): 5, (inf, 1): 7, (3, 4): 4}
    for pair, exact in of_diagonal.items():
        found = jn.induced_norm(d, *pair, estimate=True, diagonal=True)
        np.testing.assert_allclose(found, exact, rtol=tolerance(REAL))


def test_sixteen_bits_keep_the_bounds():
    a = gaussian((6, *SHAPE), np.float32, 1).astype(jnp.bfloat16)
    lower, upper = map(np.asarray, jax.jit(lambda a: induced_norm_bounds(a, inf, 1))(a))
    assert lower.dtype == upper.dtype == jnp.bfloat16
    exact = by_sampling(a.astype(np.float32), inf, 1)
    assert np.all((lower.astype(np.float64) <= exact) & (exact <= upper.astype(np.float64)))


A = jnp.ones((3, 4))
REFUSED = {
    "vector": (lambda: induced_norm_bounds(A[0], 3), ValueError, r"induced_norm_bounds: a must have.*\(4,\)"),
    "p": (lambda: induced_norm_bounds(A, 0.5), ValueError, "p must be a number >= 1"),
    "q": (lambda: induced_norm_bounds(A, 2, 0.5), ValueError, "q must be a number >= 1"),
    "kind of p": (lambda: induced_norm_bounds(A, "2"), TypeError, "p must be a number"),
    "hard": (lambda: jn.induced_norm(A, inf, 1), ValueError, "NP-hard.*estimate=True.*induced_norm_bounds"),
    "estimate": (lambda: jn.induced_norm(A, inf, 1, estimate=1), TypeError, "estimate must be True or False, got 1"),
    "method": (lambda: jn.induced_norm(A, 3, estimate=True, method="svd"), ValueError, "method must be 'auto'"),
    "second": (
        lambda: jax.make_jaxpr(jax.hessian(lambda a: jn.induced_norm(a, inf, 1, estimate=True)))(A),
        ValueError,
        "second derivatives of bounds of the induced inf -> 1 norm",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case):
    call, kind, message = REFUSED[case]
    with pytest.raises(kind, match=message):
        call()
