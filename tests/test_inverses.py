"""Inverses of matrices, regularised or not, of every size."""

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


INVERSES = {
    "pinv": lambda a, size: jn.pinv(a),
    "regularized": lambda a, size: jn.regularized_inverse(a, size**2 / 2),
    "hermitian": lambda a, size: jn.regularized_inverse(a, size**2 / 2, hermitian=True),
}


@pytest.mark.parametrize(("name", "dtype"), [*((name, REAL) for name in INVERSES), ("pinv", COMPLEX)], ids=str)
def test_derivatives_over_the_whole_range(name, dtype):
    """They are squares and cubes of the inverse; ``lam``, a square too, is in range for half the exponents alone."""
    shape = (3, 3) if name == "hermitian" else (5, 3)
    q, (e, h) = prescribed(np.ones(3), shape, dtype), (gaussian(shape, dtype, i) for i in (1, 2))
    a = (q * np.array([3, 2, 1], REAL)) @ (q if name == "hermitian" else q[:3]).conj().T

    @jax.jit
    def derivatives(size, a, e, h):
        def inverse(a):
            return INVERSES[name](a, size)

        def bent(a):
            return jax.jvp(inverse, (a,), (e,))[1]

        def gradient(a):
            value, back_to = jax.vjp(inverse, a)
            return back_to(jnp.resize(jnp.arange(1, 8), value.shape).astype(dtype) * size.astype(dtype))[0]

        bends = jax.jvp(bent, (a,), (h,))[1], jax.vjp(gradient, a)[1](h)[0], jax.jvp(gradient, (a,), (h,))[1]
        return inverse(a), bent(a), *bends, gradient(a)

    exact = derivatives(REAL.type(1), a, e, h)
    whole = int(0.75 * jnp.finfo(REAL).maxexp) // (1 if name == "pinv" else 2)
    for size in (REAL.type(2.0**whole), REAL.type(2.0**-whole)):
        for i, (x, y) in enumerate(zip(derivatives(size, *(x * size for x in (a, e, h))), exact, strict=True)):
            np.testing.assert_allclose(np.asarray(x) * size, y, atol=tolerance(REAL, 200), err_msg=str(i))


@pytest.mark.parametrize("hermitian", [False, True])
@pytest.mark.parametrize("part", [0.3, 0.65])
def test_graded_matrices(part, hermitian):
    """What ``lam`` and the least value decide is not lost beside a large one; bad ``lam`` has no derivative."""
    size = float(jnp.finfo(REAL).max) ** part
    a, e = (jnp.diag(jnp.asarray(x, REAL)) for x in ([size, 1], [0, 1]))

    @jax.jit
    def derivatives(a, lam):
        def f(a, lam):
            return jn.regularized_inverse(a, lam, hermitian=hermitian)

        def gradient(a):
            return jax.grad(lambda a: f(a, lam)[1, 1])(a)

        def bent(a):
            return jax.jvp(lambda a: f(a, lam), (a,), (e,))[1]

        bends = jax.jvp(bent, (a,), (e,))[1], jax.jvp(gradient, (a,), (e,))[1]
        return f(a, lam), bent(a), gradient(a), *bends, jax.grad(lambda lam: f(a, lam)[1, 1])(lam) * e

    def of_least(lam):
        """x / (x^2 + lam) and its derivatives at 1."""
        first, second = (lam - 1) / (1 + lam) ** 2, (2 - 6 * lam) / (1 + lam) ** 3
        return 1 / (1 + lam), first, first, second, second, -1 / (1 + lam) ** 2

    for lam in (0.0, 0.5, 1.0):
        for i, (value, least) in enumerate(zip(derivatives(a, REAL.type(lam)), of_least(lam), strict=True)):
            expected = np.diag([1 / size if i == 0 else 0, least])
            if lam or i < 5:  # beside lam = 0 there is no negative one
                np.testing.assert_allclose(
                    value, expected, rtol=tolerance(REAL, 50), atol=tolerance(REAL), err_msg=str(i)
                )
        value = derivatives(a, REAL.type(lam))[0]
        np.testing.assert_allclose(value[0, 0] * REAL.type(size), 1, rtol=tolerance(REAL))  # below the limit above
    for lam in (-1.0 / size, np.nan):
        assert all(np.isnan(x).any() for x in derivatives(a, REAL.type(lam)))


def test_regularized_inverse_at_the_ends():
    """Where 1 / s is lost, or lam is next to the largest values: found as NaN, and as 0 of a solve."""
    top = 0.9 * float(jnp.finfo(REAL).max)
    for lam in (0.0, 1.0, 1 / top):
        a = jnp.diag(jnp.asarray([top, top / 2], REAL))
        assert np.max(np.abs(jn.regularized_inverse(a, lam))) <= 1.2 * jnp.finfo(REAL).tiny
        np.testing.assert_allclose(jn.tikhonov_solve(a, jnp.diagonal(a), lam), [1, 1], rtol=tolerance(REAL))
    near = jnp.diag(jnp.asarray([top / 8, 1e2], REAL))
    b = jnp.asarray([top / 2, top / 1e8], REAL)
    np.testing.assert_allclose(jn.tikhonov_solve(near, b, 0.0), [4, top / 1e10], rtol=tolerance(REAL))
    exact = 2.0 ** (REAL.itemsize * 16 - 3)  # half the exponents, lam about the square of the least value
    a = jnp.diag(jnp.asarray([exact, 1 / 32], REAL))
    np.testing.assert_allclose(jn.regularized_inverse(a, 2.0**-11, hermitian=True)[1, 1], 64 / 3, rtol=tolerance(REAL))


def test_right_hand_sides_of_any_size_beside_each_other():
    big = REAL.type(2.0 ** (jnp.finfo(REAL).maxexp * 0.8))
    a, unit = jnp.diag(jnp.asarray([2, 1], REAL)), jnp.asarray([[2.0, 4.0], [1.0, 3.0]], REAL)
    sizes = jnp.asarray([big, 1 / big], REAL)
    solution, back = jax.vjp(lambda b: jn.tikhonov_solve(a, b, 0.0), unit * sizes[None, :])
    np.testing.assert_allclose(solution / sizes[None, :], [[1, 2], [1, 3]], rtol=tolerance(REAL))
    cotangents = jnp.ones((2, 2), REAL) / sizes[None, :]
    np.testing.assert_allclose(back(cotangents)[0] * sizes[None, :], [[0.5, 0.5], [1, 1]], rtol=tolerance(REAL))


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
