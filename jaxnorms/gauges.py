"""Gauges: symmetric norms of vectors of magnitudes ``x >= 0``, from which every matrix norm is lifted.

A gauge knows, on a plain array (of any shape for ``Lp``, a matrix for ``Columns``, else a vector):

    value(x)                        the norm, safe from overflow and underflow by itself
    subgradient(x, tol)             g >= 0, the subgradient of minimum l2 norm
    hessian(x, tol, d)              H d, the derivative of g along d
    differences(x, tol)             (g_i - g_j)/(x_i - x_j) and (g_i + g_j)/(x_i + x_j) with their limits
    diagonal(x, tol)                h_ii - h_ij for tied x_i = x_j, which is also h_ii where x_i = 0
    support(n)                      how many of n entries can have g_i != 0 where there are no ties
    dual()                          the dual gauge
    project(x, r), prox(x, t)       projection onto the ball value <= r, and prox of t times the gauge

``tol`` is the gap, relative to the largest entry, below which two entries count as tied and one
entry as zero. Curvature at a kink, for all of them: along the manifold on which the gauge is smooth
(ties stay ties, zeros stay zeros), and zero across it. Infinite curvature (1 < p < 2 at zeros) is
dropped. Projection and prox are differentiated by JAX itself.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxnorms._scaling import exponent, max_abs, quotient, scale
from jaxnorms._split import Names, sum_over
from jaxnorms.ball_projections import capped, inside, power_ball

inf = float("inf")


def conjugate_exponent(p: float) -> float:
    """``p*`` with ``1/p + 1/p* = 1``."""
    return inf if p == 1 else 1.0 if p == inf else p / (p - 1)


class Gauge(ABC):
    """What the gauges share: the divided differences, from the subgradient and its slope at ties.

    A subclass is a frozen dataclass of hashable fields, static under ``jit``.
    """

    # Mesh axes along which the vector goes on, on other devices.
    names: Names = ()

    def __init_subclass__(cls, static: bool = True):
        if static:
            jax.tree_util.register_static(cls)

    @abstractmethod
    def value(self, x: Array) -> Array: ...

    @abstractmethod
    def subgradient(self, x: Array, tol: float) -> Array: ...

    def hessian(self, x: Array, tol: float, d: Array) -> Array:
        return jnp.zeros_like(d)

    def diagonal(self, x: Array, tol: float) -> Array:
        return jnp.zeros_like(x)

    def support(self, n: int) -> int:
        return n

    def spread(self, n: int) -> float:
        """The largest value on the Euclidean unit sphere of R^n; inf where it is not known."""
        return inf

    @property
    def increasing(self) -> bool:
        """Whether an infinite entry makes the value infinite."""
        return True

    @property
    def even(self) -> bool:
        """Whether value and curvature are even in x and g is odd, so that signs may stay."""
        return False

    def of_diagonal(self) -> "Gauge":
        """The gauge of the diagonal of a diagonal matrix."""
        return self

    def split(self, rows: Names, columns: Names) -> "Gauge":
        """The gauge of a matrix whose sides are split over these mesh axes."""
        raise ValueError(f"axis_name must be None: {self!r} needs all entries on one device")

    def dual(self) -> "Gauge":
        raise ValueError(f"the dual of {self!r} is not known")

    def project(self, x: Array, r: Array) -> Array:
        """The nearest y with ``value(y) <= r``, for r > 0; differentiable once by JAX, finite at kinks."""
        raise ValueError(f"the projection onto balls of {self!r} is not known")

    def prox(self, x: Array, t: Array) -> Array:
        """``argmin value(y) + |x - y|^2 / 2t``."""
        return x - self.rest(x, t)

    def rest(self, x: Array, t: Array) -> Array:
        """``x - prox(x, t)``, by Moreau's identity the projection onto the dual ball of radius t."""
        return self.dual().project(x, t)

    def ratio(self, x: Array, tol: float) -> Array:
        """``g_i / x_i``, with its limit ``h_ii`` at ``x_i = 0``."""
        zero = x <= tol * max_abs(x, self.names)
        return jnp.where(zero, self.diagonal(x, tol), self.subgradient(x, tol) / jnp.where(zero, 1, x))

    def differences(self, x: Array, tol: float) -> tuple[Array, Array]:
        g, c, gap = self.subgradient(x, tol), self.diagonal(x, tol), tol * max_abs(x)
        x = jnp.where(x <= gap, 0, x)
        tied = jnp.abs(x[:, None] - x[None, :]) <= gap
        both_zero = (x[:, None] == 0) & (x[None, :] == 0)
        minus = (g[:, None] - g[None, :]) / jnp.where(tied, 1, x[:, None] - x[None, :])
        plus = (g[:, None] + g[None, :]) / jnp.where(both_zero, 1, x[:, None] + x[None, :])
        minus = jnp.where(tied, (c[:, None] + c[None, :]) / 2, self.smooth_differences(x, tol, minus))
        return minus, jnp.where(both_zero, (c[:, None] + c[None, :]) / 2, plus)

    def smooth_differences(self, x: Array, tol: float, minus: Array) -> Array:
        """``minus`` replaced, where cancellation would spoil it, by a closed form."""
        return minus


