"""Certificates of a subgradient: what must hold of G at any point, kinks included.

Re<G, A> = ||A||,    ||G||_dual <= 1,    ||B|| >= ||A|| + Re<G, B - A> for every B.
"""

import numpy as np


def inner(g: np.ndarray, a: np.ndarray) -> np.ndarray:
    """``Re<g, a>`` of a stack of matrices, in double precision."""
    wide = np.complex128 if np.iscomplexobj(a) else np.float64
    return np.einsum("...ij,...ij->...", np.conj(g.astype(wide)), a.astype(wide)).real


def attains(g, a, value, tol: float):
    """``Re<G, A> = ||A||`` to ``tol`` relative."""
    np.testing.assert_allclose(inner(g, a), value, rtol=tol, atol=0)


def in_dual_ball(dual_value, tol: float):
    """``||G||_dual <= 1`` to ``tol``."""
    assert np.all(dual_value <= 1 + tol), dual_value


def supports(g, a, value, b, value_b, tol: float):
    """The subgradient inequality from each A to each B of a stack, to ``tol`` of the terms' size."""
    for i in range(len(b)):
        right = value + inner(g, b[i] - a)
        slack = tol * (np.abs(value) + np.abs(value_b[i]) + np.abs(inner(np.abs(g), np.abs(b[i]))))
        assert np.all(value_b[i] >= right - slack), (i, value_b[i] - right)
