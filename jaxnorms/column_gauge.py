"""The gauge of the mixed and induced norms: one gauge of the columns' values under another."""

from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array

from jaxnorms._roots import root
from jaxnorms._scaling import quotient, scale
from jaxnorms._split import Names, count, sum_over
from jaxnorms.ball_projections import inside, masked, ratio
from jaxnorms.decompositions import tie_tolerance
from jaxnorms.gauges import Gauge, Lp, inf


@dataclass(frozen=True)
class Columns(Gauge):
    """The ``outer`` gauge of the columns' ``inner`` gauges; of the rows' if ``rows``.

    With n_j the value of column j, h_j its subgradient and g the outer one, G = [g_j h_j]. Among the
    outer subgradients g of tied columns the one of minimum Frobenius norm minimises
    sum_j w_j g_j^2 with w_j = |h_j|^2. Ties for the largest column are decided within the rounding
    of its value; whether a column is zero is exact.
    """

    inner: Lp
    outer: Lp
    rows: bool = False

    def value(self, x: Array) -> Array:
        return self.outer.value(self._by_column(self.inner.value, 0)(self._turn(x)))

    def subgradient(self, x: Array, tol: float) -> Array:
        _, h, _, g, _ = self._parts(self._turn(x), tol)
        return self._turn(g[None, :] * h)

    def hessian(self, x: Array, tol: float, d: Array) -> Array:
        x, d = self._turn(x), self._turn(d)
        n, h, w, g, ties = self._parts(x, tol)
        # Along the manifold on which tied columns stay tied, from both sides.
        along = partial(self._keep_tied, h, w, self.outer.tied(n, ties)) if self._extreme else lambda d: d
        d = along(d)
        bend = self._by_column(lambda c, e: self.inner.hessian(c, tol, e))(x, d)
        dg = self.outer.hessian(n, ties, self._down(h * d))
        return self._turn(along(dg[None, :] * h + g[None, :] * bend))

    def project(self, x: Array, r: Array) -> Array:
        """By lengths where the inner gauge is Euclidean, column by column where the outer one is the largest."""
        x = self._turn(x)
        n = self._by_column(self.inner.value, 0)(x)
        if self.inner.p == 2:
            return self._turn(self._resized(x, n == 0, r))
        if self.outer.p == inf:
            return self._turn(self._by_column(lambda c: self.inner.project(c, r))(x))
        outside = self.outer.value(n) > r
        return self._turn(jnp.where(outside, self._shrunk(x, r, outside), x))

    def _resized(self, x: Array, zero: Array, r: Array) -> Array:
        """Columns of new lengths; a zero column is replaced by one that has a derivative."""
        y = jnp.where(zero[None, :], 1, x)
        n = jnp.where(zero, 0, self._by_column(self.inner.value, 0)(y))
        new, limit = self.outer.project(n, r), ratio(self.outer.project, n, zero, (r,))
        unit = self._by_column(quotient)(y, jnp.where(zero, 1, n))
        return jnp.where(zero[None, :], x * limit[None, :], unit * new[None, :])

    def _shrunk(self, x: Array, r: Array, outside: Array) -> Array:
        """The prox of each column, at steps ``sigma (n_j / r)^(q-1)`` for the lengths n_j that they leave."""
        e, x, r = masked(outside, x, r)
        lengths, slope = self._by_column(self.inner.value, 0), self.outer.p - 1

        def left(steps: Array) -> Array:
            return self._by_column(self.inner.prox)(x, steps)

        def steps(sigma: Array) -> Array:
            uniform = jnp.full(x.shape[1], sigma)
            if slope == 0:
                return uniform
            return root(lambda each: sigma * (lengths(left(each)) / r) ** slope - each, uniform)

        sigma = root(lambda sigma: jnp.sum((lengths(left(steps(sigma))) / r) ** self.outer.p) - 1, r)
        y = left(steps(sigma))
        return scale(inside(y, self.outer.value(lengths(y)), r), e)

    def ratio(self, x: Array, tol: float) -> Array:
        x = self._turn(x)
        _, _, _, g, _ = self._parts(x, tol)
        return self._turn(g[None, :] * self._by_column(lambda c: self.inner.ratio(c, tol))(x))

    def _parts(self, x: Array, tol: float) -> tuple[Array, Array, Array, Array, float]:
        """n_j, h_j, w_j, g_j, and the tolerance for ties of the n_j."""
        n = self._by_column(self.inner.value, 0)(x)
        h = self._by_column(lambda c: self.inner.subgradient(c, tol))(x)
        w, ties = self._down(jnp.square(h)), self._tolerance(x) if self._extreme else tol
        return n, h, w, self.outer.subgradient(n, ties, w), ties

    def _tolerance(self, x: Array) -> float:
        shape = x.shape[0] * count(self.inner.names), x.shape[1] * count(self.outer.names)
        return tie_tolerance(x.dtype, *shape)

    def _down(self, x: Array) -> Array:
        """Sums of the columns."""
        return sum_over(jnp.sum(x, axis=0), self.inner.names)

    def _turn(self, x: Array) -> Array:
        return x.T if self.rows else x

    @staticmethod
    def _by_column(f, out_axis: int = 1):
        """``f`` of the columns of a matrix, and of the entries of vectors."""
        return lambda *args: jax.vmap(f, in_axes=tuple(x.ndim - 1 for x in args), out_axes=out_axis)(*args)

    @property
    def _extreme(self) -> bool:
        return self.outer.p in (inf, -inf)

    @property
    def increasing(self) -> bool:
        return self.outer.increasing

    def of_diagonal(self) -> Lp:
        """Each column of a diagonal matrix has one entry."""
        return self.outer

    def split(self, rows: Names, columns: Names) -> "Columns":
        down, along = (columns, rows) if self.rows else (rows, columns)
        return replace(self, inner=replace(self.inner, names=down), outer=replace(self.outer, names=along))

    def dual(self) -> "Columns":
        return Columns(self.inner.dual(), self.outer.dual(), self.rows)

    def _keep_tied(self, h: Array, w: Array, tied: Array, d: Array) -> Array:
        """``d`` projected onto the directions in which tied columns stay tied.

        The normal space is spanned by the differences of the h_j of tied columns: subtract
        c_j h_j with sum c_j = 0, c_j = a_j - mu/w_j, a_j = <h_j, d_j>/w_j, so that the value of every
        tied column changes at the same rate mu.
        """
        inverse = jnp.where(tied, 1 / jnp.where(tied, w, 1), 0)
        slopes = jnp.where(tied, self._down(h * d), 0)
        total = sum_over(jnp.sum(inverse), self.outer.names)
        mu = sum_over(jnp.sum(slopes * inverse), self.outer.names) / jnp.where(total > 0, total, 1)
        return d - h * (inverse * jnp.where(tied, slopes - mu, 0))[None, :]
