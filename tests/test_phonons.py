"""The spectra of ``notebooks/phonons.py``: complex, degenerate by symmetry, with a zero eigenvalue at k = 0."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import phonons
import pytest
from matrices import REAL, needs_double, tolerance

import jaxnorms as jn

CRYSTAL = phonons.square_crystal()
LAM, PER_ZONE, ZONES = 1e-3, 4, 2
EQUAL = np.ones(4)
FOUR = np.array([2.0, 1.5, 0.6, 0.5])
TRUTH = np.array([2.5, 2.0, 0.45, 0.35])

places = pytest.mark.parametrize("constants", [EQUAL, FOUR], ids=["equal", "four"])
weights = pytest.mark.parametrize("at", [slice(None, None, PER_ZONE), slice(None)], ids=["k = 0", "grid"])


def springs(constants):
    return jnp.asarray(constants[CRYSTAL.kinds], REAL)


@partial(jax.jit, static_argnums=2)
def intensity(x, lam, inverse=phonons.regularized_inverse):
    return phonons.intensity(CRYSTAL, x, lam, PER_ZONE, ZONES, inverse)


@partial(jax.jit, static_argnums=4)
def misfit(x, lam, weight, target, inverse=phonons.regularized_inverse):
    return jnp.sum(weight * (jnp.log1p(intensity(x, lam, inverse)) - jnp.log1p(target)) ** 2)


gradient = jax.jit(jax.grad(misfit), static_argnums=4)


def problem(at, lam=LAM):
    """``lam``, and weights and intensities of the points that count."""
    target = intensity(springs(TRUTH), lam)
    weight = np.zeros(target.shape, REAL)
    weight[at, at] = 1
    return lam, weight / np.sum(weight), target


@jax.jit
def second_derivative(constants, *rest):
    return jax.hessian(lambda c: misfit(c[CRYSTAL.kinds], *rest))(constants)


def differences(f, x, h=2e-3):
    """Central differences of fourth order, in each entry of x."""

    def second_order(h):
        return np.array([f(x + h * e) - f(x - h * e) for e in np.eye(len(x))]) / (2 * h)

    return (4 * second_order(h) - second_order(2 * h)) / 3


@places
def test_model(constants):
    """``D = B^H diag(springs) B``, B the differences over the contacts: Hermitian, with one zero, at k = 0."""
    k = phonons.zone(PER_ZONE)
    d = phonons.dynamical_matrices(CRYSTAL, springs(constants), jnp.asarray(k, REAL))
    b = np.zeros((len(k), len(CRYSTAL.first), 4), complex)
    contacts = np.arange(len(CRYSTAL.first))
    b[:, contacts, CRYSTAL.first] += 1
    b[:, contacts, CRYSTAL.second] -= np.exp(2j * np.pi * k @ CRYSTAL.cells.T)
    expected = np.einsum("kci,c,kcj->kij", b.conj(), constants[CRYSTAL.kinds], b)
    np.testing.assert_allclose(d, expected, atol=tolerance(REAL, 200))
    assert np.max(np.abs(expected.imag)) > 0.1
    w = np.asarray(jn.eigvalsh(d))
    assert abs(w[0, 0]) < tolerance(REAL, 200) < np.min(w[1:])
    assert np.sum(np.diff(w) < tolerance(REAL, 200)) == (20 if constants is EQUAL else 2)


@places
def test_intensity_is_that_of_a_supercell(constants):
    """``|2 pi q|^2 <|sum_x u(x) exp(-2 pi i q.x)|^2>`` per cell, summed atom by atom over a periodic crystal."""
    cells = phonons.zone(PER_ZONE) * PER_ZONE
    blocks = np.asarray(phonons.hessian(CRYSTAL, springs(constants)))
    stiffness = np.zeros((len(cells), 4, len(cells), 4))
    for (a, cell), (x, y) in itertools.product(enumerate(cells), np.ndindex(3, 3)):
        other = np.flatnonzero(np.all((cell + np.array([x - 1, y - 1]) - cells) % PER_ZONE == 0, axis=1))[0]
        stiffness[a, :, other] += blocks[x, y]
    stiffness = stiffness.reshape(4 * len(cells), -1)
    lam = 0.1
    covariance = np.linalg.solve(stiffness @ stiffness + lam * np.eye(len(stiffness)), stiffness)
    steps = np.arange(-ZONES * PER_ZONE, ZONES * PER_ZONE + 1) / PER_ZONE
    q = np.stack(np.meshgrid(steps, steps, indexing="ij"), -1)
    places = (cells[:, None] + CRYSTAL.positions).reshape(-1, 2)
    waves = np.exp(-2j * np.pi * (q @ places.T))
    total = np.einsum("xyi,ij,xyj->xy", waves, covariance, waves.conj()).real / len(cells)
    expected = np.sum((2 * np.pi * q) ** 2, -1) * total
    found = intensity(springs(constants), lam)
    np.testing.assert_allclose(found, expected, atol=tolerance(REAL, 500) * np.max(expected))


@needs_double
@weights
@places
def test_gradient(constants, at):
    """In each spring by itself, which splits what is degenerate."""
    x, rest = springs(constants), problem(at)
    np.testing.assert_allclose(gradient(x, *rest), differences(lambda x: misfit(x, *rest), x), rtol=1e-6)


@needs_double
@weights
def test_gradient_of_regularized_inverse(at):
    """The same function by singular values."""
    x, rest = springs(EQUAL), problem(at)
    actual = gradient(x, *rest, jn.regularized_inverse)
    np.testing.assert_allclose(actual, differences(lambda x: misfit(x, *rest), x), rtol=1e-6)


@weights
@places
def test_gradient_without_spectrum(constants, at):
    """In either precision, against a linear solve."""
    x, rest = springs(constants), problem(at, lam=0.1)
    actual, expected = (gradient(x, *rest, f) for f in (phonons.regularized_inverse, phonons.inverse_by_solve))
    np.testing.assert_allclose(actual, expected, atol=tolerance(REAL, 1e4) * np.max(np.abs(expected)))


@needs_double
@places
@pytest.mark.parametrize("inverse", [phonons.inverse_by_eigh, phonons.inverse_by_svd], ids=["eigh", "svd"])
def test_gradient_through_vectors_fails(inverse, constants):
    """NaN, or wrong where rounding separates what is equal: by how much is its luck, but never what ours is off from a
    linear solve."""
    x, rest = springs(constants), problem(slice(None))
    expected, ours = (gradient(x, *rest, f) for f in (phonons.inverse_by_solve, phonons.regularized_inverse))
    actual = gradient(x, *rest, inverse)
    own, missed = (np.max(np.abs(g / expected - 1)) for g in (ours, actual))
    assert own <= 1e-8
    assert not missed <= 1e3 * own
    assert np.all(np.isnan(actual)) or constants is not EQUAL


@needs_double
@weights
def test_hessian(at):
    """Of the loss in the four constants, at equal springs."""
    rest = problem(at)
    actual = second_derivative(jnp.asarray(EQUAL), *rest)
    expected = differences(lambda c: jnp.bincount(CRYSTAL.kinds, gradient(c[CRYSTAL.kinds], *rest)), jnp.asarray(EQUAL))
    np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=1e-6 * np.max(np.abs(expected)))
