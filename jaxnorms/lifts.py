"""Three lifts carry a gauge of vectors to matrices: by entries, by columns, by singular values.

Each lift acts on one matrix (the entrywise one on an array of any shape) and offers what
``jaxnorms._rules`` needs: ``value``, ``factors``, ``subgradient`` and ``curvature``, and ``dual``,
the lift of the dual norm.

Conventions at kinks, for every norm: the subgradient is the one of minimum Frobenius norm, and the
second derivative is the U-Lagrangian Hessian: the curvature along the manifold on which the norm
is smooth (tied values stay tied, zero values stay zero), and zero across it.
"""

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxnorms._scaling import max_abs, prepare, scale
from jaxnorms.decompositions import matmul, singular_values, thin_svd, tie_tolerance
from jaxnorms.gauges import Gauge, Lp, inf


def _phase(a: Array) -> Array:
    """``a / |a|``, and 1 at 0."""
    if not jnp.iscomplexobj(a):
        return jnp.where(a < 0, -1, 1).astype(a.dtype)
    size = jnp.abs(a)
    safe = jnp.where(size > 0, size, 1)
    return jnp.where(size > 0, jax.lax.complex(a.real / safe, a.imag / safe), 1)


def _poison(ok: Array, x: Array) -> Array:
    """``x``, or NaN where the matrix had a NaN or an infinite entry."""
    return jnp.where(ok, x, jnp.nan)


