"""The contract as properties of random matrices, norms and transformations (Hypothesis).

Shapes from 0 to 12 on a side, batches, every type; singular values with ties and zeros, and graded ones; sizes from
1e-30 to 1e35 in 32 bits and from 1e-300 to 1e304 in 64; every norm and its parameters; random compositions of ``jit``,
``vmap``, ``map``, ``scan``, ``checkpoint`` and the ways to a gradient, forward and reverse; axes, methods, traced
orders, integers and booleans. Each property with 125 examples in each mode, the same in every run; with
JAXNORMS_EXAMPLES set, so many, and others each time; a fifth of them of what compiles longer. What once failed stands
as a named test in the file of its subject.
"""

import functools
import os

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from certificates import inner
from hypothesis import strategies as st
from matrices import gaussian, tolerance, unitary
from random_cases import CASES, TYPES, computed_in, flushed, matrices
from references import inf, reference

import jaxnorms as jn
from jaxnorms.lifts import SpectralLift

EXAMPLES = int(os.environ.get("JAXNORMS_EXAMPLES", "125"))
SETTINGS = hypothesis.settings(
    max_examples=EXAMPLES,
    derandomize="JAXNORMS_EXAMPLES" not in os.environ,
    print_blob=True,
    deadline=None,
    database=None,
    suppress_health_check=list(hypothesis.HealthCheck),
)
FEWER = hypothesis.settings(SETTINGS, max_examples=max(1, EXAMPLES // 5))  # of what compiles longer


def allowed(dtype, factor=50.0, size=1.0):
    """Relative error: of the type in which it is computed, and of one rounding to its own."""
    narrow = computed_in(dtype) != dtype
    return tolerance(computed_in(dtype), factor, size) + narrow * size * float(jnp.finfo(dtype).eps)


def least(dtype):
    """What rounding does to a value below the normal numbers of a 16-bit type."""
    return float(jnp.finfo(dtype).smallest_subnormal) if computed_in(dtype) != dtype else 0.0


def certified(g, a, value, norm, tol):
    """``<G, A> = ||A||``, and a dual norm of 1 at most."""
    wide = np.asarray(a, np.complex128)
    size = np.max(np.abs(wide), axis=(1, 2), initial=0)
    size = np.where(size > 0, size, 1)
    got = inner(np.asarray(g, np.complex128), wide / size[:, None, None])
    assert np.all(np.abs(got - value / size) <= (tol * value + least(a.dtype)) / size)
    if not isinstance(norm, jn.UnitarilyInvariant):  # whose dual is not known
        assert np.all(np.asarray(jn.dual_norm(g, norm), np.float64) <= 1 + tol)


@SETTINGS
@hypothesis.given(CASES)
def test_values(case):
    """The definition, the type, and multiples by powers of two bit for bit; the same once more."""
    a, norm = case
    value = norm(a)
    np.testing.assert_array_equal(norm(a), value)
    assert value.shape == a.shape[:1]
    assert value.dtype == jnp.finfo(a.dtype).dtype
    found = np.asarray(value, np.float64)
    for row, got in zip(a, found, strict=True):
        expected = reference(norm, row)
        if expected is not None:
            np.testing.assert_allclose(got, expected, rtol=allowed(a.dtype), atol=least(a.dtype))
    twice = np.asarray(norm(a * a.dtype.type(2)), np.float64)
    normal = found >= float(jnp.finfo(a.dtype).tiny)  # below, a value has fewer digits than its double
    np.testing.assert_array_equal(twice[normal], 2 * found[normal])
    np.testing.assert_allclose(np.asarray(norm(-a), np.float64), found, rtol=allowed(a.dtype), atol=least(a.dtype))


@SETTINGS
@hypothesis.given(CASES)
def test_subgradients(case):
    """Both certificates, and 0 at 0."""
    a, norm = case
    g, value = jn.subgradient(a, norm), np.asarray(norm(a), np.float64)
    assert g.shape == a.shape
    assert g.dtype == a.dtype
    tol = allowed(a.dtype, size=max(a.shape[1:], default=1) + 1)
    zero = ~np.any(np.asarray(a != 0), axis=(1, 2))
    assert np.all(np.asarray(g, np.complex128)[zero] == 0)
    certified(g, a, value, norm, tol)


@SETTINGS
@hypothesis.given(CASES, st.integers(0, 2**20))
def test_subgradients_turn(case, seed):
    """With the matrix, as the one of least norm does: by unitary factors, or by permutations and phases."""
    a, norm = case
    spectral, rng, (m, n) = isinstance(norm.lift, SpectralLift), np.random.default_rng(seed), a.shape[1:]
    hypothesis.assume(a.size and not (spectral and jnp.finfo(a.dtype).bits < 32))  # which rounds ties away
    # Away from the smallest normal numbers, below which the turned matrix would lose digits.
    size, tiny = np.max(np.abs(a), axis=(1, 2), keepdims=True), float(jnp.finfo(computed_in(a.dtype)).tiny)
    a = a * np.where((size > 0) & (size < tiny * 2**60), 2.0**60, 1.0).astype(a.dtype)
    if spectral:
        q, p = (unitary(rng, k, k, a.dtype) for k in (m, n))
        most = tolerance(a.dtype, factor=100) / closest(a)
    else:
        q, p = (rng.choice([-1, 1], k) * np.eye(k)[rng.permutation(k)] for k in (m, n))
        most = allowed(a.dtype, size=12)

    def turn(x):
        return q @ x.astype(np.complex128 if np.iscomplexobj(x) else np.float64) @ p

    g, found = (np.asarray(jn.subgradient(x, norm), np.complex128) for x in (a, turn(a).astype(a.dtype)))
    np.testing.assert_allclose(found, turn(g), rtol=0, atol=most * np.max(np.abs(g)))


def by_vjp(f):
    return lambda x: jax.vjp(f, x)[1](jnp.ones((), jnp.finfo(x.dtype).dtype))[0]


def by_linearization(f):
    def gradient(x):
        value, slope = jax.linearize(f, x)
        return jax.linear_transpose(slope, x)(jnp.ones_like(value))[0]

    return gradient


def by_directions(f):
    """Forward: the slope along every entry, and along i times it."""

    def gradient(x):
        basis = jnp.eye(x.size, dtype=x.dtype).reshape(-1, *x.shape)
        along = jax.vmap(lambda e: jax.jvp(f, (x,), (e,))[1])
        g = jax.lax.complex(along(basis), -along(1j * basis)) if jnp.iscomplexobj(x) else along(basis)
        return g.reshape(x.shape)

    return gradient


def in_turn(f):
    return lambda a: jax.lax.map(f, a)


def by_scan(f):
    return lambda a: jax.lax.scan(lambda count, x: (count + 1, f(x)), 0, a)[1]


WRAPPERS = st.lists(st.sampled_from([jax.jit, jax.checkpoint]), max_size=2)
GRADIENTS = st.sampled_from([jax.grad, by_vjp, by_linearization, by_directions])
BATCHES = st.sampled_from([jax.vmap, in_turn, by_scan])


@st.composite
def ways(draw):
    """From a norm to the gradients of a batch: of each matrix, or of the sum over the batch."""
    inner, outer = draw(WRAPPERS), draw(WRAPPERS)
    gradient, batched, first = draw(GRADIENTS), draw(BATCHES), draw(st.booleans())

    def of_sum(f):
        return gradient(lambda a: jnp.sum(batched(f)(a), axis=0))

    def of_each(f):
        return batched(gradient(f))

    steps = [*inner, of_each if first else of_sum, *outer]
    return lambda norm: functools.reduce(lambda f, step: step(f), steps, norm)


def closest(a):
    """The least gap of singular values, or of one and 0, that is none of rounding, relative to the largest.

    Of gaps about the tolerance for ties two algorithms may think differently: these matrices are not taken.
    """
    gaps = [1.0]
    for row in np.asarray(a, np.complex128):
        s = np.append(np.linalg.svd(row / max(np.max(np.abs(row)), 1e-300), compute_uv=False), 0)
        gaps += list((s[:-1] - s[1:]) / max(s[0], 1e-300))
    gaps, tie = np.array(gaps), 16 * float(jnp.finfo(computed_in(a.dtype)).eps)
    hypothesis.assume(not np.any((gaps > tie / 16) & (gaps < 16 * tie)))
    return np.min(gaps[gaps > tie])


def of_gradients(norm, a):
    """What rounding does to the entries of a gradient: to singular vectors the more, the closer two values are."""
    close = closest(a) if isinstance(norm.lift, SpectralLift) else 1.0
    return allowed(a.dtype, size=12) + tolerance(computed_in(a.dtype), factor=10) / close


AXES = st.lists(st.integers(-3, 2), min_size=2, max_size=2, unique_by=lambda axis: axis % 3).map(tuple)
METHODS = st.sampled_from(["auto", "svd"])
BY_METHOD = st.sampled_from(
    [(jn.Schatten(1), "polar"), (jn.Schatten(inf), "squaring"), *((jn.Schatten(p), "gram") for p in (4, 6, 10, 16))]
)


@FEWER
@hypothesis.given(CASES, AXES, st.booleans(), METHODS)
def test_forms(case, axis, keepdims, method):
    """The value does not depend on where the matrix axes are, on the method, on whether the order is traced, and not on
    the type of whole numbers."""
    a, norm = case
    most, expected = allowed(a.dtype, factor=600), np.asarray(norm(a), np.float64)
    how = {"method": method} if isinstance(norm.lift, SpectralLift) else {}
    moved = np.moveaxis(a, (1, 2), axis)
    value = norm(moved, axis=axis, keepdims=keepdims, **how)
    assert value.shape == (
        tuple(1 if i in {k % 3 for k in axis} else n for i, n in enumerate(moved.shape)) if keepdims else a.shape[:1]
    )
    np.testing.assert_allclose(np.asarray(value, np.float64).ravel(), expected, rtol=most, atol=least(a.dtype))
    for again, shape in ((a[:, None], (len(a), 1)), (a[0], ()), (a[:0], (0,))):
        value = norm(again, **how)
        assert value.shape == shape
        np.testing.assert_allclose(
            np.asarray(value, np.float64).ravel(), expected[: value.size], rtol=most, atol=least(a.dtype)
        )
    traced = {jn.Schatten: jn.schatten_norm, jn.Entrywise: jn.entrywise_norm}.get(type(norm))
    if traced:
        value = jax.jit(traced)(a, jnp.asarray(norm.p, jnp.finfo(computed_in(a.dtype)).dtype))
        np.testing.assert_allclose(np.asarray(value, np.float64), expected, rtol=most, atol=least(a.dtype))
    size = np.max(np.abs(a), axis=(1, 2), keepdims=True, initial=0)
    whole = np.rint(np.where(size > 0, 9 * (a / np.where(size > 0, size, 1)).real.astype(np.float64), 0))
    for kind in (np.int32, np.bool_):
        x = jnp.asarray(whole.astype(kind))
        value, floating = norm(x), jnp.sqrt(x).dtype
        assert value.dtype == floating
        np.testing.assert_array_equal(value, norm(x.astype(floating)))


@FEWER
@hypothesis.given(matrices(), BY_METHOD)
def test_methods(a, chosen):
    """What methods for small matrices, so all but Krylov, give at any shape: the value of the full decomposition, and
    both certificates."""
    hypothesis.assume(a.size)
    norm, method = chosen
    way = jax.jit(jax.vmap(jax.value_and_grad(functools.partial(norm, method=method))))
    value, g = way(jnp.asarray(a))
    most, expected = allowed(a.dtype, factor=600), np.asarray(norm(a, method="svd"), np.float64)
    np.testing.assert_allclose(np.asarray(value, np.float64), expected, rtol=most, atol=least(a.dtype))
    certified(g.conj(), a, expected, norm, most)


@SETTINGS
@hypothesis.given(CASES, ways())
def test_transformations(case, way):
    """Every way to a gradient gives the one of a call for each matrix; ``jvp`` pairs it with a direction."""
    a, norm = case
    hypothesis.assume(a.size)
    most = of_gradients(norm, a)
    g = np.asarray(way(norm)(jnp.asarray(a)), np.complex128)
    expected = np.asarray(jn.subgradient(a, norm), np.complex128).conj()
    size = np.max(np.abs(expected))
    np.testing.assert_allclose(g, expected, rtol=0, atol=most * size)
    if jnp.finfo(a.dtype).bits < 32:
        return
    e = np.sign(np.asarray(a).real).astype(a.dtype)
    _, slope = jax.jvp(jax.vmap(norm), (jnp.asarray(a),), (jnp.asarray(e),))
    pairs = inner(expected.conj(), e.astype(np.complex128))
    np.testing.assert_allclose(slope, pairs, rtol=0, atol=most * a[0].size * max(size, 1))


def forward_over_reverse(norm, a, e):
    return jax.jvp(jax.vmap(jax.grad(norm)), (a,), (e,))[1]


def reverse_over_forward(norm, a, e):
    return jax.grad(lambda a: jnp.sum(jax.jvp(jax.vmap(norm), (a,), (e,))[1]))(a)


def reverse_over_reverse(norm, a, e):
    return jax.vjp(jax.vmap(jax.grad(norm)), a)[1](e)[0]


@FEWER
@hypothesis.given(
    CASES, st.integers(0, 2**20), st.sampled_from([forward_over_reverse, reverse_over_forward, reverse_over_reverse])
)
def test_second_derivatives(case, seed, mode):
    """A number at kinks too, symmetric, and 0 along the matrix: the gradient does not depend on its size. In double
    precision the central difference, to the difference between two of these."""
    a, norm = case
    hypothesis.assume(a.size and jnp.finfo(a.dtype).bits > 16)
    size = np.max(np.abs(a), axis=(1, 2), keepdims=True)
    e, f = (flushed(size * gaussian(a.shape, a.dtype, seed + i)) for i in range(2))

    change = jax.jit(functools.partial(mode, norm))
    along, by_e, by_f = (np.asarray(change(a, np.asarray(d, a.dtype)), np.complex128) for d in (a, e, f))
    assert np.all(np.isfinite(by_e))
    largest = np.maximum(np.max(np.abs(by_e), axis=(1, 2)), np.max(np.abs(by_f), axis=(1, 2)))
    most = tolerance(a.dtype, size=100) * np.maximum(largest, 1)
    assert np.all(np.max(np.abs(along), axis=(1, 2)) <= most)
    scale = np.where(size > 0, size, 1)
    there, back = (np.sum((g * (d / scale)).real, axis=(1, 2)) for g, d in ((by_e, f), (by_f, e)))
    assert np.all(np.abs(there - back) <= most * max(a.shape[1:]))
    if jnp.finfo(a.dtype).bits < 64 or np.any(largest >= 100):  # next to a kink no step is short
        return
    h, noise = 1e-4, tolerance(a.dtype) / (closest(a) if isinstance(norm.lift, SpectralLift) else 1)
    if noise >= 1e-3 * h:
        return
    hypothesis.event("compared with central differences")
    steps = np.array([2, 1, -1, -2])[:, None, None, None] * h
    shifted = (a / scale + steps * (e / scale)).astype(a.dtype)
    g = np.asarray(jn.subgradient(shifted, norm), np.complex128).conj()
    far, near = (g[0] - g[3]) / (4 * h), (g[1] - g[2]) / (2 * h)
    error = np.max(np.abs(by_e - near), axis=(1, 2))
    assert np.all(error <= 5 * np.max(np.abs(far - near), axis=(1, 2)) + (noise / h + 1e-6) * np.maximum(largest, 1))


@SETTINGS
@hypothesis.given(CASES, st.sampled_from([(np.nan,), (np.inf,), (-np.inf,), (np.nan, np.inf)]), st.integers(0, 431))
def test_bad_rows(case, bad, place):
    """NaN in, NaN out; infinite in, infinite out; NaN derivatives; and the other rows as without it."""
    a, norm = case
    hypothesis.assume(a.size)
    spoilt = a.copy()
    for i, entry in enumerate(bad):
        spoilt.flat[(place + i) % a.size] = entry
    row = (place % a.size) // a[0].size
    hypothesis.assume(len(bad) == 1 or (place + 1) % a.size // a[0].size == row)
    value, g = np.asarray(norm(spoilt), np.float64), np.asarray(jn.subgradient(spoilt, norm), np.complex128)
    assert np.isnan(value[row]) if np.any(np.isnan(spoilt[row])) else np.isposinf(value[row])
    assert np.all(np.isnan(g[row]))
    others = np.arange(len(a)) != row
    expected = np.asarray(norm(a), np.float64)[others]
    np.testing.assert_allclose(value[others], expected, rtol=allowed(a.dtype, factor=600), atol=least(a.dtype))
    expected = np.asarray(jn.subgradient(a, norm), np.complex128)[others]
    np.testing.assert_allclose(g[others], expected, rtol=0, atol=of_gradients(norm, a))


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_the_reference_is_right(dtype):
    a = np.array([[3, 0], [0, 4]], dtype)
    assert reference(jn.Schatten(1), a) == 7
    assert reference(jn.Mixed(2, 1), a) == 7
    assert reference(jn.Induced(1, inf), a) == 4
    assert reference(jn.KyFan(1), a) == 4
    assert reference(jn.Dual(jn.KyFan(2)), a) == 4
    np.testing.assert_allclose(reference(jn.Dual(jn.KyFan(2, 2)), np.eye(3, dtype=dtype)), 4.5**0.5)
