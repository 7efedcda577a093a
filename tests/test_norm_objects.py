"""Norm objects: equality in canonical form, hashing, static under jit, and the functions they name."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matrices import REAL, gaussian, tolerance
from norm_cases import NORMS, inf, scaled_frobenius

import jaxnorms as jn
from jaxnorms import Dual, Entrywise, Induced, KyFan, Mixed, Schatten, UnitarilyInvariant

SAME = [
    (Schatten(2), Entrywise(2)),
    (Schatten(2.0), Schatten(2)),
    (Mixed(3, 3), Entrywise(3)),
    (Mixed(3, 3, axis=-2), Entrywise(3)),
    (Induced(1, 3), Mixed(3, inf)),
    (Induced(1, inf), Entrywise(inf)),
    (Induced(3, inf), Mixed(1.5, inf, axis=-2)),
    (Induced(2, 2), Schatten(inf)),
    (KyFan(1), Schatten(inf)),
    (KyFan(3, inf), Schatten(inf)),
    (Dual(Schatten(1)), Schatten(inf)),
    (Dual("nuc"), Schatten(inf)),
    (Dual(Schatten(7)), Schatten(7 / 6)),
    (Dual(Dual(Schatten(7))), Schatten(7)),
    (Dual(Mixed(2, 1)), Mixed(2, inf)),
    (Dual(Induced(1, 1)), Mixed(inf, 1)),
    (Dual(Dual(KyFan(3, 1.5))), KyFan(3, 1.5)),
    (Dual(Dual(Induced(2, 1))), Induced(2, 1)),
    (Dual(Dual(UnitarilyInvariant(scaled_frobenius))), UnitarilyInvariant(scaled_frobenius)),
]
DIFFERENT = [
    (Schatten(3), Entrywise(3)),
    (Mixed(2, 1), Mixed(2, 1, axis=-2)),
    (KyFan(2), KyFan(3)),
    (Dual(KyFan(2)), KyFan(2)),
    (Induced(2, 1), Induced(inf, 1)),
    (Dual(Induced(2, 1)), Induced(2, 1)),
    (Schatten(3), "nuc"),
]


@pytest.mark.parametrize("pair", SAME)
def test_equal_norms_compare_and_hash_equal(pair):
    assert pair[0] == pair[1]
    assert hash(pair[0]) == hash(pair[1])


@pytest.mark.parametrize("pair", DIFFERENT)
def test_different_norms_differ(pair):
    assert pair[0] != pair[1]


@pytest.mark.parametrize("name", NORMS)
def test_static_and_frozen(name):
    norm = NORMS[name]
    assert jax.tree.leaves(norm) == []
    assert jax.jit(lambda n, a: n(a))(norm, gaussian((4, 4), REAL)) == jax.jit(norm)(gaussian((4, 4), REAL))
    with pytest.raises(AttributeError):
        norm.p = 3
    assert type(norm).__name__ in repr(norm)


FUNCTIONS = [
    (jn.frobenius_norm, Entrywise(2)),
    (jn.spectral_norm, Schatten(inf)),
    (jn.nuclear_norm, Schatten(1)),
    (lambda a: jn.schatten_norm(a, 3), Schatten(3)),
    (lambda a: jn.ky_fan_norm(a, 2, 3), KyFan(2, 3)),
    (lambda a: jn.induced_norm(a, 1, 2), Induced(1, 2)),
    (lambda a: jn.entrywise_norm(a, 3), Entrywise(3)),
    (lambda a: jn.mixed_norm(a, 3, 1), Mixed(3, 1)),
    (lambda a: jn.unitarily_invariant_norm(a, scaled_frobenius), UnitarilyInvariant(scaled_frobenius)),
    (lambda a: jn.norm(a, KyFan(2)), KyFan(2)),
    (lambda a: jn.matrix_norm(a, ord=KyFan(2)), KyFan(2)),
]


@pytest.mark.parametrize(("function", "norm"), FUNCTIONS)
def test_functions_are_the_objects(function, norm):
    a = jnp.asarray(gaussian((2, 4, 3), REAL))
    np.testing.assert_array_equal(function(a), norm(a))


def test_a_gauge_object_is_the_named_norm():
    """``Dual(KyFan(k)).lift.gauge`` and the like serve as gauges of their own."""
    a = jnp.asarray(gaussian((4, 3), REAL))
    gauge = Dual(KyFan(2)).lift.gauge
    assert UnitarilyInvariant(gauge) == Dual(KyFan(2))
    assert UnitarilyInvariant(KyFan(2).lift.gauge) == KyFan(2)
    np.testing.assert_array_equal(UnitarilyInvariant(gauge)(a), Dual(KyFan(2))(a))


def test_bare_function_gauge():
    a = jnp.asarray(gaussian((4, 3), REAL))
    for function, norm in ((jnp.sum, Schatten(1)), (jnp.max, Schatten(inf))):
        value, g = jax.value_and_grad(UnitarilyInvariant(function))(a)
        expected = jax.value_and_grad(norm)(a)
        np.testing.assert_allclose(value, expected[0], rtol=tolerance(REAL))
        np.testing.assert_allclose(g, expected[1], atol=tolerance(REAL))