@jax.tree_util.register_pytree_node_class
@dataclass(frozen=True)
class Lp(Gauge, static=False):
    """``(sum_i x_i^p)^(1/p)``; the largest entry for ``p = inf``.

    Orders below 1 are no norms but NumPy's ``ord``: 0 counts the nonzero entries, ``-inf`` is the
    smallest entry; their derivatives are averaged over ties and 0 at zeros. ``p`` may be a traced
    scalar >= 1 (NaN below): then it is a leaf of the pytree and can be differentiated.
    """

    p: Any
    conjugate: Any = field(default=None, compare=False, repr=False)
    names: Names = field(default=(), repr=False)

    @property
    def traced(self) -> bool:
        return not isinstance(self.p, float)

    @property
    def polyhedral(self) -> bool:
        return not self.traced and self.p in (1, inf, -inf, 0)

    def value(self, x: Array) -> Array:
        if not self.traced:
            if x.size == 0 and self.p >= 0:
                return jnp.zeros((), x.dtype)
            if self.p == 1:
                return self._sum(x)
            if self.p == 0:
                return jnp.sum(x != 0).astype(x.dtype)
            if self.p == 2:
                e = exponent(self._largest(x))
                return scale(jnp.sqrt(self._sum(jnp.square(scale(x, -e)))), e)
            if self.p in (inf, -inf):
                return self._anchor(x)
        anchor, usable, _, total = self._power_sum(x)
        return jnp.where(usable, anchor * total ** (1 / self._order), anchor)

    def _sum(self, x: Array) -> Array:
        return sum_over(jnp.sum(x), self.names)

    def _largest(self, x: Array) -> Array:
        return max_abs(x, self.names)

    @property
    def _order(self) -> Any:
        return jnp.where(self.p >= 1, self.p, jnp.nan) if self.traced else self.p

    def _anchor(self, x: Array) -> Array:
        """The entry that dominates the sum: quotients by it neither overflow nor vanish."""
        return jnp.min(x) if not self.traced and self.p < 0 else self._largest(x)

    def _power_sum(self, x: Array, tol: float = 0) -> tuple[Array, Array, Array, Array]:
        anchor = self._anchor(x)
        usable = jnp.isfinite(anchor) & (anchor > 0)
        r = quotient(x, jnp.where(usable, anchor, 1))
        if self.traced:  # for p = inf the ties are exactly 1, and no quotient is rounded above it
            r = jnp.where(x >= jnp.where(jnp.isinf(self.p), anchor * (1 - tol), anchor), 1, r)
        return anchor, usable, r, jnp.where(usable, self._sum(_power(r, self._order)), 1)

    def subgradient(self, x: Array, tol: float, weights: Array | None = None) -> Array:
        """``g``; with ``weights``, the subgradient that minimises ``sum_i weights_i g_i^2``."""
        top = self._largest(x)
        if not self.traced:
            if self.p == 0 or x.size == 0:
                return jnp.zeros_like(x)
            if self.p == 1:
                return (x > tol * top).astype(x.dtype)
            if self.p in (inf, -inf):
                tied = self.tied(x, tol)
                weights = weights if weights is not None and self.p == inf else jnp.ones_like(x)
                share = jnp.where(tied, 1 / jnp.where(tied, weights, 1), 0)
                total = self._sum(share)
                return share / jnp.where(total > 0, total, 1)
            if self.p == 2:
                r = scale(x, -exponent(top))
                length = jnp.sqrt(self._sum(jnp.square(r)))
                return r / jnp.where(length > 0, length, 1)
        _, usable, r, total = self._power_sum(x, tol)
        positive = (x > tol * top) & usable
        return jnp.where(positive, _power(r, self._order - 1) * total ** (1 / self._order - 1), 0)

    def tied(self, x: Array, tol: float) -> Array:
        """The entries that attain the value of the largest (smallest) entry, none if that is 0."""
        anchor, gap = self._anchor(x), tol * self._largest(x)
        return (jnp.abs(x - anchor) <= gap) & (anchor > gap)

    def hessian(self, x: Array, tol: float, d: Array) -> Array:
        if self.polyhedral:
            return jnp.zeros_like(d)
        f, _ = self._unit(x)
        g, d = self.subgradient(x, tol), quotient(d, f)
        return self._slopes(x, tol) * d - self._bend() * g * self._sum(g * d)

    def diagonal(self, x: Array, tol: float) -> Array:
        if self.polyhedral:
            return jnp.zeros_like(x)
        return self._slopes(x, tol) / self._unit(x)[0]

    def _slopes(self, x: Array, tol: float) -> Array:
        """``f`` times the curvature of each entry by itself, ``(p-1) (x_i/f)^(p-2)``."""
        _, u = self._unit(x)
        zero = x <= tol * self._largest(x)
        c = self._bend() * jnp.where(zero, 1, u) ** (self._order - 2)
        return jnp.where(zero, jnp.where(self.p == 2, 1, 0), jnp.where(jnp.isfinite(c), c, 0))

    def _bend(self) -> Any:
        """``p - 1``, but 0 for the flat ball of a traced ``p = inf``."""
        return jnp.where(jnp.isinf(self._order), 0, self._order - 1) if self.traced else self.p - 1

    def _unit(self, x: Array) -> tuple[Array, Array]:
        f = self.value(x)
        f = jnp.where(f > 0, f, inf)  # all curvature vanishes at 0
        return f, quotient(x, f)

    def smooth_differences(self, x: Array, tol: float, minus: Array) -> Array:
        if self.polyhedral:
            return minus
        f, u = self._unit(x)
        smooth = power_differences(u, self._order - 1) / f
        return jnp.where(jnp.isinf(self._order), minus, smooth) if self.traced else smooth

    @property
    def increasing(self) -> bool:
        return self.traced or self.p > 0

    @property
    def even(self) -> bool:
        return not self.traced and self.p == 2

    def support(self, n: int) -> int:
        return 1 if not self.traced and self.p == inf else n

    def spread(self, n: int) -> float:
        return inf if self.traced or self.p < 1 else float(n) ** max(0.0, 1 / self.p - 0.5)

    def dual(self) -> "Lp":
        if self.traced or self.p < 1:
            raise ValueError(f"the dual of {self!r} is not known: it needs a static p >= 1")
        return Lp(self.conjugate or conjugate_exponent(self.p), self.p)

    def project(self, x: Array, r: Array) -> Array:
        if self.traced or self.p < 1:
            return super().project(x, r)
        if self.p == inf:
            return jnp.where(x < r, x, r)
        if self.p == 1:
            return capped(x, inf, r)
        outside = self.value(x) > r
        if self.p == 2:
            y = jnp.where(outside, x, 1)
            return jnp.where(outside, quotient(y, self.value(y)) * r, x)
        y = power_ball(x, r, outside, self.p)
        return inside(y, self.value(y), r)

    def prox(self, x: Array, t: Array) -> Array:
        return jnp.where(x > t, x - t, 0) if self.p == 1 else super().prox(x, t)

    def split(self, rows: Names, columns: Names) -> "Lp":
        return replace(self, names=rows + columns)

    def tree_flatten(self):
        return ((self.p,), self.names) if self.traced else ((), self)

    @classmethod
    def tree_unflatten(cls, aux, children):
        return aux if isinstance(aux, Lp) else cls(*children, names=aux)


