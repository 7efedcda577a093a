"""Functions of a Hermitian matrix, ``V diag(f(w)) V^H``, and of the singular values of any, ``U diag(f(s)) V^H``, with
their first and second derivatives by divided differences (``jaxnorms.scalar_functions``), which do not depend on the
basis that a decomposition returns.

    D F(a)[e] = V (f[w_i, w_j] o M) V^H,                        M = V^H e V                              (1)
    D^2 F(a)[e, h] = V T V^H,       T_ij = sum_k f[w_i, w_k, w_j] (M_ik N_kj + N_ik M_kj),  N = V^H h V  (2)

(Daleckii and Krein 1965). A function of singular values is one of the Hermitian matrix ``[[0, a], [a^H, 0]]``, if f is
odd: its eigenvalues are s, -s, and 0 for what a tall or wide matrix leaves over.
"""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import jax.numpy as jnp
from jax import Array

from jaxnorms._scaling import max_abs, poison, prepare, scale
from jaxnorms.decompositions import hermitian_part, lapack, matmul, singular_values, thin_svd, tie_tolerance
from jaxnorms.scalar_functions import Function, first, odd, second
from jaxnorms.spectral_methods import turned


class Decomposed(NamedTuple):
    """``left diag(values) right`` of one matrix; NaN values if it was not finite. Second derivatives of functions of it
    are computed at the scale at which ``unit`` is about 1."""

    left: Array
    values: Array
    right: Array
    unit: Array

    @property
    def ok(self) -> Array:
        return jnp.all(jnp.isfinite(self.values))

    @property
    def largest(self) -> Array:
        return max_abs(self.values)

    def scaled(self, power: Array) -> "Decomposed":
        """The values multiplied by ``2^power``, of a size to compute derivatives with."""
        return self._replace(values=scale(self.values, power), unit=jnp.ones_like(self.unit) / 2)


class Kind(Protocol):
    """Which spectrum."""

    def spectrum(self, a: Array) -> Array: ...
    def decompose(self, a: Array) -> Decomposed: ...
    def image(self, f: Function, d: Decomposed, *params: Array) -> Array: ...
    def change(self, f: Function, d: Decomposed, e: Array, *params: Array) -> Array: ...
    def second_change(self, f: Function, d: Decomposed, e: Array, h: Array, *params: Array) -> Array: ...


@dataclass(frozen=True)
class Hermitian:
    """Eigenvalues of the Hermitian part, ascending."""

    def spectrum(self, a: Array) -> Array:
        return self.decompose(a).values

    def decompose(self, a: Array) -> Decomposed:
        x, ok, largest, power = prepare(a)
        w, v = lapack.eigh(hermitian_part(x))
        return Decomposed(v, jnp.where(ok, scale(w, power), jnp.nan), v.conj().T, largest)

    def image(self, f: Function, d: Decomposed, *params: Array) -> Array:
        y = f(d.values, d.largest, *params).astype(d.left.dtype)
        return poison(d.ok, hermitian_part(matmul(d.left * y[None, :], d.right)))

    def change(self, f: Function, d: Decomposed, e: Array, *params: Array) -> Array:
        f, w, m = f.without_cusp(), d.values, self._turned(d, e)
        core = first(f, w[:, None], w[None, :], d.largest, *params).astype(m.dtype) * m
        return poison(d.ok, matmul(matmul(d.left, core), d.right))

    def second_change(self, f: Function, d: Decomposed, e: Array, h: Array, *params: Array) -> Array:
        m, n = self._turned(d, e), self._turned(d, h)
        core = _second_core(f.without_cusp(), d.values, d.largest, m, n, *params)
        return poison(d.ok, matmul(matmul(d.left, core), d.right))

    def _turned(self, d: Decomposed, e: Array) -> Array:
        return matmul(matmul(d.right, hermitian_part(e)), d.left)


