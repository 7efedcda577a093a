"""Equivalence constants, majorisation and dominance against NumPy; best approximations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from matrices import COMPLEX, DTYPES, REAL, factory, gaussian, needs_double, prescribed, tolerance

import jaxnorms as jn
from jaxnorms.approximation import BestApproximation, best_approximation
from jaxnorms.comparison import equivalence_constant, fan_dominates, majorizes
from jaxnorms.gauges import conjugate_exponent

inf = float("inf")
FRO, NUC, SPECTRAL = jn.Entrywise(2), jn.Schatten(1), jn.Schatten(inf)
KY_FAN = [jn.KyFan(2), jn.KyFan(3), jn.KyFan(2, 2), jn.KyFan(2, 1.5), jn.KyFan(3, 3)]
NORMS = [
    *(FRO, NUC, SPECTRAL, jn.Schatten(1.5), jn.Schatten(3)),
    *KY_FAN,
    *(jn.Dual(norm) for norm in KY_FAN),
    *(jn.Entrywise(1), jn.Entrywise(1.5), jn.Entrywise(3), jn.Entrywise(inf)),
    *(jn.Mixed(p, q, axis) for p, q in [(2, 1), (1, 2), (3, 1.5), (1.5, 3), (inf, 1), (4, 3)] for axis in (-1, -2)),
    *(jn.Induced(1, 1), jn.Induced(inf, inf), jn.Induced(1, 2), jn.Induced(2, inf)),
]


def reference(norm, a):
    """The norm of a stack of matrices, in double precision by NumPy."""
    if isinstance(norm, jn.Entrywise):
        return np.linalg.norm(a.reshape(len(a), -1), norm.p, axis=1)
    if isinstance(norm, jn.Mixed):
        return np.linalg.norm(np.linalg.norm(a, norm.p, axis=-1 - (norm.axis == -1)), norm.q, axis=-1)
    if isinstance(norm, jn.Induced):
        mixed = jn.Mixed(norm.q, inf) if norm.p == 1 else jn.Mixed(conjugate_exponent(norm.p), inf, -2)
        return reference(mixed, a)
    s = np.linalg.svd(a, compute_uv=False)
    if isinstance(norm, jn.Schatten):
        return np.linalg.norm(s, norm.p, axis=1)
    if isinstance(norm, jn.KyFan):
        return np.linalg.norm(s[:, : norm.k], norm.p, axis=1)
    k, p = norm.ord.k, norm.ord.p
    return np.array([dual_of_top(row, k, p) for row in s])


def dual_of_top(s, k, p):
    """The largest of all lower bounds ``<s, y>/y_top`` over y that share s^(q-1) in front and a constant tail."""
    if p == 1:
        return max(s[0], np.sum(s) / k)
    q, best = p / (p - 1), 0.0
    for r in range(k):
        tail = np.mean(s[k - r - 1 :]) * len(s[k - r - 1 :]) / (r + 1)
        y = np.append(s[: k - r - 1], [tail] * (len(s) - k + r + 1)) ** (q - 1)
        if np.any(y):
            best = max(best, np.sum(s * y) / np.linalg.norm(np.sort(y)[::-1][:k], p))
    return best


def extremal(m, n):
    """Flat vectors, diagonals, Fourier matrices and their copies: among them are all maximisers."""

    def fourier(n):
        return np.exp(2j * np.pi * np.outer(np.arange(n), np.arange(n)) / n)

    def framed(block):
        a = np.zeros((m, n), complex)
        a[: block.shape[0], : block.shape[1]] = block
        return a

    matrices = [np.ones((i, j)) for i in range(1, m + 1) for j in range(1, n + 1)]
    for j in range(1, min(m, n) + 1):
        matrices += [np.eye(j), fourier(m)[:, :j], fourier(n)[:j]]
        matrices += [np.eye(j)[np.arange(m) % j], np.eye(j)[:, np.arange(n) % j]]
        if n % j == 0:
            matrices.append(np.tile(fourier(m)[:, :j], (1, n // j)))
        if m % j == 0:
            matrices.append(np.tile(fourier(n)[:j], (m // j, 1)))
    return np.array([framed(a) for a in matrices])


def known(ord, other, shape):
    try:
        return equivalence_constant(ord, other, shape)
    except ValueError:
        return np.nan


@pytest.mark.parametrize("shape", [(4, 4), (3, 5), (6, 4), (3, 9), (1, 4), (5, 1)], ids=str)
def test_equivalence_constants_hold_and_are_attained(shape):
    m, n = shape
    norms = [norm for norm in NORMS if not isinstance(norm, jn.KyFan) or norm.k <= min(shape)]
    norms = [norm for norm in norms if not isinstance(norm, jn.Dual) or norm.ord.k <= min(shape)]
    rng = np.random.default_rng(0)
    random = gaussian((300, m, n), np.complex128)
    sparse = random * (rng.uniform(size=random.shape) < 0.4)
    low = random[:, :, :1] * random[:, :1, :]
    phases = random / np.abs(random)
    others = np.concatenate([random, random.real, sparse, low, phases, phases * np.abs(low)])
    others = others[np.any(others, axis=(1, 2))]
    library = extremal(m, n)
    constants = np.array([[known(f, g, shape) for g in norms] for f in norms])
    values = np.array([reference(norm, np.concatenate([library, others])) for norm in norms])
    ratios = np.max(values[:, None] / values[None], axis=2)
    attained = np.max(values[:, None, : len(library)] / values[None, :, : len(library)], axis=2)
    some = ~np.isnan(constants)
    np.testing.assert_array_less(ratios[some], constants[some] * (1 + 1e-12))
    np.testing.assert_allclose(attained[some], constants[some], rtol=1e-12)
    np.testing.assert_allclose(np.diag(constants), 1)
    assert np.mean(some) > 0.85


@pytest.mark.parametrize("ord", NORMS, ids=str)
def test_constants_of_duals_are_reversed(ord):
    for other in NORMS:
        dual = known(jn.Dual(other), jn.Dual(ord), (6, 4))
        np.testing.assert_allclose(known(ord, other, (6, 4)), dual, rtol=1e-12)


WORKED = [
    ("nuc", "fro", (3, 5), 3**0.5),
    ("fro", "spectral", (3, 5), 3**0.5),
    (NUC, jn.Entrywise(inf), (3, 5), 45**0.5),
    (jn.Entrywise(1), SPECTRAL, (3, 5), 45**0.5),
    (jn.Entrywise(1), NUC, (3, 5), 15**0.5),
    (NUC, jn.Entrywise(1), (3, 5), 1),
    (jn.Induced(1, 1), "spectral", (3, 5), 3**0.5),
    ("spectral", jn.Induced(1, 1), (3, 5), 5**0.5),
    (jn.Induced(1, 1), jn.Induced(inf, inf), (3, 5), 3),
    (jn.KyFan(2), jn.KyFan(3), (3, 5), 1),
    (jn.KyFan(3), jn.KyFan(2), (3, 5), 1.5),
    (jn.Mixed(2, 1), jn.Mixed(2, 1, axis=-2), (3, 5), 5**0.5),
    (jn.Mixed(2, 1), jn.Induced(inf, inf), (3, 5), 3),
    (jn.Mixed(inf, 1), jn.Induced(inf, inf), (5, 3), 3),
    (jn.Entrywise(1), jn.Entrywise(inf), (3, 5), 15),
]


@pytest.mark.parametrize(("ord", "other", "shape", "constant"), WORKED, ids=str)
def test_worked_constants(ord, other, shape, constant):
    got = equivalence_constant(ord, other, shape)
    assert type(got) is float
    np.testing.assert_allclose(got, constant, rtol=1e-15)


UNKNOWN = {
    "user's function": (jn.UnitarilyInvariant(jnp.sum), "fro", (3, 3), "not known in closed form"),
    "inexact induced": ("fro", jn.Induced(3, 3), (3, 3), "NP-hard"),
    "rank that does not divide": (jn.KyFan(2), jn.Entrywise(3), (3, 5), "not known in closed form for 3 x 5"),
    "columns that rows do not divide": ("nuc", jn.Induced(1, 1), (3, 5), "not known"),
    "columns against rows": (jn.Mixed(2, 1), jn.Induced(inf, inf), (5, 3), "not known"),
    "dual against Ky Fan": (jn.Dual(jn.KyFan(2, 1.5)), jn.KyFan(2, 1.5), (3, 3), "not known"),
    "k too large": (jn.KyFan(4), "fro", (3, 5), r"k must be between 1 and min\(m, n\) = 3"),
    "empty": ("fro", "nuc", (0, 5), "shape must be a pair of positive"),
    "one side": ("fro", "nuc", (3,), "shape must be a pair of positive"),
    "a number": ("fro", "nuc", 3, "shape must be a pair of positive"),
    "three sides": ("fro", "nuc", (2, 3, 4), "shape must be a pair of positive"),
    "word": ("max", "nuc", (3, 5), "ord must be a norm object"),
}


@pytest.mark.parametrize("case", UNKNOWN)
def test_what_is_not_proved_raises(case):
    ord, other, shape, message = UNKNOWN[case]
    with pytest.raises(ValueError, match=message):
        equivalence_constant(ord, other, shape)


def test_kinds_of_arguments():
    for shape in (None, "33", (2.0, 3), (True, 3)):
        with pytest.raises(TypeError, match="shape must be a pair of positive integers"):
            equivalence_constant("fro", "nuc", shape)
    with pytest.raises(TypeError, match=r"other must be .* did you mean Entrywise\(1\)"):
        equivalence_constant("fro", 1, (2, 2))


def test_majorizes():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((200, 6))
    p = np.mean([np.eye(6)[rng.permutation(6)] for _ in range(3)], axis=0)  # doubly stochastic
    y = (x @ p).astype(REAL)
    x = x.astype(REAL)
    strict = x + REAL.type(0.1)

    def both(x, y):
        return majorizes(x, y), majorizes(x, y, weak=True)

    for scale in (1, 1e30, 1e-30):
        x, y, strict = (v * REAL.type(scale) for v in (x, y, strict))
        for got in (both(x, y), jax.jit(both)(x, y), jax.vmap(both)(x, y), both(x, x), both(x, x[:, ::-1])):
            assert np.all(got)
        assert not np.any(majorizes(strict, x))
        assert np.all(majorizes(strict, x, weak=True))
        assert not np.any(both(x, strict))
        x, y, strict = (v / REAL.type(scale) for v in (x, y, strict))
    u, v = (np.cumsum(np.sort(z[:9])[:, ::-1], axis=1) for z in (x, y))
    expected = [np.all(a >= b - tolerance(REAL)) for a in u for b in v]
    np.testing.assert_array_equal(majorizes(x[:9, None], y[None, :9], weak=True).ravel(), expected)


def test_majorizes_special_cases():
    assert majorizes(jnp.asarray([3, 0, 0]), jnp.asarray([1, 1, 1]))
    assert majorizes(jnp.asarray([3, 0], jnp.bfloat16), jnp.asarray([2, 1], jnp.bfloat16))
    assert majorizes(jnp.zeros((0,), REAL), jnp.zeros((0,), REAL))
    assert majorizes(jnp.zeros((2,), REAL), jnp.zeros((2,), REAL))
    for bad in (jnp.nan, inf, -inf):
        x = jnp.asarray([[2, bad], [2, 0]], REAL)
        np.testing.assert_array_equal(majorizes(x, jnp.asarray([1, 1], REAL)[None]), [False, True])
    with pytest.raises(ValueError, match=r"got shapes \(3,\) and \(2,\)"):
        majorizes(jnp.ones(3), jnp.ones(2))
    with pytest.raises(ValueError, match=r"batch axes must broadcast, got shapes \(3,\) and \(2,\)"):
        majorizes(jnp.ones((3, 4)), jnp.ones((2, 4)))
    with pytest.raises(TypeError, match="must be real"):
        majorizes(jnp.ones(3, COMPLEX), jnp.ones(3))


def test_fan_dominates():
    dtype = COMPLEX
    a = jnp.asarray(gaussian((20, 5, 4), dtype))
    turned = jnp.asarray(np.einsum("ij,bjk->bik", prescribed(np.ones(5), (5, 5), dtype), a))
    dominates = jax.jit(fan_dominates)
    assert np.all(dominates(a, turned))
    assert np.all(dominates(turned, a))
    # A pinching, the part in two diagonal blocks, is dominated; also with zero rows appended to it.
    pinched = a.at[:, :2, 2:].set(0).at[:, 2:, :2].set(0)
    assert np.all(dominates(a, pinched))
    assert np.all(dominates(a, jnp.pad(pinched, [(0, 0), (0, 2), (0, 3)])))
    assert not np.any(dominates(a, 2 * a))
    assert not np.any(dominates(pinched, a))
    flat = jnp.asarray(prescribed(np.array([2.0, 2, 2, 2]), (5, 4), dtype))
    peaked = jnp.asarray(prescribed(np.array([3.0, 1, 1, 1]), (5, 4), dtype))
    # Norms that disagree; a NaN; the ends of the range.
    x = jnp.stack([flat, peaked, flat.at[0, 0].set(jnp.nan), flat * 2.0**90, flat * 2.0**-90])
    y = jnp.stack([peaked, flat, flat, flat, flat * 2.0**-91])
    np.testing.assert_array_equal(dominates(x, y), [False, False, False, True, True])
    assert fan_dominates(jnp.zeros((3, 0), REAL), jnp.zeros((2, 2), REAL))
    # As far as singular values of two matrices may be off by themselves, but no further.
    one, eps = np.ones((1, 1), REAL), np.finfo(REAL).eps
    assert fan_dominates(one, one * (1 + 8 * eps))
    assert not fan_dominates(one, one * (1 + 16 * eps))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(5, 5), (9, 4), (3, 9)], ids=str)
def test_best_approximation(shape, dtype):
    names, a = factory(shape, dtype)
    size = np.maximum(np.max(np.abs(a), axis=(1, 2)), np.finfo(REAL).tiny)[:, None, None]
    exact = np.linalg.svd((a / size).astype(np.complex128), compute_uv=False)
    for k in (0, 2, min(shape)):
        best = best_approximation(a, k)
        assert best.matrix.dtype == a.dtype
        assert best.rest.shape == (len(names), min(shape) - k)
        best = BestApproximation(*map(np.asarray, best))
        np.testing.assert_allclose(best.rest / size[:, 0], exact[:, k:], atol=tolerance(dtype, 20))
        missed = ((a - best.matrix) / size).astype(np.complex128)
        s = np.linalg.svd(missed, compute_uv=False)
        np.testing.assert_allclose(s[:, : min(shape) - k], exact[:, k:], atol=tolerance(dtype, 50))
        assert np.all(np.linalg.svd((best.matrix / size).astype(np.complex128))[1][:, k:] <= tolerance(dtype, 50))


def test_the_error_in_every_norm():
    a = jnp.asarray(prescribed(np.array([4.0, 3, 2, 1]), (4, 5), REAL))
    best = best_approximation(a, 2)
    assert isinstance(best, BestApproximation)
    kinds = {
        "nuc": 3,
        "spectral": 2,
        "fro": 5**0.5,
        jn.KyFan(3): 3,
        jn.Dual(jn.KyFan(4)): 2,
        jn.Schatten(3): 9 ** (1 / 3),
    }
    kinds |= {jn.UnitarilyInvariant(lambda s: jnp.max(s) + jnp.sum(s)): 5, jn.Schatten(2): 5**0.5}
    for ord, expected in kinds.items():
        np.testing.assert_allclose(best.error(ord), expected, rtol=tolerance(REAL))
    with pytest.raises(ValueError, match="ord must be a unitarily invariant norm, got Mixed"):
        best.error(jn.Mixed(2, 1))
    with pytest.raises(ValueError, match="k must be between 1"):
        best.error(jn.KyFan(5))
    assert best_approximation(a, 4).error("nuc") == 0
    np.testing.assert_allclose(best_approximation(a, 0).error("nuc"), 10, rtol=tolerance(REAL))


@needs_double
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("s", [[4, 3, 2, 1], [3, 3, 1, 1], [2, 1, 0, 0]], ids=str)
@pytest.mark.parametrize("shape", [(4, 4), (6, 4), (4, 6)], ids=str)
def test_derivative_of_the_best_approximation(shape, s, dtype):
    """By finite differences, repeated values on each side of the cut among them, and zeros behind it."""
    a = jnp.asarray(prescribed(np.array(s, float), shape, dtype))
    nearest = jax.jit(lambda a: best_approximation(a, 2).matrix)
    check_grads(nearest, (a,), order=1, modes=["fwd", "rev"], atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_derivatives_of_special_ranks(dtype):
    e = jnp.asarray(gaussian((5, 4), dtype))
    for s in ([3, 2, 1, 0], [0, 0, 0, 0], [1, 1, 1, 1]):
        a = jnp.asarray(prescribed(np.array(s, float), (5, 4), dtype))
        whole, none = (jax.jvp(lambda a, k=k: best_approximation(a, k).matrix, (a,), (e,)) for k in (4, 0))
        np.testing.assert_allclose(whole[0], a, atol=tolerance(dtype))
        np.testing.assert_allclose(whole[1], e, atol=tolerance(dtype))
        assert not np.any(none)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_conventions_at_the_cut(dtype):
    """Of the size of the direction at ties across it; below rank k the derivative is that along matrices of this
    rank."""
    e = jnp.asarray(gaussian((5, 4), dtype))

    @jax.jit
    def derivative(a):
        return jax.jvp(lambda a: best_approximation(a, 2).matrix, (a,), (e,))[1]

    for s in ([1, 1, 1, 1], [2, 1, 1, 0], [0, 0, 0, 0]):
        found = derivative(jnp.asarray(prescribed(np.array(s, float), (5, 4), dtype)))
        assert np.linalg.norm(found) <= 2 * np.linalg.norm(e)
    u = prescribed(np.ones(1), (5, 1), dtype)
    v = prescribed(np.ones(1), (4, 1), dtype, 3)
    across = (np.eye(5) - u @ u.conj().T) @ np.asarray(e) @ (np.eye(4) - v @ v.conj().T)
    np.testing.assert_allclose(derivative(jnp.asarray(3 * u @ v.conj().T)), e - across, atol=tolerance(dtype))


def test_rest_has_the_derivative_of_singular_values():
    a = jnp.asarray(prescribed(np.array([3.0, 2, 2, 0]), (5, 4), REAL))
    e = jnp.asarray(gaussian((5, 4), REAL))
    ours = jax.jvp(lambda a: best_approximation(a, 1).rest, (a,), (e,))
    theirs = jax.jvp(jn.singular_values, (a,), (e,))
    for x, y in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(x, y[1:], atol=tolerance(REAL))
    g = jax.grad(lambda a: best_approximation(a, 1).error("spectral"))(a)
    np.testing.assert_allclose(g, jax.grad(lambda a: jn.singular_values(a)[1])(a), atol=tolerance(REAL))


def test_batches_types_and_bad_rows():
    a = gaussian((5, 4), REAL)
    rows = np.stack([a, a, a, np.zeros_like(a)])
    rows[1, 0, 0], rows[2, 1, 1] = np.nan, inf

    @jax.jit
    def everything(a):
        def nearest(a):
            return best_approximation(a, 2)

        return jax.vmap(lambda a: jax.jvp(nearest, (a,), (jnp.ones_like(a),)))(a)

    best, tangent = everything(rows)
    for x in (*best, *tangent):
        assert np.all(np.isfinite(x[np.array([0, 3])]))
    assert np.all(np.isnan(best.matrix[1:3]))
    assert np.all(np.isnan(best.rest[1]))
    assert np.all(np.isinf(best.rest[2]))
    assert np.all(np.isnan(tangent.matrix[1:3]))
    assert np.all(np.isnan(tangent.rest[1:3]))
    half = best_approximation(jnp.asarray(a, jnp.bfloat16), 2)
    assert half.matrix.dtype == half.rest.dtype == jnp.bfloat16
    assert best_approximation(jnp.eye(3, dtype=int), 1).matrix.dtype == jnp.zeros(0).dtype
    assert best_approximation(jnp.zeros((2, 0, 3), REAL), 0).matrix.shape == (2, 0, 3)
    scaled = best_approximation(a * REAL.type(2.0**100), 2).matrix
    np.testing.assert_array_equal(scaled, best_approximation(a, 2).matrix * REAL.type(2.0**100))


def test_bad_arguments():
    a = jnp.ones((4, 3), REAL)
    for k in (-1, 4):
        with pytest.raises(ValueError, match=rf"k must be between 0 and min\(m, n\) = 3, got {k}"):
            best_approximation(a, k)
    for k in (1.5, True, "1"):
        with pytest.raises(TypeError, match="k must be"):
            best_approximation(a, k)
    with pytest.raises(TypeError, match="k must be static, an integer, got the traced"):
        jax.jit(best_approximation)(a, 1)
    with pytest.raises(ValueError, match="best_approximation: a must have shape"):
        best_approximation(jnp.ones(3), 1)
    with pytest.raises(ValueError, match="second derivatives of a prox"):
        jax.hessian(lambda a: jnp.sum(best_approximation(a, 1).matrix))(a)
