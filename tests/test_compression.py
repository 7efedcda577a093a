"""Approximations of low rank are the nearest ones, and budgets of parameters are spent to the least error."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from differences import against_differences
from matrices import COMPLEX, DTYPES, REAL, factory, gaussian, needs_double, prescribed, tolerance

from jaxnorms.learning import allocation as allocation_module
from jaxnorms.learning.allocation import rank_allocation
from jaxnorms.learning.compression import LowRankApproximation, LowRankFactors, compress, low_rank_approximation

SHAPES = [(5, 5), (9, 4), (3, 9), (6, 1), (2, 2)]


def rest(w, low):
    """The error, in double precision."""
    return np.asarray(w, np.complex128) - np.asarray(low.b, np.complex128) @ np.asarray(low.a, np.complex128)


# Of one matrix.


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_truncated_svd_and_its_errors(shape, dtype):
    """Of all spectra, of every rank; the factors are balanced."""
    _, stack = factory(shape, dtype)
    sizes = np.linalg.norm(stack.astype(np.complex128), axis=(-2, -1))
    allowed = tolerance(REAL, size=max(shape)) * np.where(sizes > 0, sizes, 1)
    for k in {0, 1, min(shape) // 2, min(shape)}:
        low = low_rank_approximation(stack, rank=k)
        assert (low.b.shape, low.a.shape) == ((len(stack), shape[0], k), (len(stack), k, shape[1]))
        assert low.b.dtype == low.a.dtype == dtype
        assert low.spectral_error.dtype == low.frobenius_error.dtype == REAL
        assert low.saved == len(stack) * (shape[0] * shape[1] - k * sum(shape))
        s = np.linalg.svd(stack.astype(np.complex128), compute_uv=False)
        measured = np.linalg.svd(rest(stack, low), compute_uv=False)
        spectral = s[:, k] if k < s.shape[1] else np.zeros(len(stack))
        frobenius = np.linalg.norm(s[:, k:], axis=-1)
        for found, expected in (
            (low.spectral_error, spectral),
            (measured[:, 0], spectral),
            (low.frobenius_error, frobenius),
            (np.linalg.norm(measured, axis=-1), frobenius),
        ):
            assert np.all(np.abs(np.asarray(found, float) - expected) <= allowed)
        left, right = (np.asarray(x, np.complex128) for x in (low.b, low.a))
        for gram in (np.swapaxes(left, -1, -2).conj() @ left, right @ np.swapaxes(right, -1, -2).conj()):
            assert np.all(np.abs(gram - s[:, None, :k] * np.eye(k)) <= allowed[:, None, None])


def test_no_competitor_is_nearer():
    """Nor is the best a for a random b, nor for one near to that found."""
    w = gaussian((12, 8), REAL)
    rng = np.random.default_rng(1)
    for k in (1, 3, 6):
        low = low_rank_approximation(w, rank=k)
        for near in (False, True):
            for _ in range(20):
                b = rng.standard_normal((12, k)) * (0.1 if near else 1) + near * np.asarray(low.b, float)
                error = w - b @ np.linalg.lstsq(b, w.astype(float), rcond=None)[0]
                allowed = 1 + tolerance(REAL)
                assert low.frobenius_error <= np.linalg.norm(error) * allowed
                assert low.spectral_error <= np.linalg.norm(error, 2) * allowed


STEPS = np.array([3.0, 2.0, 2.0, 1.0])  # squares 9, 4, 4, 1, of sum 18


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(4, 4), (4, 7), (9, 4)], ids=str)
@pytest.mark.parametrize("size", [1.0, 1e-30, 1e30])
def test_energy_and_tolerance_at_the_boundary(shape, dtype, size):
    """On it, counted as met, and on both sides of it, by a hundred roundings."""
    w, off = prescribed(STEPS, shape, dtype) * REAL.type(size), tolerance(REAL, 200)
    for energy, below, above in ((9 / 18, 1, 2), (13 / 18, 2, 3), (17 / 18, 3, 4)):
        counts = [low_rank_approximation(w, energy=e).b.shape[-1] for e in (energy - off, energy, energy + off)]
        assert counts == [below, below, above]
    for tol, below, above in ((1, 1, 0), (2 / 3, 3, 1), (1 / 3, 4, 3)):
        counts = [low_rank_approximation(w, tol=t).b.shape[-1] for t in (tol - off, tol, tol + off)]
        assert counts == [below, above, above]
    assert low_rank_approximation(w, energy=0).b.shape[-1] == 0
    assert low_rank_approximation(w, energy=1).b.shape[-1] == low_rank_approximation(w, tol=0).b.shape[-1] == 4


def test_everything_is_what_rounding_leaves():
    """energy=1 and tol=0 keep a value of a hundred roundings, and no null space."""
    tiny = tolerance(REAL, 100)
    s = {2: np.array([1.0, 0.5, 0, 0, 0, 0]), 3: np.array([1.0, 0.5, tiny, 0, 0, 0]), 0: np.zeros(6)}
    for rank, values in s.items():
        w = prescribed(values, (12, 6), REAL)
        assert low_rank_approximation(w, energy=1.0).b.shape == low_rank_approximation(w, tol=0.0).b.shape == (12, rank)
    batch = np.stack([prescribed(values, (12, 6), REAL) for values in s.values()]).reshape(3, 1, 12, 6)
    assert low_rank_approximation(batch, energy=1.0).a.shape == (3, 1, 3, 6)
    assert low_rank_approximation(batch, tol=0.25).a.shape == (3, 1, 2, 6)
    assert low_rank_approximation(batch, tol=float("inf")).a.shape == (3, 1, 0, 6)


def test_long_tails_are_summed_from_the_small_end():
    """Of 300 values whose squares are a tenth of a rounding of the largest one in float32."""
    s = np.append(1.0, np.full(300, 1e-4))
    for left in (30, 200):
        energy = 1 - (left + 0.5) * 1e-8 / np.sum(s**2)
        k = low_rank_approximation(jnp.diag(jnp.asarray(s, REAL)), energy=energy).b.shape[-1]
        slack = tolerance(REAL) * 1e4 * np.sqrt(left + 1)  # in units of the tail, of which one value is 1
        assert 301 - left - max(1, 2 * slack) <= k <= 301 - left


@pytest.mark.parametrize("given", [{"rank": 2}, {"energy": 0.8}, {"tol": 0.4}], ids=str)
def test_every_size_and_type(given):
    w = prescribed(np.array([3.0, 2.0, 1.5, 0.5]), (6, 4), REAL)
    plain = low_rank_approximation(w, **given)
    for power in (-100, 100):
        c = REAL.type(2.0**power)
        low = low_rank_approximation(w * c, **given)
        for found, expected in zip(low[:4], plain[:4], strict=True):
            factor = c if found.ndim == 0 else np.sqrt(c)
            np.testing.assert_array_equal(np.asarray(found) / factor, expected)
    half = low_rank_approximation(w.astype(jnp.bfloat16), **given)
    assert {x.dtype for x in half[:4]} == {jnp.dtype(jnp.bfloat16)}
    np.testing.assert_allclose(half.frobenius_error.astype(REAL), plain.frobenius_error, rtol=0.02)
    np.testing.assert_allclose(np.asarray(half.b @ half.a, float), np.asarray(plain.b @ plain.a), atol=0.05)


def test_factors_are_in_range_where_the_largest_value_is_not():
    top = float(jnp.finfo(REAL).max) / 2
    low = low_rank_approximation(np.full((6, 6), top, REAL), rank=1)
    np.testing.assert_allclose(np.asarray(low.b) @ np.asarray(low.a) / top, np.ones((6, 6)), rtol=tolerance(REAL))
    assert low.frobenius_error <= tolerance(REAL) * top


def test_bad_matrices_stay_alone():
    batch = jnp.asarray(np.stack([gaussian((12, 5), REAL, seed) for seed in range(3)]))
    bad = batch.at[0, 1, 1].set(jnp.nan).at[1, 0, 0].set(jnp.inf)
    for k in (2, 5):
        low, plain = low_rank_approximation(bad, rank=k), low_rank_approximation(batch, rank=k)
        assert all(np.all(np.isnan(x[:2])) for x in (low.b, low.a))
        for error in (low.spectral_error, low.frobenius_error):
            assert np.isnan(error[0])
            assert error[1] == np.inf
        for found, expected in zip(low[:4], plain[:4], strict=True):
            np.testing.assert_array_equal(found[2], expected[2])
    slopes = jax.vmap(jax.grad(lambda w: low_rank_approximation(w, rank=2).frobenius_error))(bad)
    assert np.all(np.isnan(slopes[:2]))
    assert np.all(np.isfinite(slopes[2]))


def test_empty_matrices():
    for shape in ((0, 3), (2, 0), (0, 3, 4), (3, 0, 4)):
        for given in ({"rank": 0}, {"energy": 0.5}, {"tol": 0.1}):
            low = low_rank_approximation(jnp.ones(shape), **given)
            assert (low.b.shape, low.a.shape) == ((*shape[:-1], 0), (*shape[:-2], 0, shape[-1]))
            assert np.all(np.asarray(low.frobenius_error) == 0)


def test_jit_and_vmap():
    batch = gaussian((3, 12, 5), REAL)
    plain = low_rank_approximation(batch, rank=2)
    for way in (jax.jit, jax.vmap):
        found = way(lambda w: low_rank_approximation(w, rank=2))(batch)
        assert isinstance(found, LowRankApproximation)
        for x, y in zip(found[2:4], plain[2:4], strict=True):
            np.testing.assert_allclose(x, y, rtol=tolerance(REAL))
        np.testing.assert_allclose(found.b @ found.a, plain.b @ plain.a, atol=tolerance(REAL))


@needs_double
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_derivatives_of_errors(dtype):
    """Both orders, against differences; of distinct values."""

    def total(w):
        low = low_rank_approximation(w, rank=1)
        return low.spectral_error * low.frobenius_error

    w = np.stack([prescribed(np.array([4.0, 3.0, 2.0, 1.0]), (5, 4), dtype, seed) for seed in range(2)])
    against_differences(total, (jnp.asarray(w),), (jnp.asarray(gaussian(w.shape, dtype)),))


def test_factors_are_constants_and_errors_are_flat_at_zero():
    w = jnp.asarray(gaussian((4, 3), REAL))
    factors = jax.grad(lambda w: jnp.sum(low_rank_approximation(w, rank=2).b @ jnp.ones((2, 1), REAL)))(w)
    assert np.all(np.asarray(factors) == 0)

    def error(w):
        return low_rank_approximation(w, rank=1).frobenius_error

    for exact in (0 * w, jnp.outer(w[:, 0], w[0])):
        assert np.all(np.asarray(jax.grad(error)(exact)) == 0)
    full = jax.grad(lambda w: low_rank_approximation(w, rank=3).spectral_error)(w)
    assert np.all(np.asarray(full) == 0)


W = np.eye(3, dtype=REAL)


@pytest.mark.parametrize(
    ("kind", "message", "call"),
    [
        (ValueError, "exactly one of .* got none", lambda: low_rank_approximation(W)),
        (ValueError, "got rank=1, tol=0.1", lambda: low_rank_approximation(W, rank=1, tol=0.1)),
        (ValueError, "rank must be between 0 and .* = 3, got 4", lambda: low_rank_approximation(W, rank=4)),
        (ValueError, "rank must be between 0 and .* got -1", lambda: low_rank_approximation(W, rank=-1)),
        (TypeError, "rank must be an integer, got 1.5", lambda: low_rank_approximation(W, rank=1.5)),
        (TypeError, "rank must be an integer, got True", lambda: low_rank_approximation(W, rank=True)),
        (TypeError, "rank must be static", lambda: jax.jit(lambda k: low_rank_approximation(W, rank=k))(1)),
        (ValueError, "energy must be .* between 0 and 1, got 1.5", lambda: low_rank_approximation(W, energy=1.5)),
        (ValueError, "energy must be .* got nan", lambda: low_rank_approximation(W, energy=float("nan"))),
        (TypeError, "energy must be .* got '1'", lambda: low_rank_approximation(W, energy="1")),
        (ValueError, "tol must be a number >= 0, got -1", lambda: low_rank_approximation(W, tol=-1)),
        (TypeError, "tol must be .* got True", lambda: low_rank_approximation(W, tol=True)),
        (TypeError, "use rank under jit", lambda: jax.jit(lambda w: low_rank_approximation(w, energy=0.5))(W)),
        (TypeError, "use rank under jit", lambda: jax.vmap(lambda w: low_rank_approximation(w, tol=0.5))(W[None])),
        (ValueError, "w must be finite", lambda: low_rank_approximation(W * REAL.type(np.nan), tol=0.5)),
        (ValueError, r"w must have shape \(..., m, n\)", lambda: low_rank_approximation(W[0], rank=0)),
        (ValueError, "rank_allocation: budget must be .* got -1", lambda: rank_allocation({"w": W}, -1)),
        (TypeError, "compress: budget must be an integer >= 0, got 5.0", lambda: compress({"w": W}, 5.0)),
        (TypeError, "budget must be an integer >= 0, got True", lambda: rank_allocation({"w": W}, True)),
        (TypeError, "compress: .* call it outside jit", lambda: jax.jit(lambda w: compress({"w": w}, 5)[0])(W)),
        (ValueError, "'b/w' must be finite", lambda: rank_allocation({"b": {"w": W * REAL.type(np.inf)}}, 5)),
        (ValueError, "paths .* must be distinct", lambda: rank_allocation({"a/b": W, "a": {"b": W}}, 5)),
        (TypeError, "where must be", lambda: rank_allocation({"w": W}, 5, where=3)),
    ],
)
def test_what_is_refused(kind, message, call):
    with np.errstate(invalid="ignore"), pytest.raises(kind, match=message):
        call()


# Of a model.


def every_solution(params, counts):
    """Costs and squared errors of all combinations of ranks, from 0 to min(m, n), and dense (None)."""
    options = []
    for w, count in zip(params.values(), counts, strict=True):
        (m, n), s = w.shape[-2:], np.linalg.svd(w.astype(float), compute_uv=False).reshape(count, -1)
        ranks = [(count * k * (m + n), np.sum(s[:, k:] ** 2)) for k in range(min(m, n) + 1)]
        options.append(np.array([*ranks, (count * m * n, 0.0)]))
    costs, errors = np.zeros(1), np.zeros(1)
    for option in options:
        costs, errors = (np.add.outer(x, option[:, i]).ravel() for i, x in enumerate((costs, errors)))
    return costs, errors


def random_layers(seed, shapes=((2, 3), (4, 4), (7, 2), (2, 3, 5), (6, 6))):
    """One of the leaves has a batch axis; some spectra repeat, end in zeros or are of other sizes."""
    rng = np.random.default_rng(seed)
    params = {}
    for i, shape in enumerate(shapes):
        s = np.sort(rng.exponential(size=min(shape[-2:])))[::-1] * 10.0 ** rng.integers(-1, 2)
        s = [s, np.round(s), np.where(np.arange(len(s)) > 1, 0, s)][rng.integers(3)]
        parts = [prescribed(s, shape[-2:], REAL, seed + j) for j in range(shape[0] if len(shape) == 3 else 1)]
        params[f"w{i}"] = np.stack(parts) if len(shape) == 3 else parts[0]
    return params


def test_allocation_is_optimal():
    """Of all combinations, at every budget; which is certified by the bound."""
    for seed in range(6):
        params = random_layers(seed)
        counts = [w.shape[0] if w.ndim == 3 else 1 for w in params.values()]
        costs, errors = every_solution(params, counts)
        size = np.sqrt(errors.max())
        everything = sum(w.size for w in params.values())
        for budget in (*range(0, everything, 3), everything, everything + 1):
            found = rank_allocation(params, budget, batch_axes={"w3": 1})
            assert found.parameters <= budget
            assert found.lower_bound == found.error
            best = np.sqrt(errors[costs <= budget].min())
            np.testing.assert_allclose(found.error, best, rtol=tolerance(REAL), atol=tolerance(REAL) * size)
            spent = sum(
                w.size if k is None else c * k * sum(w.shape[-2:])
                for w, k, c in zip(params.values(), found.ranks.values(), counts, strict=True)
            )
            assert spent == found.parameters


@pytest.mark.parametrize("candidates", [2, 6, 40])
def test_the_bound_is_one_where_solutions_are_left_out(candidates, monkeypatch):
    """Flat spectra of many shapes, where only the sums of costs differ: the bound is below the optimum then."""
    monkeypatch.setattr(allocation_module, "_CANDIDATES", candidates)
    unproven = 0
    shapes = [(3, 4), (5, 6), (4, 7), (6, 6), (5, 8)]
    for seed in range(3):
        rng = np.random.default_rng(seed)
        params = {str(i): prescribed(1 + 0.1 * rng.random(min(s)), s, REAL, i) for i, s in enumerate(shapes)}
        costs, errors = every_solution(params, [1] * 5)
        for budget in range(10, 160, 7):
            found, best = rank_allocation(params, budget), np.sqrt(errors[costs <= budget].min())
            allowed = tolerance(REAL) * best
            assert found.lower_bound - allowed <= best <= found.error + allowed
            unproven += found.lower_bound < found.error
            if found.lower_bound == found.error:
                assert abs(found.error - best) <= allowed
    assert (unproven > 0) == (candidates < 40)


def test_many_layers():
    """A hundred spectra of five hundred values: proven, and no better than any single change."""
    rng = np.random.default_rng(0)
    layers = [
        allocation_module._layer(np.sort(rng.exponential(size=(1, 500)))[:, ::-1], 500 + int(extra), 700)
        for extra in rng.integers(0, 200, 100)
    ]
    budget = sum(int(layer.costs[-1]) for layer in layers) // 4
    picked, lower = allocation_module._solve(layers, budget)
    assert lower is None
    slack = budget - sum(layer.costs[j] for layer, j in zip(layers, picked, strict=True))
    assert slack >= 0
    for layer, j in zip(layers, picked, strict=True):
        affordable = layer.costs - layer.costs[j] <= slack
        assert np.all(layer.errors[affordable] >= layer.errors[j])


def test_no_and_every_parameter():
    params = random_layers(1) | {
        "bias": np.ones(3, REAL),
        "steps": np.ones((2, 2), int),
        "zero": np.zeros((3, 4), REAL),
    }
    nothing, everything = (rank_allocation(params, budget) for budget in (0, 10**30))
    assert set(nothing.ranks.values()) == {0}
    np.testing.assert_allclose(
        nothing.error, np.linalg.norm([np.linalg.norm(params[path]) for path in nothing.ranks]), rtol=tolerance(REAL)
    )
    assert everything.error == everything.lower_bound == nothing.parameters == 0
    assert everything.ranks["zero"] == 0
    assert rank_allocation({}, 0) == rank_allocation({"b": np.ones(2, REAL)}, 3) == ({}, 0, 0.0, 0.0)
    assert rank_allocation({"w": np.zeros((0, 3), REAL)}, 0).ranks == {"w": None}


def test_allocation_at_every_size():
    params = random_layers(2)
    plain = rank_allocation(params, 60)
    for power in (-90, 90):
        found = rank_allocation({path: w * REAL.type(2.0**power) for path, w in params.items()}, 60)
        assert found.ranks == plain.ranks
        np.testing.assert_allclose(found.error, plain.error * 2.0**power, rtol=tolerance(REAL))


def test_compression_of_a_model():
    """Factors, dense matrices and what is left alone; the error is that of the allocation."""
    params = {
        "dense": {"kernel": jnp.asarray(gaussian((10, 6), REAL)), "bias": jnp.ones(6)},
        "same": jnp.asarray(prescribed(np.array([4.0, 0.5, 0.4, 0.3, 0.2, 0.1]), (10, 6), REAL, 5)),
        "conv": jnp.asarray(gaussian((3, 3, 2, 5), COMPLEX, 1)),
        "layers": jnp.asarray(np.stack([gaussian((2, 9, 4), REAL, seed) for seed in (2, 3)])),
        "large": jnp.asarray(20 * gaussian((4, 4), REAL, 4)),
        "head": jnp.asarray(gaussian((7, 7), REAL, 6)),
        "none": None,
    }
    options = {"where": lambda path, leaf: path != "head", "batch_axes": {"layers": 2}}
    small, allocation = compress(params, 150, **options)
    assert allocation == rank_allocation(params, 150, **options)
    assert list(allocation.ranks) == ["conv", "dense/kernel", "large", "layers", "same"]
    for path in ("head", "large", "none"):
        assert small[path] is params[path]
    assert small["dense"]["bias"] is params["dense"]["bias"]
    assert allocation.ranks["large"] is None
    squares, size = 0.0, 16
    for path, low, w in (
        ("conv", small["conv"], params["conv"]),
        ("dense/kernel", small["dense"]["kernel"], params["dense"]["kernel"]),
        ("layers", small["layers"], params["layers"]),
        ("same", small["same"], params["same"]),
    ):
        assert isinstance(low, LowRankFactors)
        assert low.a.shape[-1] == w.shape[-1]
        assert low.b.shape[-1] == allocation.ranks[path]
        assert low.b.dtype == w.dtype
        gap = np.linalg.norm(np.asarray(w - (low.b @ low.a).reshape(w.shape)))
        matrices = np.reshape(w, (*low.b.shape[:-1], -1))
        best = low_rank_approximation(matrices, rank=allocation.ranks[path])
        np.testing.assert_allclose(gap, np.linalg.norm(best.frobenius_error), rtol=tolerance(REAL))
        squares, size = squares + gap**2, size + low.a.size + low.b.size
        assert best.saved == w.size - low.a.size - low.b.size
    assert small["layers"].b.shape[:3] == (2, 2, 9)
    assert size == allocation.parameters <= 150
    np.testing.assert_allclose(np.sqrt(squares), allocation.error, rtol=tolerance(REAL))


def test_a_compressed_model_has_gradients():
    small, _ = compress({"w": jnp.asarray(gaussian((12, 6), REAL)), "bias": jnp.ones(6, REAL)}, 36)
    gradient = jax.grad(lambda p: jnp.sum(p["w"].b @ p["w"].a) + jnp.sum(p["bias"]))(small)
    assert [x.shape for x in jax.tree.leaves(gradient)] == [(6,), (12, 2), (2, 6)]


def test_compression_of_half_precision():
    """Ranks are those of the values as they are, not of singular values rounded to their type."""
    params = {f"w{i}": gaussian((12, 6), REAL, i).astype(jnp.bfloat16) for i in range(3)}
    wide = {path: w.astype(REAL) for path, w in params.items()}
    small, allocation = compress(params, 60)
    assert allocation == rank_allocation({path: w.astype(np.float32) for path, w in params.items()}, 60)
    np.testing.assert_allclose(allocation.error, rank_allocation(wide, 60).error, rtol=1e-6)
    assert {x.b.dtype for x in small.values()} == {jnp.dtype(jnp.bfloat16)}
