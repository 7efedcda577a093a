"""Perturbation bounds: never violated by a thousand random perturbations, and attained where theory says so.

Reference values are computed in double precision from the same entries. The bounds may be short by their own rounding,
``tolerance(REAL)`` relative, and the references are right to ``tolerance(np.float64)`` of what they are computed from.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matrices import DTYPES, REAL, gaussian, needs_double, prescribed, tolerance, unitary

import jaxnorms as jn

COUNT = 1000
SLACK, REFERENCE = tolerance(REAL), tolerance(np.float64)


def wide(x):
    return np.asarray(x, np.complex128 if np.iscomplexobj(x) else np.float64)


def perturbations(shape, dtype, low, high, seed=1):
    """Gaussian, of sizes ``10^low`` to ``10^high``."""
    sizes = 10.0 ** np.random.default_rng(seed).uniform(low, high, COUNT)
    return (gaussian((COUNT, *shape), dtype, seed) * sizes.reshape(-1, *[1] * len(shape))).astype(dtype)


def size(x, order=2):
    return np.linalg.norm(wide(x), order, axis=(-2, -1))


def length(x, order=2):
    return np.linalg.norm(wide(x), order, axis=-1)


def matches(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=SLACK)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_weyl_and_mirsky_hold(dtype):
    a, e = prescribed(np.array([3.0, 2, 2, 0]), (5, 4), dtype), perturbations((5, 4), dtype, -6, 2)
    weyl, mirsky = jax.jit(lambda e: (jax.vmap(jn.weyl_bound)(e), jax.vmap(jn.mirsky_bound)(e)))(e)
    moved = np.linalg.svd(wide(a) + wide(e), compute_uv=False) - np.linalg.svd(wide(a), compute_uv=False)
    slack = REFERENCE * (3 + size(e))
    assert np.all(np.max(np.abs(moved), axis=1) <= wide(weyl) * (1 + SLACK) + slack)
    assert np.all(length(moved) <= wide(mirsky) * (1 + SLACK) + slack)
    h, f = wide(a.conj().T @ a), wide(e[:, :4] + e[:, :4].conj().swapaxes(1, 2))
    bound = wide(jn.weyl_bound(f.astype(dtype)))
    moved = np.abs(np.linalg.eigvalsh((h + h.conj().T) / 2 + f) - np.linalg.eigvalsh((h + h.conj().T) / 2))
    assert np.all(np.max(moved, axis=1) <= bound * (1 + SLACK) + REFERENCE * (9 + size(f)))


def test_weyl_and_mirsky_are_attained():
    a = wide(prescribed(np.array([3.0, 2, 1]), (4, 3), REAL))
    u, s, vh = np.linalg.svd(a, full_matrices=False)
    for d in (np.array([0.5, 0, 0]), np.array([0.3, 0.2, 0.1])):
        e = (u * d) @ vh
        moved = np.linalg.svd(a + e, compute_uv=False) - s
        matches(jn.weyl_bound(e.astype(REAL)), np.max(moved))
        matches(jn.mirsky_bound(e.astype(REAL)), np.linalg.norm(moved))


def moved_eigenvalues(a, e):
    """The greatest distance of an eigenvalue of a + e from those of a."""
    before, after = np.linalg.eigvals(wide(a)), np.linalg.eigvals(wide(a) + wide(e))
    return np.max(np.min(np.abs(after[..., :, None] - before[..., None, :]), axis=-1), axis=-1)


bauer_fike = jax.jit(jax.vmap(jn.bauer_fike_bound))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_bauer_fike_holds(dtype):
    a, e = gaussian((COUNT, 4, 4), dtype), perturbations((4, 4), dtype, -3, 1)
    bound = wide(bauer_fike(a, e))
    factor = bound / size(e)
    assert np.all(np.isfinite(factor) & (factor > 1))
    assert np.all(moved_eigenvalues(a, e) <= bound * (1 + SLACK) + REFERENCE * factor * size(a))


def test_bauer_fike_is_attained_for_normal_matrices():
    """The factor is exactly 1, repeated eigenvalues and a nonsymmetric form included."""
    q, p = unitary(np.random.default_rng(0), 6, 6, DTYPES[1]), unitary(np.random.default_rng(1), 6, 6, REAL)
    shift = np.roll(np.eye(6), 1, axis=0)
    turn = p @ np.kron(np.eye(3), np.array([[1.0, 2], [-2, 1]])) @ p.T
    normal = [p @ np.diag([2.0, 2, 2, 1, 1, 0]) @ p.T, shift, shift + 2 * shift.T, turn, np.zeros((6, 6)), p]
    normal += [q @ np.diag([2, 2, 2j, 2j, 1, 0]) @ q.conj().T, q]
    normal = np.stack(normal).astype(DTYPES[1])
    e = np.broadcast_to(0.25 * np.eye(6), normal.shape).astype(DTYPES[1])
    np.testing.assert_allclose(bauer_fike(normal, e), 0.25, rtol=SLACK)
    np.testing.assert_allclose(moved_eigenvalues(normal[1], 0.25 * shift @ shift), 0.25, rtol=1e-12)
    q = unitary(np.random.default_rng(2), 30, 30, DTYPES[1])
    large = (q @ np.diag(np.arange(30) % 3 + 1j * (np.arange(30) % 2)) @ q.conj().T).astype(DTYPES[1])
    matches(jn.bauer_fike_bound(large, 0.25 * np.eye(30)), 0.25)
    real = normal[:6].real.astype(REAL)
    np.testing.assert_allclose(bauer_fike(real, e[:6].real.astype(REAL)), 0.25, rtol=SLACK)


def test_bauer_fike_of_a_matrix_far_from_normal():
    """Its eigenvalues move a hundred times as far as a normal matrix's could."""
    m, t = 100.0, 1e-3
    a, e = np.array([[1, m], [0, 0]], REAL), np.array([[0, 0], [t, 0]], REAL)
    c = m / np.hypot(m, 1)
    bound = jn.bauer_fike_bound(a, e)
    np.testing.assert_allclose(bound, np.sqrt((1 + c) / (1 - c)) * t, rtol=SLACK * m**2)
    assert 90 * t < moved_eigenvalues(a, e) < bound
    jordan = np.eye(3, k=1, dtype=REAL)
    assert jn.bauer_fike_bound(jordan, jordan) == np.inf
    assert jn.bauer_fike_bound(jordan, 0 * jordan) == 0
    assert not np.any(jax.grad(jn.bauer_fike_bound, argnums=1)(jordan, jordan))


