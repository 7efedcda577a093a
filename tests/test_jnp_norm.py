"""Agreement with ``jnp.linalg.norm``: value, shape and dtype for every order, axis and ``keepdims`` that it accepts."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from peers import X64

import jaxnorms as jn

VECTOR_ORDERS = (None, 0, 1, 2, 3, 0.5, 2.5, -1, -2, -3, np.inf, -np.inf)
MATRIX_ORDERS = (None, "fro", "nuc", 1, 2, -1, -2, np.inf, -np.inf)
SHAPES = ((), (5,), (0,), (3, 4), (0, 3), (2, 3, 4), (0, 3, 4), (2, 0, 4))
DTYPES = ("float32", "complex64", "int32", "bool") + ("float64", "complex128", "int64") * X64
CASES = [case for case in itertools.product(SHAPES, DTYPES) if len(case[0]) < 3 or case[1] in ("float32", "complex64")]


def sample(shape, dtype):
    rng = np.random.default_rng(len(shape))
    x = 3 * rng.standard_normal(shape)
    if dtype == "bool":
        return jnp.asarray(x > 0)
    return jnp.asarray((x + 1j * rng.standard_normal(shape) if "complex" in dtype else x).astype(dtype))


def calls(shape, keepdims=(False, True)):
    """Every (ord, axis, keepdims) that ``jnp.linalg.norm`` accepts for the shape."""
    ndim = len(shape)
    whole = {1: VECTOR_ORDERS, 2: MATRIX_ORDERS}.get(ndim, (None,))
    pairs = [(-1, -2), *itertools.permutations(range(ndim), 2)] if ndim >= 2 else []
    yield from itertools.product(whole, [None], keepdims)
    yield from itertools.product(VECTOR_ORDERS, [(0,), *range(-1, ndim)] if ndim else [], keepdims)
    yield from itertools.product(MATRIX_ORDERS, pairs, keepdims)


def undefined(shape, ord, axis):
    """Whether it is a negative order of no entries, refused here; jnp.linalg.norm gives 0, inf or a ValueError."""
    negative = isinstance(ord, int | float) and ord < 0
    return negative and 0 in (shape if axis is None else np.take(shape, np.atleast_1d(axis)))


@pytest.mark.parametrize(("shape", "dtype"), CASES, ids=str)
def test_equals_jnp(shape, dtype):
    x = sample(shape, dtype)
    keepdims = (False, True) if x.ndim < 3 or x.size == 0 else (False,)  # the rest: NumPy's test_keepdims
    accepted = [call for call in calls(shape, keepdims) if not undefined(shape, call[0], call[1])]
    expected = jax.jit(lambda x: [jnp.linalg.norm(x, *call) for call in accepted])(x)
    actual = jax.jit(lambda x: [jn.norm(x, *call) for call in accepted])(x)
    for call, a, e in zip(accepted, actual, expected, strict=True):
        assert (a.shape, a.dtype) == (e.shape, e.dtype), call
        tolerance = 30 * np.finfo(e.dtype).eps
        np.testing.assert_allclose(a, e, rtol=tolerance, atol=tolerance, err_msg=str(call))


@pytest.mark.parametrize("shape", [(0,), (0, 3), (2, 0, 4)], ids=str)
def test_negative_order_of_empty(shape):
    for call in calls(shape):
        if undefined(shape, call[0], call[1]):
            with pytest.raises(ValueError, match="not defined for an empty array"):
                jn.norm(jnp.zeros(shape), *call)


def test_frobenius_by_its_short_name():
    x = sample((2, 3, 4), "float32")
    np.testing.assert_array_equal(jn.norm(x, "f", (1, 2)), jn.norm(x, "fro", (1, 2)))
