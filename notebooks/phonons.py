"""A Gaussian network on a square lattice: from its springs to the intensity of its diffuse scattering.

Displacements are scalars, as in every Gaussian network. Lengths are in units of the lattice constant a, wave vectors
in 2 pi / a, spring constants and the eigenvalues of D(k) in one unit of energy over length squared, and the thermal
energy is 1, so that the covariance of the displacements is the inverse of D(k).
"""

from collections.abc import Callable
from itertools import product
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

import jaxnorms as jn

KINDS = "intra-cell side", "intra-cell diagonal", "inter-cell side", "inter-cell diagonal"
Inverse = Callable[[Array, float], Array]


class Crystal(NamedTuple):
    """Atoms of a cell, and the contacts between ``first`` in a cell and ``second`` in the cell ``cells`` away."""

    positions: np.ndarray  # (4, 2)
    first: np.ndarray  # (contacts,)
    second: np.ndarray  # (contacts,)
    cells: np.ndarray  # (contacts, 2), integers
    kinds: np.ndarray  # (contacts,), indices into KINDS


def square_crystal(offset: float = 0.2, cutoff: float = 0.85) -> Crystal:
    """Four atoms at ``(+-offset, +-offset)``, with a spring between any two that are nearer than ``cutoff``."""
    positions = offset * np.array([[-1, -1], [-1, 1], [1, -1], [1, 1]])
    contacts = []
    for i, j in product(range(4), repeat=2):
        for cell in product((-1, 0, 1), repeat=2):
            across = positions[j] + cell - positions[i]
            if (cell, i, j) > ((0, 0), j, i) and 0 < np.linalg.norm(across) < cutoff:  # each contact once
                contacts.append((i, j, cell, 2 * (cell != (0, 0)) + bool(np.all(np.abs(across) > 1e-9))))
    return Crystal(positions, *map(np.array, zip(*contacts, strict=True)))


def hessian(crystal: Crystal, springs: Array) -> Array:
    """``K[R]_ij = d^2 E / du_i(0) du_j(R)``, ``(3, 3, atoms, atoms)`` over the cells R from (-1, -1) to (1, 1).

    ``E = 1/2 sum_c springs_c (u_first(0) - u_second(R))^2``, and its translations; ``springs``: one for each contact.
    """
    _, i, j, cells, _ = crystal
    x, y = 1 + cells.T
    blocks = jnp.zeros((3, 3, 4, 4), springs.dtype)
    blocks = blocks.at[1, 1, i, i].add(springs).at[1, 1, j, j].add(springs)
    return blocks.at[x, y, i, j].add(-springs).at[2 - x, 2 - y, j, i].add(-springs)


def dynamical_matrix(blocks: Array, k: Array) -> Array:
    """``D(k) = sum_R K[R] exp(2 pi i k.R)``, complex Hermitian ``(atoms, atoms)``, of one ``k`` (2,)."""
    cells = jnp.asarray(list(product((-1, 0, 1), repeat=2)), k.dtype)
    angles = 2 * jnp.pi * (cells @ k)
    phases = jax.lax.complex(jnp.cos(angles), jnp.sin(angles))
    return jnp.tensordot(phases, blocks.reshape(9, 4, 4).astype(phases.dtype), 1)


def dynamical_matrices(crystal: Crystal, springs: Array, k: Array) -> Array:
    """:func:`dynamical_matrix` of each of ``k`` (points, 2)."""
    return jax.vmap(dynamical_matrix, in_axes=(None, 0))(hessian(crystal, springs), k)


def zone(per_zone: int) -> np.ndarray:
    """A grid of ``per_zone**2`` wave vectors in a Brillouin zone, k = 0 the first."""
    return np.stack(np.meshgrid(*[np.arange(per_zone) / per_zone] * 2, indexing="ij"), -1).reshape(-1, 2)


def _filter(x: Array, lam: float) -> Array:
    return x / (x**2 + lam)


def regularized_inverse(d: Array, lam: float) -> Array:
    """``(D^2 + lam I)^-1 D`` through the eigenvalues: 0 for the mode that moves all atoms alike at k = 0."""
    return jn.spectral_function(_filter, d, lam, hermitian=True)


def intensity(
    crystal: Crystal, springs: Array, lam: float, per_zone: int, zones: int, inverse: Inverse = regularized_inverse
) -> Array:
    """``I(q) = |2 pi q|^2 sum_ij exp(-2 pi i q.(r_i - r_j)) C_ij(q)`` with the covariance ``C = inverse(D, lam)``.

    On the grid of q from ``-zones`` to ``zones`` in steps of ``1/per_zone``, which passes through every k = 0; with
    ``per_zone=1`` there is nothing else. C has the period of the reciprocal lattice: one inverse for each k of a zone.
    """
    k = jnp.asarray(zone(per_zone), springs.dtype)
    covariance = inverse(dynamical_matrices(crystal, springs, k), lam).reshape(per_zone, per_zone, 4, 4)
    steps = np.arange(-zones * per_zone, zones * per_zone + 1)
    q = np.stack(np.meshgrid(steps, steps, indexing="ij"), -1) / per_zone
    waves = jnp.asarray(np.exp(2j * np.pi * (q @ crystal.positions.T)), covariance.dtype)
    covariance = covariance[np.ix_(steps % per_zone, steps % per_zone)]
    total = jnp.einsum("xyi,xyij,xyj->xy", waves.conj(), covariance, waves).real
    return jnp.asarray(np.sum((2 * np.pi * q) ** 2, -1), total.dtype) * total


# The same inverse in other ways: through jnp's eigenvectors and singular vectors, and without any spectrum.


def inverse_by_eigh(d: Array, lam: float) -> Array:
    w, v = jnp.linalg.eigh(d)
    return v * _filter(w, lam)[..., None, :].astype(v.dtype) @ jnp.swapaxes(v, -1, -2).conj()


def inverse_by_svd(d: Array, lam: float) -> Array:
    u, s, vh = jnp.linalg.svd(d)
    filtered = u * _filter(s, lam)[..., None, :].astype(u.dtype) @ vh
    return jnp.swapaxes(filtered, -1, -2).conj()


def inverse_by_solve(d: Array, lam: float) -> Array:
    """Possible because this filter is a rational function: an independent check."""
    return jnp.linalg.solve(d @ d + lam * jnp.eye(4, dtype=d.dtype)[None], d)
