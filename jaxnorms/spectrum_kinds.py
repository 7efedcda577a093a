"""Functions of a Hermitian matrix, ``V diag(f(w)) V^H``, and of the singular values of any, ``U diag(f(s)) V^H``, with
their first and second derivatives by divided differences (``jaxnorms.scalar_functions``), which do not depend on the
basis that a decomposition returns.

    D F(a)[e] = V (f[w_i, w_j] o M) V^H,                        M = V^H e V                              (1)
    D^2 F(a)[e, h] = V T V^H,       T_ij = sum_k f[w_i, w_k, w_j] (M_ik N_kj + N_ik M_kj),  N = V^H h V  (2)

(Daleckii and Krein 1965). A function of singular values is one of the Hermitian matrix ``[[0, a], [a^H, 0]]``, if f is
odd: its eigenvalues are s, -s, and 0 for what a tall or wide matrix leaves over.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import jax.numpy as jnp
from jax import Array

from jaxnorms._scaling import exponent, halves, max_abs, poison, prepare, scale
from jaxnorms.decompositions import hermitian_part, lapack, matmul, singular_values, thin_svd, tie_tolerance
from jaxnorms.scalar_functions import Function, Scaled, first, odd, second
from jaxnorms.spectral_methods import turned


class Decomposed(NamedTuple):
    """``left diag(values) right`` of one matrix; NaN values if it was not finite."""

    left: Array
    values: Array
    right: Array

    @property
    def ok(self) -> Array:
        return jnp.all(jnp.isfinite(self.values))

    @property
    def largest(self) -> Array:
        return max_abs(self.values)

    def scaled(self, power: Array) -> "Decomposed":
        """That of the matrix multiplied by ``2^power``."""
        return self._replace(values=scale(self.values, power))


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
        x, ok, _, power = prepare(a)
        w, v = lapack.eigh(hermitian_part(x))
        return Decomposed(v, poison(ok, scale(w, power)), v.conj().T)

    def image(self, f: Function, d: Decomposed, *params: Array) -> Array:
        y = f(d.values, d.largest, *params).astype(d.left.dtype)
        return poison(d.ok, hermitian_part(matmul(d.left * y[None, :], d.right)))

    def change(self, f: Function, d: Decomposed, e: Array, *params: Array) -> Array:
        f, w, m = f.without_cusp(), d.values, self._turned(d, e)
        core = first(f, w[:, None], w[None, :], d.largest, *params).astype(m.dtype) * m
        return poison(d.ok, matmul(matmul(d.left, core), d.right))

    def second_change(self, f: Function, d: Decomposed, e: Array, h: Array, *params: Array) -> Array:
        differences = _differences(f.without_cusp(), d.values, d.largest, params)
        core_of, power = _second_core(differences, d.values)
        e, before, after = _in_range(e, differences.power + power)
        core = core_of(self._turned(d, e), self._turned(d, before(h)))
        return poison(d.ok, after(matmul(matmul(d.left, core), d.right)))

    def _turned(self, d: Decomposed, e: Array) -> Array:
        return matmul(matmul(d.right, hermitian_part(e)), d.left)


@dataclass(frozen=True)
class Singular:
    """Singular values, descending."""

    def spectrum(self, a: Array) -> Array:
        x, ok, _, power = prepare(a)
        return poison(ok, scale(singular_values(x), power))

    def decompose(self, a: Array) -> Decomposed:
        x, ok, _, power = prepare(a)
        u, s, vh = thin_svd(x)
        return Decomposed(u, poison(ok, scale(s, power)), vh)

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
        differences, null = _differences(f, w, d.largest, params), jnp.zeros((), w.dtype)
        core_of, power = _second_core(differences, w)
        e, before, after = _in_range(e, differences.power + power)
        (me, oute), (mh, outh) = both(e), both(before(h))
        pairs, single = differences.first(w[:, None], w[None, :]), differences.first(w, null)
        through = differences.second(w[:, None], null, w[None, :], single[:, None], single[None, :], pairs)
        through = scale(through, -power).astype(e.dtype)
        core = core_of(me, mh) + through * (matmul(oute.conj().T, outh) + matmul(outh.conj().T, oute))
        over = matmul(oute, through * mh) + matmul(outh, through * me)
        inner = (core[:n] + core[n:]) / 2
        y = matmul(d.left, inner[:, :n] - inner[:, n:]) + (over[:, :n] - over[:, n:]) * 0.5**0.5
        return poison(d.ok, after(matmul(y, d.right)))

    def _odd(self, f: Function, d: Decomposed) -> Function:
        return odd(f, tie_tolerance(d.values.dtype, d.left.shape[0], d.right.shape[1]))


HERMITIAN, SINGULAR = Hermitian(), Singular()

_ROOM = 8  # below the largest power of two, for sums


@dataclass(frozen=True)
class _Differences:
    """Divided differences of ``f 2^-power``."""

    f: Function
    largest: Array
    params: tuple[Array, ...]
    power: Array

    def first(self, x: Array, y: Array) -> Array:
        return scale(first(self.f, x, y, self.largest, *self.params), -self.power)  # f itself would leave the range

    def second(self, x: Array, y: Array, z: Array, xy: Array, yz: Array, xz: Array) -> Array:
        return second(Scaled(self.f), x, y, z, xy, yz, xz, self.largest, -self.power, *self.params)


def _differences(f: Function, w: Array, largest: Array, params: tuple[Array, ...]) -> _Differences:
    """With a power that brings those of second order at the eigenvalues w into the range, away from where their errors,
    which are compared, would be flushed to zero, and leaves those of first order there."""
    slope, bend = (g(w, largest, *params) for g in (f.derivative(), f.derivative().derivative()))
    steepest = exponent(max_abs(jnp.where(jnp.isfinite(slope), slope, 0)))
    return _Differences(f, largest, params, jnp.maximum(_power(bend), steepest - jnp.finfo(w.dtype).maxexp + _ROOM))


def _power(x: Array) -> Array:
    """The exponent of the largest number; less where, after a division by that power of two, the least one but 0 would
    be flushed, as far as the largest one stays in the range."""
    info, size = jnp.finfo(x.dtype), jnp.where(jnp.isfinite(x), jnp.abs(x), 0)
    largest = jnp.max(size)
    high, low = exponent(largest), exponent(jnp.min(jnp.where(size > 0, size, largest)))
    return jnp.maximum(jnp.minimum(high, low - info.minexp - 2 * info.nmant), high - info.maxexp + _ROOM)


def _in_range(e: Array, power: Array) -> tuple[Array, Callable[[Array], Array], Callable[[Array], Array]]:
    """For a bilinear map of e and h whose coefficients were divided by ``2^power``: e of size 1, and what is to be done
    with h before and with the map after, so that nothing in between is out of range where h and the map are not."""
    size = exponent(max_abs(e))
    return scale(e, -size), *halves(power + size)


def _second_core(differences: _Differences, w: Array) -> tuple[Callable[[Array, Array], Array], Array]:
    """T of (2) times ``2^-power``, as a map of M and N by products of matrices, and the power, which brings what they
    are multiplied by into the range. One half, of which the other one is the adjoint, takes

        f[w_i, w_k, w_j] = (f[w_k, w_j] - f[w_i, w_j]) / (w_k - w_i)

    where w_i and w_k are far apart, and ``(f[w_i, w_i, w_j] + f[w_k, w_k, w_j]) / 2`` where they are close: whichever
    is more accurate for j = i and j = k, where f[w_i, w_i, w_k] is known."""
    x, y = w[:, None], w[None, :]
    pairs = differences.first(x, y)
    confluent = differences.second(x, x, y, jnp.diagonal(pairs)[:, None], pairs, pairs)
    gap, limit = y - x, jnp.diagonal(confluent)
    error = jnp.abs((limit[:, None] + confluent.T) / 2 - confluent)
    size = jnp.abs(pairs) + jnp.abs(jnp.diagonal(pairs))[:, None]
    quotient = jnp.maximum(size, size.T) / jnp.where(gap == 0, 1, jnp.abs(gap))
    close = (gap == 0) | (jnp.maximum(error, error.T) <= jnp.finfo(w.dtype).eps * quotient)
    power = _power(jnp.stack([confluent, jnp.where(close, 0, quotient)]))
    unit = exponent(differences.largest)
    inverse = jnp.where(close, 0, 1 / jnp.where(close, 1, scale(gap, -unit)))
    # Where all are close these are not used, and may be infinite.
    pairs = jnp.where(jnp.all(close), 0, scale(pairs, -unit - power))
    confluent, means = scale(confluent, -power), jnp.where(close, 0.5, 0)

    def core(m: Array, n: Array) -> Array:
        p, c = pairs.astype(m.dtype), confluent.astype(m.dtype)
        turn, mixed = inverse.astype(n.dtype) * n, means.astype(n.dtype) * n
        half = matmul(turn, p * m) - p * matmul(turn, m)
        half += matmul(mixed, c * m) + c * matmul(mixed, m)
        return half + half.conj().T

    return core, power
