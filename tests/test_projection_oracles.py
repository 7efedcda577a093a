"""Every prox and projection against a naive one of its own, in NumPy and SciPy.

A norm f is given by its *path*, ``y(c) = argmin (c/q) f(y)^q + |x - y|^2 / 2`` for a power q that makes it easy.
The prox of step t is where ``c f(y)^(q-1) = t`` on it, the projection of radius r where ``f(y) = r``; both are found
by Brent's method in log c. Dual norms follow by Moreau's identity. Nothing of this is how the package does it, which
bisects for multipliers and thresholds. The oracles, in turn, are compared with a general solver.
"""

from dataclasses import dataclass
from itertools import combinations, product
from typing import Any

import jax
import numpy as np
import pytest
from matrices import COMPLEX, REAL, gaussian, prescribed, tolerance
from scipy.optimize import NonlinearConstraint, brentq, minimize

import jaxnorms as jn

inf = float("inf")


def crossing(path, excess, last):
    """``path(c)`` where the increasing ``excess(c, path(c))`` changes sign: x where c would be below its rounding, and
    0 beyond e^last, where f(y) is."""
    first = -60

    def of_logarithm(s):
        return excess(np.exp(s), path(np.exp(s)))

    if of_logarithm(last) < 0:
        return np.zeros_like(path(1.0))
    s = first if of_logarithm(first) > 0 else brentq(of_logarithm, first, last, xtol=1e-15, maxiter=500)
    return path(np.exp(s))


class Oracle:
    """Prox and projection of an array of magnitudes, from a path along which f(y) falls to e^-fall."""

    def prox(self, x, t):
        return self.path(x, t) if self.power == 1 else self.stepped(x, lambda size: t)

    def stepped(self, x, step):
        """The prox whose step is given in terms of the norm of its image."""
        return self.crossing(x, lambda c, y: c * self.value(y) ** (self.power - 1) - step(self.value(y)))

    def project(self, x, r):
        return x if self.value(x) <= r else self.crossing(x, lambda c, y: r - self.value(y))

    def crossing(self, x, excess):
        # In the end f(y) goes as c^(-1/(q-1)), or is 0.
        return crossing(lambda c: self.path(x, c), excess, self.fall * (self.power - 1 or 1))


@dataclass
class Top(Oracle):
    """The l_p norm of the k largest entries; of all if k is None, so that k = 1 is the largest entry."""

    k: int | None
    p: float
    fall = 60

    @property
    def power(self):
        return self.p

    def value(self, x):
        return np.linalg.norm(np.sort(x, axis=None)[x.size - (self.k or x.size) :], self.p)

    def pieces(self, x):
        """Smooth norms of which this is the largest."""
        return [np.linalg.norm(x.ravel()[list(i)], self.p) for i in combinations(range(x.size), self.k or x.size)]

    def path(self, x, c):
        """In descending order the first entries shrink, those that follow are tied, the last stay as they are: the
        best of all such points."""
        if self.k is None:
            return self.shrunk(x, c)
        order = np.argsort(-x, axis=None)
        ordered = x.ravel()[order]
        points = [self.point(ordered, c, a, b) for a, b in self.blocks(x.size)]
        # |x|^2 / 2, in which y would be lost where it is small, is left out.
        best = min(points, key=lambda y: c / self.p * self.value(y) ** self.p + np.vdot(y / 2 - ordered, y))
        return best[np.argsort(order)].reshape(x.shape)

    def blocks(self, n):
        """How many entries shrink alone, and how many share what is left of the k."""
        return [(self.k, 0)] + [(a, b) for a in range(self.k) for b in range(self.k - a, n - a + 1)]

    def point(self, x, c, a, b):
        y = x.copy()
        y[:a] = self.shrunk(x[:a], c)
        if b:
            y[a : a + b] = self.shrunk(x[a : a + b].mean(), c * (self.k - a) / b)
        return y

    def shrunk(self, x, c):
        """The z >= 0 with ``z + c z^(p-1) = x``; with ``max`` for p = 1, and a quadratic for p = 3/2 and 3."""
        if self.p == 1:
            return np.maximum(x - c, 0)
        if self.p == 1.5:
            return np.square(2 * x / (c + np.sqrt(c**2 + 4 * x)))
        return {2: x / (1 + c), 3: 2 * x / (1 + np.sqrt(1 + 4 * c * x))}[self.p]