def _power(r: Array, a: Any) -> Array:
    """``r^a`` for ``0 <= r <= 1`` or a static ``a``: 0 at ``r = 0``, finite derivatives in ``a`` there."""
    if isinstance(a, float) and a == 1:
        return r
    if isinstance(a, float) and a == 2:
        return jnp.square(r)
    return jnp.where(r > 0, jnp.where(r > 0, r, 1) ** a, 0)


def power_differences(u: Array, a: Any) -> Array:
    """``(u_i^a - u_j^a)/(u_i - u_j)`` without cancellation, its limit on the diagonal, 0 at 0.

    With ``y`` the larger of the two and ``d = (x - y)/y`` this is
    ``y^(a-1) expm1(a log1p(d)) / d``, and ``y^(a-1)`` at ``x = 0``.
    """
    y, x = jnp.maximum(u[:, None], u[None, :]), jnp.minimum(u[:, None], u[None, :])
    positive, same = x > 0, x == y
    d = jnp.where(positive & ~same, (x - y) / jnp.where(y > 0, y, 1), -0.5)
    quotient = jnp.where(same, a, jnp.where(positive, jnp.expm1(a * jnp.log1p(d)) / d, 1))
    return jnp.where(y > 0, jnp.where(y > 0, y, 1) ** (a - 1) * quotient, 0)