class _MagnitudeLift:
    """What the lifts of entry magnitudes share: nothing is kept but the matrix itself."""

    def _polar(self, a: Array) -> tuple[Array, Array]:
        """``a`` as phases times magnitudes; a real matrix stays as it is where signs do not matter,
        which spares a pass over it."""
        if self._outermost.even and isinstance(self, EntrywiseLift) and not jnp.iscomplexobj(a):
            return jnp.ones((), a.dtype), a
        return _phase(a), jnp.abs(a)

    def value(self, a: Array) -> Array:
        value = self._value(self._polar(a)[1])
        if not self._outermost.increasing:
            return value
        largest = max_abs(a)
        return jnp.where(jnp.isfinite(largest), value, largest)

    def factors(self, a: Array) -> tuple[Array, tuple[()]]:
        return self.value(a), ()

    def subgradient(self, a: Array, factors: Any) -> Array:
        phase, x = self._polar(a)
        return _poison(jnp.isfinite(max_abs(a)), phase * self._subgradient(x).astype(a.dtype))

    def curvature(self, a: Array, e: Array) -> Array:
        # With e = phase (er + i ei): er changes the magnitudes, i ei turns the phases.
        phase, x = self._polar(a)
        e = phase.conj() * e
        de = self._curvature(x, e.real)
        if jnp.iscomplexobj(a):
            de = jax.lax.complex(de, self._ratio(x) * e.imag)
        return _poison(jnp.isfinite(max_abs(a)), phase * de)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class EntrywiseLift(_MagnitudeLift):
    """The gauge of all magnitudes ``|a_ij|``. Ties are exact: nothing was rounded."""

    gauge: Gauge

    @property
    def _outermost(self) -> Gauge:
        return self.gauge

    def _value(self, x: Array) -> Array:
        return self.gauge.value(x)

    def _subgradient(self, x: Array) -> Array:
        return self.gauge.subgradient(x, 0)

    def _curvature(self, x: Array, d: Array) -> Array:
        return self.gauge.hessian(x, 0, d)

    def _ratio(self, x: Array) -> Array:
        return self.gauge.ratio(x, 0)

    def diagonal(self) -> "EntrywiseLift":
        return self

    def dual(self) -> "EntrywiseLift":
        return EntrywiseLift(self.gauge.dual())


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class ColumnLift(_MagnitudeLift):
    """The ``outer`` gauge of the columns' ``inner`` gauges; of the rows' if ``rows``.

    With n_j the norm of column j, h_j its subgradient and g the outer one, G = [g_j h_j]. Among the
    outer subgradients g of tied columns the one of minimum Frobenius norm minimises
    sum_j w_j g_j^2 with w_j = |h_j|^2. Ties for the largest column norm are decided within its
    rounding; whether a column is zero is exact.
    """

    inner: Lp
    outer: Lp
    rows: bool = field(default=False, metadata={"static": True})

    @property
    def _outermost(self) -> Gauge:
        return self.outer

    @property
    def _extreme(self) -> bool:
        return self.outer.p in (inf, -inf)

    def _columns(self, x: Array) -> Array:
        return x.T if self.rows else x

    def _parts(self, x: Array):
        n = jax.vmap(self.inner.value, in_axes=1)(x)
        h = jax.vmap(lambda c: self.inner.subgradient(c, 0), in_axes=1, out_axes=1)(x)
        w, tol = jnp.sum(jnp.square(h), axis=0), tie_tolerance(x.dtype, *x.shape) if self._extreme else 0
        return n, h, w, self.outer.subgradient(n, tol, w), tol

    def _value(self, x: Array) -> Array:
        return self.outer.value(jax.vmap(self.inner.value, in_axes=1)(self._columns(x)))

    def _subgradient(self, x: Array) -> Array:
        _, h, _, g, _ = self._parts(self._columns(x))
        return self._columns(g[None, :] * h)

    def _curvature(self, x: Array, d: Array) -> Array:
        x, d = self._columns(x), self._columns(d)
        n, h, w, g, tol = self._parts(x)
        smooth = partial(self._along, h, w, self.outer.tied(n, tol)) if self._extreme else lambda d: d
        d = smooth(d)
        bend = jax.vmap(lambda c, e: self.inner.hessian(c, 0, e), in_axes=1, out_axes=1)(x, d)
        dg = self.outer.hessian(n, tol, jnp.sum(h * d, axis=0))
        return self._columns(smooth(dg[None, :] * h + g[None, :] * bend))

    @staticmethod
    def _along(h: Array, w: Array, tied: Array, d: Array) -> Array:
        """``d`` projected onto the directions in which tied columns stay tied.

        The normal space is spanned by the differences of the h_j of tied columns: subtract
        c_j h_j with sum c_j = 0, c_j = a_j - mu/w_j, a_j = <h_j, d_j>/w_j, so that every tied
        column's norm changes at the same rate mu.
        """
        inverse = jnp.where(tied, 1 / jnp.where(tied, w, 1), 0)
        slopes = jnp.where(tied, jnp.sum(h * d, axis=0), 0)
        total = jnp.sum(inverse)
        mu = jnp.sum(slopes * inverse) / jnp.where(total > 0, total, 1)
        return d - h * (inverse * jnp.where(tied, slopes - mu, 0))[None, :]

    def _ratio(self, x: Array) -> Array:
        x = self._columns(x)
        _, _, _, g, _ = self._parts(x)
        return self._columns(g[None, :] * jax.vmap(lambda c: self.inner.ratio(c, 0), in_axes=1, out_axes=1)(x))

    def diagonal(self) -> EntrywiseLift:
        """The lift for ``diag(d)`` on the vector d: each column has one entry."""
        return EntrywiseLift(self.outer)

    def dual(self) -> "ColumnLift":
        return ColumnLift(self.inner.dual(), self.outer.dual(), self.rows)


