"""NaN, infinite and subnormal numbers in every array that a public function takes: NaN in, NaN out, of derivatives in
both modes too, and for that matrix of a batch alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_bad_input import CALLS, INF, NAN, A, call

import jaxnorms as jn

# What a NaN gives in place of a NaN.
ANSWERS = {
    "fan_dominates": False,  # nothing is shown
    "init_spectral_norm": None,  # a state of random vectors, before the first look at the matrix
}


def numbers(name, of, bad):
    """The floating arrays in the result with ``bad`` in the place of one array, and ``A`` in those of the others."""
    arrays, rest = CALLS[name]
    leaves = jax.tree.leaves(call(name, {**dict.fromkeys(arrays, A), of: bad}, rest))
    return [x for x in leaves if isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jnp.inexact)]


@pytest.mark.parametrize("name", sorted(CALLS.keys() - ANSWERS.keys()))
def test_nan_in_nan_out(name):
    """Beside infinite entries, too."""
    bad = A.copy()
    bad[1, 2] = NAN
    mixed = bad.copy()
    mixed[0, 0], mixed[2, 2] = INF, -INF
    for of in CALLS[name][0]:
        for each in (bad, mixed):
            assert any(jnp.any(jnp.isnan(x)) for x in numbers(name, of, each)), of


# What has no derivative of its own there.
WITHOUT_DERIVATIVE = {
    "balanced_factors": "constants",
    "norm_bounds": "constants",
    "bauer_fike_bound": "raises ValueError for that in the matrix: test_perturbation.py",
    "factored_operator": "gives its arrays back",
    "latent_attention_factors": "gives its arrays back",
    "digits_left": "0, with derivative 0, of an infinite matrix as of a singular one",
}


@pytest.mark.parametrize("name", sorted(CALLS.keys() - ANSWERS.keys() - WITHOUT_DERIVATIVE.keys()))
def test_derivatives_of_what_is_not_finite_are_nan(name):
    """In both modes, and for that matrix of a batch alone."""
    rows = np.stack([A, A, A])
    rows[0, 1, 2], rows[2, 2, 2] = NAN, INF
    for of in CALLS[name][0]:

        def total(x, of=of):
            return sum(jnp.sum(y.real) for y in numbers(name, of, x))

        def derivatives(x, total=total):
            return jax.grad(total)(x), jax.jvp(total, (x,), (jnp.ones_like(x),))[1]

        for derivative in jax.jit(jax.vmap(derivatives))(rows):
            assert np.all(np.isnan(derivative[::2])), of
            assert np.all(np.isfinite(derivative[1])), of


ORDERS = {"sum": jn.Entrywise(1), "max": jn.Entrywise(INF), "3": jn.Entrywise(3), "columns": jn.Mixed(1, INF)}
MAPS = {
    "prox": lambda a, ord: jn.prox(a, 1.0, ord),
    "project": lambda a, ord: jn.project(a, 1.0, ord),
    "gradient of the envelope": lambda a, ord: jax.grad(lambda a: jn.moreau_envelope(a, 1.0, ord))(a),
    "clip": lambda a, ord: jn.clip_by_norm({"w": a}, 1.0, ord, by="projection")["w"],
}


@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize("ord", ORDERS.values(), ids=ORDERS.keys())
def test_derivatives_of_maps_of_entries_that_are_not_finite_are_nan(name, ord):
    """Of every entry, though the map may not look at all of them."""
    rows = np.stack([A, A, A])
    rows[0, 1, 2], rows[2, 2, 2] = NAN, INF
    g = jax.jit(jax.vmap(jax.grad(lambda a: jnp.sum(MAPS[name](a, ord)))))(rows)
    assert np.all(np.isnan(g[::2]))
    assert np.all(np.isfinite(g[1]))


@pytest.mark.parametrize("bad", [NAN, INF])
def test_derivatives_of_solutions_by_products_that_are_not_finite_are_nan(bad):
    def solution(params):
        op = jn.LinearOperator(params, lambda p, x: p @ x, lambda p, x: p.T @ x, (3, 3), jnp.float32)
        return jn.tikhonov_solve(op, jnp.ones(3), 1.0)

    params = jnp.asarray(A).at[1, 2].set(bad)
    value, slope = jax.jvp(solution, (params,), (jnp.ones_like(params),))
    gradient = jax.grad(lambda params: jnp.sum(solution(params)))(params)
    for found in (value, slope, gradient):
        assert np.all(np.isnan(found))


@pytest.mark.parametrize("name", sorted(CALLS.keys() - ANSWERS.keys() - {"digits_left"}))
def test_infinity_in_no_number_out(name):
    """Infinity or NaN; of the digits left, 0 are a number."""
    bad = A.copy()
    bad[1, 2] = INF
    for of in CALLS[name][0]:
        assert any(not jnp.all(jnp.isfinite(x)) for x in numbers(name, of, bad)), of


# What gives its arrays back, as they came.
AS_GIVEN = {"factored_operator", "latent_attention_factors"}


@pytest.mark.parametrize("name", sorted(CALLS.keys() - AS_GIVEN))
@pytest.mark.skipif(jax.default_backend() != "cpu", reason="other devices may keep subnormal numbers")
def test_subnormal_numbers_are_zeros(name):
    """As XLA flushes them on CPU: no quotient of what is flushed and what is not."""
    for of in CALLS[name][0]:
        for found, expected in zip(numbers(name, of, np.ldexp(A, -140)), numbers(name, of, 0 * A), strict=True):
            np.testing.assert_array_equal(found, expected)


def test_nan_dominates_nothing():
    bad = A.copy()
    bad[1, 2] = NAN
    assert not jn.fan_dominates(bad, A)
    assert not jn.fan_dominates(A, bad)


@pytest.mark.parametrize("ord", ["nuc", "fro", "spectral", jn.Entrywise(1), jn.KyFan(2), jn.Mixed(2, 1)], ids=str)
def test_an_infinite_entry_makes_the_envelope_infinite(ord):
    bad = np.stack([A, A, A])
    bad[0, 1, 2], bad[1, 0, 0] = INF, -INF
    value, gradient = jax.vmap(jax.value_and_grad(lambda a: jn.moreau_envelope(a, 1.0, ord)))(bad)
    assert jnp.all(jnp.isinf(value[:2]))
    assert jnp.all(jnp.isnan(gradient[:2]))
    assert jnp.isfinite(value[2])
    assert jnp.all(jnp.isfinite(gradient[2]))
