"""First derivatives: certificates at every matrix of the factory, kinks included."""

from functools import partial

import certificates
import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matrices import COMPLEX, DTYPES, REAL, SHAPES, factory, gaussian, prescribed, tolerance, unitary
from norm_cases import NORMS, SPECTRAL, defined, dual_of, every_norm, inf

import jaxnorms as jn


def value_and_subgradient(norm):
    """Values and G (the conjugate of ``jax.grad``) of a stack, compiled once."""

    @jax.jit
    def both(a):
        values, g = jax.vmap(jax.value_and_grad(norm))(a)
        return values, g.conj()

    return both


def combinations():
    """Every norm on every shape, where shape and field can make a difference."""
    for name in NORMS:
        for shape in SHAPES:
            for dtype in DTYPES:
                own = shape in [(9, 4), (2, 2)] if dtype == COMPLEX else shape != (9, 4)
                if defined(name, shape) and (name in SPECTRAL or shape in [(5, 5), (3, 9), (9, 4)]) and own:
                    yield pytest.param(name, shape, dtype, id=f"{name}-{shape}-{dtype}")


@pytest.mark.parametrize(("name", "shape", "dtype"), list(combinations()))
def test_certificates(name, shape, dtype):
    norm, dual = NORMS[name], dual_of(name)
    _, a = factory(shape, dtype)
    others = np.concatenate([gaussian((3, *shape), dtype, seed=1), a[:2] * REAL.type(0.5)])
    value, g = map(np.asarray, value_and_subgradient(norm)(np.concatenate([a, others])))
    (value, value_b), g = np.split(value, [len(a)]), g[: len(a)]
    tol = tolerance(dtype, size=np.sqrt(min(shape)))
    assert np.all(np.isfinite(g))
    assert np.all(np.isfinite(value))
    certificates.attains(g, a, value, tol)
    if dual is not None:
        certificates.in_dual_ball(np.asarray(jax.jit(dual)(g)), tol)
    ordinary = [i for i in range(len(a)) if 1e-20 < np.max(np.abs(a[i])) < 1e20 or not np.any(a[i])]
    certificates.supports(g[ordinary], a[ordinary], value[ordinary], others, value_b, tol)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(5, 5), (9, 4), (4, 30), (30, 30)], ids=str)
@every_norm
def test_certificates_of_random_ties_and_zeros(name, shape, dtype):
    """Singular values drawn from few integers, so that blocks of ties and zeros of every size occur."""
    rng, norm, dual = np.random.default_rng(0), NORMS[name], dual_of(name)
    drawn = [np.sort(rng.integers(0, 4, min(shape)).astype(float))[::-1] for _ in range(100)]
    a = np.stack([prescribed(s, shape, dtype, seed) for seed, s in enumerate(drawn)])
    value, g = map(np.asarray, value_and_subgradient(norm)(a))
    tol = tolerance(dtype, size=np.sqrt(min(shape)))
    certificates.attains(g, a, value, tol)
    if dual is not None:
        certificates.in_dual_ball(np.asarray(jax.jit(dual)(g)), tol)
    certificates.supports(g, a, value, a[:20], value[:20], tol)


@every_norm
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_powers_of_two_scale_exactly(name, dtype):
    norm = NORMS[name]
    _, a = factory((5, 5), dtype)
    ordinary = np.array([1e-10 < np.max(np.abs(x)) < 1e10 for x in a]) & np.array(
        [np.min(np.abs(x), where=x != 0, initial=1) > 1e-10 for x in a]
    )
    a = a[ordinary]
    both = value_and_subgradient(norm)
    value, g = both(a)
    for k in (-60, -1, 1, 60):
        scaled, g_scaled = both(a * REAL.type(2.0**k))
        np.testing.assert_array_equal(scaled, value * REAL.type(2.0**k))
        np.testing.assert_array_equal(g_scaled, g)


@pytest.mark.parametrize("name", SPECTRAL)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(5, 5), (24, 40)], ids=str)
def test_subgradient_turns_with_the_matrix(name, dtype, shape):
    rng = np.random.default_rng(3)
    q, p = unitary(rng, shape[0], shape[0], dtype), unitary(rng, shape[1], shape[1], dtype)
    names, a = factory(shape, dtype)
    # Left out: values so small that rounding decides whether they count as zero (there G jumps),
    # and a gap of 1e-3, which magnifies the rounding of the product a thousand times.
    a = a[[i for i, n in enumerate(names) if n not in ("graded", "decaying", "clustered")]]
    both = value_and_subgradient(NORMS[name])
    turned = (q @ a.astype(q.dtype) @ p.conj().T).astype(dtype)
    expected = q @ np.asarray(both(a)[1]).astype(q.dtype) @ p.conj().T
    np.testing.assert_allclose(both(turned)[1], expected, rtol=0, atol=tolerance(dtype, 200, np.sqrt(max(shape))))