# Triplets kept beyond those that carry the subgradient where nothing is tied.
_SPARE = 7


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class SpectralLift:
    """The gauge f of the singular values (von Neumann). With a = U diag(s) V^H, g = grad f(s):

        G = U diag(g) V^H.

    Second order (Noferini 2017; Ding, Sun, Sun, Toh 2018), with M = U^H e V, S and K its Hermitian
    and skew-Hermitian parts, H the Hessian of f and the divided differences of the gauge:

        dG = U [Diag(H Re diag M) + Gm o offdiag S + Gp o K] V^H
             + (1 - U U^H) e V diag(g/s) V^H + U diag(g/s) U^H e (1 - V V^H).
    """

    gauge: Gauge

    def value(self, a: Array) -> Array:
        x, ok, largest, e = prepare(a)
        return jnp.where(ok, scale(self.gauge.value(singular_values(x)), e), largest)

    def factors(self, a: Array) -> tuple[Array, tuple[Array, ...]]:
        """The leading triplets (and how much they miss) where few suffice, else the dense G."""
        x, ok, largest, e = prepare(a)
        u, s, vh = thin_svd(x)
        g = self._gradient(s, a)
        value = jnp.where(ok, scale(self.gauge.value(s), e), largest)
        kept = self._kept(a)
        if kept is None:
            return value, (_poison(ok, matmul(u * g[None, :], vh)),)
        missed = jnp.sum(g[kept:].real)
        return value, (_poison(ok, (u * g[None, :])[:, :kept]), vh[:kept], missed)

    def _kept(self, a: Array) -> int | None:
        m, n = a.shape
        kept = self.gauge.support(min(m, n)) + _SPARE
        return kept if kept * (m + n) < m * n else None

    def subgradient(self, a: Array, factors: tuple[Array, ...]) -> Array:
        if len(factors) == 1:
            return factors[0]
        w, vh, missed = factors
        # A cluster larger than the triplets kept: decompose again. A loop of at most one round is
        # a branch that, under vmap, is paid for only if some matrix of the batch takes it. Its body
        # reads the state, or the compiler would move the decomposition in front of the loop.
        return jax.lax.while_loop(
            lambda state: state[0],
            lambda state: (~state[0], self._dense(jnp.where(state[0], a, 0))),
            (missed > 0, matmul(w, vh)),
        )[1]

    def _dense(self, a: Array) -> Array:
        x, ok, _, _ = prepare(a)
        u, s, vh = thin_svd(x)
        return _poison(ok, matmul(u * self._gradient(s, a)[None, :], vh))

    def _gradient(self, s: Array, a: Array) -> Array:
        return self.gauge.subgradient(s, tie_tolerance(s.dtype, *a.shape)).astype(a.dtype)

    def curvature(self, a: Array, e: Array) -> Array:
        x, ok, _, power = prepare(a)
        u, s, vh = thin_svd(x)
        tol = tie_tolerance(s.dtype, *a.shape)
        v, uh = vh.conj().T, u.conj().T
        ev = matmul(e, v)
        m = matmul(uh, ev)
        sym, skew = (m + m.conj().T) / 2, (m - m.conj().T) / 2
        minus, plus = (x.astype(a.dtype) for x in self.gauge.differences(s, tol))
        core = jnp.where(jnp.eye(s.shape[0], dtype=bool), 0, minus) * sym + plus * skew
        core += jnp.diag(self.gauge.hessian(s, tol, jnp.diag(m).real)).astype(m.dtype)
        ratio = self.gauge.ratio(s, tol).astype(a.dtype)
        rows, columns = a.shape
        if rows > columns:
            dg = matmul(matmul(u, core) + (ev - matmul(u, m)) * ratio[None, :], vh)
        elif rows < columns:
            dg = matmul(u, matmul(core, vh) + ratio[:, None] * (matmul(uh, e) - matmul(m, vh)))
        else:
            dg = matmul(matmul(u, core), vh)
        return _poison(ok, scale(dg, -power))

    def diagonal(self) -> EntrywiseLift:
        """The lift for ``diag(d)`` on the vector d: its singular values are the ``|d_i|``."""
        return EntrywiseLift(self.gauge)

    def dual(self) -> "SpectralLift":
        return SpectralLift(self.gauge.dual())


@jax.tree_util.register_static
@dataclass(frozen=True)
class SquaredFrobenius:
    """``sum |a_ij|^2``: smooth, gradient ``2 a``, second derivative ``2 e``."""

    def value(self, a: Array) -> Array:
        return jnp.sum(jnp.square(a.real) + jnp.square(a.imag) if jnp.iscomplexobj(a) else jnp.square(a))

    def factors(self, a: Array) -> tuple[Array, tuple[()]]:
        return self.value(a), ()

    def subgradient(self, a: Array, factors: tuple[()]) -> Array:
        return _poison(jnp.isfinite(max_abs(a)), 2 * a)

    def curvature(self, a: Array, e: Array) -> Array:
        return _poison(jnp.isfinite(max_abs(a)), 2 * e)

    def diagonal(self) -> "SquaredFrobenius":
        return self