def test_bauer_fike_is_differentiated_in_the_perturbation_alone():
    a, e = gaussian((3, 3), REAL), gaussian((3, 3), REAL, 1)
    value, slope = jax.value_and_grad(jn.bauer_fike_bound, argnums=1)(a, e)
    matches(slope, value / jn.spectral_norm(e) * jax.grad(jn.spectral_norm)(e))
    constant = jax.grad(lambda a: jn.bauer_fike_bound(jax.lax.stop_gradient(a), a))(a)
    assert np.any(constant)
    for differentiate in (jax.grad, jax.jacfwd):
        with pytest.raises(ValueError, match="derivative of an eigenvector bound in the matrix itself is not defined"):
            differentiate(jn.bauer_fike_bound)(a, e)


@pytest.mark.parametrize("p", [None, 1, np.inf, "fro"])
def test_forward_error_holds(p):
    dtype = DTYPES[p is None]
    a, b = gaussian((COUNT, 4, 4), dtype), gaussian((COUNT, 4), dtype, 2)
    da, db = perturbations((4, 4), dtype, -6, 0.5), perturbations((4,), dtype, -6, 0.5, 3)
    bound = wide(jax.jit(jax.vmap(lambda *args: jn.forward_error_bound(*args, p=p)))(a, b, da, db))
    x = np.linalg.solve(wide(a), wide(b)[..., None])[..., 0]
    moved = np.linalg.solve(wide(a) + wide(da), (wide(b) + wide(db))[..., None])[..., 0]
    order = p if isinstance(p, float | int) else 2
    error = length(moved - x, order) / length(x, order)
    # The bound loses digits where k ea approaches 1, and the references where the matrices are singular.
    k = np.linalg.cond(wide(a), p)
    ea = size(da, p or 2) / size(a, p or 2)
    finite = np.isfinite(bound)
    near = np.where(finite, np.abs(1 - k * ea), 1)
    assert 0.3 * COUNT < np.sum(finite) < 0.9 * COUNT
    assert np.all(error[finite] <= (bound * (1 + SLACK * k / near) + REFERENCE * k / near)[finite])
    assert np.all((k * ea)[~finite] >= 1 - SLACK * k[~finite])


def test_forward_error_is_attained_in_one_dimension():
    a, b, da, db = (
        np.array(x, REAL).reshape(-1, 1) for x in ([1, 2, 1, 1], [1, -3, 1, 1], [-0.5, -1, -1, 0], [0.5, -1.5, 0, 0])
    )
    bound = jn.forward_error_bound(a[..., None], b, da[..., None], db)
    matches(bound, [2, 2, np.inf, 0])
    moved = (b + db)[:2] / (a + da)[:2] / (b / a)[:2]
    matches(bound[:2], np.abs(moved - 1)[:, 0])