@dataclass
class Columns(Oracle):
    """The l_q norm of the columns' norms: its path is one path for each column."""

    inner: Top
    power: float
    fall = 30  # half the digits of what is inside

    def value(self, x):
        return np.linalg.norm([self.inner.value(column) for column in x.T], self.power)

    def pieces(self, x):
        return [np.linalg.norm(each, self.power) for each in product(*(self.inner.pieces(c) for c in x.T))]

    def path(self, x, c):
        """A column of the norm n moves by the prox of the step ``c n^(q-1)``."""
        return np.stack([self.moved(column, c) for column in x.T], axis=1)

    def moved(self, x, c):
        if self.power == 1:
            return self.inner.prox(x, c)
        return self.inner.stepped(x, lambda size: c * size ** (self.power - 1))


@dataclass
class Polar:
    """The dual norm, by Moreau's identity."""

    of: Oracle

    def prox(self, x, t):
        return x - self.of.project(x, t)

    def project(self, x, r):
        return x - self.of.prox(x, r)


@dataclass
class Rows:
    """The norm of the transpose."""

    of: Any

    def prox(self, x, t):
        return self.of.prox(x.T, t).T

    def project(self, x, r):
        return self.of.project(x.T, r).T


ALL = {p: Top(None, p) for p in (1, 1.5, 2, 3)} | {inf: Top(1, 1)}
DOWN = {(p, q): Columns(ALL[p], q) for p, q in ((inf, 1), (1.5, 1), (2, 1), (2, 1.5), (2, 3), (1, 2), (3, 1.5))}
ENTRIES = {
    jn.Entrywise(1): ALL[1],
    jn.Entrywise(1.5): ALL[1.5],
    jn.Entrywise(2): ALL[2],
    jn.Entrywise(3): ALL[3],
    jn.Entrywise(inf): ALL[inf],
    jn.Mixed(2, 1): DOWN[2, 1],
    jn.Mixed(2, 1, axis=-2): Rows(DOWN[2, 1]),
    jn.Mixed(2, 1.5): DOWN[2, 1.5],
    jn.Mixed(2, 3): DOWN[2, 3],
    jn.Mixed(2, inf): Polar(DOWN[2, 1]),
    jn.Induced(2, inf): Rows(Polar(DOWN[2, 1])),
    jn.Mixed(1, inf): Polar(DOWN[inf, 1]),
    jn.Induced(inf, inf): Rows(Polar(DOWN[inf, 1])),
    jn.Mixed(inf, 1): DOWN[inf, 1],
    jn.Mixed(inf, 1, axis=-2): Rows(DOWN[inf, 1]),
    jn.Mixed(3, inf): Polar(DOWN[1.5, 1]),
    jn.Mixed(1, 2, axis=-2): Rows(DOWN[1, 2]),
    jn.Mixed(inf, 2): Polar(DOWN[1, 2]),
    jn.Mixed(3, 1.5): DOWN[3, 1.5],
    jn.Mixed(1.5, 3): Polar(DOWN[3, 1.5]),
}
TOP = {jn.KyFan(k, p): Top(k, p) for k, p in ((2, 1), (2, 2), (2, 3), (3, 1.5))}
TOP |= {jn.Dual(norm): Polar(oracle) for norm, oracle in TOP.items()}
SCHATTEN = {jn.Schatten(p): ALL[p] for p in (1, 1.5, 2, 3, inf)}
# Loops in loops take up to a minute to compile; the others are made of the same parts as norms that stay.
LONG = (jn.Mixed(3, 1.5), jn.Mixed(1.5, 3))
ALIKE = (jn.Mixed(inf, 2), jn.Mixed(2, 3), jn.Mixed(2, 1, axis=-2), jn.Mixed(inf, 1, axis=-2))
# Two SVDs to compile for each norm: the other maps of magnitudes are carried as these are.
CARRIED, COMPLEX_CARRIED = (jn.Schatten(1), jn.KyFan(2, 2)), (jn.Dual(jn.KyFan(2)),)

# Small, middling, and so large that balls contain every point below and prox is 0.
NUMBERS = np.array([0.05, 0.4, 1.7, 30])
# Ties of entries, of columns and rows, of all; zero columns and rows; entries apart by orders of magnitude; 0.
MATRICES = np.array(
    [
        gaussian((3, 2), REAL),
        2 * gaussian((3, 2), REAL, seed=1),
        [[2, -2], [1, 1], [-1, 0.5]],
        [[1, 2], [2, 1], [0.5, -0.5]],
        [[1, -1], [1, 1], [1, 1]],
        [[3, 0], [0, 0], [-1, 0]],
        [[3, 0.1], [-1e-3, 1], [1e-2, 1e-5]],
        np.zeros((3, 2)),
    ]
)
SPECTRA = np.array([[3, 2.2, 1.1, 0.7, 0.2], [2, 2, 1, 1, 1], [1, 1, 1, 1, 1], [3, 1, 1, 0, 0], [2, 1e-2, 1e-4, 0, 0]])


