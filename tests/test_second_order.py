"""Second derivatives: exact wherever the norm is C^2, the documented convention at kinks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from matrices import DTYPES, REAL, difference_tolerance, factory, gaussian, needs_double, prescribed, spectra, tolerance
from norm_cases import NORMS, SPECTRAL, every_norm

import jaxnorms as jn

# Spectra at which each norm is twice differentiable: repeated and zero singular values wherever it is.
FULL_RANK = ["distinct", "repeated", "orthogonal", "clustered"]
SMOOTH = {
    "nuclear": FULL_RANK,
    "schatten_1.5": FULL_RANK,
    "schatten_4": [*FULL_RANK, "deficient", "rank_one"],
    "spectral": ["distinct", "leading"],
    "ky_fan_2": ["distinct", "repeated"],
    "ky_fan_2_2": ["distinct", "repeated"],
    "ky_fan_3_1.5": ["distinct"],
    "dual_ky_fan_2": FULL_RANK[1:],  # 3, 2, 1 is a kink: s_1 = sum / 2
    "dual_ky_fan_2_2": ["clustered", "repeated"],
    "dual_ky_fan_3_1.5": ["distinct"],
    "user_smooth": [*FULL_RANK, "deficient", "rank_one"],
    "user_kinked": ["distinct", "leading"],
}


def smooth_points(name, shape, dtype):
    """A stack of matrices at which the norm is C^2."""
    points = [gaussian(shape, dtype, seed=5)]
    points += [prescribed(spectra(min(shape))[s], shape, dtype, seed=2) for s in SMOOTH.get(name, [])]
    return np.stack(points)


def directional(norm):
    """``dG(a, e)`` by the rule and by central differences of the gradient, one compiled function."""

    @jax.jit
    def both(a, e, h):
        g = jax.vmap(jax.grad(norm))
        exact = jax.vmap(lambda a, e: jax.jvp(jax.grad(norm), (a,), (e,))[1])(a, e)
        return exact, (g(a + h * e) - g(a - h * e)) / (2 * h)

    return both


@needs_double
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(5, 5), (9, 4), (3, 9), (2, 2)], ids=str)
@every_norm
def test_hessian_equals_finite_differences(name, shape, dtype):
    norm = NORMS[name]
    if shape != (5, 5) and (name not in SPECTRAL or (dtype == DTYPES[1] and shape == (3, 9))):
        pytest.skip("the other lifts do not look at the shape")
    if shape == (2, 2) and name not in ("spectral", "nuclear", "schatten_4", "schatten_1.5", "ky_fan_2"):
        pytest.skip("the closed form is tested by these")
    a = smooth_points(name, shape, dtype)
    both = directional(norm)
    for seed in range(3):
        e = gaussian(a.shape, dtype, seed=10 + seed)
        h = 1e-5
        exact, difference = both(a, e, jnp.asarray(h, a.dtype))
        np.testing.assert_allclose(exact, difference, rtol=difference_tolerance, atol=difference_tolerance)


def kinked(dtype):
    """Matrices with ties and zeros of every kind, away from rounding: a stack."""
    names, a = factory((5, 5), dtype)
    return a[[i for i, n in enumerate(names) if n not in ("graded", "decaying", "clustered", "tiny", "huge")]]


@needs_double
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@every_norm
def test_least_norm_and_no_curvature_across(name, dtype):
    """G has the least norm iff the norm falls along -G at the rate |G|^2; H kills the jumps of G."""
    norm = NORMS[name]

    @jax.jit
    def everything(a, e, t):
        gradient = jax.vmap(jax.grad(norm))
        g = gradient(a)
        rate = (jax.vmap(norm)(a - t * g.conj()) - jax.vmap(norm)(a)) / t.real
        jump = gradient(a + t * e) - g
        across = jax.vmap(lambda a, j: jax.jvp(jax.grad(norm), (a,), (j,))[1])(a, jump.conj())
        return g, rate, across

    a = kinked(dtype)
    g, rate, across = everything(a, gaussian(a.shape, dtype, 4), dtype.type(1e-8))
    np.testing.assert_allclose(rate, -np.sum(np.abs(g) ** 2, axis=(1, 2)), atol=100 * difference_tolerance)
    np.testing.assert_allclose(across, np.zeros_like(across), atol=100 * difference_tolerance)


@needs_double
@every_norm
def test_check_grads_to_second_order_in_both_modes(name):
    shape = (9, 3)
    for a in smooth_points(name, shape, REAL)[:3]:
        check_grads(jax.jit(NORMS[name]), (a,), order=2, modes=["fwd", "rev"], atol=1e-5, rtol=1e-5)


@needs_double
@pytest.mark.parametrize("name", ["nuclear", "spectral", "schatten_4", "ky_fan_2", "mixed_2_1", "frobenius"])
def test_check_grads_complex(name):
    a = smooth_points(name, (9, 3), DTYPES[1])[0]
    check_grads(jax.jit(NORMS[name]), (a,), order=2, modes=["fwd", "rev"], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(5, 5), (9, 4)], ids=str)
@every_norm
def test_finite_symmetric_and_homogeneous_everywhere(name, shape, dtype):
    """At every matrix of the factory: finite, ``<E, H F> = <F, H E>`` and ``H A = 0``."""
    if shape != (5, 5) and name not in SPECTRAL:
        pytest.skip("the other lifts do not look at the shape")
    names, a = factory(shape, dtype)
    norm = NORMS[name]

    @jax.jit
    def along(a, e):
        return jax.vmap(lambda a, e: jax.jvp(jax.grad(norm), (a,), (e,))[1].conj())(a, e)

    e, f = (gaussian(a.shape, dtype, seed=s) for s in (7, 8))
    wide = np.complex128 if np.iscomplexobj(a) else np.float64  # the huge matrices' norms overflow
    he, hf, ha = (np.asarray(along(a, d)).astype(wide) for d in (e, f, a))
    assert np.all(np.isfinite(he))
    size = np.linalg.norm(he, axis=(1, 2)) + np.linalg.norm(hf, axis=(1, 2)) + 1e-30
    left, right = (np.einsum("bij,bij->b", np.conj(x), y).real for x, y in ((f, he), (e, hf)))
    assert np.all(np.abs(left - right) <= tolerance(dtype, 2000) * size * 10), dict(
        zip(names, left - right, strict=True)
    )
    # The bound is relative to |H| |A|; graded matrices have 1e30 curvature along tiny directions.
    ordinary = [i for i, n in enumerate(names) if n not in ("graded", "decaying", "clustered")]
    bound = tolerance(dtype, 5000) * (size * np.linalg.norm(a.astype(wide), axis=(1, 2)) + 1)
    assert np.all((np.linalg.norm(ha, axis=(1, 2)) <= bound)[ordinary])


def real(x):
    return jnp.asarray(x, REAL)


def close(actual, expected, factor=50):
    np.testing.assert_allclose(actual, expected, rtol=tolerance(REAL, factor), atol=tolerance(REAL, factor))


@pytest.mark.parametrize("wrap", [lambda h: h, jax.jit, lambda h: lambda a: jax.vmap(h)(jnp.stack([a, 2 * a]))[0]])
def test_worked_cases(wrap):
    h = wrap(jax.hessian(jn.squared_frobenius_norm))(jnp.zeros((2, 2), REAL))
    np.testing.assert_array_equal(h.reshape(4, 4), 2 * np.eye(4))
    h = wrap(jax.hessian(jn.spectral_norm))(real(np.diag([3, 1, 1])))
    assert np.all(np.isfinite(h))
    close([h[0, 1, 0, 1], h[0, 1, 1, 0]], [3 / 8, 1 / 8])
    h = wrap(jax.hessian(jn.nuclear_norm))(jnp.eye(2, dtype=REAL))
    close([h[0, 1, 0, 1], h[0, 1, 1, 0]], [0.5, -0.5])
    close(h[0, 0], np.zeros((2, 2)))
    schatten = jn.Schatten(4)
    close(jax.grad(schatten)(jnp.eye(2, dtype=REAL)), 2**-0.75 * np.eye(2))
    h = wrap(jax.hessian(schatten))(jnp.eye(2, dtype=REAL))
    exact = 2**-0.75 * np.array([1.5, -1.5, 2, 1])
    close([h[0, 0, 0, 0], h[0, 0, 1, 1], h[0, 1, 0, 1], h[0, 1, 1, 0]], exact)
    a = real([[4, 1, 0], [1, 3, 1], [0, 1, 2]])
    tiny = wrap(jax.hessian(jn.nuclear_norm))(a * REAL.type(1e-20))
    close(tiny * REAL.type(1e-20), jax.hessian(jn.nuclear_norm)(a))


LARGEST = {
    "spectral_norm": jn.spectral_norm,
    "singular_values": lambda a: jn.singular_values(a)[0],
    "eigvalsh": lambda a: jn.eigvalsh(a)[-1],
}


@pytest.mark.parametrize("name", LARGEST)
def test_directions_as_large_as_the_matrix(name):
    """Reverse mode divides by gaps before it divides by the size: found at 1e35, where that was infinite."""
    largest, q = LARGEST[name], prescribed(np.ones(4), (4, 4), REAL)
    other = q if name == "eigvalsh" else prescribed(np.ones(4), (4, 4), REAL, seed=3)
    a, e = (q * np.array([2, 2 - 1e-4, 1, 0.5], REAL)) @ other.T, gaussian((4, 4), REAL)

    @jax.jit
    def bent(a, e):
        return (
            jax.vjp(jax.grad(largest), a)[1](e)[0],
            jax.grad(lambda a: jax.jvp(largest, (a,), (e,))[1])(a),
        )

    for power in (jnp.finfo(REAL).maxexp - 11, jnp.finfo(REAL).minexp + 11):
        for found, exact in zip(bent(np.ldexp(a, power), np.ldexp(e, power)), bent(a, e), strict=True):
            np.testing.assert_allclose(found, exact, rtol=tolerance(REAL, size=1e4))


def test_curvature_at_kinks():
    """The convention, in one place: along the manifold of smoothness as usual, zero across it.

    For the nuclear norm at diag(2, 1, 0) the manifold keeps the rank: directions inside the null
    block are across, turning a nonzero singular vector into the null space is along.
    """
    h = jax.hessian(jn.nuclear_norm)(real(np.diag([2, 1, 0])))
    close(h[2, 2], np.zeros((3, 3)))
    close([h[0, 2, 0, 2], h[1, 2, 1, 2], h[2, 1, 2, 1]], [1 / 2, 1, 1])
    # Spectral at diag(2, 2, 1): splitting the tie is across; rotating it (K) and leaving it are along.
    h = jax.hessian(jn.spectral_norm)(real(np.diag([2, 2, 1])))
    splitting = real(np.diag([1, -1, 0]))
    close(jnp.einsum("ijkl,kl->ij", h, splitting), np.zeros((3, 3)))
    swapping = real([[0, 1, 0], [1, 0, 0], [0, 0, 0]])
    close(jnp.einsum("ijkl,kl->ij", h, swapping), np.zeros((3, 3)))
    rotating = real([[0, 1, 0], [-1, 0, 0], [0, 0, 0]])
    close(jnp.einsum("ijkl,kl->ij", h, rotating), rotating / 4)
    # Frobenius, nuclear at 0 and polyhedral norms: no curvature.
    for norm in (jn.frobenius_norm, jn.nuclear_norm):
        close(jax.hessian(norm)(jnp.zeros((2, 2), REAL)), np.zeros((2, 2, 2, 2)))
    for norm in (jn.Entrywise(1), jn.Entrywise(np.inf), jn.Induced(1, 1)):
        close(jax.hessian(norm)(real([[1, 2], [1, 0]])), np.zeros((2, 2, 2, 2)))


def test_tied_columns_bend_together():
    """Induced 1 -> 3 with two tied columns: the difference of their norms is across the manifold."""
    norm = jn.Induced(1, 3)
    a = real([[1, 2], [2, 1], [0.5, 0.5]])
    h = jax.hessian(norm)(a).reshape(6, 6)
    g = np.asarray(jax.grad(norm)(a))
    across = (g * np.array([1, -1])).ravel()
    close(h @ across, np.zeros(6))
    np.testing.assert_allclose(h, h.T, atol=tolerance(REAL))
    assert np.linalg.norm(h) > 0.1


def test_infinite_curvature_is_dropped():
    for norm in (jn.Schatten(1.5), jn.Entrywise(1.5)):
        h = jax.hessian(norm)(real(np.diag([1, 0, 0])))
        assert np.all(np.isfinite(h))
        close(h[2, 2, 2, 2], 0)


def result_or_message(third, a):
    """What the function returns, or the text of the ``ValueError`` it raises."""
    try:
        return third(a)
    except ValueError as error:
        return str(error)


@every_norm
def test_third_derivatives_raise(name):
    """Or are right: where the curvature is zero everywhere, a zero third derivative may be returned."""
    flat = name in ("sum", "max", "induced_1", "induced_inf")
    a = jnp.asarray(gaussian((9, 3), REAL))
    weights = jnp.asarray(gaussian((9, 3), REAL, seed=1))

    def second(a):
        return jnp.sum(weights * jax.grad(lambda b: jnp.sum(weights * jax.grad(NORMS[name])(b)))(a))

    for third in (jax.grad(second), jax.jit(jax.grad(second)), jax.jacfwd(jax.jit(jax.hessian(NORMS[name])))):
        result = result_or_message(third, a)
        if isinstance(result, str):
            assert "third derivatives" in result
        else:
            assert flat
            assert not np.any(result)
