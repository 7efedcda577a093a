"""Functions of a matrix: polynomials are products, whose derivatives JAX takes exactly, at every spectrum."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from matrices import (
    COMPLEX,
    DTYPES,
    REAL,
    eigen,
    gaussian,
    hermitian_stack,
    part,
    prescribed,
    spectra,
    tolerance,
    unitary,
)

import jaxnorms as jn
from jaxnorms.scalar_functions import Plain, first, second

dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=str)


def stack(shape, dtype):
    return np.stack([prescribed(s / 3, shape, dtype) for name, s in spectra(min(shape)).items() if name != "graded"])


def cubic(x, p, q):
    return p * x + q * x**3


def odd_cubic(a, p, q):
    p, q = (x.astype(a.dtype) for x in (p, q))
    return p * a + q * a @ jnp.swapaxes(a, -1, -2).conj() @ a


def derivatives(f, a, e, h, c, rates, params):
    """Value and derivatives of a stack of ``f(a, *params)``, in every order of the modes."""

    def along(a, *params):
        return jax.jvp(f, (a, *params), (e, *rates))[1]

    def paired(a, *params):
        return jnp.sum((c.conj() * f(a, *params)).real)

    gradient = jax.grad(paired, argnums=range(1 + len(params)))
    again = jax.grad(lambda *x: jnp.sum((e.conj() * gradient(*x)[0]).real), argnums=range(1 + len(params)))
    moved = (a, *params), (h, *rates)
    return (
        f(a, *params),
        along(a, *params),
        gradient(a, *params),
        jax.jvp(along, *moved),
        jax.jvp(gradient, *moved),
        again(a, *params),
    )


def compare(f, exact, a, params, factor=2000.0):
    e, h, c = (jnp.asarray(gaussian(a.shape, a.dtype, seed)) for seed in (1, 2, 3))
    rates, params = (REAL.type(0.3), REAL.type(-0.7))[: len(params)], tuple(REAL.type(p) for p in params)
    actual = jax.jit(partial(derivatives, f))(jnp.asarray(a), e, h, c, rates, params)
    expected = jax.jit(partial(derivatives, exact))(jnp.asarray(a), e, h, c, rates, params)
    # Second divided differences are accurate to eps^(2/3).
    limits = [tolerance(REAL, factor)] * 3 + [40 * tolerance(REAL, 1.0) ** (2 / 3)] * 3
    for i, (x, y, limit) in enumerate(zip(actual, expected, limits, strict=True)):
        for p, q in zip(jax.tree.leaves(x), jax.tree.leaves(y), strict=True):
            np.testing.assert_allclose(p, q, rtol=limit, atol=limit * np.max(np.abs(q)), err_msg=str(i))


@dtypes
def test_hermitian_polynomial(dtype):
    def f(a, p, q):
        return jn.spectral_function(cubic, a, p, q, hermitian=True)

    def exact(a, p, q):
        b, p, q = part(a), p.astype(a.dtype), q.astype(a.dtype)
        return p * b + q * b @ b @ b

    compare(f, exact, hermitian_stack(dtype), (0.5, 1.5))


@dtypes
@pytest.mark.parametrize("shape", [(9, 9), (9, 4), (3, 10)], ids=str)
def test_polynomial_of_singular_values(shape, dtype):
    compare(partial(jn.spectral_function, cubic), odd_cubic, stack(shape, dtype), (0.5, 1.5))


@dtypes
def test_sums_of_powers(dtype):
    """``sum s^4`` and ``tr a^3``, with a parameter."""

    def of_values(a, p):
        return jn.spectral_sum(lambda x, p: p * x**4, a, p)

    def exact(a, p):
        return p * jnp.sum(jnp.square(jnp.abs(jnp.swapaxes(a, -1, -2).conj() @ a)), (-2, -1))

    def of_eigenvalues(a, p):
        return jn.spectral_sum(lambda x, p: p * x**3, a, p, hermitian=True)

    def trace(a, p):
        b = part(a)
        return p * jnp.trace(b @ b @ b, axis1=-2, axis2=-1).real

    for f, g, a in ((of_values, exact, stack((5, 3), dtype)), (of_eigenvalues, trace, hermitian_stack(dtype))):
        a, e, h = jnp.asarray(a), *(jnp.asarray(gaussian(a.shape, dtype, seed)) for seed in (1, 2))

        def everything(f, a, e, h, p):
            summed = jax.grad(lambda a, p: jnp.sum(f(a, p)), argnums=(0, 1))

            def slope(a, p):
                return jax.jvp(lambda a: f(a, p), (a,), (e,))[1]

            return f(a, p), summed(a, p), jax.jvp(summed, (a, p), (h, p)), jax.jvp(slope, (a, p), (h, p))[1]

        p = REAL.type(0.7)
        for x, y in zip(*(jax.tree.leaves(jax.jit(partial(everything, k))(a, e, h, p)) for k in (f, g)), strict=True):
            np.testing.assert_allclose(x, y, atol=tolerance(REAL, 2000) * max(1, np.max(np.abs(y))))


@dtypes
def test_a_sum_with_a_kink_is_the_norm(dtype):
    """``f(x) = x`` is the nuclear norm, whose zero values have no share in gradient and curvature."""
    a, e = jnp.asarray(stack((5, 3), dtype)), jnp.asarray(gaussian((3, 5), dtype).T)

    def sums(a):
        return jn.spectral_sum(lambda x: x, a)

    def all_of(f):
        g = jax.grad(f)
        return jax.jit(jax.vmap(lambda a: (f(a), g(a), jax.jvp(g, (a,), (e,))[1])))(a)

    for x, y in zip(all_of(sums), all_of(partial(jn.nuclear_norm, method="svd")), strict=True):
        np.testing.assert_allclose(x, y, atol=tolerance(REAL, 2000) * max(1, np.max(np.abs(y))))


def test_divided_differences_at_every_gap():
    """Of exp, against closed forms in more digits than the type has."""
    y = np.full(40, 1.25)
    x = (y * (1 + 10.0 ** np.linspace(-17, 0.5, 40))).astype(REAL)
    y = y.astype(REAL)
    d = x.astype(np.longdouble) - y
    safe = np.where(d == 0, 1, d)
    base = np.exp(y.astype(np.longdouble))
    exact = base * np.where(d == 0, 1, np.expm1(safe) / safe)
    found = jax.jit(partial(first, Plain(jnp.exp)))(x, y, REAL.type(3))
    np.testing.assert_allclose(found, exact.astype(float), rtol=tolerance(REAL))
    # f[x, y, y] = (f[x, y] - f'(y)) / d, by its series where that cancels.
    series = base * sum(d**k / np.prod(np.arange(1, k + 3), dtype=np.longdouble) for k in range(12))
    confluent = np.where(d < 0.5, series, (exact - base) / safe)
    slope = np.exp(y)
    bent = jax.jit(partial(second, Plain(jnp.exp)))(x, y, y, found, slope, found, REAL.type(3))
    np.testing.assert_allclose(bent, confluent.astype(float), rtol=10 * tolerance(REAL, 1.0) ** (2 / 3))


@dtypes
def test_second_derivative_at_every_gap(dtype):
    """Of exp, by the series of products."""
    gaps = 10.0 ** np.arange(-16, 1)
    a = np.stack([eigen(np.array([-1, 0.5, 0.5 + gap, 0.5 + 2 * gap]), dtype) for gap in gaps])
    e, h = (part(gaussian((4, 4), dtype, seed)) for seed in (1, 2))

    def series(a):
        total = term = jnp.broadcast_to(jnp.eye(4, dtype=dtype), a.shape)
        for k in range(1, 30):
            term = term @ a / k
            total = total + term
        return total

    def twice(f):
        def slope(a):
            return jax.jvp(f, (a,), (jnp.broadcast_to(e, a.shape),))[1]

        return np.asarray(jax.jit(lambda a: jax.jvp(slope, (a,), (jnp.broadcast_to(h, a.shape),))[1])(jnp.asarray(a)))

    found, expected = twice(jn.matrix_exp), twice(series)
    np.testing.assert_allclose(found, expected, atol=20 * tolerance(REAL, 1.0) ** (2 / 3) * np.max(np.abs(expected)))


@pytest.mark.parametrize(
    ("f", "exact", "slope"),
    [
        (lambda x: jnp.exp(x) - 1, np.expm1, np.exp),
        (lambda x: jnp.log(1 + x), np.log1p, lambda x: 1 / (1 + x)),
        (lambda x: jnp.sqrt(1 + x * x) - 1, lambda x: x * x / (1 + np.sqrt(1 + x * x)), lambda x: x / np.hypot(1, x)),
    ],
    ids=["exp(x) - 1", "log(1 + x)", "sqrt(1 + x^2) - 1"],
)
def test_functions_that_cancel(f, exact, slope):
    """At small eigenvalues that are tied to rounding, f has lost its digits, but its derivative has not."""
    w = np.array([1e-4, 1e-4, 1e-4, 1])
    gaps = w[:, None] - w[None, :]
    quotients = (exact(w)[:, None] - exact(w)[None, :]) / np.where(gaps == 0, 1, gaps)
    core = np.where(gaps == 0, slope(w)[:, None], quotients)
    change = jax.jit(lambda a, e: jax.jvp(partial(jn.spectral_function, f, hermitian=True), (a,), (e,))[1])
    for seed in range(3):
        v = unitary(np.random.default_rng(seed), 4, 4, REAL)
        e = part(gaussian((4, 4), REAL, seed))
        expected = v @ (core * (v.T @ e @ v)) @ v.T
        np.testing.assert_allclose(change(((v * w) @ v.T).astype(REAL), e), expected, atol=tolerance(REAL))


def test_directions_of_another_size():
    """What a derivative makes of them is in range, and so is each step."""
    big, unit = REAL.type(2.0 ** (0.75 * jnp.finfo(REAL).maxexp)), jnp.eye(2, dtype=REAL)
    for f, exact in ((jn.matrix_sqrt, lambda size: size**-0.5 / 2), (jn.matrix_log, lambda size: 1 / size)):
        for size, other in ((big, big**-0.25), (1 / big, big**0.25)):
            for linear in (
                lambda a, e, f=f: jax.jvp(f, (a,), (e,))[1],
                lambda a, c, f=f: jax.vjp(f, a)[1](c)[0],
            ):
                np.testing.assert_allclose(
                    linear(unit * size, unit * other), unit * exact(size) * other, rtol=tolerance(REAL)
                )
    graded = jnp.diag(jnp.asarray([1, big], REAL))
    np.testing.assert_allclose(jn.matrix_log(graded), np.diag([0, np.log(big)]), rtol=tolerance(REAL))


def test_counts_of_what_is_not_finite_are_nan():
    rows = np.stack([np.eye(2, dtype=REAL)] * 3)
    rows[0, 0, 1], rows[2, 1, 1] = np.nan, np.inf
    for hermitian in (False, True):
        count = jn.spectral_sum(lambda x: jnp.where(x > 0.5, 1.0, 0.0), rows, hermitian=hermitian)
        np.testing.assert_array_equal(count, [np.nan, 2, np.nan])


def test_jumps_and_cusps():
    """A jump between eigenvalues is a quotient; the infinite slope of a root at zero singular values is left out."""
    a, e = jnp.diag(jnp.asarray([1.0, -1.0], REAL)), jnp.ones((2, 2), REAL)
    change = jax.jvp(partial(jn.spectral_function, jnp.sign, hermitian=True), (a,), (e,))[1]
    np.testing.assert_allclose(change, [[0, 1], [1, 0]], atol=tolerance(REAL))
    for seed in range(3):
        rank_one = jnp.asarray(prescribed(np.array([2.0, 0, 0]), (4, 3), REAL, seed))
        g = jax.grad(lambda a: jnp.sum(jn.spectral_function(jnp.sqrt, a)))(rank_one)
        assert np.max(np.abs(g)) < 5
    roots = np.diagonal(jn.matrix_sqrt(jnp.diag(jnp.asarray([1, 1e-10], REAL))))
    np.testing.assert_allclose(roots, [1, 1e-5], rtol=1e-6)


@dtypes
def test_named_functions(dtype):
    a = eigen(np.array([0.5, 0.5, 2, 3]), dtype)
    tol = tolerance(REAL, 100)
    root = np.asarray(jn.matrix_sqrt(a))
    np.testing.assert_allclose(root @ root, a, atol=tol)
    np.testing.assert_allclose(jn.matrix_exp(jn.matrix_log(a)), a, atol=tol)
    np.testing.assert_allclose(jn.matrix_exp(a), jax.scipy.linalg.expm(a), rtol=tol, atol=10 * tol)
    singular = eigen(np.array([0, 0, 1, 4.0]), dtype)
    root = np.asarray(jn.matrix_sqrt(singular))
    np.testing.assert_allclose(root @ root, singular, atol=tol)
    assert np.all(np.isnan(jn.matrix_sqrt(-a)))
    assert np.all(np.isnan(jn.matrix_log(-a)))
    slope = jax.jit(jax.jacrev(lambda a: jn.matrix_sqrt(a).real, holomorphic=False))(jnp.asarray(singular))
    assert np.all(np.isfinite(slope))


def test_modes_and_transformations_agree():
    a = jnp.asarray(prescribed(np.array([2.0, 1.0, 1.0]), (4, 3), REAL))
    batch = jnp.stack([a, jnp.zeros_like(a)])
    f = partial(jn.spectral_function, jnp.sin)

    @jax.jit
    def everything(a, batch):
        units = jnp.eye(a.size, dtype=a.dtype).reshape(-1, *a.shape)
        return {
            "jacrev": jax.jacrev(f)(a),
            "jacfwd": jax.jacfwd(f)(a),
            "vmap": jax.vmap(jax.jacrev(f))(batch)[0],
            "map": jax.lax.map(jax.jacrev(f), batch)[0],
            "checkpoint": jax.jacrev(jax.checkpoint(f))(a),
            "linearize": jnp.moveaxis(jax.vmap(jax.linearize(f, a)[1])(units), 0, -1).reshape(*a.shape, *a.shape),
        }, {
            "fwd fwd": jax.jacfwd(jax.jacfwd(f))(a),
            "fwd rev": jax.jacfwd(jax.jacrev(f))(a),
            "rev fwd": jax.jacrev(jax.jacfwd(f))(a),
            "rev rev": jax.jacrev(jax.jacrev(f))(a),
            "vmap": jax.vmap(jax.hessian(f))(batch)[0],
        }

    first_order, second_order = everything(a, batch)
    for found in (first_order, second_order):
        expected = next(iter(found.values()))
        for name, value in found.items():
            np.testing.assert_allclose(value, expected, atol=tolerance(REAL, 500), err_msg=name)


def test_bad_rows_and_empty_ones():
    a = np.array(gaussian((4, 3, 3), REAL) + 4 * np.eye(3), REAL)
    a[0, 0, 0], a[1, 1, 1] = np.nan, np.inf
    functions = {
        "sum": partial(jn.spectral_sum, jnp.tanh),
        "sum of eigenvalues": partial(jn.spectral_sum, jnp.tanh, hermitian=True),
        "function": partial(jn.spectral_function, jnp.tanh),
        "eigenvalues": jn.eigvalsh,
        "root": jn.matrix_sqrt,
        "inverse": jn.pinv,
    }
    for name, f in functions.items():
        both = jax.jit(lambda a, f=f: (f(a), jax.grad(lambda a: jnp.sum(f(a)))(a)))
        for whole, alone in zip(both(a), both(a[2:]), strict=True):
            assert np.all(np.isnan(whole[:2])), name
            np.testing.assert_allclose(whole[2:], alone, atol=tolerance(REAL, 200), err_msg=name)
    assert np.all(np.isnan(jax.vmap(jax.grad(lambda a: jnp.sum(jn.singular_values(a))))(a)[:2]))
    assert jn.spectral_sum(jnp.tanh, jnp.zeros((2, 0, 3))).shape == (2,)
    assert jn.spectral_function(jnp.tanh, jnp.zeros((0, 3))).shape == (0, 3)
    assert jn.pinv(jnp.zeros((2, 0, 3))).shape == (2, 3, 0)
    assert jn.pinv(jnp.zeros((0, 2, 3))).shape == (0, 3, 2)
    assert jn.singular_values(jnp.zeros((0, 3, 3))).shape == (0, 3)
    assert jn.eigvalsh(jnp.zeros((0, 0))).shape == (0,)
    assert jn.matrix_exp(jnp.zeros((2, 2), jnp.bfloat16)).dtype == jnp.bfloat16
    assert jn.spectral_sum(jnp.cosh, jnp.eye(2, dtype=jnp.float16), hermitian=True).dtype == jnp.float16


def test_what_is_refused():
    with pytest.raises(ValueError, match=r"matrix_exp: a must have shape \(\.\.\., n, n\), got shape \(2, 3\)"):
        jn.matrix_exp(jnp.ones((2, 3)))
    with pytest.raises(ValueError, match="f must return one real number for each of x"):
        jn.spectral_sum(jnp.sum, jnp.eye(2))
    with pytest.raises(ValueError, match="f must return one real number for each of x"):
        jn.spectral_function(lambda x: jax.lax.complex(x, x), jnp.eye(2))
    with pytest.raises(TypeError, match="f must be a function"):
        jn.spectral_sum("fro", jnp.eye(2))
    with pytest.raises(TypeError, match=r"params\[0\] must be real"):
        jn.spectral_sum(lambda x, p: x, jnp.eye(2), 1j)
    with pytest.raises(TypeError, match="hermitian must be True or False"):
        jn.spectral_sum(jnp.cosh, jnp.eye(2), hermitian=1)
    with pytest.raises(ValueError, match="f must not close over a traced value"):
        jax.grad(lambda p: jn.spectral_sum(lambda x: p * x, jnp.eye(2)))(1.0)
    with pytest.raises(ValueError, match="lam must have a shape that broadcasts"):
        jn.regularized_inverse(jnp.eye(2), jnp.ones(3))
    for f in (partial(jn.spectral_sum, jnp.cosh), partial(jn.spectral_function, jnp.sin)):
        with pytest.raises(ValueError, match="third derivatives"):
            jax.jacfwd(jax.jacfwd(jax.jacfwd(f)))(jnp.eye(2))
    assert jn.spectral_sum(jnp.cosh, COMPLEX.type(0) * np.eye(2, dtype=COMPLEX)).dtype == REAL


def test_on_a_mesh():
    """The primitive of the derivative keeps to its device, and the parameters are the same on all."""
    a = jnp.asarray(gaussian((8, 4, 4), REAL))

    def loss(a, p):
        return jnp.sum(jn.spectral_function(lambda x, p: p * jnp.sin(x), a, p) ** 2)

    def both(a):
        p = REAL.type(2)
        return jax.jvp(jax.grad(loss), (a, p), (a, REAL.type(1)))

    expected = jax.jit(both)(a)
    for kind in (AxisType.Auto, AxisType.Explicit):
        mesh = jax.make_mesh((8,), ("x",), axis_types=(kind,))
        with jax.set_mesh(mesh):
            spread = jax.device_put(a, NamedSharding(mesh, PartitionSpec("x")))
            for x, y in zip(jax.jit(both)(spread), expected, strict=True):
                assert x.sharding.shard_shape(x.shape) == (1, 4, 4)
                np.testing.assert_allclose(x, y, atol=tolerance(REAL, 200))