@jax.tree_util.register_pytree_node_class
@dataclass(frozen=True)
class Symmetric(Gauge, static=False):
    """A user's symmetric gauge ``f(x, *params)`` of the singular values: norm and derivatives only.

    Its gradient is ``jax.grad(f)``, averaged over tied entries and 0 on the zero block, and its
    curvature ``jax.hessian(f)`` wherever that average was not needed (elsewhere there is a kink).
    ``params`` are traced values of the type of x: leaves of the pytree, and differentiated.
    """

    f: Callable[..., Array]
    params: tuple[Array, ...] = field(default=(), compare=False, repr=False)

    def _of(self, x: Array) -> Array:
        """f, and 0 at 0, where many formulas have NaN for a derivative."""
        zero = max_abs(x) == 0
        return jnp.where(zero, 0, self.f(jnp.where(zero, 1, x), *self.params))

    def value(self, x: Array) -> Array:
        e = exponent(max_abs(x))
        value = self._of(scale(x, -e))
        if jnp.shape(value) != () or jnp.iscomplexobj(value):
            raise ValueError(f"gauge must return a real scalar, got shape {jnp.shape(value)}")
        return scale(jnp.asarray(value, x.dtype), e)

    def subgradient(self, x: Array, tol: float) -> Array:
        tied, zero = self._blocks(x, tol)
        return jnp.where(zero, 0, _average(tied, self._gradient(x)))

    def _gradient(self, x: Array) -> Array:
        g = jax.grad(lambda y: jnp.asarray(self._of(y), y.dtype))(scale(x, -exponent(max_abs(x))))
        return jnp.where(jnp.isfinite(g), g, 0)

    def hessian(self, x: Array, tol: float, d: Array) -> Array:
        tied, zero = self._blocks(x, tol)
        kink, at_zero = self._kinks(x, tol)
        d = jnp.where(zero & at_zero, 0, jnp.where(kink, _average(tied, d), d))
        dg = jnp.matmul(self._matrix(x), d, precision=jax.lax.Precision.HIGHEST)
        return jnp.where(zero & at_zero, 0, jnp.where(kink, _average(tied, dg), dg))

    def diagonal(self, x: Array, tol: float) -> Array:
        tied, zero = self._blocks(x, tol)
        kink, at_zero = self._kinks(x, tol)
        h = self._matrix(x)
        off = h * tied * (1 - jnp.eye(x.shape[0], dtype=x.dtype))
        others = jnp.sum(tied, axis=1) - 1
        c = jnp.diag(h) - jnp.sum(off, axis=1) / jnp.maximum(others, 1)
        return jnp.where(zero, jnp.where(at_zero, 0, jnp.diag(h)), jnp.where(kink, 0, c))

    def _matrix(self, x: Array) -> Array:
        e = exponent(max_abs(x))
        h = scale(jax.hessian(self._of)(scale(x, -e)), -e)
        return jnp.where(jnp.isfinite(h), h, 0)

    def _blocks(self, x: Array, tol: float) -> tuple[Array, Array]:
        gap = tol * max_abs(x)
        return (jnp.abs(x[:, None] - x[None, :]) <= gap).astype(x.dtype), x <= gap

    def _kinks(self, x: Array, tol: float) -> tuple[Array, Array]:
        """Entries at which ``f`` is not smooth: inside a block of ties, and on the zero block.

        The gradient is taken where the ties are just split, since JAX may share it among exact ones.
        """
        tied, zero = self._blocks(x, tol)
        split = jnp.arange(x.shape[0], 0, -1).astype(x.dtype) / x.shape[0]
        g = self._gradient(x + max(tol, 8 * float(jnp.finfo(x.dtype).eps)) * max_abs(x) * split)
        slack = jnp.sqrt(jnp.finfo(x.dtype).eps) * max_abs(g)
        return jnp.abs(g - _average(tied, g)) > slack, jnp.any(zero & (jnp.abs(g) > slack))

    def tree_flatten(self):
        return (self.params, self.f) if self.params else ((), self)

    @classmethod
    def tree_unflatten(cls, aux, children):
        return aux if isinstance(aux, Symmetric) else cls(aux, tuple(children))


def _average(tied: Array, g: Array) -> Array:
    return jnp.matmul(tied, g, precision=jax.lax.Precision.HIGHEST) / jnp.sum(tied, axis=1)