def test_forward_error_at_zeros():
    a, b, zero = jnp.eye(2), jnp.ones(2), jnp.zeros(2)
    nothing = jnp.zeros((2, 2))
    assert jn.forward_error_bound(a, zero, nothing, zero) == 0
    assert jn.forward_error_bound(a, zero, nothing, b) == np.inf
    assert jn.forward_error_bound(jnp.ones((2, 2)) * 0, b, nothing, zero) == np.inf
    assert jn.forward_error_bound(jnp.diag(jnp.array([1.0, 0])), b, nothing, zero) == np.inf
    assert jn.forward_error_bound(jnp.zeros((0, 0)), jnp.zeros(0), jnp.zeros((0, 0)), jnp.zeros(0)) == 0
    for arguments in ((a, b, nothing, zero), (a, zero, nothing, b), (nothing, b, nothing, zero)):
        slopes = jax.grad(jn.forward_error_bound, argnums=(0, 1, 2, 3))(*arguments)
        assert all(np.all(g == 0) for g in slopes)


def test_range_of_forward_error():
    """Bit for bit under powers of two, up to the ends of the range."""
    a, b = gaussian((4, 4), REAL), gaussian((4,), REAL, 1)
    e = REAL.type(2.0**-12)
    forward = jax.jit(jn.forward_error_bound)
    expected = forward(a, b, e * a.T, e * b[::-1])
    for s in (2.0 ** (jnp.finfo(REAL).maxexp - 24), 2.0 ** (jnp.finfo(REAL).minexp + 24)):
        s = REAL.type(s)
        assert forward(s * a, b / s, s * (e * a.T), (e * b[::-1]) / s) == expected


def rigal_gaches(a, x, b):
    """The smallest perturbations in norm, of one matrix."""
    r = b - a @ x
    s = np.linalg.norm(a, 2) * np.linalg.norm(x) + np.linalg.norm(b)
    return np.outer(r, x.conj()) * np.linalg.norm(a, 2) / np.linalg.norm(x) / s, -r * np.linalg.norm(b) / s


def oettli_prager(a, x, b):
    r, s = b - a @ x, np.abs(a) @ np.abs(x) + np.abs(b)
    return (r / s)[:, None] * np.abs(a) * (x.conj() / np.abs(x)), -(r / s) * np.abs(b)


backward = jax.jit(jax.vmap(jn.backward_error))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_backward_error_is_the_least_and_attained(dtype):
    """No perturbation that makes x a solution is smaller; the one that theory constructs has that size."""
    a, db = gaussian((COUNT, 4, 4), dtype), perturbations((4,), dtype, -6, 0)
    da, x = perturbations((4, 4), dtype, -6, 0, 2), gaussian((COUNT, 4), dtype, 3)
    b = np.einsum("kij,kj->ki", wide(a) + wide(da), wide(x)) - wide(db)
    error = backward(a, x, b.astype(dtype))
    normwise, componentwise = wide(error.normwise), wide(error.componentwise)
    # b and the residual are rounded: eps of the terms, relative to which the errors are.
    t = np.maximum(size(da) / size(a), length(db) / length(b))
    assert np.all(normwise <= t * (1 + SLACK) + SLACK)
    t = np.maximum(np.max(np.abs(da) / np.abs(a), axis=(1, 2)), np.max(np.abs(db) / np.abs(b), axis=1))
    assert np.all(componentwise <= t * (1 + SLACK) + SLACK)
    assert np.all((normwise >= 0) & (normwise <= 1 + SLACK) & (componentwise <= 1 + SLACK))

    for i in range(20):
        ai, xi, bi = wide(a[i]), wide(x[i]), wide(b[i].astype(dtype))
        da, db = rigal_gaches(ai, xi, bi)
        np.testing.assert_allclose((ai + da) @ xi, bi + db, atol=REFERENCE * 10)
        sizes = np.linalg.norm(da, 2) / np.linalg.norm(ai, 2), np.linalg.norm(db) / np.linalg.norm(bi)
        np.testing.assert_allclose(sizes, normwise[i], rtol=SLACK, atol=SLACK)
        da, db = oettli_prager(ai, xi, bi)
        np.testing.assert_allclose((ai + da) @ xi, bi + db, atol=REFERENCE * 10)
        largest = np.max(np.abs(da) / np.abs(ai)), np.max(np.abs(db) / np.abs(bi))
        np.testing.assert_allclose(largest, componentwise[i], rtol=SLACK, atol=SLACK)