# The worked cases, plain, under jit, and as a row of a batch beside other rows.


def gradients(f, a):
    """``jax.grad(f)(a)`` in the three settings, which must agree, and by forward mode."""
    a = jnp.asarray(a)
    plain = jax.grad(f)(a)
    beside = jnp.stack([jnp.ones_like(a), a, jnp.zeros_like(a), 2 * a])
    for other in (jax.jit(jax.grad(f))(a), jax.vmap(jax.grad(f))(beside)[1], jax.jit(jax.vmap(jax.grad(f)))(beside)[1]):
        np.testing.assert_allclose(other, plain, rtol=tolerance(a.dtype), atol=tolerance(a.dtype))
    if not jnp.iscomplexobj(a):
        np.testing.assert_allclose(jax.jacfwd(f)(a), plain, rtol=tolerance(a.dtype), atol=tolerance(a.dtype))
    return plain


def close(actual, expected, dtype=REAL, factor=50):
    np.testing.assert_allclose(
        actual, np.asarray(expected), rtol=tolerance(dtype, factor), atol=tolerance(dtype, factor)
    )


def real(x):
    return jnp.asarray(x, REAL)


OUTER = np.outer([1, 2, 2], [3, 4])
L_100 = np.array([0.75**99, 1]) * (1 + 0.75**100) ** -0.99
CASES = {
    "1 frobenius at zero": (jn.frobenius_norm, np.zeros((2, 3)), 0, np.zeros((2, 3))),
    "1 l2 at zero": (jn.vector_norm, np.zeros(3), 0, np.zeros(3)),
    "1 norm of 0 a": (lambda a: jn.norm(0 * a), np.ones((2, 3)), 0, np.zeros((2, 3))),
    "3 large": (jn.vector_norm, [3e19, 4e19], 5e19, [0.6, 0.8]),
    "3 small": (jn.vector_norm, [3e-20, 4e-20], 5e-20, [0.6, 0.8]),
    "4 rank one": (jn.nuclear_norm, OUTER, 15, OUTER / 15),
    "4 deficient": (jn.nuclear_norm, np.diag([2, 0, 0]), 2, np.diag([1, 0, 0])),
    "4 ones": (jn.nuclear_norm, np.ones((5, 5)), 5, np.ones((5, 5)) / 5),
    "4 zeros": (jn.nuclear_norm, np.zeros((3, 2)), 0, np.zeros((3, 2))),
    "5 identity": (jn.spectral_norm, np.eye(3), 1, np.eye(3) / 3),
    "5 signs": (jn.spectral_norm, np.diag([2, -2, 1]), 2, np.diag([0.5, -0.5, 0])),
    "5 zeros": (jn.spectral_norm, np.zeros((3, 3)), 0, np.zeros((3, 3))),
    "6 induced": (lambda a: jn.induced_norm(a, 1), [[1, 2], [1, 0]], 2, [[1 / 3, 2 / 3], [1 / 3, 0]]),
    "6 l_inf": (lambda a: jn.vector_norm(a, ord=inf), [2, -2, 1], 2, [0.5, -0.5, 0]),
    "6 l_1": (lambda a: jn.vector_norm(a, ord=1), [0, 2], 2, [0, 1]),
    "7 ky fan": (lambda a: jn.ky_fan_norm(a, 2), np.diag([3, 2, 2, 1]), 5, np.diag([1, 0.5, 0.5, 0])),
    "14 l_100": (lambda a: jn.vector_norm(a, ord=100), [3, 4], 4, L_100),
    "14 l_100 small": (lambda a: jn.vector_norm(a, ord=100), [0.3, 0.4], 0.4, L_100),
}


@pytest.mark.parametrize("case", CASES)
def test_worked_case(case):
    f, a, value, g = CASES[case]
    np.testing.assert_allclose(f(real(a)), value, rtol=tolerance(REAL))
    close(gradients(f, real(a)), g)
    direction = real(np.ones(np.shape(a)))
    close(jax.jvp(f, (real(a),), (direction,))[1], np.sum(g))


def test_rows_of_a_batch_do_not_disturb_each_other():
    rows = real([[0, 0], [3, 4]])
    close(jax.vmap(jax.grad(jn.vector_norm))(rows), [[0, 0], [0.6, 0.8]])


def test_half_precision_accumulates_in_single():
    x = jnp.asarray([300, 400], jnp.float16)
    assert jn.vector_norm(x) == 500
    np.testing.assert_allclose(jax.grad(jn.vector_norm)(x).astype(jnp.float32), [0.6, 0.8], rtol=1e-3)
    x = jnp.asarray([3000, 4000], jnp.float16)
    value, slope = jax.jvp(jn.vector_norm, (x,), (x,))
    assert (value, slope) == (5000, 5000)
    assert value.dtype == slope.dtype == jnp.float16


