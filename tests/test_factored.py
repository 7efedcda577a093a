"""Norms of ``B A`` from the factors: the dense ones, with their derivatives, at any rank and scale."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from differences import against_differences
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from matrices import COMPLEX, DTYPES, REAL, gaussian, needs_double, prescribed, tolerance, unitary

import jaxnorms as jn

SHAPES = [(12, 3, 9), (4, 6, 5), (3, 5, 10)]  # m, r, n: the last two wider than the product
NORMS = {
    "nuclear": jn.Schatten(1),
    "spectral": jn.Schatten(float("inf")),
    "frobenius": jn.Entrywise(2),
    "schatten_3": jn.Schatten(3),
    "ky_fan_2": jn.KyFan(2),
    "ky_fan_3_2": jn.KyFan(3, 2),
    "dual": jn.Dual(jn.KyFan(2)),
    "user": jn.UnitarilyInvariant(jnp.max),
}


def factors(s, shape, dtype, seed=0):
    """``(b, a)`` with singular values ``s`` of the product, and a random basis between them."""
    (m, r, n), rng, k = shape, np.random.default_rng(seed), len(s)
    u, v, w = unitary(rng, m, k, dtype), unitary(rng, n, k, dtype), unitary(rng, r, k, dtype)
    root = np.sqrt(np.asarray(s, float))
    return ((u * root) @ w.conj().T).astype(dtype), ((w * root) @ v.conj().T).astype(dtype)


def stack(shape, dtype):
    """Distinct, repeated, deficient, one, zero, random, and those where one factor is zero, as at the start of LoRA."""
    spectra = [[3, 2, 1], [2, 2, 1], [2, 1, 0], [3, 0, 0], [0, 0, 0]]
    pairs = [factors(s, shape, dtype, seed) for seed, s in enumerate(spectra)]
    m, r, n = shape
    b, a = gaussian((m, r), dtype, 8), gaussian((r, n), dtype, 9)
    pairs += [(b, a), (np.zeros_like(b), a), (b, np.zeros_like(a))]
    return tuple(np.stack(x) for x in zip(*pairs, strict=True))


@pytest.mark.parametrize(("shape", "dtype"), [*((shape, REAL) for shape in SHAPES), (SHAPES[0], COMPLEX)], ids=str)
def test_values_and_gradients_are_the_dense_ones(shape, dtype):
    b, a = stack(shape, dtype)
    w = b @ a
    tol = tolerance(dtype, 100)
    # What the shapes change is the SVD of the core.
    for name, norm in (NORMS if shape == SHAPES[0] and dtype == REAL else dict(list(NORMS.items())[:2])).items():
        ours = jax.jit(
            jax.vmap(jax.value_and_grad(lambda b, a, norm=norm: jn.factored_norm(b, a, norm), argnums=(0, 1)))
        )
        value, (gb, ga) = ours(b, a)
        g = np.asarray(jn.subgradient(w, norm))
        np.testing.assert_allclose(value, norm(w), rtol=tol, atol=tol, err_msg=name)
        # jax.grad returns the conjugate.
        np.testing.assert_allclose(gb.conj(), g @ np.swapaxes(a, 1, 2).conj(), rtol=0, atol=tol * 10, err_msg=name)
        np.testing.assert_allclose(ga.conj(), np.swapaxes(b, 1, 2).conj() @ g, rtol=0, atol=tol * 10, err_msg=name)


@needs_double
@pytest.mark.parametrize(
    ("name", "dtype"),
    [("nuclear", REAL), ("nuclear", COMPLEX), ("spectral", COMPLEX), ("schatten_3", REAL), ("ky_fan_2", REAL)],
    ids=str,
)
def test_derivatives_equal_differences(name, dtype):
    """At full rank and repeated singular values, where these norms are smooth twice."""
    shape = (6, 3, 5)
    spectra = [[3, 3, 1] if name == "ky_fan_2" else [3, 1, 1], [3, 2, 1]]
    points = [factors(s, shape, dtype, seed) for seed, s in enumerate(spectra)]
    directions = [(gaussian((6, 3), dtype, seed), gaussian((3, 5), dtype, seed + 5)) for seed in range(2)]
    points, directions = (tuple(np.stack(x) for x in zip(*pairs, strict=True)) for pairs in (points, directions))
    against_differences(lambda b, a: jn.factored_norm(b, a, NORMS[name]), points, directions)


def test_second_derivatives_are_the_dense_ones_at_rank_deficiency():
    """Along the manifold of the rank, and zero across it, as the convention of the dense norm is."""
    b, a = factors([2, 1, 0], (6, 3, 5), REAL)
    e = gaussian((6, 3), REAL, 1), gaussian((3, 5), REAL, 2)

    def hessian_times(f):
        return jax.jit(lambda x, e: jax.jvp(jax.grad(f), (x,), (e,))[1])((b, a), e)

    ours = hessian_times(lambda pair: jn.factored_norm(*pair, jn.Schatten(1.5)))
    dense = hessian_times(lambda pair: jn.schatten_norm(pair[0] @ pair[1], 1.5))
    for x, y in zip(ours, dense, strict=True):
        np.testing.assert_allclose(x, y, rtol=0, atol=tolerance(REAL, 1000))


def test_what_cancels_has_no_direction():
    x, y = gaussian((7, 1), REAL), gaussian((1, 6), REAL, 1)
    b, a = np.concatenate([x, x], axis=1), np.concatenate([y, -y])
    value, gradients = jax.value_and_grad(jn.factored_nuclear_norm, argnums=(0, 1))(b, a)
    assert value == 0
    assert not any(np.any(g) for g in gradients)


def test_only_the_norm_must_be_in_range():
    b, a = factors([3, 2, 1], (8, 3, 7), REAL)
    tiny, most = (1e-30, 1e30) if jnp.finfo(REAL).bits == 32 else (1e-300, 1e300)
    for left, right in ((most, tiny), (tiny, most), (most, 1.0), (tiny, 1.0)):
        scaled = (REAL.type(left) * b, REAL.type(right) * a)
        value, (gb, _) = jax.value_and_grad(jn.factored_nuclear_norm, argnums=(0, 1))(*scaled)
        np.testing.assert_allclose(value, 6 * (left * right), rtol=tolerance(REAL))
        np.testing.assert_allclose(np.sum(gb / REAL.type(right) * b), 6, rtol=tolerance(REAL))  # <G A^H, B> = ||W||


def test_columns_of_any_size_that_the_rows_make_up_for():
    """Also beside a pair of which one half is zero and the other one huge."""
    for decades in (18, 25, 30) if jnp.finfo(REAL).bits == 32 else (18, 250):
        b, a = gaussian((7, 4), np.float64), gaussian((4, 5), np.float64, 1)
        sizes = np.array([10.0**-decades, 1, 10.0**decades, 1])
        b, a = (b * sizes * [1, 1, 1, 0]).astype(REAL), (a / sizes[:, None] * [[1], [1], [1], [1e30]]).astype(REAL)
        value, gradients = jax.value_and_grad(jn.factored_nuclear_norm, argnums=(0, 1))(b, a)
        wide = b.astype(np.float64), a.astype(np.float64)
        u, s, vh = np.linalg.svd(wide[0] @ wide[1], full_matrices=False)
        g = u[:, :3] @ vh[:3]
        np.testing.assert_allclose(value, s.sum(), rtol=tolerance(REAL))
        for found, exact, axis in zip(gradients, (g @ wide[1].T, wide[0].T @ g), (0, 1), strict=True):
            error, size = (np.max(np.abs(x), axis=axis) for x in (np.float64(found) - exact, exact))
            assert np.all(error <= tolerance(REAL, 200) * size), error
        scales = (sizes * [1, 1, 1, 1e-30]).astype(REAL)  # so that the derivative is in range
        e = gaussian((7, 4), REAL, 2) * scales, gaussian((4, 5), REAL, 3) / scales[:, None]
        _, (db, da) = jax.jvp(jax.grad(jn.factored_nuclear_norm, argnums=(0, 1)), (b, a), e)
        assert np.all(np.isfinite(db))
        assert np.all(np.isfinite(da))


def test_one_bad_product_of_a_batch():
    b, a = np.stack([gaussian((6, 2), REAL, i) for i in range(3)]), np.stack([gaussian((2, 5), REAL, 7)] * 3)
    b[1, 0, 0], b[2, 0, 0] = np.nan, np.inf
    value, (gb, ga) = jax.vmap(jax.value_and_grad(jn.factored_spectral_norm, argnums=(0, 1)))(b, a)
    assert np.isfinite(value[0])
    assert np.isnan(value[1])
    assert np.isposinf(value[2])
    for g in (gb, ga):
        assert np.all(np.isfinite(g[0]))
        assert np.all(np.isnan(g[1:]))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16], ids=["bfloat16", "float16"])
def test_sixteen_bits(dtype):
    b, a = (jnp.asarray(x).astype(dtype) for x in factors([3, 2, 1], (8, 3, 7), REAL))
    exact = jn.nuclear_norm(b.astype(REAL) @ a.astype(REAL))
    value, g = jax.value_and_grad(jn.factored_nuclear_norm)(b, a)
    assert value.dtype == g.dtype == dtype
    np.testing.assert_allclose(np.float64(value), exact, rtol=float(jnp.finfo(dtype).eps))


def test_leading_axes_broadcast():
    b, a = gaussian((4, 1, 6, 2), REAL), gaussian((3, 2, 5), REAL, 1)
    for f in (jn.factored_nuclear_norm, jn.factored_singular_values):
        value = f(b, a)
        assert value.shape[:2] == (4, 3)
        np.testing.assert_allclose(value[2, 1], f(b[2, 0], a[1]), rtol=tolerance(REAL))
    assert jn.factored_nuclear_norm(b[:0], a).shape == (0, 3)
    assert jn.factored_nuclear_norm(np.zeros((2, 4, 0), REAL), np.zeros((0, 3), REAL)).tolist() == [0, 0]


def test_residuals_are_thin():
    b, a = gaussian((300, 4), REAL), gaussian((4, 200), REAL, 1)
    _, pullback = jax.vjp(jn.factored_nuclear_norm, b, a)
    kept = sum(np.size(x) for x in jax.tree.leaves(pullback))
    assert kept <= 2 * (b.size + a.size) + 100


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit], ids=str)
def test_factors_on_a_mesh_stay_where_they_are(kind):
    b, a = gaussian((64, 4), REAL), gaussian((4, 32), REAL, 1)
    both = jax.jit(jax.value_and_grad(jn.factored_nuclear_norm, argnums=(0, 1)))
    expected, theirs = both(b, a)
    mesh = jax.make_mesh((4, 2), ("x", "y"), axis_types=(kind, kind))
    with jax.sharding.set_mesh(mesh):
        pair = [jax.device_put(x, NamedSharding(mesh, spec)) for x, spec in ((b, P(("x", "y"))), (a, P(None, "x")))]
        value, ours = both(*pair)
        compiled = both.lower(*pair).compile().as_text()
    assert "[64,4]" not in compiled  # no device holds all of B
    np.testing.assert_allclose(value, expected, rtol=tolerance(REAL))
    for x, y, given in zip(ours, theirs, pair, strict=True):
        np.testing.assert_allclose(x, y, atol=tolerance(REAL, 200))
        assert x.sharding.is_equivalent_to(given.sharding, 2)


def test_named_norms():
    b, a = factors([3, 2, 1], (8, 3, 7), REAL)
    named = {
        jn.factored_nuclear_norm: 6,
        jn.factored_spectral_norm: 3,
        jn.factored_frobenius_norm: np.sqrt(14),
        lambda b, a: jn.factored_schatten_norm(b, a, 3): 36 ** (1 / 3),
        lambda b, a: jn.factored_ky_fan_norm(b, a, 2): 5,
        lambda b, a: jn.factored_ky_fan_norm(b, a, 7, 2): np.sqrt(14),
    }
    for f, expected in named.items():
        np.testing.assert_allclose(f(b, a), expected, rtol=tolerance(REAL))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_singular_values(dtype):
    pairs = [factors(s, (8, 3, 7), dtype, 3) for s in ([3, 2, 1], [2, 2, 1], [2, 1, 0])]
    b, a = (np.stack(x) for x in zip(*pairs, strict=True))
    np.testing.assert_allclose(
        jn.factored_singular_values(b, a), [[3, 2, 1], [2, 2, 1], [2, 1, 0]], atol=tolerance(dtype)
    )
    e = gaussian((8, 3), dtype, 4), gaussian((3, 7), dtype, 5)
    ours_of, dense_of = jax.jit(jn.factored_singular_values), jax.jit(lambda b, a: jn.singular_values(b @ a)[:3])
    for pair in pairs:
        _, ours = jax.jvp(ours_of, pair, e)
        _, dense = jax.jvp(dense_of, pair, e)
        np.testing.assert_allclose(ours, dense, atol=tolerance(dtype, 200))
    with pytest.raises(ValueError, match="second derivatives"):
        jax.jvp(jax.grad(lambda b: jn.factored_singular_values(b, a[0])[0]), (b[0],), (b[1],))


# The bound by Frobenius norms, and what attains it.


def test_frobenius_norms_bound_the_nuclear_norm():
    b, a = gaussian((1000, 7, 3), REAL), gaussian((1000, 3, 5), REAL, 1)
    b[::2, :, 1] *= 100
    norm, bound = jn.factored_nuclear_norm(b, a), jn.factored_nuclear_bound(b, a)
    assert np.all(norm <= bound * (1 + tolerance(REAL)))
    assert np.max(bound / norm) > 2


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(7, 3, 5), (2, 4, 3)], ids=str)
def test_balanced_factors_attain_the_bound(shape, dtype):
    b, a = gaussian((9, *shape[:2]), dtype), gaussian((9, *shape[1:]), dtype, 1)
    b[1] *= 1e3
    b[2, :, 1] = 0
    x, y = map(np.asarray, jn.balanced_factors(b, a))
    assert x.shape == b.shape
    assert y.shape == a.shape
    size = np.max(np.abs(b @ a), axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(x @ y / size, b @ a / size, atol=tolerance(dtype))
    np.testing.assert_allclose(jn.factored_nuclear_bound(x, y), jn.factored_nuclear_norm(b, a), rtol=tolerance(dtype))
    left, right = np.swapaxes(x, 1, 2).conj() @ x, y @ np.swapaxes(y, 1, 2).conj()
    np.testing.assert_allclose(left / size, right / size, atol=tolerance(dtype, 200))


def test_weights_move_between_factors_without_leaving_the_range():
    big = 1e30 if jnp.finfo(REAL).bits == 32 else 1e300
    b, a = (REAL.type(c) * x for c, x in zip((big, 1 / big), factors([3, 2, 1], (8, 3, 7), REAL), strict=True))
    x, y = jn.balanced_factors(b, a)
    np.testing.assert_allclose(np.linalg.norm(x), np.sqrt(6), rtol=tolerance(REAL))
    np.testing.assert_allclose(np.linalg.norm(y), np.sqrt(6), rtol=tolerance(REAL))


@pytest.mark.parametrize(("left", "right"), [((4, 0), (0, 3)), ((2, 0, 3), (3, 5)), ((0, 3), (3, 5)), ((4, 3), (3, 0))])
def test_balanced_factors_without_entries(left, right):
    x, y = jn.balanced_factors(np.zeros(left, REAL), np.zeros(right, REAL))
    assert (x.shape[-2:], y.shape[-2:]) == (left[-2:], right[-2:])
    assert not np.any(x)
    assert not np.any(y)


# Updates of a matrix, and latent attention.


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_norms_of_an_update(dtype):
    b, a, w = gaussian((60, 3), dtype), gaussian((3, 50), dtype, 1), prescribed(np.linspace(9, 1, 50), (60, 50), dtype)

    def by_operator(b, a, w):
        return jn.spectral_norm(jn.factored_operator(b, a, w))

    def dense(b, a, w):
        return jn.spectral_norm(w + b @ a)

    (value, ours), (expected, theirs) = (
        jax.jit(jax.value_and_grad(f, argnums=(0, 1, 2)))(b, a, w) for f in (by_operator, dense)
    )
    np.testing.assert_allclose(value, expected, rtol=tolerance(REAL))
    for x, y in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(x, y, atol=1e-3 if jnp.finfo(REAL).bits == 32 else 1e-8)
    np.testing.assert_allclose(
        jn.frobenius_norm(jn.factored_operator(b, a)), jn.factored_frobenius_norm(b, a), rtol=tolerance(REAL)
    )


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit], ids=str)
def test_an_update_on_a_mesh(kind):
    """Split along the axis that its products sum over."""
    arrays = gaussian((64, 4), REAL), gaussian((4, 48), REAL, 1), gaussian((64, 48), REAL, 2)
    both = jax.jit(
        jax.value_and_grad(lambda b, a, w: jn.spectral_norm(jn.factored_operator(b, a, w)), argnums=(0, 1, 2))
    )
    expected, theirs = both(*arrays)
    mesh = jax.make_mesh((2, 2), ("x", "y"), axis_types=(kind, kind))
    with jax.sharding.set_mesh(mesh):
        specs = P("x", "y"), P("y", "x"), P("x", "y")
        value, ours = both(*(jax.device_put(x, NamedSharding(mesh, s)) for x, s in zip(arrays, specs, strict=True)))
    np.testing.assert_allclose(value, expected, rtol=tolerance(REAL))
    for x, y in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(x, y, atol=1e-3 if jnp.finfo(REAL).bits == 32 else 1e-8)


def test_latent_attention():
    down, key, value = gaussian((9, 3), REAL), gaussian((3, 2, 4), REAL, 1), gaussian((3, 2, 5), REAL, 2)
    b, a = jn.latent_attention_factors(down, key, value)
    x = gaussian((9,), REAL, 3)
    joint = np.concatenate([np.einsum("d,dr,rhk->hk", x, down, up).ravel() for up in (key, value)])
    np.testing.assert_allclose(x @ np.asarray(b) @ np.asarray(a), joint, atol=tolerance(REAL))


@pytest.mark.parametrize(
    ("call", "kind", "words"),
    [
        (lambda b, a: jn.factored_norm(b, a[:-1], "nuc"), ValueError, r"b and a must have shapes .* got \(6, 2\)"),
        (lambda b, a: jn.factored_norm(b, a.astype(COMPLEX), "nuc"), TypeError, "b and a must have one type"),
        (lambda b, a: jn.factored_norm(b[0], a, "nuc"), ValueError, r"b must have shape \(\.\.\., m, n\)"),
        (lambda b, a: jn.factored_norm(b, a, jn.Entrywise(1)), ValueError, "unitarily invariant"),
        (lambda b, a: jn.factored_norm(b, a, 1), TypeError, "did you mean"),
        (lambda b, a: jn.factored_ky_fan_norm(b, a, 6), ValueError, r"k must be between 1 and min\(m, n\) = 5"),
        (lambda b, a: jn.factored_schatten_norm(b, a, 0.5), ValueError, "p must be a number >= 1"),
        (lambda b, a: jn.factored_operator(b, a, a), ValueError, "b, a and w must have shapes"),
        (lambda b, a: jn.factored_operator(b[None], a), ValueError, "b, a and w must have shapes"),
        (lambda b, a: jn.factored_operator(b, a, (b @ a).astype(COMPLEX)), TypeError, "w must have the type"),
        (lambda b, a: jn.latent_attention_factors(b, a[0], a), ValueError, "up_key must have shape"),
        (lambda b, a: jn.latent_attention_factors(b, a, a[:1]), ValueError, "same number of rows"),
    ],
)
def test_bad_arguments(call, kind, words):
    with pytest.raises(kind, match=words):
        call(gaussian((6, 2), REAL), gaussian((2, 5), REAL))
