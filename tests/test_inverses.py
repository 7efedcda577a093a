"""Inverses of matrices, regularised or not, and other functions that a power of two passes through."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matrices import COMPLEX, DTYPES, REAL, gaussian, hermitian_stack, prescribed, tolerance

import jaxnorms as jn

dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=str)


@pytest.mark.parametrize(("shape", "dtype"), [((9, 4), COMPLEX), ((4, 9), REAL)], ids=str)
def test_inverses(shape, dtype):
    a, e, h = (jnp.asarray(gaussian((2, *shape), dtype, seed)) for seed in (0, 1, 2))
    lam = jnp.asarray([0.5, 2.0], REAL)

    def adjoint(a):
        return jnp.swapaxes(a, -1, -2).conj()

    def exact(a, lam):
        shift = lam[:, None, None].astype(dtype) * jnp.eye(shape[1], dtype=dtype)[None]
        return jnp.linalg.solve(adjoint(a) @ a + shift, adjoint(a))

    def inverse(a, lam):
        small = a @ adjoint(a) if shape[0] < shape[1] else adjoint(a) @ a
        return adjoint(a) @ jnp.linalg.inv(small) if shape[0] < shape[1] else jnp.linalg.inv(small) @ adjoint(a)

    def two(f, a, lam):
        def one(a, lam):
            return jax.jvp(f, (a, lam), (e, lam))[1]

        return f(a, lam), one(a, lam), jax.jvp(one, (a, lam), (h, lam))[1]

    for f, g in ((jn.regularized_inverse, exact), (lambda a, lam: jn.pinv(a), inverse)):
        for x, y in zip(jax.jit(partial(two, f))(a, lam), jax.jit(partial(two, g))(a, lam), strict=True):
            limit = 40 * tolerance(REAL, 1.0) ** (2 / 3)
            np.testing.assert_allclose(x, y, atol=limit * np.max(np.abs(y)))


# With the degree in the matrix; of the logarithm the derivatives alone are homogeneous.
HOMOGENEOUS = {
    "pinv": (lambda a, size: jn.pinv(a), -1),
    "regularized_inverse": (lambda a, size: jn.regularized_inverse(a, size**2 / 2), -1),
    "regularized_inverse, hermitian": (lambda a, size: jn.regularized_inverse(a, size**2 / 2, hermitian=True), -1),
    "matrix_sqrt": (lambda a, size: jn.matrix_sqrt(a), 0.5),
    "matrix_log": (lambda a, size: jn.matrix_log(a), 0),
}


@pytest.mark.parametrize(("name", "dtype"), [*((name, REAL) for name in HOMOGENEOUS), ("pinv", COMPLEX)], ids=str)
def test_derivatives_over_the_whole_range(name, dtype):
    """Of reciprocals they are squares and cubes; ``lam``, a square too, is in range for half the exponents alone."""
    f, degree = HOMOGENEOUS[name]
    shape = (5, 3) if name in ("pinv", "regularized_inverse") else (3, 3)
    q, (e, h) = prescribed(np.ones(3), shape, dtype), (gaussian(shape, dtype, i) for i in (1, 2))
    a = (q * np.array([3, 2, 1], REAL)) @ (q[:3] if shape == (5, 3) else q).conj().T

    @jax.jit
    def derivatives(size, a, e, h):
        def bent(a):
            return jax.jvp(lambda a: f(a, size), (a,), (e,))[1]

        def gradient(a):
            return back_to(a)[0]

        value = f(a, size)
        weights = jnp.resize(jnp.arange(1, 8), value.shape).astype(value.dtype)
        weights *= (size if degree < 0 else 1 + 0 * size).astype(value.dtype)

        def back_to(a):
            return jax.vjp(lambda a: f(a, size), a)[1](weights)

        bends = jax.jvp(bent, (a,), (h,))[1], jax.vjp(gradient, a)[1](h)[0], jax.jvp(gradient, (a,), (h,))[1]
        return value, bent(a), *bends, gradient(a)

    exact = derivatives(REAL.type(1), a, e, h)
    for power in (96, -96) if REAL.itemsize == 4 else (800, -800):
        power = power // 2 if "regularized" in name else power
        found = derivatives(REAL.type(2.0**power), *(x * REAL.type(2.0**power) for x in (a, e, h)))
        for i, (x, y) in enumerate(zip(found, exact, strict=True)):
            if i == 0 and name == "matrix_log":
                y = np.asarray(y) + power * math.log(2) * np.eye(3)
            shift = degree if i < 3 or degree < 0 else degree - 1
            np.testing.assert_allclose(
                np.asarray(x) * REAL.type(2.0 ** (-power * shift)), y, atol=tolerance(REAL, 200), err_msg=str(i)
            )


@pytest.mark.parametrize("hermitian", [False, True])
def test_inverses_of_graded_matrices(hermitian):
    """What ``lam`` and the least value decide is not lost beside a large one; bad ``lam`` has no derivative."""
    size = float(jnp.finfo(REAL).max) ** 0.55
    a, e, step = (jnp.diag(jnp.asarray(x, REAL)) for x in ([size, 1], [0, 1], [size, 0]))
    inverse = partial(jn.regularized_inverse, hermitian=hermitian)

    def inverse_sum(a, lam):
        return jnp.sum(inverse(a, lam))

    for value, expected in (
        (inverse(a, 1.0), 0.5),
        (jax.jvp(lambda a: inverse(a, 1.0), (step,), (e,))[1], 1),
        (jax.grad(lambda lam: inverse(a, lam)[1, 1])(1.0) * e, -0.25),
        (jax.jvp(lambda a: inverse(a, 0.0), (a,), (e,))[1], -1),
        (jax.grad(lambda a: inverse(a, 0.0)[1, 1])(a), -1),
    ):
        np.testing.assert_allclose(value, np.diag([value[0, 0], expected]), rtol=tolerance(REAL))
    for lam in (-1.0 / size, np.nan):
        assert np.isnan(jax.grad(inverse_sum)(a, REAL.type(lam))).all()
        assert np.isnan(jax.grad(inverse_sum, 1)(a, REAL.type(lam)))
    np.testing.assert_allclose(jax.grad(lambda a: jn.pinv(a, 0.0)[1, 1])(a), -e, rtol=tolerance(REAL))
    np.testing.assert_allclose(jn.tikhonov_solve(a, jnp.ones(2), 1.0)[1], 0.5, rtol=tolerance(REAL))


@dtypes
def test_pseudoinverse_at_fixed_rank(dtype):
    """Golub and Pereyra's formula, for the matrices of the rank that it has."""
    a, e = prescribed(np.array([3.0, 2, 0]), (5, 3), dtype), gaussian((5, 3), dtype, 1)
    p, change = map(np.asarray, jax.jvp(jn.pinv, (jnp.asarray(a),), (jnp.asarray(e),)))
    for x in (a @ p, p @ a):
        np.testing.assert_allclose(x, x.conj().T, atol=tolerance(REAL))
    np.testing.assert_allclose(a @ p @ a, a, atol=tolerance(REAL))
    eh, ph = e.conj().T, p.conj().T
    expected = -p @ e @ p + p @ ph @ eh @ (np.eye(5) - a @ p) + (np.eye(3) - p @ a) @ eh @ ph @ p
    np.testing.assert_allclose(change, expected, atol=tolerance(REAL, 200))


def test_regularized_inverse_over_the_whole_range():
    big = float(jnp.finfo(REAL).max) ** 0.9
    for size in (big, 1.0, 1 / big):
        a = jnp.diag(jnp.asarray([3.0, 1.0, 0.0], REAL) * REAL.type(size))
        np.testing.assert_allclose(
            np.diagonal(jn.regularized_inverse(a, 0.0)) * REAL.type(size), [1 / 3, 1, 0], rtol=tolerance(REAL)
        )
        g = jax.grad(lambda a: jnp.sum(jn.regularized_inverse(a, 1.0)))(a)
        assert np.all(np.isfinite(g))
    assert np.isnan(jn.regularized_inverse(jnp.eye(2), -1.0)).all()
    low_rank = np.outer([1, 0.3, 0.7], [0.5, 0.2, 0.9]).astype(np.float16)
    np.testing.assert_allclose(jn.pinv(low_rank), np.linalg.pinv(low_rank.astype(float), rcond=1e-2), rtol=2e-3)
    a = hermitian_stack(COMPLEX)
    expected = jn.regularized_inverse(a, 0.1)
    np.testing.assert_allclose(jn.regularized_inverse(a, 0.1, hermitian=True), expected, atol=tolerance(REAL, 200))