def test_spectral_norm_of_rounded_orthogonal_matrices():
    """Case 5, every seed: near-ties within the backward error share equally."""
    q = np.stack([np.linalg.qr(gaussian((4, 4), np.float32, seed))[0] for seed in range(200)])
    g = jax.jit(jax.vmap(jax.grad(jn.spectral_norm)))(q)
    np.testing.assert_allclose(g, q / 4, atol=1e-5)


@pytest.mark.parametrize("n", [3, 16, 64])
def test_a_gap_of_a_hundred_errors_is_no_tie(n):
    """Nor is a hundred errors a zero."""
    gap = 100 * float(jnp.finfo(REAL).eps)
    a = real(np.diag([1 + gap, 1, *[0.5] * (n - 2)]))
    close(jax.grad(partial(jn.spectral_norm, method="svd"))(a), np.diag([1, *[0] * (n - 1)]), factor=200)
    close(jax.grad(partial(jn.nuclear_norm, method="svd"))(real(np.diag([1.0] * (n - 1) + [gap]))), np.eye(n))


@pytest.mark.parametrize("n", [9, 32, 64])
def test_a_cluster_larger_than_the_kept_triplets(n):
    """The backward pass decomposes again; beside other rows too."""
    q = prescribed(np.ones(n), (n, n), REAL)
    rows = np.stack([gaussian((n, n), REAL), q, np.zeros((n, n), REAL)])
    g = jax.jit(jax.vmap(jax.grad(jn.spectral_norm)))(rows)
    np.testing.assert_allclose(g[1], q / n, atol=tolerance(REAL, 100))
    np.testing.assert_allclose(g[0], jax.grad(jn.spectral_norm)(rows[0]), atol=tolerance(REAL, 100))
    close(g[2], np.zeros((n, n)))


def test_complex_gradient_follows_jax():
    z = jnp.asarray([[3 + 4j]], DTYPES[1])
    for f in (jn.frobenius_norm, jn.nuclear_norm, jn.spectral_norm, lambda a: jn.induced_norm(a, 1)):
        close(gradients(f, z), [[0.6 - 0.8j]])
    a = prescribed(np.array([3.0, 2.0, 0.0]), (4, 3), DTYPES[1])
    u, _, vh = np.linalg.svd(a, full_matrices=False)
    close(gradients(jn.nuclear_norm, a), (u[:, :2] @ vh[:2]).conj())


def test_tied_columns_share_by_least_norm():
    """Induced 1 -> q: weights 1/|h_j|^2; the minimum is attained among convex combinations."""
    a = real([[2, 0], [0, np.sqrt(2)], [0, np.sqrt(2)]])
    close(jax.grad(lambda a: jn.induced_norm(a, 1, 2))(a), [[0.5, 0], [0, 0.5 / np.sqrt(2)], [0, 0.5 / np.sqrt(2)]])
    a = real([[4, 2, 1], [0, 2, 1], [0, 0, 2]])
    h = np.array([[1, 1, 1], [0, 1, 1], [0, 0, 1]])
    weights = np.array([1, 1 / 2, 1 / 3])
    close(jax.grad(lambda a: jn.induced_norm(a, 1))(a), h * weights / weights.sum())


def test_dual_ky_fan_where_both_parts_are_attained():
    """max(s_1, sum/k) at diag(2, 1, 1, 0), k = 2: theta minimises |theta e1 + (1-theta)/2 1_R|."""
    a = real(np.diag([2, 1, 1, 0]))
    theta = np.clip((3 / 4 - 1 / 2) / (1 - 1 + 3 / 4), 0, 1)
    expected = np.diag([theta + (1 - theta) / 2, (1 - theta) / 2, (1 - theta) / 2, 0])
    close(jax.grad(jn.Dual(jn.KyFan(2)))(a), expected)


class TestVariants(chex.TestCase):
    @chex.variants(with_jit=True, without_jit=True, with_device=True)
    def test_value_and_gradient(self):
        a = real(np.diag([3, 2, 2, 1]))
        for norm in (jn.nuclear_norm, jn.spectral_norm, jn.frobenius_norm, jn.KyFan(2), jn.Induced(1, 1)):
            value, g = self.variant(jax.value_and_grad(norm))(a)
            chex.assert_trees_all_close((value, g), jax.value_and_grad(norm)(a), rtol=tolerance(REAL))
            batch = self.variant(jax.vmap(jax.value_and_grad(norm)))(jnp.stack([a, 2 * a]))
            chex.assert_trees_all_close(jax.tree.map(lambda x: x[0], batch), (value, g), rtol=tolerance(REAL))
