"""The best approximation of low rank, in every unitarily invariant norm at once."""

from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxnorms import _checks, _rules
from jaxnorms._batching import over_batch
from jaxnorms.carried import OfSingularValues, Parameters
from jaxnorms.decompositions import tie_tolerance
from jaxnorms.lifts import SpectralLift
from jaxnorms.norm_objects import Norm, as_norm


class BestApproximation(NamedTuple):
    """``matrix`` (..., m, n) of rank k at most, and ``rest`` (..., min(m, n) - k): the singular values left out,
    descending, which are those of the error ``a - matrix``.

    >>> import jax.numpy as jnp, jaxnorms as jn
    >>> jn.best_approximation(jnp.diag(jnp.array([3.0, 2.0, 1.0])), 1).rest
    Array([2., 1.], dtype=float32)
    """

    matrix: Array
    rest: Array

    def error(self, ord: Norm | str = "fro") -> Array:
        """``||a - matrix||`` in a unitarily invariant norm, from ``rest``: the least of all matrices of rank k.

        ``ord``: a Schatten, Ky Fan, dual Ky Fan or other unitarily invariant norm object, ``'fro'``, ``'nuc'`` or
        ``'spectral'``; another one raises ``ValueError``. Shape ``(...)``.

        >>> import jax.numpy as jnp, jaxnorms as jn
        >>> jn.best_approximation(jnp.diag(jnp.array([5.0, 4.0, 3.0])), 1).error()
        Array(5., dtype=float32)
        """
        norm = as_norm(ord)
        if not (isinstance(norm.lift, SpectralLift) or norm == as_norm("fro")):
            raise ValueError(f"ord must be a unitarily invariant norm, got {norm!r}")
        zeros = min(self.matrix.shape[-2:]) - self.rest.shape[-1]
        return norm(jnp.pad(self.rest, [(0, 0)] * (self.rest.ndim - 1) + [(0, zeros)]), diagonal=True)


def best_approximation(a: ArrayLike, k: int) -> BestApproximation:
    """``sum_{i<=k} s_i u_i v_i^H``: the nearest matrix of rank k in every unitarily invariant norm, with its error.

    ``argmin ||a - x|| subject to rank x <= k``, for ``(..., m, n)`` matrices and a static ``0 <= k <= min(m, n)``;
    it is unique in the Frobenius norm where ``s_k > s_{k+1}``. ``.matrix`` and ``.rest`` are differentiable once, in
    both modes, without derivatives of vectors, whatever values are repeated on one side of the cut; a second
    derivative raises ``ValueError``. Where ``s_k = s_{k+1} > 0`` one of many nearest matrices is returned, and none
    depends continuously on ``a``; its derivative leaves out the terms between tied values on the two sides of the
    cut, which are infinite. At a rank below k < min(m, n), directions that raise the rank are left out. ``.rest`` has
    the derivative of :func:`singular_values`: averaged over ties, 0 at zeros. NaN or infinite entries give a NaN
    matrix. Cost: one SVD. Source: Eckart and Young 1936; Mirsky 1960; Noferini 2017 (the derivative).

    >>> import jax.numpy as jnp, jaxnorms as jn
    >>> jn.best_approximation(jnp.array([[2.0, 1.0], [1.0, 2.0]]), 1).matrix.round(5)
    Array([[1.5, 1.5],
           [1.5, 1.5]], dtype=float32)
    """
    x = _checks.matrix(a, "best_approximation")
    rank = _checks.integer(k, "k")
    if not 0 <= rank <= min(x.shape[-2:]):
        raise ValueError(f"k must be between 0 and min(m, n) = {min(x.shape[-2:])}, got {rank}")
    return over_batch(_best, x, k=rank)


def _best(a: Array, k: int) -> BestApproximation:
    if a.size == 0:
        return BestApproximation(a, jnp.zeros(min(a.shape) - k, jnp.finfo(a.dtype).dtype))
    matrix = _rules.carry(_Leading(_KeepLeading(k, tie_tolerance(a.dtype, *a.shape))), a)
    return BestApproximation(matrix, _rules.leading(_rules.every_triplet, a)[1][k:])


@dataclass(frozen=True)
class _KeepLeading:
    """The k leading values of a descending vector; zeros on both sides of the cut are one block, and left out."""

    k: int
    tol: float

    def kept(self, s: Array) -> Array:
        leading = jnp.arange(s.shape[0]) < self.k
        return leading & (s > self.tol * s[0]) if self.k < s.shape[0] else leading

    def __call__(self, s: Array) -> Array:
        return jnp.where(self.kept(s), s, 0)


@dataclass(frozen=True)
class _Leading(OfSingularValues):
    """With the infinite differences, of ties across the cut, left out."""

    h: _KeepLeading  # pyright: ignore[reportIncompatibleMethodOverride]

    def differences(self, s: Array, parameters: Parameters, tol: float) -> tuple[Array, Array, Array]:
        kept, y, gap = self.h.kept(s), self.h(s), s[:, None] - s[None, :]
        across = kept[:, None] != kept[None, :]
        apart = across & (jnp.abs(gap) > tol * s[0])
        within = (kept[:, None] & kept[None, :]).astype(s.dtype)
        minus = jnp.where(apart, (y[:, None] - y[None, :]) / jnp.where(apart, gap, 1), within)
        y, s = y / 2, s / 2  # whose sums do not overflow
        plus = (y[:, None] + y[None, :]) / jnp.where(across, s[:, None] + s[None, :], 1)
        return minus, jnp.where(across, plus, within), kept.astype(s.dtype)
