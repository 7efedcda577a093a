"""Operators given by their products, beside the matrices that they stand for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from certificates import attains, in_dual_ball, inner
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from matrices import COMPLEX, REAL, factory, gaussian, prescribed, tolerance

import jaxnorms as jn

inf = float("inf")
LARGE = [(64, 48), (48, 64)]  # leading triplets come from products
SMALL = (7, 4)  # the matrix is formed
W = jnp.ones((5, 3), REAL)
both_kinds = pytest.mark.parametrize("shape", [LARGE[0], SMALL], ids=str)


def matvec(w, x):
    return jnp.matmul(w, x, precision="highest")


def rmatvec(w, y):
    return jnp.matmul(w.conj().T, y, precision="highest")


def of_matrix(w, adjoint=None):
    return jn.LinearOperator(w, matvec, adjoint, w.shape, w.dtype)


def decaying(shape, dtype, seed=0, ratio=0.8):
    return jnp.asarray(prescribed(3 * ratio ** np.arange(min(shape)), shape, dtype, seed))


def norms(a):
    """Those of different programs."""
    return jnp.stack([jn.spectral_norm(a), jn.KyFan(3)(a), jn.frobenius_norm(a)])


def with_jacobian(f):
    """``(f(x), its derivative)``, from one search."""
    jacobian = jax.jacrev(lambda x: (f(x),) * 2, has_aux=True)
    return lambda x: jacobian(x)[::-1]


# Values and derivatives.


@pytest.mark.parametrize(
    ("shape", "dtype", "adjoint"),
    [(LARGE[0], REAL, None), (LARGE[1], COMPLEX, None), (LARGE[0], COMPLEX, rmatvec), (SMALL, COMPLEX, None)],
)
def test_norms_and_their_subgradients(shape, dtype, adjoint):
    """Of matrices with simple, tied and zero leading values, of every size."""
    names, a = factory(shape, dtype)
    value, g = jax.jit(jax.vmap(with_jacobian(lambda w: norms(of_matrix(w, adjoint)))))(a)
    double = np.result_type(dtype, np.float64)
    s = np.linalg.svd(a.astype(double), compute_uv=False)
    exact = np.stack([s[:, 0], s[:, :3].sum(1), np.linalg.norm(s, axis=1)], axis=1)
    np.testing.assert_allclose(value, exact, rtol=tolerance(dtype, 50, np.sqrt(max(shape))), err_msg=str(names))
    g, size = np.asarray(g).conj().astype(double), tolerance(dtype, 1000)
    s = np.linalg.svd(g, compute_uv=False)
    dual = s[:, 0].sum(-1), np.maximum(s[:, 1, 0], s[:, 1].sum(-1) / 3), np.linalg.norm(s[:, 2], axis=-1)
    for j in range(3):
        attains(g[:, j], a, exact[:, j], size)
        in_dual_ball(dual[j], size)
        assert dual[j][names.index("zero")] == 0


def test_ties_and_modes():
    """The minimum-norm subgradient of up to four tied values, in every mode, within jit and vmap."""
    sizes = np.array([1, 2, 4])
    a = np.stack([prescribed(np.where(np.arange(48) < mu, 2.0, 0.8 ** np.arange(48)), LARGE[0], REAL) for mu in sizes])
    e = jnp.asarray(gaussian(LARGE[0], REAL, seed=5))

    def f(w):
        return jn.spectral_norm(of_matrix(w))

    def one(w):
        return jax.grad(f)(w), jax.jvp(f, (w,), (e,))[1], jax.linearize(f, w)[1](e)

    g, d, linear = jax.jit(jax.vmap(one))(a)
    u, _, vh = np.linalg.svd(a)
    exact = np.stack([x[:, :mu] @ y[:mu] / mu for x, y, mu in zip(u, vh, sizes, strict=True)])
    np.testing.assert_allclose(g, exact, atol=tolerance(REAL, 2000))
    np.testing.assert_allclose(d, inner(exact, np.asarray(e)), atol=tolerance(REAL, 20000))
    np.testing.assert_allclose(linear, d, atol=tolerance(REAL, 200))


def test_modes_of_small_operators():
    """Against the matrix, in forward and reverse mode, with the other keywords and objects."""
    a = jnp.asarray(gaussian(SMALL, REAL))

    def f(x):
        more = (
            jn.KyFan(2, 2)(x, tol=1e-4),
            jn.squared_frobenius_norm(x),
            jn.Induced(2, 2)(x),
            jn.Dual(jn.Schatten(1))(x),
        )
        return jnp.concatenate([norms(x), jnp.stack(more), jn.nuclear_norm(x, rank=4)[None], jn.singular_values(x)])

    by_products, by_matrix = with_jacobian(lambda w: f(of_matrix(w))), with_jacobian(f)
    (value, g), (exact, g0), forward = jax.jit(
        lambda w: (by_products(w), by_matrix(w), jax.jacfwd(lambda w: f(of_matrix(w)))(w))
    )(a)
    np.testing.assert_allclose(value, exact, rtol=tolerance(REAL))
    np.testing.assert_allclose(g, g0, atol=tolerance(REAL))
    np.testing.assert_allclose(forward, g, atol=tolerance(REAL))


# Operators that are no matrices.


def low_rank_update(params, x):
    w, b, a = params
    return matvec(w, x) + matvec(b, matvec(a, x))


def layers(params, x):
    for w in params:
        x = matvec(w, x)
    return x


def convolution(kernel, x):
    image = x.reshape(1, 3, 5, 4)
    return jax.lax.conv_general_dilated(image, kernel, (1, 1), "SAME", precision="highest").ravel()


CASES = {
    "low_rank_update": (low_rank_update, (60, 50), [(60, 50), (60, 2), (2, 50)]),
    "layers": (layers, (52, 60), [(50, 60), (49, 50), (52, 49)]),
    "convolution": (convolution, (80, 60), [(4, 3, 3, 3)]),
}


@pytest.mark.parametrize("name", CASES)
def test_structured_operators(name):
    """Value and gradient in the parameters, against the matrix formed."""
    function, shape, sizes = CASES[name]
    arrays = tuple(jnp.asarray(gaussian(size, REAL, seed=i)) for i, size in enumerate(sizes))
    params = arrays[0] if name == "convolution" else arrays

    def dense(params):
        return jax.vmap(lambda x: function(params, x), out_axes=1)(jnp.eye(shape[1], dtype=REAL))

    def some(a):
        return jnp.append(jn.singular_values(a, 2), jn.frobenius_norm(a))

    def by_products(params):
        return some(jn.LinearOperator(params, function, None, shape, REAL))

    (value, gradient), (exact, expected) = jax.jit(
        lambda p: (with_jacobian(by_products)(p), with_jacobian(lambda p: some(dense(p)))(p))
    )(params)
    np.testing.assert_allclose(value, exact, rtol=tolerance(REAL, 100))
    for g, h in zip(jax.tree.leaves(gradient), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(g, h, atol=tolerance(REAL, 5000) * np.abs(h).max())


def test_parameters_of_every_kind():
    """Integers, keys, None and Python numbers among the parameters; the gradient is an operator."""

    def permuted(params, x):
        return params["scale"] * matvec(params["w"], x[params["order"]])

    w, order = jnp.asarray(gaussian((60, 50), REAL)), jnp.asarray(np.random.default_rng(0).permutation(50))
    params = {"w": w, "order": order, "scale": 2.0, "none": None, "key": jax.random.key(0)}

    @jax.jit
    def run(op):
        slopes = jax.grad(lambda op: jn.singular_values(op, 1)[0], allow_int=True)(op)
        return jax.grad(jn.frobenius_norm, allow_int=True)(op), slopes

    frobenius, first = run(jn.LinearOperator(params, permuted, None, w.shape, REAL))
    assert isinstance(frobenius, jn.LinearOperator)
    assert first.params["order"].dtype == jax.dtypes.float0
    u, s, vh = np.linalg.svd(w)
    np.testing.assert_allclose(frobenius.params["w"], 2 * w / np.linalg.norm(w), atol=tolerance(REAL))
    np.testing.assert_allclose(first.params["w"], 2 * np.outer(u[:, 0], vh[0]), atol=tolerance(REAL, 2000))
    np.testing.assert_allclose(first.params["scale"], s[0], rtol=tolerance(REAL))


def test_what_is_closed_over_is_differentiated():
    def f(w):
        op = jn.LinearOperator((), lambda _, x: w @ x, lambda _, y: w.T @ y, (5, 4), REAL)
        return jn.spectral_norm(op) + jn.truncated_svd(op, 1).error_bound + jn.norm_bounds(op, "fro").upper

    w = jnp.asarray(gaussian((5, 4), REAL))
    expected = jax.grad(jn.spectral_norm)(w)
    for g in (jax.grad(f), jax.jit(jax.grad(f)), jax.grad(jax.jit(f))):
        np.testing.assert_allclose(g(w), expected, atol=tolerance(REAL))


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit], ids=str)
def test_parameters_on_a_mesh(kind):
    """Rows on two devices."""
    mesh = jax.make_mesh((2,), ("x",), axis_types=(kind,))
    w = decaying(LARGE[0], REAL)
    split = jax.device_put(w, NamedSharding(mesh, PartitionSpec("x", None)))

    def f(w):
        values = jnp.stack([jn.truncated_svd(of_matrix(w), 2).s[0], jn.frobenius_norm(of_matrix(w))])
        return jnp.sum(values), (values, jnp.stack(jn.norm_bounds(of_matrix(w), "fro")))

    with jax.set_mesh(mesh):
        g, (values, bounds) = jax.jit(jax.grad(f, has_aux=True))(split)
    u, s, vh = np.linalg.svd(w)
    np.testing.assert_allclose(values, [s[0], np.linalg.norm(s)], rtol=tolerance(REAL))
    np.testing.assert_allclose(g, np.outer(u[:, 0], vh[0]) + w / np.linalg.norm(s), atol=tolerance(REAL, 200))
    assert bounds[0] <= values[1] <= bounds[1]
    assert kind == AxisType.Auto or g.sharding.spec == split.sharding.spec


# Singular triplets and bounds.


@pytest.mark.parametrize(("shape", "dtype"), [(LARGE[0], REAL), (LARGE[1], COMPLEX)], ids=str)
def test_truncated_svd(shape, dtype):
    a = decaying(shape, dtype)

    @jax.jit
    def run(w):
        def values(w):
            svd = jn.truncated_svd(of_matrix(w), 4)
            return svd.s, svd

        return jax.jacrev(values, has_aux=True)(w)

    slopes, (u, s, vh, bound) = jax.tree.map(np.asarray, run(a))
    exact = np.linalg.svd(np.asarray(a, np.result_type(dtype, np.float64)), compute_uv=False)
    np.testing.assert_allclose(s, exact[:4], rtol=tolerance(dtype))
    missed = np.linalg.norm(np.asarray(a) - (u * s) @ vh)
    assert missed <= bound <= 1.001 * np.linalg.norm(exact[4:])
    expected = np.stack([np.outer(u[:, i], vh[i]).conj() for i in range(4)])
    np.testing.assert_allclose(slopes, expected, atol=tolerance(dtype, 20))


def test_truncated_svd_of_degenerate_operators():
    """Zero, rank one and the identity; and another start."""
    one = prescribed(np.where(np.arange(48) < 1, 3.0, 0), LARGE[0], REAL)
    a = jnp.asarray(np.stack([one, np.zeros_like(one), np.eye(*LARGE[0], dtype=REAL)]))

    def values(w):
        svd = jn.truncated_svd(of_matrix(w), 2, key=jax.random.key(1), tol=1e-3)
        return svd.s, svd

    slopes, (u, s, vh, bound) = jax.jit(jax.vmap(jax.jacrev(values, has_aux=True)))(a)
    np.testing.assert_allclose(s, [[3, 0], [0, 0], [1, 1]], atol=tolerance(REAL))
    np.testing.assert_allclose(bound, [0, 0, np.sqrt(46)], rtol=1e-3, atol=tolerance(REAL, 1000))
    for x in (jnp.swapaxes(u, 1, 2) @ u, vh @ jnp.swapaxes(vh, 1, 2)):
        np.testing.assert_allclose(x, np.broadcast_to(np.eye(2), x.shape), atol=tolerance(REAL))
    np.testing.assert_allclose(np.trace(slopes[2], axis1=1, axis2=2), [1, 1], rtol=tolerance(REAL, 200))
    assert not np.any(slopes[1])


@pytest.mark.parametrize(("shape", "dtype"), [(LARGE[1], COMPLEX), (SMALL, REAL)], ids=str)
def test_bounds_enclose_the_norm(shape, dtype):
    ords = [jn.Schatten(inf), jn.Schatten(1), jn.Entrywise(2)]
    _, a = factory(shape, dtype)
    s = jnp.asarray(np.linalg.svd(a.astype(np.result_type(dtype, np.float64)), compute_uv=False), REAL)
    bounds = jax.jit(jax.vmap(lambda w: [jn.norm_bounds(of_matrix(w), ord) for ord in ords]))(a)
    slack = tolerance(dtype, 4)
    for (lower, upper), ord in zip(bounds, ords, strict=True):
        value = ord(s, diagonal=True)
        assert np.all(lower <= value * (1 + slack))
        assert np.all(value * (1 - slack) <= upper)
    tight = jn.norm_bounds(of_matrix(decaying(shape, dtype, ratio=0.5)), "spectral")
    assert tight.upper <= 1.01 * tight.lower


def test_estimated_frobenius_norm():
    """Unbiased in the square, of the stated variance; its derivative is that of the same estimate."""
    a = gaussian((30, 20), COMPLEX) * np.linspace(1, 0.1, 20).astype(REAL)
    e = gaussian(a.shape, COMPLEX, seed=1)
    keys = jax.random.split(jax.random.key(3), 400)

    def both(w, key):
        function = jn.squared_frobenius_norm, jn.frobenius_norm
        return jnp.stack([f(of_matrix(w), samples=5, key=key) for f in function])

    @jax.jit
    def run(w):
        one = jax.vjp(lambda w: both(w, keys[0])[1], w)[1](jnp.ones((), REAL))
        return jax.vmap(both, (None, 0))(w, keys), *one, jax.jvp(lambda w: both(w, keys[0]), (w,), (jnp.asarray(e),))[1]

    values, g, slopes = map(np.asarray, run(jnp.asarray(a)))
    gram = a.conj().T @ a
    variance = 2 / 5 * (np.sum(gram.real**2) - np.sum(np.diag(gram).real ** 2))
    assert abs(values[:, 0].mean() - np.linalg.norm(a) ** 2) <= 4 * np.sqrt(variance / 400)
    np.testing.assert_allclose(values[:, 0].var(), variance, rtol=0.3)
    np.testing.assert_allclose(values[:, 1] ** 2, values[:, 0], rtol=tolerance(REAL))
    along = inner(g.conj(), e)
    np.testing.assert_allclose(inner(g.conj(), a), values[0, 1], rtol=tolerance(REAL))
    np.testing.assert_allclose(slopes, [2 * values[0, 1] * along, along], rtol=tolerance(REAL, 200))


# Range, types, bad input.


@both_kinds
def test_powers_of_two_change_no_digit(shape):
    a = decaying(shape, REAL)
    powers = np.asarray([1, 2.0**84, 2.0**-84], REAL)  # 1e25

    def one(c):
        return with_jacobian(lambda w: norms(of_matrix(w)))(c * a), jn.truncated_svd(of_matrix(c * a), 3)

    (value, g), s = jax.jit(jax.vmap(one))(powers)
    np.testing.assert_array_equal(value / powers[:, None], np.broadcast_to(value[0], value.shape))
    np.testing.assert_array_equal(g, np.broadcast_to(g[0], g.shape))
    np.testing.assert_array_equal(s.s / powers[:, None], np.broadcast_to(s.s[0], s.s.shape))
    np.testing.assert_array_equal(s.error_bound / powers, np.full(3, s.error_bound[0]))


@both_kinds
def test_not_finite(shape):
    """NaN for that operator of the batch alone; infinite or NaN where a product is infinite."""
    a = np.stack([decaying(shape, REAL)] * 3)
    a[1, 2, 1], a[2, 2, 1] = np.nan, np.inf

    def one(w):
        return with_jacobian(lambda w: norms(of_matrix(w)))(w), jn.truncated_svd(of_matrix(w), 2)

    (value, g), svd = jax.jit(jax.vmap(one))(a)
    for x in (value, g, *svd):
        assert np.all(np.isfinite(x[0]))
        assert np.all(np.isnan(x[1]))
        assert not np.any(np.isfinite(x[2]))
    assert np.all(np.isnan(g[2]))


def test_sixteen_bits():
    """float32 where the functions allow it, else products of 16 bits."""
    a = decaying((60, 50), np.float32).astype(jnp.bfloat16)

    def narrow(w, x):
        return (w @ x.astype(w.dtype)).astype(jnp.bfloat16)

    wide = np.asarray(a, np.float32)
    exact = np.linalg.svd(wide, compute_uv=False)
    for function, rtol in ((matvec, 2**-8), (narrow, 2**-6)):
        op = jn.LinearOperator(a, function, None, a.shape, jnp.bfloat16)
        value, gradient = jax.value_and_grad(jn.spectral_norm)(op)
        assert value.dtype == gradient.params.dtype == jnp.bfloat16
        np.testing.assert_allclose(float(value), exact[0], rtol=rtol)
        np.testing.assert_allclose(inner(np.asarray(gradient.params, np.float32), wide), exact[0], rtol=rtol)
        lower, upper = jn.norm_bounds(op, "fro")
        assert float(lower) <= np.linalg.norm(exact) <= float(upper)


def test_second_derivatives_raise():
    functions = [
        jn.spectral_norm,
        jn.frobenius_norm,
        lambda op: jn.squared_frobenius_norm(op, samples=2, key=jax.random.key(0)),
        lambda op: jn.singular_values(op, 2)[0],
    ]
    message = "second derivatives of a norm or singular value of a LinearOperator"
    for f in functions:
        for w in (jnp.ones((60, 50), REAL), W):
            first = jax.grad(lambda w, f=f: f(of_matrix(w)))
            for second in (jax.jacfwd(first), jax.grad(lambda w, g=first: jnp.sum(g(w)))):
                with pytest.raises(ValueError, match=message):
                    jax.jit(second)(w)


def test_matrix_is_never_formed():
    """Value and gradient of a Frobenius norm take less memory than the matrix."""
    n = 4096

    def value(params):
        return jn.frobenius_norm(jn.LinearOperator(params, lambda p, x: p[0] * (p[1] * x), None, (n, n), REAL))

    compiled = jax.jit(jax.value_and_grad(value)).lower((jnp.ones(n, REAL),) * 2).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < n * n * REAL.itemsize / 8
