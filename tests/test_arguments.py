"""Bad arguments: one clear error that names the argument, what came and what is allowed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnorms as jn

MATRIX = jnp.ones((3, 4))

REFUSED = {
    "vector": (lambda: jn.spectral_norm(jnp.ones(64)), ValueError, r"\(64,\).*use vector_norm"),
    "scalar": (lambda: jn.frobenius_norm(2.0), ValueError, r"shape \(\)"),
    "string": (lambda: jn.nuclear_norm("a"), TypeError, "a must be"),
    "none": (lambda: jn.norm(None), TypeError, "x must be"),
    "p below one": (lambda: jn.schatten_norm(MATRIX, 0.5), ValueError, "p must be a number >= 1.*0.5"),
    "p nan": (lambda: jn.Entrywise(float("nan")), ValueError, "p must be"),
    "p string": (lambda: jn.Schatten("1"), TypeError, "p must be a number"),
    "p bool": (lambda: jn.Schatten(True), TypeError, "p must be a number"),
    "p complex": (lambda: jn.Schatten(1j), TypeError, "p must be a number"),
    "q below one": (lambda: jn.mixed_norm(MATRIX, 2, 0), ValueError, "q must be"),
    "mixed axis": (lambda: jn.Mixed(2, 1, axis=0), ValueError, "axis of Mixed must be -1"),
    "k zero": (lambda: jn.ky_fan_norm(MATRIX, 0), ValueError, "k must be at least 1, got 0"),
    "k too large": (lambda: jn.ky_fan_norm(MATRIX, 4), ValueError, r"k must be between 1 and min\(m, n\) = 3, got 4"),
    "k float": (lambda: jn.ky_fan_norm(MATRIX, 1.5), TypeError, "k must be an integer"),
    "dual k too large": (lambda: jn.Dual(jn.KyFan(4))(MATRIX), ValueError, "k must be between 1"),
    "hard pair": (lambda: jn.induced_norm(MATRIX, 3), ValueError, "NP-hard.*exact are 1 -> q, p -> inf and 2 -> 2"),
    "hard dual": (lambda: jn.Dual(jn.Induced(2, 1))(MATRIX), ValueError, "NP-hard"),
    "dual of a function": (lambda: jn.Dual(jn.UnitarilyInvariant(jnp.max))(MATRIX), ValueError, "dual of .* not known"),
    "gauge number": (lambda: jn.UnitarilyInvariant(3), TypeError, "gauge must be a function"),
    "dual number": (lambda: jn.Dual(1), TypeError, r"did you mean Entrywise\(1\) or Induced\(1, 1\)"),
    "dual word": (lambda: jn.Dual("operator"), ValueError, "'fro', 'nuc', 'spectral', got 'operator'"),
    "repeated axis": (lambda: jn.spectral_norm(jnp.ones((2, 3, 4)), axis=(1, -2)), ValueError, "distinct axes"),
    "axis range": (
        lambda: jn.spectral_norm(MATRIX, axis=(0, 2)),
        ValueError,
        "axis must name axes of an array with 2 axes",
    ),
    "axis count": (lambda: jn.spectral_norm(MATRIX, axis=(0,)), ValueError, "axis must name 2 axes"),
    "axis kind": (lambda: jn.norm(MATRIX, axis="rows"), TypeError, "axis must be"),
    "axis truth value": (lambda: jn.norm(MATRIX, axis=True), TypeError, "axis must be .* got True"),
    "axes truth values": (lambda: jn.spectral_norm(MATRIX, axis=(True, False)), TypeError, "axis must be"),
    "axis reals": (lambda: jn.spectral_norm(MATRIX, axis=jnp.ones(2)), TypeError, "axis must be"),
    "mixed axis real": (lambda: jn.Mixed(2, 1, axis=-1.0), TypeError, "axis of Mixed must be"),
    "mixed axis traced": (
        lambda: jax.jit(lambda i: jn.Mixed(2, 1, axis=i)(MATRIX))(-1),
        TypeError,
        "axis of Mixed must be static",
    ),
    "axis float": (lambda: jn.norm(MATRIX, axis=1.5), TypeError, "axis must be"),
    "three axes": (lambda: jn.norm(jnp.ones((2, 3, 4)), axis=(0, 1, 2)), ValueError, "one axis .* or two"),
    "rank three": (lambda: jn.norm(jnp.ones((2, 3, 4)), 2), ValueError, "1 or 2 axes"),
    "matrix order": (lambda: jn.norm(MATRIX, 3), ValueError, "ord must be 'fro', 'nuc'"),
    "vector order": (lambda: jn.norm(jnp.ones(3), "nuc"), ValueError, "real number for vectors"),
    "order list": (lambda: jn.norm(jnp.ones(3), [2]), TypeError, "real number for vectors"),
    "negative of empty": (lambda: jn.norm(jnp.ones((0, 3)), -2), ValueError, "empty array"),
    "matrix_norm of a vector": (lambda: jn.matrix_norm(jnp.ones(3)), ValueError, "use vector_norm"),
    "gauge of vectors": (lambda: jn.unitarily_invariant_norm(MATRIX, lambda s: s), ValueError, "real scalar"),
    "traced diagonal with axis": (
        lambda: jn.schatten_norm(MATRIX, jnp.ones(3), axis=(0, 1), diagonal=True),
        ValueError,
        "diagonal=True",
    ),
    "diagonal with axis": (lambda: jn.nuclear_norm(MATRIX, axis=(0, 1), diagonal=True), ValueError, "diagonal=True"),
    "singular values of a vector": (lambda: jn.singular_values(jnp.ones(3)), ValueError, r"\(\.\.\., m, n\)"),
    "traced p": (
        lambda: jax.jit(lambda p: jn.Schatten(p)(MATRIX))(2.0),
        TypeError,
        "p must be static, a number >= 1, got the traced value.*schatten_norm takes one",
    ),
    "traced p of Ky Fan": (
        lambda: jax.jit(lambda p: jn.KyFan(2, p))(2.0),
        TypeError,
        r"static, .* got the traced [^;]*$",
    ),
    "traced rtol": (
        lambda: jax.jit(lambda t: jn.pinv(MATRIX, t))(0.1),
        TypeError,
        r"static, .* got the traced [^;]*$",
    ),
    "p beyond a float": (lambda: jn.Schatten(10**400), ValueError, "p must be a number >= 1, got a number beyond"),
    "ord beyond a float": (lambda: jn.norm(MATRIX[0], -(10**400)), ValueError, "ord must be .* got a number beyond"),
    "traced k": (
        lambda: jax.jit(lambda k: jn.ky_fan_norm(MATRIX, k))(2),
        TypeError,
        "k must be static, an integer, got the traced",
    ),
    "traced ord": (lambda: jax.jit(lambda p: jn.norm(MATRIX[0], p))(2.0), TypeError, "static.*traced"),
    "keys": (lambda: jn.frobenius_norm(jax.random.key(0)), TypeError, "a must be"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case):
    call, kind, message = REFUSED[case]
    with pytest.raises(kind, match=message):
        call()


def test_numpy_arrays_name_axes_and_sides():
    """Sequences of integers, as ``np.linalg.norm`` takes them."""
    a = jnp.arange(24.0).reshape(2, 3, 4)
    np.testing.assert_array_equal(jn.frobenius_norm(a, axis=np.array([0, 1])), jn.frobenius_norm(a, axis=(0, 1)))
    np.testing.assert_array_equal(jn.nuclear_norm(a, axis=np.array([-2, -1]), diagonal=True), jnp.sum(a, axis=2))
    np.testing.assert_array_equal(jn.vector_norm(a, axis=np.int8(1)), jn.vector_norm(a, axis=1))
    assert jn.explain(np.array([3, 3]), "float32", "nuc") == jn.explain((3, 3), "float32", "nuc")
    assert jn.equivalence_constant("nuc", "fro", np.array([3, 3])) == jn.equivalence_constant("nuc", "fro", (3, 3))