@dataclass(frozen=True)
class Singular:
    """Singular values, descending."""

    def spectrum(self, a: Array) -> Array:
        x, ok, _, power = prepare(a)
        return jnp.where(ok, scale(singular_values(x), power), jnp.nan)

    def decompose(self, a: Array) -> Decomposed:
        x, ok, largest, power = prepare(a)
        u, s, vh = thin_svd(x)
        return Decomposed(u, jnp.where(ok, scale(s, power), jnp.nan), vh, largest)

    def image(self, f: Function, d: Decomposed, *params: Array) -> Array:
        y = self._odd(f, d)(d.values, d.largest, *params).astype(d.left.dtype)
        return poison(d.ok, matmul(d.left * y[None, :], d.right))

    def change(self, f: Function, d: Decomposed, e: Array, *params: Array) -> Array:
        f, s = self._odd(f, d).without_cusp(), d.values
        minus = first(f, s[:, None], s[None, :], d.largest, *params).astype(e.dtype)
        plus = first(f, s[:, None], -s[None, :], d.largest, *params).astype(e.dtype)
        along = first(f, s, jnp.zeros_like(s), d.largest, *params).astype(e.dtype)

        def core_of(m: Array) -> Array:
            sym = hermitian_part(m)
            return minus * sym + plus * (m - sym)

        return poison(d.ok, turned(d.left, d.right, e, core_of, along))

    def second_change(self, f: Function, d: Decomposed, e: Array, h: Array, *params: Array) -> Array:
        """(2) for the eigenvectors ``[u, +-v] / sqrt 2`` of ``[[0, a], [a^H, 0]]`` and what is orthogonal to them."""
        if e.shape[0] < e.shape[1]:
            flipped = d._replace(left=d.right.conj().T, right=d.left.conj().T)
            return self.second_change(f, flipped, e.conj().T, h.conj().T, *params).conj().T
        f, n, v = self._odd(f, d).without_cusp(), d.values.shape[0], d.right.conj().T

        def both(e: Array) -> tuple[Array, Array]:
            """M between the eigenvectors, and what leads from them to the others."""
            ev = matmul(e, v)
            m = matmul(d.left.conj().T, ev)
            sym = hermitian_part(m)
            out = ev - matmul(d.left, m)
            return jnp.block([[sym, sym - m], [m - sym, -sym]]), jnp.concatenate([out, -out], 1) * 0.5**0.5

        w = jnp.concatenate([d.values, -d.values])
        (me, oute), (mh, outh) = both(e), both(h)
        pairs, null = first(f, w[:, None], w[None, :], d.largest, *params), jnp.zeros((), w.dtype)
        single = first(f, w, null, d.largest, *params)
        ends = single[:, None], single[None, :]
        through = second(f, w[:, None], null, w[None, :], *ends, pairs, d.largest, *params).astype(e.dtype)
        core = _second_core(f, w, d.largest, me, mh, *params)
        core += through * (matmul(oute.conj().T, outh) + matmul(outh.conj().T, oute))
        over = matmul(oute, through * mh) + matmul(outh, through * me)
        inner = (core[:n] + core[n:]) / 2
        y = matmul(d.left, inner[:, :n] - inner[:, n:]) + (over[:, :n] - over[:, n:]) * 0.5**0.5
        return poison(d.ok, matmul(y, d.right))

    def _odd(self, f: Function, d: Decomposed) -> Function:
        return odd(f, tie_tolerance(d.values.dtype, d.left.shape[0], d.right.shape[1]))


HERMITIAN, SINGULAR = Hermitian(), Singular()


def _second_core(f: Function, w: Array, largest: Array, m: Array, n: Array, *params: Array) -> Array:
    """T of (2) by products of matrices: one half, of which the other one is the adjoint, takes

        f[w_i, w_k, w_j] = (f[w_k, w_j] - f[w_i, w_j]) / (w_k - w_i)

    where w_i and w_k are far apart, and ``(f[w_i, w_i, w_j] + f[w_k, w_k, w_j]) / 2`` where they are close: whichever
    is more accurate for j = i and j = k, where f[w_i, w_i, w_k] is known."""
    x, y = w[:, None], w[None, :]
    pairs = first(f, x, y, largest, *params)
    confluent = second(f, x, x, y, jnp.diagonal(pairs)[:, None], pairs, pairs, largest, *params)
    gap, limit = y - x, jnp.diagonal(confluent)
    error = jnp.abs((limit[:, None] + confluent.T) / 2 - confluent)
    size = jnp.abs(pairs) + jnp.abs(jnp.diagonal(pairs))[:, None]
    rounding = jnp.finfo(w.dtype).eps * jnp.maximum(size, size.T) / jnp.where(gap == 0, 1, jnp.abs(gap))
    close = (gap == 0) | (jnp.maximum(error, error.T) <= rounding)
    turn = jnp.where(close, 0, 1 / jnp.where(close, 1, gap)).astype(n.dtype) * n
    mixed = jnp.where(close, 0.5, 0).astype(n.dtype) * n
    pairs, confluent = pairs.astype(m.dtype), confluent.astype(m.dtype)
    half = matmul(turn, pairs * m) - pairs * matmul(turn, m)
    half += matmul(mixed, confluent * m) + confluent * matmul(mixed, m)
    return half + half.conj().T
