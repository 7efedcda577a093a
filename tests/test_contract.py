"""The rest of the contract: types, bad values, empty arrays, axes, batches, diagonals, vectors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matrices import COMPLEX, DTYPES, REAL, factory, gaussian, prescribed, tolerance
from norm_cases import NORMS, defined, every_norm

import jaxnorms as jn


def close(actual, expected, dtype=REAL, factor=100):
    np.testing.assert_allclose(actual, expected, rtol=tolerance(dtype, factor), atol=tolerance(dtype, factor))


@every_norm
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16], ids=lambda d: d.dtype.name)
def test_half_precision(name, dtype):
    """Computed in float32, returned in the type that came; derivatives too."""
    a = jnp.asarray(prescribed(np.array([3.0, 2.0, 2.0]), (9, 3), np.float32), dtype)
    value, g = jax.jit(jax.value_and_grad(NORMS[name]))(a)
    wide, g_wide = jax.jit(jax.value_and_grad(NORMS[name]))(a.astype(jnp.float32))
    assert value.dtype == g.dtype == dtype
    np.testing.assert_array_equal(value, wide.astype(dtype))
    np.testing.assert_array_equal(g, g_wide.astype(dtype))


@pytest.mark.parametrize("dtype", ["int32", "uint8", "bool"])
def test_integers_promote_as_jnp_does(dtype):
    a = jnp.asarray([[1, 0], [1, 1]], dtype)
    for ord in ("fro", "nuc", 1, 2):
        assert jn.norm(a, ord).dtype == jnp.linalg.norm(a, ord).dtype
        np.testing.assert_allclose(jn.norm(a, ord), jnp.linalg.norm(a, ord), rtol=1e-6)


@every_norm
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_nan_and_infinity_stay_in_their_row(name, dtype):
    norm = NORMS[name]
    good = gaussian((5, 4), dtype)
    rows = np.stack([good, good, good, good, np.zeros_like(good)])
    rows[1, 2, 1] = np.nan
    rows[2, 0, 3] = np.inf
    rows[3, 0, 0], rows[3, 1, 1] = -np.inf, np.nan

    @jax.jit
    def everything(a):
        value, g = jax.vmap(jax.value_and_grad(norm))(a)
        return value, g, *(jax.vmap(product)(a) for product in (forward, reverse, mixed))

    def forward(a):
        return jax.jvp(jax.grad(norm), (a,), (jnp.ones_like(a),))[1]

    def reverse(a):
        return jax.vjp(jax.grad(norm), a)[1](jnp.ones_like(a))[0]

    def mixed(a):
        return jax.grad(lambda a: jax.jvp(norm, (a,), (jnp.ones_like(a),))[1])(a)

    value, *derivatives = everything(rows)
    assert np.isfinite(value[0])
    assert np.isnan(value[1])
    assert value[2] == np.inf
    assert np.isnan(value[3])
    assert value[4] == 0
    for derivative in derivatives:
        assert np.all(np.isfinite(derivative[np.array([0, 4])]))
        assert np.all(np.isnan(derivative[1:4]))
    np.testing.assert_array_equal(derivatives[0][4], 0)


def test_singular_values_of_non_finite_matrices():
    rows = np.stack([np.eye(3), np.eye(3), np.eye(3)]).astype(REAL)
    rows[1, 0, 1], rows[2, 1, 1] = np.nan, np.inf
    s, t = jax.jvp(jn.singular_values, (jnp.asarray(rows),), (jnp.ones((3, 3, 3), REAL),))
    close(s[0], np.ones(3))
    assert np.all(np.isnan(s[1]))
    assert np.all(np.isinf(s[2]))
    assert np.all(np.isfinite(t[0]))
    assert np.all(np.isnan(t[1:]))


@every_norm
def test_empty_matrices(name):
    norm = NORMS[name]
    for shape in ((0, 3), (3, 0), (0, 0)):
        assert norm(jnp.zeros(shape, REAL)) == 0
        assert jax.grad(norm)(jnp.zeros(shape, REAL)).shape == shape
    assert norm(jnp.zeros((2, 0, 3), REAL)).shape == (2,)
    assert norm(jnp.zeros((0, 4, 3), REAL)).shape == (0,)
    assert jn.singular_values(jnp.zeros((2, 0, 3), REAL)).shape == (2, 0)


@every_norm
def test_axes_and_keepdims(name):
    norm = NORMS[name]
    x = jnp.asarray(gaussian((4, 2, 9, 3), REAL))
    expected = norm(jnp.moveaxis(x, (2, 0), (-2, -1)))
    close(norm(x, axis=(2, 0)), expected)
    kept = norm(x, axis=(2, 0), keepdims=True)
    assert kept.shape == (1, 2, 1, 3)
    close(kept[0, :, 0], expected)
    close(expected[1, 2], norm(x[:, 1, :, 2].T))


@every_norm
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_diagonal(name, dtype):
    """The norm of diag(d) from d alone, and its derivative: the diagonal of G."""
    norm = NORMS[name]
    d = jnp.asarray(np.stack([[3, -2, 2, 1], [1, 1, 1, 1], [2, 0, 0, 0], [0, 0, 0, 0], [1, 2, 3, 4]]), dtype)
    d = d * jnp.asarray(1j, dtype) if dtype == COMPLEX else d

    @jax.jit
    def both(d):
        value, g = jax.vmap(jax.value_and_grad(lambda d: norm(d, diagonal=True)))(d)
        dense, g_dense = jax.vmap(jax.value_and_grad(norm))(jax.vmap(jnp.diag)(d))
        return value, g, dense, jax.vmap(jnp.diag)(g_dense)

    value, g, dense, g_dense = both(d)
    close(value, dense, dtype)
    close(g, g_dense, dtype)
    assert norm(d, diagonal=True, keepdims=True).shape == (5, 1, 1)


@every_norm
def test_vectors_as_matrices(name):
    """One column: every unitarily invariant norm is the l_2 norm times its value at e_1."""
    if not defined(name, (6, 1)):
        pytest.skip("Ky Fan norms need k <= min(m, n)")
    x = jnp.asarray(gaussian((6, 1), REAL))
    wide = jnp.concatenate([x, jnp.zeros((6, 1), REAL)], axis=1)
    close(NORMS[name](x), NORMS[name](wide))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_two_by_two_closed_form(dtype):
    """Against LAPACK over graded, tied, singular and random matrices, to the rounding of s_1."""
    a = np.concatenate([factory((2, 2), dtype)[1], gaussian((200, 2, 2), dtype)])
    size = np.maximum(np.max(np.abs(a), axis=(1, 2)), np.finfo(dtype).tiny)[:, None]
    s = jax.jit(jn.singular_values)(a)
    exact = np.linalg.svd((a / size[:, :, None]).astype(np.complex128), compute_uv=False)
    np.testing.assert_allclose(s / size, exact, atol=tolerance(dtype, 10))
    assert np.all(s[:, 0] >= s[:, 1])


def test_scaling_is_needed():
    """Values near the ends of the range, where the unscaled sums overflow or vanish."""
    largest, smallest = float(jnp.finfo(REAL).max), float(jnp.finfo(REAL).tiny)
    for size in (largest / 16, smallest * 16):
        a = jnp.full((3, 4), REAL.type(size))
        expected = {
            "frobenius": 12**0.5,
            "spectral": 12**0.5,
            "nuclear": 12**0.5,
            "entrywise_3": 12 ** (1 / 3),
            "sum": 12,
        }
        for name, factor in expected.items():
            close(NORMS[name](a) / size, factor)
            assert np.all(np.isfinite(jax.grad(NORMS[name])(a)))


@pytest.mark.parametrize("name", ["entrywise_3", "entrywise_1.5", "mixed_3_1.5", "frobenius", "schatten_4"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_just_below_the_largest_number(name, dtype):
    """A quotient by a number whose reciprocal is flushed to zero."""
    a = np.array([[0.27, 0.09], [0, 0.1]], dtype)
    largest = float(jnp.finfo(REAL).max)
    value, g = jax.jit(jax.value_and_grad(NORMS[name]))(jnp.asarray(a * REAL.type(largest)))
    expected, g_expected = jax.value_and_grad(NORMS[name])(a)
    close(value / REAL.type(largest), expected)
    close(g, g_expected, dtype)


@pytest.mark.parametrize("name", ["frobenius", "entrywise_3", "mixed_2_1", "nuclear", "spectral", "ky_fan_2_2"])
@pytest.mark.parametrize("exponent", [120, -110])
def test_second_derivatives_over_the_range(name, exponent):
    """H(cA)[cE] = H(A)[E] for c near the ends of the range."""
    a, e, c = gaussian((9, 3), REAL), gaussian((9, 3), REAL, 1), REAL.type(2.0**exponent)
    along = jax.jit(lambda a, e: jax.jvp(jax.grad(NORMS[name]), (a,), (e,))[1])
    close(along(c * a, c * e), along(a, e), factor=500)


def test_diagonal_of_a_dual():
    """Where both parts of the dual Ky Fan norm attain it, also within the rounding of the sum."""
    for d in ([3, 2, 2, 2], [0.7, 0.4, 0.5, 0.5]):
        d = jnp.asarray(d, REAL)
        g = jax.grad(lambda d: jn.Dual(jn.KyFan(3))(d, diagonal=True))(d)
        close(g, jnp.diag(jax.grad(jn.Dual(jn.KyFan(3)))(jnp.diag(d))))
    large = jnp.full(4, REAL.type(1e38))
    close(jn.Dual(jn.KyFan(2, 2))(large, diagonal=True) / REAL.type(1e38), 8**0.5)


def test_signs_come_from_the_unscaled_entries():
    big, small = REAL.type(2.0**100), REAL.type(2.0**-40)
    a = jnp.asarray([[big, -small]], REAL)
    close(jax.grad(jn.Entrywise(1))(a), [[1, -1]])
    close(jax.grad(jn.Mixed(2, 1))(a), [[1, -1]])
    close(jax.grad(jn.Induced(np.inf, np.inf))(a), [[1, -1]])


ORDERS_BELOW_ONE = {
    # order: (value, gradient) at [2, -1, 1]; at [0, 3, 4] the zero has derivative 0.
    0: (3, [0, 0, 0]),
    -np.inf: (1, [0, -0.5, 0.5]),
    -1: (0.4, [0.04, -0.16, 0.16]),
    0.5: ((2**0.5 + 2) ** 2, [(2**0.5 + 2) * 2**-0.5, -(2**0.5 + 2), 2**0.5 + 2]),
}


@pytest.mark.parametrize("ord", ORDERS_BELOW_ONE)
def test_orders_below_one(ord):
    """No norms, but finite, documented derivatives: averaged over ties, 0 at zeros."""

    def f(x):
        return jn.norm(x, ord)

    value, g = ORDERS_BELOW_ONE[ord]
    x = jnp.asarray([2, -1, 1], REAL)
    close(f(x), value)
    close(jax.grad(f)(x), g)
    for x in ([0, 3, 4], [0, 0, 0], [2, -1, 1]):
        x = jnp.asarray(x, REAL)
        np.testing.assert_allclose(f(x), jnp.linalg.norm(x, ord), rtol=1e-6)
        assert np.all(np.isfinite(jax.grad(f)(x)))
        assert np.all(np.isfinite(jax.hessian(f)(x)))
    assert jax.grad(f)(jnp.asarray([0, 3, 4], REAL))[0] == 0


def test_smallest_singular_value_and_sums():
    a = jnp.asarray(np.diag([3, 1, 1]), REAL)
    close(jax.grad(lambda a: jn.norm(a, -2))(a), np.diag([0, 0.5, 0.5]))
    close(jax.grad(lambda a: jn.norm(a, -1))(a), np.diag([0, 0.5, 0.5]))
    close(jax.grad(lambda a: jn.norm(a, -np.inf))(a), np.diag([0, 0.5, 0.5]))
    singular = jnp.asarray(np.diag([3, 1, 0]), REAL)
    for ord in (-1, -2, -np.inf):
        close(jax.grad(lambda a, ord=ord: jn.norm(a, ord))(singular), np.zeros((3, 3)))
        assert np.all(np.isfinite(jax.hessian(lambda a, ord=ord: jn.norm(a, ord))(a)))


def test_no_recompilation_and_no_global_state():
    before = jax.config.jax_enable_x64
    compiled = jax.jit(jn.Schatten(3), static_argnames=("axis", "keepdims"))
    for seed in range(5):
        compiled(gaussian((3, 3), REAL, seed))
    assert compiled._cache_size() == 1
    apply = jax.jit(lambda norm, a: norm(a))
    for norm in (jn.Schatten(3), jn.Schatten(3.0), jn.Schatten(np.float32(3))):
        apply(norm, gaussian((3, 3), REAL))
    assert apply._cache_size() == 1
    assert jax.config.jax_enable_x64 == before
