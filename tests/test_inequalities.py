"""What every matrix norm satisfies, and the classical relations between them."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matrices import DTYPES, REAL, factory, gaussian, tolerance
from norm_cases import NORMS, every_norm, inf

import jaxnorms as jn

SLACK = 1 + tolerance(REAL, 200)


@every_norm
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_is_a_norm(name, dtype):
    """Triangle inequality, homogeneity for complex scalars, definiteness."""
    norm = jax.jit(NORMS[name])
    a, b = gaussian((20, 5, 5), dtype, 1), gaussian((20, 5, 5), dtype, 2)
    na, nb = norm(a), norm(b)
    assert np.all(norm(a + b) <= (na + nb) * SLACK)
    c = dtype.type(-0.3 + 0.4j if dtype == DTYPES[1] else -0.5)
    np.testing.assert_allclose(norm(c * a), 0.5 * na, rtol=tolerance(dtype, 200))
    assert np.all(na > 0)
    assert norm(np.zeros_like(a))[0] == 0


# Norms with ||AB|| <= ||A|| ||B||; the max norm needs the factor n (for A = B = 11^T/n, ||AB||_max = 1/n).
SUBMULTIPLICATIVE = ["frobenius", "sum", "entrywise_1.5", "spectral", "nuclear", "schatten_4", "schatten_1.5"]
SUBMULTIPLICATIVE += ["ky_fan_2", "ky_fan_2_2", "ky_fan_3_1.5", "induced_1", "induced_inf"]


@pytest.mark.parametrize("name", SUBMULTIPLICATIVE)
def test_submultiplicative(name):
    norm = jax.jit(NORMS[name])
    _, a = factory((5, 5), REAL)
    a = a[[i for i in range(len(a)) if np.max(np.abs(a[i])) < 1e20]]
    for b in (a, gaussian(a.shape, REAL, 3)):
        assert np.all(norm(a @ b) <= norm(a) * norm(b) * SLACK)


def test_max_norm_is_not_submultiplicative_without_a_factor():
    n = 5
    ones = np.full((n, n), 1, REAL)
    assert jn.Entrywise(inf)(ones @ ones) == n
    assert jn.Entrywise(inf)(ones / n @ (ones / n)) <= n * jn.Entrywise(inf)(ones / n) ** 2 * SLACK


def test_consistent_with_vector_norms():
    """||A x||_q <= ||A||_{p->q} ||x||_p, attained for the exact pairs by a suitable x."""
    a = gaussian((4, 6), REAL)
    xs = np.concatenate([gaussian((200, 6), REAL, 1), np.eye(6, dtype=REAL), np.sign(a)])
    for p, q in ((1, 1), (1, 2), (1, 3), (1, inf), (2, 2), (2, inf), (3, inf), (inf, inf)):
        ratios = jn.vector_norm(xs @ a.T, ord=q, axis=-1) / jn.vector_norm(xs, ord=p, axis=-1)
        bound = jn.induced_norm(a, p, q)
        assert np.all(ratios <= bound * SLACK)
        if p in (1, inf):
            np.testing.assert_allclose(np.max(ratios), bound, rtol=tolerance(REAL))


def test_equivalence_inequalities():
    """The classical ones, on random and structured matrices (Golub and Van Loan, section 2.3)."""
    m, n = 5, 5
    _, a = factory((m, n), REAL)
    a = np.concatenate([a, gaussian((50, m, n), REAL)])
    f = {
        k: np.asarray(NORMS[k](a))
        for k in ("frobenius", "spectral", "nuclear", "max", "sum", "induced_1", "induced_inf")
    }
    r = min(m, n)
    relations = [
        ("spectral", 1, "frobenius"),
        ("frobenius", r**0.5, "spectral"),
        ("frobenius", 1, "nuclear"),
        ("nuclear", r**0.5, "frobenius"),
        ("max", 1, "spectral"),
        ("spectral", (m * n) ** 0.5, "max"),
        ("induced_1", m**0.5, "spectral"),
        ("spectral", n**0.5, "induced_1"),
        ("induced_inf", n**0.5, "spectral"),
        ("spectral", m**0.5, "induced_inf"),
        ("induced_inf", n**0.5, "frobenius"),
        ("frobenius", 1, "sum"),
        ("nuclear", 1, "sum"),
    ]
    for left, constant, right in relations:
        assert np.all(f[left] <= constant * f[right] * SLACK), (left, right)
    assert np.all(f["spectral"] <= np.sqrt(f["induced_1"]) * np.sqrt(f["induced_inf"]) * SLACK)


def test_monotone_in_the_order():
    """Schatten and entrywise norms fall with p, Ky Fan norms grow with k, and meet at the ends."""
    a = gaussian((20, 5, 4), REAL)
    for norm in (jn.Schatten, jn.Entrywise):
        values = [norm(p)(a) for p in (1, 1.5, 2, 3, 10, inf)]
        assert all(np.all(x * SLACK >= y) for x, y in itertools.pairwise(values))
    values = [jn.KyFan(k)(a) for k in (1, 2, 3, 4)]
    assert all(np.all(x <= y * SLACK) for x, y in itertools.pairwise(values))
    np.testing.assert_allclose(values[0], jn.spectral_norm(a), rtol=tolerance(REAL))
    np.testing.assert_allclose(values[3], jn.nuclear_norm(a), rtol=tolerance(REAL))


def test_ky_fan_is_a_maximum_over_frames():
    """sum_{i<=k} s_i = max Re tr(U^H A V) over orthonormal k-frames, attained at the singular vectors."""
    a = gaussian((5, 4), REAL)
    u, _, vh = np.linalg.svd(a)
    for k in (1, 2, 3):
        bound = jn.ky_fan_norm(a, k)
        np.testing.assert_allclose(np.trace(u[:, :k].T @ a @ vh[:k].T), bound, rtol=tolerance(REAL))
        for seed in range(20):
            p, q = (np.linalg.qr(gaussian((r, k), REAL, seed + r))[0] for r in (5, 4))
            assert np.trace(p.T @ a @ q) <= bound * SLACK


@every_norm
def test_holder(name):
    """|<a, b>| <= ||a|| ||b||_dual, wherever the dual is known."""
    if name.startswith("user"):
        pytest.skip("the dual of a bare function is not known")
    a, b = gaussian((30, 5, 4), REAL, 1), gaussian((30, 5, 4), REAL, 2)
    bound = NORMS[name](a) * jn.Dual(NORMS[name])(b)
    assert np.all(np.abs(np.einsum("bij,bij->b", a, b)) <= bound * SLACK)
    # The dual of the dual is the norm itself.
    np.testing.assert_array_equal(jn.Dual(jn.Dual(NORMS[name]))(a), NORMS[name](a))


def test_dual_ky_fan_against_a_search():
    """The k-support norms as maxima over the unit ball of the Ky Fan norm, on diagonal matrices."""
    rng = np.random.default_rng(0)
    y = jnp.asarray(np.abs(rng.standard_normal((4, 5))), REAL)
    for norm in (jn.KyFan(2), jn.KyFan(2, 2), jn.KyFan(3, 1.5), jn.KyFan(3, 4)):
        g = jax.vmap(jax.grad(lambda d, norm=norm: jn.Dual(norm)(d, diagonal=True)))(y)
        np.testing.assert_allclose(jnp.sum(g * y, axis=1), jn.Dual(norm)(y, diagonal=True), rtol=tolerance(REAL))
        np.testing.assert_allclose(norm(g, diagonal=True), 1, rtol=tolerance(REAL, 200))
