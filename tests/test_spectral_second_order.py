"""Second derivatives of functions of a matrix at the ends of the range, of matrices, directions and what they give."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matrices import REAL, eigen, gaussian, part, tolerance

import jaxnorms as jn


@pytest.mark.parametrize(("f", "degree", "part"), [(jn.matrix_sqrt, 0.5, 0.6), (jn.matrix_log, 0, 0.45)])
def test_second_derivatives_where_those_of_the_function_are_in_range(f, degree, part):
    a, e, h = eigen(np.array([1.0, 2, 2, 3]), REAL), gaussian((4, 4), REAL, 1), gaussian((4, 4), REAL, 2)

    @jax.jit
    def bends(a, e, h):
        def gradient(a):
            return jax.grad(lambda a: jnp.sum(jnp.tril(f(a))))(a)

        bent = jax.jvp(lambda a: jax.jvp(f, (a,), (e,))[1], (a,), (h,))[1]
        return bent, jax.jvp(gradient, (a,), (h,))[1], jax.vjp(gradient, a)[1](h)[0]

    for power in (2 * int(part * jnp.finfo(REAL).maxexp / 2), 2 * int(part * jnp.finfo(REAL).minexp / 2)):
        found = bends(*(np.ldexp(x, power) for x in (a, e, h)))
        for x, y, order in zip(found, bends(a, e, h), (0, 1, 1), strict=True):
            x = np.ldexp(x, int(power * (order - degree)))
            np.testing.assert_allclose(x, y, atol=tolerance(REAL, 200) * np.max(np.abs(y)))


def square(x):
    return x * x


def steep_cubic(x):
    return x + x**3


def root(x):
    return jnp.sign(x) * jnp.sqrt(jnp.abs(x))


@pytest.mark.parametrize("name", ["matrix_sqrt", "matrix_log", "matrix_exp", "square", "steep_cubic", "root"])
def test_second_derivatives_along_directions_of_any_size(name):
    """Of large, small and zero matrices along large and small directions, whose products may be out of range by
    themselves; each way of taking them."""
    f, exact, degree, zero = {
        "matrix_sqrt": (jn.matrix_sqrt, jn.matrix_sqrt, 0.5, False),
        "matrix_log": (jn.matrix_log, jn.matrix_log, 0, False),
        "matrix_exp": (jn.matrix_exp, lambda a: a @ a / 2, 2, True),  # of small matrices
        "square": (partial(jn.spectral_function, square, hermitian=True), lambda a: a @ a, 2, True),
        "steep_cubic": (partial(jn.spectral_function, steep_cubic), lambda a: a + a @ a.T @ a, 3, True),
        "root": (partial(jn.spectral_function, root), partial(jn.spectral_function, root), 0.5, False),
    }[name]

    def bends(f, a, e, h):
        def along(a):
            return jax.jvp(f, (a,), (e,))[1]

        def gradient(a, c):
            return jax.grad(lambda a: jnp.sum(c * f(a)))(a)

        return (
            jax.jvp(along, (a,), (h,))[1],
            jax.jvp(partial(gradient, c=e), (a,), (h,))[1],
            jax.vjp(partial(gradient, c=e), a)[1](h)[0],
            jax.vjp(along, a)[1](h)[0],
        )

    a, (e, h) = eigen(np.array([1.0, 2, 2, 3]), REAL), (part(gaussian((4, 4), REAL, seed)) for seed in (1, 2))
    expected = jax.jit(partial(bends, exact))(a, e, h)
    found = jax.jit(partial(bends, f))
    unit = jnp.finfo(REAL).maxexp // 32  # of exponents
    sizes = {
        "matrix_exp": (-30, -20, -10),
        "matrix_log": (-12, -4, 6, 14),
        "square": (-28, -20, -10, 0, 10),
        "steep_cubic": (-24, -12, 0, 10),
    }.get(name, (-20, -10, 0, 10, 20))
    for size in sizes:
        for of_e, of_h in ((0, 0), (-8, -8), (10, 10), (-16, 0), (0, -16), (14, -10), (-10, 14)):
            power = (degree - 2) * size + of_e + of_h
            if abs(power) > 28 or abs((degree - 2) * size) > 30:
                continue  # out of range itself, or the derivative of f is
            moved = found(*(np.ldexp(x, unit * k) for x, k in ((a, size), (e, of_e), (h, of_h))))
            for i, (x, y) in enumerate(zip(moved, expected, strict=True)):
                x = np.ldexp(np.asarray(x), int(-unit * power))
                limit = tolerance(REAL, 300) * np.max(np.abs(y))
                np.testing.assert_allclose(x, y, atol=limit, err_msg=f"{size} {of_e} {of_h} {i}")
    if zero:
        for x, y in zip(found(0 * a, e, h), bends(exact, 0 * a, e, h), strict=True):
            np.testing.assert_allclose(x, y, atol=tolerance(REAL, 100) * np.max(np.abs(y)))


def bend(f, a, e, h):
    return jax.jvp(lambda a: jax.jvp(f, (a,), (e,))[1], (a,), (h,))[1]


@pytest.mark.parametrize("power", [-1, -2, -3])
def test_second_derivatives_of_graded_matrices(power):
    """Beside an eigenvalue at which that of the function is nearly the largest number."""

    def f(x):
        return 1 / math.prod([x] * -power)

    steep = (power * (power - 1)) ** (1 / (2 - power)) * float(jnp.finfo(REAL).max) ** (1 / (power - 2)) * 1.1
    a = jnp.diag(jnp.asarray([1, 2, steep], REAL))
    e = jnp.zeros((3, 3), REAL).at[:2, :2].set([[0.0, 1.0], [1.0, 0.0]])
    found = jnp.diagonal(bend(partial(jn.spectral_function, f, hermitian=True), a, e, e))[:2]
    between = f(2.0) - f(1.0)
    np.testing.assert_allclose(found, [2 * (between - power), 2 * (power * f(2.0) / 2 - between)], rtol=1e-5)


def test_second_derivatives_beside_a_steep_line():
    """The first derivative may exceed the second one by more than the largest number."""
    least = float(jnp.finfo(REAL).tiny)

    def f(x):
        return x / 64 + least**0.75 * x * x

    def g(x):
        return x * least**-0.25 + least**0.75 * x * x

    a, e = jnp.diag(jnp.asarray([1, 2], REAL)), jnp.ones((2, 2), REAL)
    for each in (f, g):
        found = bend(partial(jn.spectral_function, each, hermitian=True), a, e, e)
        np.testing.assert_allclose(found / least**0.75, 4 * np.ones((2, 2)), rtol=tolerance(REAL))


@pytest.mark.parametrize("f", [jn.matrix_exp, jn.pinv, partial(jn.spectral_function, jnp.sinh)])
def test_second_derivatives_are_linear_in_each_direction(f):
    """And symmetric, so that each transpose is what it is itself."""
    a, e, c = (jnp.asarray(part(gaussian((3, 3), REAL, seed))) for seed in range(3))
    expected = bend(f, a, e, c)
    for linear in (lambda x: bend(f, a, x, e), lambda x: bend(f, a, e, x)):
        (back,) = jax.linear_transpose(linear, a)(c)
        np.testing.assert_allclose(back, expected, atol=tolerance(REAL, 200) * np.max(np.abs(expected)))
