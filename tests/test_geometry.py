"""Proximal operators, projections and oracles of every norm at every matrix of the factory, by certificates."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from certificates import inner
from matrices import COMPLEX, REAL, factory, gaussian, needs_double, prescribed, tolerance
from norm_cases import NORMS, inf

import jaxnorms as jn

KNOWN = [name for name in NORMS if not name.startswith("user")]
# Three nested loops each: their compilation takes longest, minutes for the first.
NESTED = ("mixed_3_1.5", "mixed_1_2_rows", "dual_ky_fan_3_1.5", "ky_fan_3_1.5")
# Two loops, and derivatives by the same rules as those of norms that stay: "ky_fan_2" and "schatten_4".
COSTLY = (*NESTED, "ky_fan_2_2", "dual_ky_fan_2_2", "schatten_1.5")
# Whose projection is accurate relative to the radius.
RELATIVE = ("frobenius", "sum", "max", "entrywise_3", "mixed_2_1", "spectral", "nuclear", "schatten_4", "dual_ky_fan_2")


def on_host(f):
    """Results in double precision, whose products do not overflow."""

    def wide(*args):
        x = np.asarray(f(*args))
        return x.astype(np.result_type(x.dtype, np.float64))

    return wide


def cases():
    for name in KNOWN:
        slow = [pytest.mark.slow] if name in NESTED[: 1 if REAL.itemsize == 8 else None] else []
        yield pytest.param(name, (5, 5), REAL, id=f"{name}-real", marks=slow)
        slow = [] if name in ("sum", "mixed_2_1", "nuclear", "spectral", "ky_fan_2") else [pytest.mark.slow]
        yield pytest.param(name, (3, 7), COMPLEX, id=f"{name}-complex", marks=slow)


@pytest.mark.parametrize(("name", "shape", "dtype"), list(cases()))
def test_certificates(name, shape, dtype):
    norm, other, (names, a) = on_host(NORMS[name]), on_host(jn.dual(NORMS[name])), factory(shape, dtype)
    prox, project, lmo = on_host(jn.prox), on_host(jn.project), on_host(jn.lmo)
    ord, dual = NORMS[name], jn.dual(NORMS[name])
    tol = tolerance(dtype, size=np.sqrt(a[0].size))
    value, dual_value = norm(a), other(a)
    size, dual_size = (np.asarray(x, np.float64) for x in (value, dual_value))
    step, radius = 0.3 * dual_value, 0.4 * value
    unit, scale = np.where(size > 0, size * dual_size, 1), np.asarray(jn.frobenius_norm(a), np.float64)

    def small(x, unit, what):
        bad = np.abs(x) > tol * unit
        assert not np.any(bad), (what, [names[i] for i in np.unique(np.nonzero(bad)[0])], np.max(np.abs(x)[bad]))

    p = prox(a, step, ord)
    small(p + project(a, step, dual) - a, scale[:, None, None], "Moreau's identity")
    # (a - p) / step is a subgradient of the norm at p.
    small(inner(a - p, p) - step * norm(p), unit, "prox")
    assert np.all(other(a - p) <= step * (1 + tol))
    # The projection q is feasible, idempotent, and attains the maximum of <a - q, x> over the ball.
    q = project(a, radius, ord)
    assert np.all(norm(q) <= radius * (1 + tol))
    small(project(q, radius, ord) - q, scale[:, None, None], "projected twice")
    small(inner(a - q, q) - radius * other(a - q), unit, "angle with the ball")
    near = a * REAL.type(0.7) + np.abs(a)
    assert np.all(inner(a - q, project(near, radius, ord) - q) <= tol * unit)
    least, tiny = 1e-9 * value, norm(project(a, 1e-9 * value, ord))
    assert np.all(tiny <= least * (1 + tol))
    if name in RELATIVE:
        normal = least > 1e-30  # entries far below it are not flushed to zero
        np.testing.assert_allclose(tiny[normal], least[normal], rtol=tol)
    # The oracle attains the dual norm.
    x = lmo(a, 2.0, ord)
    np.testing.assert_allclose(inner(x, a), -2 * dual_size, rtol=tol)
    assert np.all(norm(x) <= 2 * (1 + tol))


@needs_double
@pytest.mark.parametrize(
    ("name", "dtype"),
    [pytest.param(name, REAL, marks=[pytest.mark.slow] if name in COSTLY else []) for name in KNOWN]
    + [(name, COMPLEX) for name in ("sum", "entrywise_1.5", "mixed_2_1", "nuclear")],
    ids=str,
)
def test_derivatives(name, dtype):
    """In the matrix and in the number, against central differences; reverse mode is the transpose of forward mode."""
    norm, h, rate = NORMS[name], 1e-6, 0.7
    a, e, w = gaussian((3, 4, 3), dtype)
    t = 0.35 * norm(a)
    matrices, numbers = np.stack([a + h * e, a - h * e]), np.stack([t + h * rate, t - h * rate])
    for f in (jn.prox, jn.project, jn.moreau_envelope):
        _, there = jax.jvp(lambda a, t, f=f: f(a, t, norm), (a, t), (e, jnp.asarray(rate)))
        ends = f(matrices, numbers, norm)
        np.testing.assert_allclose(there, (ends[0] - ends[1]) / (2 * h), atol=1e-6)
        if f is not jn.moreau_envelope:
            _, back = jax.vjp(lambda a, t, f=f: f(a, t, norm), a, t)
            ca, ct = back(w.conj())
            np.testing.assert_allclose(np.vdot(w, there).real, np.sum(ca * e).real + ct * rate, atol=1e-6)


@needs_double
@pytest.mark.parametrize("dtype", [REAL, COMPLEX], ids=str)
@pytest.mark.parametrize("name", ["sum", "frobenius", "mixed_2_1", "nuclear", "spectral"])
def test_second_derivatives_of_the_envelope(name, dtype):
    norm, h, rate = NORMS[name], 1e-6, 0.7
    a, e, _ = gaussian((3, 4, 3), dtype)
    t = 0.35 * norm(a)
    gradient = jax.jit(jax.grad(lambda a, t: jn.moreau_envelope(a, t, norm), argnums=(0, 1)))
    _, there = jax.jvp(gradient, (a, t), (e, jnp.asarray(rate)))
    for d, plus, minus in zip(there, gradient(a + h * e, t + h * rate), gradient(a - h * e, t - h * rate), strict=True):
        np.testing.assert_allclose(d, (plus - minus) / (2 * h), atol=1e-6)


@pytest.mark.parametrize(
    "name",
    ["nuclear", "spectral", "ky_fan_2", "schatten_4", "frobenius", "mixed_2_1", "induced_1_2", "max", "entrywise_3"],
)
def test_derivatives_are_finite_everywhere(name):
    """At ties, zeros, zero columns, and on the boundary of the ball, in both modes."""
    norm, (_, a) = NORMS[name], factory((5, 5), REAL)
    e = gaussian(a.shape, REAL)

    @jax.jit
    def derivatives(a, t):
        return [
            jax.jvp(lambda a, t, f=f: f(a, t, norm), (a, t), (e, jnp.ones_like(t)))[1] for f in (jn.prox, jn.project)
        ]

    for t in (np.ones(len(a), REAL), np.asarray(norm(a)), np.asarray(jn.dual(norm)(a)), np.zeros(len(a), REAL)):
        for x in derivatives(a, t):
            assert np.all(np.isfinite(x))


def test_jacobians_at_ties():
    """Soft thresholding at ties: the divided differences are 1 inside, 0 outside, and 1 - t / s in the skew part."""
    for s, t, sym, skew in (([3.0, 3.0], 1.0, 1, 2 / 3), ([0.5, 0.5], 1.0, 0, 0), ([3.0, 1.0], 2.0, 0.5, 0.25)):
        a = jnp.diag(jnp.asarray(s, REAL))
        for e, rate in ((np.array([[0, 1], [1, 0]]), sym), (np.array([[0, 1], [-1, 0]]), skew)):
            _, d = jax.jvp(lambda a, t=t: jn.prox(a, t, "nuc"), (a,), (jnp.asarray(e, REAL),))
            np.testing.assert_allclose(d, rate * e, atol=tolerance(REAL))


def test_zero_columns():
    """Soft thresholding keeps them zero to first order; a cube leaves the inside alone."""
    a, e = jnp.array([[0.0, 3], [0, 4]]), jnp.array([[1.0, 0], [2, 0]])
    for f, norm, there in ((jn.prox, jn.Mixed(2, 1), 0 * e), (jn.project, jn.Mixed(2, inf), e)):
        np.testing.assert_array_equal(jax.jvp(lambda a, f=f, norm=norm: f(a, 1.0, norm), (a,), (e,))[1], there)


def test_small_steps_and_large_entries():
    """The gradient of the envelope tends to that of the norm; at step 0 the prox moves along it; sums that overflow."""
    gradient = jax.grad(jn.moreau_envelope, argnums=(0, 1))
    for ord, a in (("fro", [[1e8]]), ("nuc", [[1e8, 0], [0, 3e3]]), ("spectral", [[1e3, 0], [0, 1]])):
        g, slope = gradient(jnp.asarray(a), 1e-4, ord)
        np.testing.assert_allclose(g, jn.subgradient(jnp.asarray(a), ord), atol=1e-6)
        np.testing.assert_allclose(slope, -np.sum(np.square(g)) / 2, rtol=1e-6)
    a = jnp.array([[2.0, -1.0]])
    np.testing.assert_allclose(jax.jacfwd(lambda t: jn.prox(a, t, jn.Entrywise(1)))(0.0), [[-1, 1]])
    np.testing.assert_allclose(jax.jacfwd(lambda t: jn.project(-2 * a, t, "spectral"))(0.0), -a / 5**0.5, rtol=1e-5)
    big = float(jnp.finfo(REAL).max) / 2
    e = jnp.array([[0.0, 1.0], [-1.0, 0.0]])
    for f in (lambda a: jn.prox(a, 0.3 * big, "spectral"), lambda a: jn.best_approximation(a, 1).matrix):
        slopes = [jax.jvp(f, (c * jnp.diag(jnp.array([1.0, 0.8])),), (e,))[1] for c in (big, 1.0)]
        assert np.all(np.isfinite(slopes[0]))
    np.testing.assert_allclose(slopes[0], slopes[1], atol=1e-5)


def test_steps_broadcast():
    a, t = gaussian((2, 3, 2, 2), REAL), jnp.array([[0.1], [0.2]])
    np.testing.assert_allclose(jn.prox(a, t, "nuc")[1, 2], jn.prox(a[1, 2], 0.2, "nuc"), rtol=1e-5)


@pytest.mark.parametrize("name", ["nuclear", "spectral", "ky_fan_2", "frobenius", "mixed_2_1", "induced_1"])
def test_the_oracle_does_not_see_the_scale(name):
    a, norm = gaussian((3, 4), REAL), NORMS[name]
    scaled = np.stack([a * REAL.type(c) for c in (1, 1e-30, 1e-20, 1e15, 1e30)])
    x = np.asarray(jax.jit(lambda a: jn.lmo(a, 1.5, norm))(scaled))
    np.testing.assert_allclose(x, np.broadcast_to(x[0], x.shape), atol=tolerance(REAL))


def test_worked_case_14():
    """Clipping [3e200, 4e200] to 1, and its like in single precision."""
    big = 1e200 if REAL.itemsize == 8 else 1e25
    a = jnp.asarray([[3 * big, 4 * big]])
    np.testing.assert_allclose(jn.project(a, 1.0, "fro"), [[0.6, 0.8]], rtol=tolerance(REAL))
    assert not np.any(jn.project(jnp.zeros((1, 2)), 1.0, "fro"))


def test_numbers():
    """Zero, negative, infinite, NaN, and one for each matrix of a batch."""
    a = jnp.asarray(gaussian((4, 3, 3), REAL))
    t = jnp.array([0.0, -1.0, jnp.inf, jnp.nan])
    for norm in ("nuc", jn.Entrywise(3), jn.Mixed(2, 1), jn.KyFan(2)):
        p, q, x = (np.asarray(f(a, t, norm)) for f in (jn.prox, jn.project, jn.lmo))
        np.testing.assert_array_equal(p[0], a[0])
        np.testing.assert_allclose(p[2], 0, atol=tolerance(REAL))
        np.testing.assert_array_equal(q[0], 0)
        np.testing.assert_allclose(q[2], a[2], rtol=tolerance(REAL))
        np.testing.assert_array_equal(x[0], 0)
        for y in (p, q, x):
            assert np.all(np.isnan(y[[1, 3]]))


def test_rows_of_a_batch_are_apart():
    a = gaussian((3, 3, 2), REAL)
    a[0, 0, 0], a[1, 0, 0] = np.nan, np.inf
    for norm in ("nuc", jn.Entrywise(1.5), jn.Mixed(2, 1)):
        for f in (jn.prox, jn.project, jn.lmo):
            many, alone = f(a, 0.5, norm), f(a[2], 0.5, norm)
            assert np.all(np.isnan(many[:2]))
            np.testing.assert_allclose(many[2], alone, rtol=tolerance(REAL))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_16_bits(dtype):
    a = jnp.asarray(gaussian((3, 2), np.float32)).astype(dtype)
    for f in (jn.prox, jn.project, jn.lmo):
        y = f(a, 0.5, "nuc")
        assert y.dtype == dtype
        wide = f(a.astype(jnp.float32), 0.5, "nuc")
        np.testing.assert_allclose(y.astype(jnp.float32), wide, atol=2 * float(jnp.finfo(dtype).eps))
    assert jn.moreau_envelope(a, 0.5, "nuc").dtype == dtype


def test_empty_and_integer():
    assert jn.prox(jnp.zeros((2, 0, 3)), 1.0, "nuc").shape == (2, 0, 3)
    assert jn.moreau_envelope(jnp.zeros((0, 3)), 1.0, "nuc") == 0
    np.testing.assert_allclose(jn.prox(np.diag([3, 1]), 1, "nuc"), np.diag([2.0, 0]), atol=tolerance(REAL))


def test_duals():
    names = {
        "nuc": jn.Schatten(inf),
        "spectral": jn.Schatten(1),
        "fro": jn.Entrywise(2),
        jn.Mixed(2, 1): jn.Mixed(2, inf),
        jn.Mixed(1, inf, axis=-2): jn.Mixed(inf, 1, axis=-2),
        jn.Induced(1, 1): jn.Mixed(inf, 1),
        jn.KyFan(1): jn.Schatten(1),
    }
    for ord, other in names.items():
        assert repr(jn.dual(ord)) == repr(other)
    for norm in (*NORMS.values(), jn.Schatten(7), jn.Entrywise(1.1), jn.Induced(3, 3)):
        assert jn.dual(jn.dual(norm)) == norm
    assert repr(jn.dual(jn.Dual(jn.KyFan(2)))) == repr(jn.KyFan(2))


def test_what_is_not_known_is_refused():
    a = jnp.eye(3)
    with pytest.raises(ValueError, match="NP-hard"):
        jn.prox(a, 1.0, jn.Induced(3, 3))
    with pytest.raises(ValueError, match=r"dual .* not known"):
        jn.prox(a, 1.0, jn.UnitarilyInvariant(jnp.sum))
    with pytest.raises(ValueError, match=r"projection .* not known"):
        jn.project(a, 1.0, jn.UnitarilyInvariant(jnp.sum))
    with pytest.raises(TypeError, match=r"Entrywise\(1\) or Induced\(1, 1\)"):
        jn.prox(a, 1.0, 1)
    with pytest.raises(ValueError, match="step must have a shape that broadcasts"):
        jn.prox(a, jnp.ones(2), "nuc")
    with pytest.raises(TypeError, match="radius must be real"):
        jn.project(a, 1j, "nuc")
    with pytest.raises(ValueError, match="k must be between"):
        jn.project(a, 1.0, jn.KyFan(4))
    with pytest.raises(TypeError, match="unexpected keyword 'axis'"):
        jn.lmo(a, 1.0, "nuc", axis=(0, 1))
    with pytest.raises(ValueError, match="second derivatives of a prox"):
        jax.jacfwd(jax.jacfwd(lambda a: jn.prox(a, 1.0, "nuc")))(a)


class Halved(jn.gauges.Gauge):
    """Half the sum, with everything a gauge can have: the dual ball of radius r is the cube of side r / 2."""

    def value(self, x):
        return jnp.sum(x) / 2

    def subgradient(self, x, tol):
        return jn.gauges.Lp(1.0).subgradient(x, tol) / 2

    def project(self, x, r):
        return jn.gauges.Lp(1.0).project(x, 2 * r)

    def prox(self, x, t):
        return jn.gauges.Lp(1.0).prox(x, t / 2)

    def __eq__(self, other):
        return type(other) is Halved

    def __hash__(self):
        return 0


def test_a_gauge_of_ones_own():
    a, norm = gaussian((3, 4), REAL), jn.UnitarilyInvariant(Halved())
    np.testing.assert_allclose(jn.prox(a, 1.0, norm), jn.prox(a, 0.5, "nuc"), atol=tolerance(REAL))
    np.testing.assert_allclose(jn.project(a, 1.0, norm), jn.project(a, 2.0, "nuc"), atol=tolerance(REAL))
    with pytest.raises(ValueError, match="dual"):
        jn.lmo(a, 1.0, norm)


def test_subgradient_is_not_conjugated():
    a = prescribed(np.array([3.0, 1.0]), (3, 2), COMPLEX)
    np.testing.assert_allclose(jn.subgradient(a, "nuc"), np.conj(jax.grad(jn.nuclear_norm)(a)), atol=tolerance(REAL))
    np.testing.assert_allclose(jn.dual_norm(a, "nuc"), 3, rtol=tolerance(REAL))


INSIDE = {
    "entrywise 1": (jn.project, jn.Entrywise(1), 1),
    "nuclear": (jn.project, jn.Schatten(1), 1),
    "dual Ky Fan": (jn.project, jn.Dual(jn.KyFan(2)), 1),
    "columns": (jn.project, jn.Mixed(2, 1), 1),
    "rows": (jn.project, jn.Mixed(1, inf), 1),
    "spectral": (jn.prox, jn.Schatten(inf), 0),
    "largest entry": (jn.prox, jn.Entrywise(inf), 0),
}


@pytest.mark.parametrize("name", INSIDE)
def test_derivatives_inside_a_ball_at_zeros(name):
    """A projection is the identity there, and a prox, by Moreau the rest of one, is zero."""
    function, ord, expected = INSIDE[name]
    for a in (jnp.diag(jnp.array([0.1, 0.0])), jnp.zeros((2, 2))):
        slopes = jax.jacobian(lambda x: function(x, 1.0, ord))(a).reshape(4, 4)
        np.testing.assert_array_equal(slopes, expected * np.eye(4))