@dataclass
class Signed:
    """An oracle of magnitudes carried to real and complex entries."""

    of: Any

    def prox(self, a, t):
        return phases(a) * self.of.prox(np.abs(a), t)

    def project(self, a, r):
        return phases(a) * self.of.project(np.abs(a), r)


def phases(a):
    return a / np.where(a == 0, 1, np.abs(a))


@dataclass
class Spectral:
    """An oracle of magnitudes carried to singular values (Lewis 1995)."""

    of: Any

    def prox(self, a, t):
        u, s, vh = np.linalg.svd(a, full_matrices=False)
        return (u * self.of.prox(s, t)) @ vh

    def project(self, a, r):
        u, s, vh = np.linalg.svd(a, full_matrices=False)
        return (u * self.of.project(s, r)) @ vh


def compare(prox, project, oracle, points):
    """Both functions at all points with all numbers, each in one call, to the rounding of the largest point: Brent's
    method, too, finds log c to the last bit."""
    tol = tolerance(REAL, size=np.max(np.linalg.norm(points.reshape(len(points), -1), axis=1)))
    a, numbers = np.repeat(points, len(NUMBERS), axis=0), np.tile(NUMBERS, len(points))
    for actual, expected in ((prox, oracle.prox), (project, oracle.project)):
        there = np.stack([expected(x, t) for x, t in zip(a, numbers, strict=True)])
        np.testing.assert_allclose(actual(a, numbers), there, rtol=0, atol=tol)


def cases(norms, real, complex):
    """Norms and types; those whose real or complex case is not named here are slow, by their compilation."""
    return [
        pytest.param(norm, dtype, id=f"{norm}-{dtype}", marks=[] if norm in quick else [pytest.mark.slow])
        for norm in norms
        for dtype, quick in ((REAL, real), (COMPLEX, complex))
    ]


@pytest.mark.parametrize(
    ("norm", "dtype"),
    cases(ENTRIES, ENTRIES.keys() - {*LONG, *ALIKE}, (jn.Entrywise(1), jn.Mixed(2, 1), jn.Induced(inf, inf))),
)
def test_entries(norm, dtype):
    a = MATRICES if dtype == REAL else MATRICES * np.exp(1j * gaussian(MATRICES.shape, REAL))
    compare(lambda a, t: jn.prox(a, t, norm), lambda a, r: jn.project(a, r, norm), Signed(ENTRIES[norm]), a)


@pytest.mark.parametrize("norm", TOP, ids=repr)
def test_magnitudes(norm):
    gauge = norm.lift.gauge
    prox, project = (jax.jit(jax.vmap(f)) for f in (gauge.prox, gauge.project))
    compare(prox, project, TOP[norm], np.abs(MATRICES).reshape(len(MATRICES), -1))


@pytest.mark.parametrize(("norm", "dtype"), cases(SCHATTEN | TOP, CARRIED, COMPLEX_CARRIED))
def test_singular_values(norm, dtype):
    a = np.stack([f(s) for s in SPECTRA for f in (np.diag, lambda s: prescribed(s, (5, 5), dtype))]).astype(dtype)
    compare(lambda a, t: jn.prox(a, t, norm), lambda a, r: jn.project(a, r, norm), Spectral((SCHATTEN | TOP)[norm]), a)


@pytest.mark.parametrize(
    "oracle", [*ALL.values(), *DOWN.values(), *(Top(*o) for o in ((2, 1), (3, 2), (2, 3)))], ids=repr
)
def test_the_oracles(oracle):
    """By their definition, with a norm as the largest of its pieces: minimise ``t tau + |x - y|^2 / 2`` over the
    ``(y, tau)`` with ``pieces(y) <= tau``, and ``|x - y|^2 / 2`` over ``pieces(y) <= r``."""
    x = np.abs(MATRICES[0])
    assert max(oracle.pieces(x)) == pytest.approx(oracle.value(x), rel=1e-14)
    for t, image, tau in ((0.4, oracle.prox(x, 0.4), None), (0, oracle.project(x, 0.9), 0.9)):

        def slack(z, tau=tau):
            return (z[-1] if tau is None else tau) - np.array(oracle.pieces(z[:-1].reshape(x.shape)))

        found = minimize(
            lambda z, t=t: t * z[-1] + np.sum(np.square(x.ravel() - z[:-1])) / 2,
            np.append(x.ravel() / 2, oracle.value(x)),
            jac="3-point",
            bounds=[(0, None)] * (x.size + 1),
            constraints=NonlinearConstraint(slack, 0, inf, jac="3-point"),
            method="SLSQP",
            options={"ftol": 1e-15, "maxiter": 500},
        )
        # The square root of the rounding of its values.
        np.testing.assert_allclose(found.x[:-1].reshape(x.shape), image, atol=1e-6)