def test_range_of_backward_error():
    """Bit for bit under powers of two; those of the rows as well, componentwise."""
    a, x, b = gaussian((4, 4), REAL), gaussian((4,), REAL, 1), gaussian((4,), REAL, 2)
    top = jnp.finfo(REAL).maxexp - 24
    s, t = REAL.type(2.0**top), REAL.type(2.0**-top)
    stack = [(a, x, b), (a * s, x * t, b), (a * t, x * s, b), (a * t, x, b * t), (a, x * s, b * s)]
    error = backward(*(np.stack(z) for z in zip(*stack, strict=True)))
    for y in error:
        np.testing.assert_array_equal(y, y[0])
    rows = np.array([s, t, 1, t], REAL)
    by_rows = jn.backward_error(rows[:, None] * a, x, rows * b)
    np.testing.assert_array_equal(by_rows.componentwise, error.componentwise[0])
    beyond = jn.backward_error(s * a, s * x, b)  # the product overflows, the result is 1
    np.testing.assert_allclose(beyond, jn.backward_error(a, x, 0 * b), rtol=SLACK)


def test_backward_error_at_zeros():
    a, b, zero = jnp.eye(2), jnp.array([1.0, 2.0]), jnp.zeros(2)
    nothing = jnp.zeros((2, 2))
    cases = [
        (a, b, b, 0),
        (a, zero, b, 1),
        (nothing, b, b, 1),
        (nothing, zero, zero, 0),
        (a, zero, zero, 0),
        (a, b, zero, 1),
    ]
    a, x, b, expected = (jnp.stack([jnp.asarray(c[i], REAL) for c in cases]) for i in range(4))
    for y in backward(a, x, b):
        np.testing.assert_allclose(y, expected, rtol=SLACK)

    def total(a, x, b):
        return sum(jnp.sum(y) for y in jn.backward_error(a, x, b))

    for g in jax.jit(jax.grad(total, argnums=(0, 1, 2)))(a, x, b):
        assert np.all(np.isfinite(g))
        assert not np.any(g[3])
    for shape in ((0, 2), (2, 0)):
        assert jn.backward_error(jnp.zeros(shape), jnp.zeros(shape[1]), jnp.zeros(shape[0])) == (0, 0)


def test_digits_left():
    a = np.stack([np.diag([1.0, 1e-3]), np.diag([4.0, 4.0]), np.ones((2, 2)), np.zeros((2, 2))]).astype(REAL)
    eps = jnp.finfo(REAL).eps
    matches(jn.digits_left(a), [-np.log10(eps * 1e3), -np.log10(eps), 0, 0])
    matches(jn.digits_left(a[:2], 1), [-np.log10(eps * 1e3), -np.log10(eps)])
    slopes = jax.grad(lambda a: jnp.sum(jn.digits_left(a)))(a)
    matches(slopes[0], np.diag([-1, 1e3]) / np.log(10))
    assert not np.any(slopes[1:])
    half = jn.digits_left(jnp.asarray(a[:2], jnp.bfloat16))
    assert half.dtype == jnp.bfloat16
    np.testing.assert_allclose(half.astype(REAL), [0, -np.log10(2.0**-7)], rtol=2.0**-8)


@needs_double
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_mode(dtype):
    a, b = gaussian((3, 3), dtype) + 3 * np.eye(3), gaussian((3,), dtype, 1)
    da, db, x = gaussian((3, 3), dtype, 2) / 50, gaussian((3,), dtype, 3) / 50, gaussian((3,), dtype, 4)

    at, h = (a, b, da, db, x), 1e-6
    along = tuple(gaussian(y.shape, dtype, 5 + i) for i, y in enumerate(at))

    def total(a, b, da, db, x):
        values = jn.forward_error_bound(a, b, da, db), *jn.backward_error(a, x, b), jn.digits_left(a)
        return jnp.sum(jnp.stack(values) * jnp.array([1.0, 2, 3, 4]))

    def by_forward(*at):
        return jax.jvp(total, at, along)[1]

    def by_reverse(*at):
        slopes = jax.grad(total, argnums=range(5))(*at)
        return sum(jnp.sum(g * e).real for g, e in zip(slopes, along, strict=True))

    slope = by_reverse if dtype == REAL else by_forward
    everything = jax.jit(lambda *at: (total(*at), by_forward(*at), *jax.jvp(slope, at, along)))
    (up, ups, *_), (down, downs, *_) = (
        everything(*(y + t * e for y, e in zip(at, along, strict=True))) for t in (h, -h)
    )
    _, first, same, second = everything(*at)
    np.testing.assert_allclose(first, (up - down) / (2 * h), rtol=1e-7)
    np.testing.assert_allclose(same, first, rtol=SLACK)
    np.testing.assert_allclose(second, (ups - downs) / (2 * h), rtol=1e-6)


