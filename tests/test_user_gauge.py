"""A user's function as a gauge: what it closes over, and the check that it is one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from matrices import COMPLEX, DTYPES, REAL, gaussian, needs_double, prescribed, tolerance
from norm_cases import largest_plus_sum

import jaxnorms as jn

inf = float("inf")
WEIGHTS = jnp.asarray([1.0, 0.5, 0.25], REAL)


def weighted(a, w, **options):
    """``(sum_i w_i s_i^2)^(1/2)`` over descending singular values, with w closed over."""

    def gauge(s):
        return jnp.sqrt(jnp.sum(w * jnp.square(jnp.sort(s, descending=True))))

    return jn.unitarily_invariant_norm(a, gauge, **options)


def close(actual, expected, factor=100):
    np.testing.assert_allclose(actual, expected, rtol=tolerance(REAL, factor), atol=tolerance(REAL, factor))


@needs_double
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_derivatives_in_the_matrix_and_in_what_is_closed_over(dtype):
    a = jnp.asarray(prescribed(np.array([3.0, 2.0, 1.0]), (4, 3), dtype))
    check_grads(jax.jit(weighted), (a, WEIGHTS), order=2, modes=["fwd", "rev"], atol=1e-6, rtol=1e-6)


@needs_double
def test_derivatives_at_ties_and_zeros():
    """Equal weights leave a norm that is smooth at ties; at zeros the second derivatives are finite."""
    slopes = jax.grad(weighted, argnums=(0, 1))
    along = jax.jit(lambda a, w, *e: jax.jvp(slopes, (a, w), e)[1])
    slopes, step = jax.jit(slopes), 1e-5
    w, e, d = jnp.asarray([1.0, 1.0, 0.5]), jnp.asarray(gaussian((3, 4), REAL)), jnp.asarray([1.0, 1.0, -2.0])
    a = jnp.asarray(prescribed(np.array([2.0, 2.0, 1.0]), (3, 4), REAL))
    forward, backward = (slopes(a + h * e, w + h * d) for h in (step, -step))
    for ours, x, y in zip(along(a, w, e, d), forward, backward, strict=True):
        np.testing.assert_allclose(ours, (x - y) / (2 * step), atol=1e-6)
    for s in ([2.0, 1.0, 0.0], [0.0, 0.0, 0.0]):
        deficient = jnp.asarray(prescribed(np.array(s), (3, 4), REAL))
        for g in (*slopes(deficient, w), *along(deficient, w, e, d)):
            assert np.all(np.isfinite(g))


def test_every_way_of_tracing_gives_the_same():
    a = jnp.asarray(gaussian((2, 4, 3), REAL))
    w = jnp.stack([WEIGHTS, jnp.ones(3, REAL)])
    s = np.linalg.svd(np.asarray(a), compute_uv=False)
    expected = np.sqrt(np.sum(np.asarray(w)[:, None] * s[None] ** 2, -1))
    close(weighted(a, w[1]), expected[1])
    close(jax.jit(weighted)(a, w[1]), expected[1])
    close(jax.vmap(weighted, in_axes=(None, 0))(a, w), expected)
    close(jax.jit(jax.vmap(weighted))(a, w), np.diag(expected))
    close(jax.lax.map(lambda w: weighted(a, w), w), expected)
    slopes = jax.grad(weighted, argnums=(0, 1))
    g = jax.vmap(slopes)(a, w)
    slopes = jax.jit(slopes)
    one = [slopes(a[i], w[i]) for i in range(2)]
    for i in range(2):
        close(g[0][i], one[i][0])
        close(g[1][i], one[i][1])
        close(one[i][1], s[i] ** 2 / (2 * expected[i, i]))


def test_options_of_the_norms():
    a, w = jnp.asarray(gaussian((3, 2, 4), REAL)), WEIGHTS
    moved = jnp.moveaxis(a, 1, 0)
    f = jax.jit(lambda w: weighted(a, w, axis=(0, 2), keepdims=True))
    close(f(w)[0, :, 0], jax.jit(lambda w: weighted(moved, w))(w))
    d = jnp.asarray([1.0, -3.0, 2.0], REAL)
    value, g = jax.jit(jax.value_and_grad(lambda d, w: weighted(d, w, diagonal=True), argnums=(0, 1)))(d, w)
    dense, g_dense = jax.value_and_grad(lambda d, w: weighted(jnp.diag(d), w), argnums=(0, 1))(d, w)
    close(value, dense)
    close(g[0], g_dense[0])
    close(g[1], g_dense[1])
    half = jax.jit(lambda a, w: jn.unitarily_invariant_norm(a, lambda s: jnp.sum(s) * w.astype(s.dtype)))(
        moved.astype(jnp.bfloat16), w[0]
    )
    assert half.dtype == jnp.bfloat16
    assert jax.jit(weighted)(jnp.zeros((0, 3), REAL), w) == 0


def test_scale_and_bad_rows():
    a = jnp.asarray(gaussian((4, 3), REAL))
    value, g = jax.jit(jax.value_and_grad(weighted, argnums=(0, 1)))(a * 2.0**80, WEIGHTS)
    close(value, weighted(a, WEIGHTS) * 2.0**80)
    close(g[0], jax.grad(weighted)(a, WEIGHTS))
    rows = jnp.stack([a, a.at[0, 0].set(jnp.nan), a.at[1, 1].set(inf)])
    value, g = jax.jit(jax.vmap(jax.value_and_grad(weighted), in_axes=(0, None)))(rows, WEIGHTS)
    close(value[0], weighted(a, WEIGHTS))
    assert np.isnan(value[1])
    assert np.isinf(value[2])
    assert np.all(np.isfinite(g[0]))
    assert np.all(np.isnan(g[1:]))


@pytest.mark.parametrize("kind", ["int8", "int32", "uint32", "bool", "bfloat16", "complex64"])
def test_closed_over_values_of_any_type(kind):
    """Exact for integers of any size, and no derivative flows through them."""
    a = jnp.asarray(gaussian((4, 3), REAL))
    big = jnp.asarray(-(2**31) + 12345, "int32") if kind == "int32" else jnp.asarray(1, kind)

    @jax.jit
    def f(a, c, w):
        def gauge(s):
            same = c == big
            return jnp.sum(s) * w * jnp.where(same, 2, 7).astype(s.dtype)

        return jn.unitarily_invariant_norm(a, gauge)

    w = jnp.asarray(1.5, REAL)
    close(f(a, big, w), 3 * jn.nuclear_norm(a))
    close(jax.jit(jax.vmap(f, in_axes=(None, 0, None)))(a, jnp.stack([big, big]), w), [3 * jn.nuclear_norm(a)] * 2)
    close(jax.jit(jax.grad(f, argnums=2))(a, big, w), 2 * jn.nuclear_norm(a))
    other = ~big if kind == "bool" else big + jnp.ones_like(big)
    close(f(a, other, w), 10.5 * jn.nuclear_norm(a))


@needs_double
def test_complex_closed_over_values_are_differentiated():
    a, z = jnp.asarray(gaussian((4, 3), COMPLEX)), jnp.asarray(1 + 2j, COMPLEX)

    @jax.jit
    def f(a, z):
        return jn.unitarily_invariant_norm(a, lambda s: jnp.sum(s) * jnp.abs(z) + jnp.max(s) * z.real)

    check_grads(f, (a, z), order=1, modes=["fwd", "rev"], atol=1e-6, rtol=1e-6)


def test_plain_functions_stay_static():
    count = []

    def gauge(s):
        count.append(s)
        return jnp.sum(s)

    a = jnp.asarray(gaussian((4, 3), REAL))
    traced = jax.jit(lambda a: jn.unitarily_invariant_norm(a, gauge))
    traced(a)
    before = len(count)
    traced(a)
    assert len(count) == before
    values = [jn.unitarily_invariant_norm(a, gauge) for _ in range(3)]
    # To be looked at for what it closes over takes one abstract evaluation; nothing is compiled again.
    assert len(count) <= before + 6
    assert values[0] == values[2] == jn.UnitarilyInvariant(gauge)(a)


GAUGES = {
    "sum": jnp.sum,
    "max": jnp.max,
    "both": largest_plus_sum,
    "one third": lambda s: jnp.sum(s) / 3,
    "ky fan": lambda s: jnp.sum(jax.lax.top_k(s, min(2, len(s)))[0]),
    "l3": lambda s: jnp.sum(s**3) ** (1 / 3),
    "jitted": jax.jit(jnp.sum),
    "array": lambda s: jnp.sum(s) * jnp.asarray(2, s.dtype),
    "object": jn.Dual(jn.KyFan(1)).lift.gauge,
}


@pytest.mark.parametrize("name", GAUGES)
@pytest.mark.parametrize("n", [1, 3, 40])
def test_check_passes_gauges(name, n):
    a = jnp.eye(n, n + 1, dtype=REAL)
    expected = jn.unitarily_invariant_norm(a, GAUGES[name])
    assert jn.unitarily_invariant_norm(a, GAUGES[name], check=True) == expected


def test_check_works_under_every_transformation():
    def f(a):
        return jn.unitarily_invariant_norm(a, largest_plus_sum, check=True)

    a = jnp.asarray(gaussian((2, 4, 3), REAL))
    close(jax.jit(jax.vmap(jax.grad(f)))(a), jax.grad(lambda a: jnp.sum(f(a)))(a))


NO_GAUGES = {
    "symmetric": (lambda s: jnp.sum(s * jnp.arange(1, len(s) + 1).astype(s.dtype)), r"it is 1 at \[1\. 0\. 0\.\]"),
    "positively homogeneous": (lambda s: jnp.sum(s**2), r"and 9 at \[3\. 0\. 0\.\]"),
    "monotone": (lambda s: 1.2 * jnp.max(s) - 0.2 * jnp.min(s), "it is"),
    "subadditive": (lambda s: jnp.sum(jnp.sqrt(s)) ** 2, "and .* and"),
    "zero at zero": (lambda s: jnp.sum(s) + 1, "it is 1"),
    "finite and positive": (lambda s: jnp.sum(s) - jnp.max(s), "it is 0"),
    "finite and positive: nan": (lambda s: jnp.sum(s) + 0 / (jnp.max(s) - 1), "it is nan"),
}


@pytest.mark.parametrize("claim", NO_GAUGES)
def test_check_refuses_with_a_witness(claim):
    gauge, witness = NO_GAUGES[claim]
    a = jnp.eye(3, dtype=REAL)
    names = "zero at zero|finite and positive" if "nan" in claim else claim
    with pytest.raises(ValueError, match=f"gauge is not ({names}): .*{witness}"):
        jn.unitarily_invariant_norm(a, gauge, check=True)


def test_traced_values_are_refused_by_a_norm_object():
    a = jnp.eye(3)
    for transformed in (jax.grad, jax.jit):
        with pytest.raises(ValueError, match=r"must not close over traced values .* use unitarily_invariant_norm"):
            transformed(lambda w: jn.UnitarilyInvariant(lambda s: w * jnp.sum(s))(a))(2.0)
    two = jnp.asarray(2.0, REAL)
    np.testing.assert_allclose(jn.UnitarilyInvariant(lambda s: two * jnp.sum(s))(a), 6)
    with pytest.raises(ValueError, match=r"traced numbers only, got a value of type key"):
        jax.jit(lambda key: jn.unitarily_invariant_norm(a, lambda s: jnp.sum(s) * jax.random.uniform(key, dtype=REAL)))(
            jax.random.key(0)
        )


def test_errors():
    a = jnp.eye(3, dtype=REAL)
    with pytest.raises(ValueError, match="check must be False for a gauge that closes over traced values"):
        jax.jit(lambda w: weighted(a, w, check=True))(WEIGHTS)
    close(weighted(a, WEIGHTS * 0 + 1, check=True), 3**0.5)  # concrete: it can be checked
    for options in ({}, {"check": True}):
        with pytest.raises(ValueError, match=r"real scalar, got shape \(3,\)"):
            jn.unitarily_invariant_norm(a, lambda s: s, **options)
    with pytest.raises(ValueError, match="real scalar, got 2 arrays"):
        jax.jit(lambda w: jn.unitarily_invariant_norm(a, lambda s: (jnp.sum(s * w), s)))(WEIGHTS)
    with pytest.raises(TypeError, match="gauge must be a function"):
        jn.unitarily_invariant_norm(a, 3)
    with pytest.raises(TypeError, match="unexpected keyword 'checks'"):
        jn.unitarily_invariant_norm(a, jnp.sum, checks=True)
    with pytest.raises(ValueError, match="third derivatives"):
        jax.eval_shape(jax.jacfwd(jax.hessian(weighted, argnums=1), argnums=1), a, WEIGHTS)
