"""Norms from their definitions, in double precision, by NumPy."""

import jax.numpy as jnp
import numpy as np
from matrices import REAL

import jaxnorms as jn

inf = float("inf")


def reference(norm, a):
    """The norm of one matrix from its definition, in double precision, by NumPy; None without a formula here."""
    if not a.size:
        return 0.0
    wide = np.complex128 if np.issubdtype(a.dtype, np.complexfloating) else np.float64
    x = np.asarray(a, wide)
    power = np.max(np.abs(x))
    if power == 0:
        return 0.0
    x = x / power
    length = np.linalg.norm
    if isinstance(norm, jn.Dual):
        return power * dual_reference(norm.ord, x)
    if isinstance(norm, jn.Entrywise):
        return power * length(np.abs(x).ravel(), norm.p)
    if isinstance(norm, jn.Schatten):
        return power * length(np.linalg.svd(x, compute_uv=False), norm.p)
    if isinstance(norm, jn.KyFan):
        return power * length(np.linalg.svd(x, compute_uv=False)[: norm.k], norm.p)
    if isinstance(norm, jn.UnitarilyInvariant):
        return power * float(norm.gauge(jnp.asarray(np.linalg.svd(x, compute_uv=False), REAL)))
    if isinstance(norm, jn.Mixed):
        return power * length(length(np.abs(x), norm.p, axis=0 if norm.axis == -1 else 1), norm.q)
    if isinstance(norm, jn.Induced) and norm.p == 1:
        return power * np.max(length(np.abs(x), norm.q, axis=0))
    if isinstance(norm, jn.Induced) and norm.q == inf:
        return power * np.max(length(np.abs(x), conjugate(norm.p), axis=1))
    if isinstance(norm, jn.Induced):
        return power * length(x, 2)
    return None


def dual_reference(norm, x):
    """The dual norm, of a matrix with largest entry 1."""
    length = np.linalg.norm
    if isinstance(norm, jn.KyFan):
        return top_dual(np.linalg.svd(x, compute_uv=False), norm.k, conjugate(norm.p))
    if isinstance(norm, jn.Induced):
        return np.sum(length(np.abs(x), conjugate(norm.q), axis=0))
    if isinstance(norm, jn.Mixed):
        return reference(jn.Mixed(conjugate(norm.p), conjugate(norm.q), axis=norm.axis), x)
    return reference(type(norm)(conjugate(norm.p)), x)


def top_dual(s, k, q):
    """Of the norm of the k largest of descending values: the largest <s, x> over x of norm 1 whose last entries, from
    the (k - r + 1)-st on, are equal, among those r for which this x descends."""
    tails = [(r, np.sum(s[k - r :]) / r) for r in range(1, k + 1)]
    return max(np.linalg.norm([*s[: k - r], *[tail] * r], q) for r, tail in tails if r == k or tail <= s[k - r - 1])


def conjugate(p):
    return inf if p == 1 else 1.0 if p == inf else p / (p - 1)