def test_bad_rows():
    """NaN, in value and derivatives, wherever a NaN or an infinity stands, and in no other row."""
    good = [gaussian(shape, REAL, i) for i, shape in enumerate([(2, 2), (2,), (2, 2), (2,)])]
    rows = [np.stack([x] * 9) for x in good]
    for i, x in enumerate(rows):
        x[i].flat[0], x[i + 4].flat[0] = np.nan, np.inf
    a, b, da, db = rows

    @jax.jit
    def everything(a, b, da, db):
        def forward(*args):
            return jnp.sum(jn.forward_error_bound(*args))

        def back(a, b, db):
            return sum(jnp.sum(y) for y in jn.backward_error(a, b, db))

        return (
            (jn.forward_error_bound(a, b, da, db), *jax.grad(forward, argnums=(0, 1, 2, 3))(a, b, da, db)),
            (*jn.backward_error(a, b, db), *jax.grad(back, argnums=(0, 1, 2))(a, b, db)),
            (jn.bauer_fike_bound(a, da), jax.grad(lambda e: jnp.sum(jn.bauer_fike_bound(a, e)))(da)),
        )

    clean = everything(*(np.stack([x] * 9) for x in good))
    for results, references, touched in zip(
        everything(a, b, da, db), clean, ([0, 1, 2, 3], [0, 1, 3], [0, 2]), strict=True
    ):
        for y, reference in zip(results, references, strict=True):
            assert np.all(np.isnan(np.asarray(y)[[*touched, *(i + 4 for i in touched)]]))
            assert not np.any(np.isnan(np.asarray(y)[8]))
            np.testing.assert_array_equal(y[8], reference[8])


def test_types_and_batches():
    a, b = jnp.asarray(gaussian((2, 2), REAL), jnp.bfloat16), jnp.ones((3, 2), jnp.bfloat16)
    bound = jn.forward_error_bound(a, b, a / 64, jnp.ones((5, 1, 2), jnp.bfloat16) / 64)
    assert (bound.shape, bound.dtype) == ((5, 3), jnp.bfloat16)
    error = jn.backward_error(a, b, np.ones(2, DTYPES[1]))
    assert (error.normwise.shape, error.componentwise.dtype) == ((3,), REAL)
    assert jn.bauer_fike_bound(a, jnp.ones((4, 2, 2))).dtype == REAL
    assert jn.weyl_bound([[3, 0], [0, 4]]) == 4


def test_what_is_refused():
    a, b = jnp.eye(2), jnp.ones(2)
    with pytest.raises(ValueError, match=r"weyl_bound: e must have shape \(\.\.\., m, n\), got shape \(2,\)"):
        jn.weyl_bound(b)
    with pytest.raises(
        ValueError, match=r"bauer_fike_bound: e must have shape \(\.\.\., 2, 2\) to go with a, got shape"
    ):
        jn.bauer_fike_bound(a, jnp.eye(3))
    with pytest.raises(
        ValueError, match=r"forward_error_bound: b must have shape \(\.\.\., 2\) to go with a, got shape"
    ):
        jn.forward_error_bound(a, jnp.ones(3), a, b)
    with pytest.raises(ValueError, match=r"db must have shape \(\.\.\., 2\)"):
        jn.forward_error_bound(a, b, a, jnp.float32(1))
    with pytest.raises(ValueError, match=r"p must be None, 1, 2, inf, 'fro' or 'nuc', got -2"):
        jn.forward_error_bound(a, b, a, b, p=-2)
    with pytest.raises(ValueError, match=r"x must have shape \(\.\.\., 2\)"):
        jn.backward_error(a, jnp.ones((2, 1)), b)
    with pytest.raises(ValueError, match=r"batch axes of all arguments must broadcast, got \[\(\), \(2,\), \(3,\)\]"):
        jn.backward_error(a, jnp.ones((2, 2)), jnp.ones((3, 2)))
    with pytest.raises(ValueError, match="digits_left: a must have shape"):
        jn.digits_left(jnp.zeros((0, 0)))
