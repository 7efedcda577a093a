"""Certified bounds of the induced p -> q norms, which are NP-hard to compute but for a few pairs.

In the square of the points ``(1/p, 1/q)`` the norm is known on the edges ``p = 1`` and ``q = inf``, in
the centre, and up to a constant in the quadrant ``p >= 2 >= q``. The logarithm of the norm over the complex
numbers is a convex function on the square (Riesz, Thorin), which carries upper bounds to the rest of it. The norm
of a real matrix over the real numbers is at most that; every upper bound here holds over both.

Each bound is a lift in the sense of ``jaxnorms._rules``: what certifies it is found once, and held fixed in
its derivative.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxnorms import _checks
from jaxnorms._rules import constant, evaluate, inner
from jaxnorms._scaling import prepare, scale
from jaxnorms._split import Names
from jaxnorms.bounds import NormBounds
from jaxnorms.gauges import Lp, inf
from jaxnorms.induced_certificates import Certificate, by_duality, is_nonnegative, positive, power_method
from jaxnorms.lifts import EntrywiseLift
from jaxnorms.norm_objects import Induced, apply
from jaxnorms.options import Request


def induced_norm_bounds(a: ArrayLike, p: float, q: float | None = None) -> NormBounds:
    """Certified bounds ``lower <= max ||a x||_q over ||x||_p <= 1 <= upper``, each of shape (...).

    ``a`` has shape ``(..., m, n)``, 1 <= p, q <= inf; ``q`` is ``p`` if not given. A real matrix acts on real
    vectors, a complex one on complex vectors.

    * Exact pairs, 1 -> q, p -> inf and 2 -> 2, and matrices of one row or column: ``lower == upper``, the norm.
    * Matrices of nonnegative entries, inf -> q and p -> 1: ``||a 1||_q`` and ``||a^T 1||_{p*}``, a point as well. A
      point is right to rounding, like any norm, and is not moved apart.
      For 1 < q <= p < inf they are enclosed as closely as the iterations below converge.
    * Lower: the nonlinear power method, from up to 41 starts at once, which are fixed: the vector of ones, the
      largest columns and rows, roundings of the vectors u and v below, random vectors. It attains the norm
      where a start leads to the maximum, which cannot be known.
    * Upper, for p >= 2 >= q: positive d and e, from a low-rank solution of the dual problem, in

          ||a||_{p->q} <= ||d^(1/2)||_{2q/(2-q)} ||diag(d)^(-1/2) a diag(e)^(-1/2)||_2 ||e^(1/2)||_{2p/(p-2)},

      with the least product. Where the iteration converged, it exceeds the norm at most by the factor 1.7823 for
      inf -> 1 (Grothendieck, Krivine) and 1.2534 for inf -> 2 and 2 -> 1; of complex matrices by 1.4050 (Haagerup)
      and 1.1284.
      For q <= p also ``|| |a| ||_{p->q}``, certified by a weighted Hoelder inequality (Schur's test). Elsewhere
      the least of interpolations (Riesz and Thorin) between these and exact pairs, such as
      ``||a||_1^(2/p-1) ||a||_2^(2-2/p)`` for p = q <= 2, and of ``n^(1-1/p) ||a||_{1->q}``, ``m^(1/q) ||a||_{p->inf}``.

    Both hold for every matrix, however far the iterations came; they are moved apart by the rounding
    of their own computation (a probabilistic bound, ``8 eps sqrt(m + n)`` relative), and by one unit in the last place
    of a 16-bit type.

    Derivative: with the certificate held fixed, ``Re<psi x^H, da>`` at the maximiser x that was found, psi the
    dual vector of a x; above ``Re<u v^H, da>`` with the low-rank factors at which the dual is attained, which is
    the derivative of the least upper bound (Danskin); and the derivatives of the exact norms interpolated. Both are
    finite at every finite matrix and 0 at 0. Exact pairs have the derivatives of :func:`induced_norm`, of which the
    second raises ``ValueError`` for the others. NaN gives NaN, an infinite entry infinite bounds with NaN
    derivative, an empty matrix 0. Raises ``ValueError`` for orders below 1 and shapes without rows and columns.

    Cost: up to 200 products of ``a`` with 41 vectors each way (in practice about 20) and up to 1000 with
    ``(2 (m + n))^(1/2) + 1`` vectors; one or two SVDs. Source: Boyd 1974; Higham 1992 (power method); Grothendieck
    1953; Nesterov 1998; Burer and Monteiro 2003 (low rank); Steinberg 2005 (p -> q norms); Schur 1911.

    >>> import jax.numpy as jnp, jaxnorms as jn
    >>> hadamard = jnp.array([[1.0, 1.0], [1.0, -1.0]])
    >>> lower, upper = jn.induced_norm_bounds(hadamard, jnp.inf, 1)  # the norm is 2, the dual bound 2^(3/2)
    >>> bool(2 * 0.9999 <= lower <= 2 <= upper <= 2.8285)
    True
    """
    x = _checks.matrix(a, "induced_norm_bounds")
    p = _checks.order(p, "p")
    q = p if q is None else _checks.order(q, "q")
    axes = (x.ndim - 2, x.ndim - 1)
    exact = _exact(p, q, x.shape[-2:])
    if exact is not None:
        value = apply(exact.lift, x, axes, False)
        return NormBounds(value, value)
    real = jnp.finfo(x.dtype)
    x = x.astype(_checks.working_dtype(x.dtype))
    lower, upper = (apply(lift, x, axes, False) for lift in (LowerBound(p, q), UpperBound(p, q)))
    if real.dtype != lower.dtype:  # rounding to 16 bits must not move them together
        unit = float(real.eps)
        lower, upper = lower * (1 - unit), upper * (1 + unit)
    return NormBounds(lower.astype(real.dtype), upper.astype(real.dtype))


def _exact(p: float, q: float, shape: tuple[int, ...]) -> Induced | None:
    """The pair whose norm is exact and the same for matrices of this shape, if there is one."""
    m, n = shape
    if n == 1:  # |x| <= 1, whatever p is
        return Induced(1, q)
    if m == 1:
        return Induced(p, inf)
    return Induced(p, q) if p == 1 or q == inf or p == q == 2 else None


@dataclass(frozen=True)
class _Bound(ABC):
    """What both bounds share: one matrix is scaled, its bound scaled back."""

    p: float
    q: float

    @property
    def names(self) -> Names:
        return ()

    def __init_subclass__(cls):
        jax.tree_util.register_static(cls)

    @abstractmethod
    def certify(self, x: Array) -> tuple[Array, Any]:
        """The bound of a nonzero matrix of size about 1, and what certifies it."""

    @abstractmethod
    def gradient(self, x: Array, certificate: Any) -> Array:
        """The subgradient of the bound with that certificate."""

    def value(self, a: Array) -> Array:
        return self.factors(a)[0]

    def factors(self, a: Array) -> tuple[Array, Any]:
        exact = _exact(self.p, self.q, a.shape)
        if exact is not None:
            return exact.lift.factors(a)
        x, ok, zero, largest, e = _nonzero(a)
        value, certificate = constant(self.certify, x)
        return jnp.where(ok & ~zero, scale(value, e), largest), certificate

    def subgradient(self, a: Array, factors: Any) -> Array:
        exact = _exact(self.p, self.q, a.shape)
        if exact is not None:
            return exact.lift.subgradient(a, factors)
        x, ok, zero, _, _ = _nonzero(a)
        return jnp.where(ok, jnp.where(zero, 0, self.gradient(x, factors)), jnp.nan)

    def curvature(self, a: Array, e: Array) -> Array:
        exact = _exact(self.p, self.q, a.shape)
        if exact is not None:
            return exact.lift.curvature(a, e)
        raise ValueError(
            f"second derivatives of bounds of the induced {self.p:g} -> {self.q:g} norm are not defined; "
            "value and first derivative are"
        )

    def of_diagonal(self) -> EntrywiseLift:
        """Of ``diag(d)`` the norm is known: Hoelder's inequality for p > q, else the largest entry."""
        return EntrywiseLift(Lp(1 / (1 / self.q - 1 / self.p) if self.p > self.q else inf))

    def using(self, request: Request) -> "_Bound":
        if any(request.axis_name):
            raise ValueError("axis_name must be None: bounds of induced norms need all entries on one device")
        EntrywiseLift(Lp(2.0)).using(request)  # which refuses a method
        return self


def _nonzero(a: Array) -> tuple[Array, Array, Array, Array, Array]:
    """``a`` of size about 1, or ones if it is zero or not finite; whether it is; its size and exponent."""
    x, ok, largest, e = prepare(a)
    zero = largest == 0
    return jnp.where(ok & ~zero, x, 1), ok, zero, largest, e


def _rounding(x: Array) -> float:
    return 8 * float(jnp.finfo(x.dtype).eps) * math.sqrt(sum(x.shape))


class LowerBound(_Bound):
    """``||a x||_q / ||x||_p`` at the best x that the power method finds."""

    def certify(self, x: Array) -> tuple[Array, Any]:
        found = power_method(x, self.p, self.q)
        value = found.value * (1 - _rounding(x))
        if self.p == inf or self.q == 1:
            known, nonnegative = positive(x, self.p, self.q), is_nonnegative(x)
            value = jnp.where(nonnegative, known.value, value)
            found = jax.tree.map(partial(jnp.where, nonnegative), known, found)
        return value, (found.left, found.right)

    def gradient(self, x: Array, certificate: tuple[Array, Array]) -> Array:
        return Certificate(x[0, 0], *certificate).attained()


class Point(NamedTuple):
    """A pair of orders, to which interpolation gives the exponent ``weight``."""

    p: float
    q: float
    weight: float


Routes = list[tuple[float, tuple[Point, ...]]]


class UpperBound(_Bound):
    """The least of the bounds in ``_routes``, and of the norm of ``|a|`` where it is known."""

    def certify(self, x: Array) -> tuple[Array, Any]:
        routes = _routes(self.p, self.q, *x.shape)
        pairs = {(i.p, i.q) for _, points in routes for i in points if _exact(i.p, i.q, x.shape) is None}
        certificates = {pair: by_duality(x, *pair) for pair in sorted(pairs)}
        magnitudes = positive(jnp.abs(x), self.p, self.q) if self.q <= self.p else None
        return self.formula(x, (certificates, magnitudes)), (certificates, magnitudes)

    def formula(self, x: Array, found: Any) -> Array:
        """The bound as a function of the matrix, for fixed certificates."""
        certificates, magnitudes = found
        routes = _routes(self.p, self.q, *x.shape)

        def norm(p: float, q: float) -> Array:
            if (p, q) in certificates:
                bound = certificates[p, q]
                return _linear(x, bound.value, bound.attained())
            # What a Krylov method finds would be a lower bound.
            how = Request(method="svd") if p == q == 2 else Request()
            return evaluate(Induced(p, q).lift.using(how), x)

        norms = {pair: norm(*pair) for pair in sorted({(i.p, i.q) for _, points in routes for i in points})}
        bounds = [
            factor * jnp.prod(jnp.stack([norms[i.p, i.q] ** i.weight for i in points])) for factor, points in routes
        ]
        rounding = 1 + _rounding(x)
        if magnitudes is None:
            return jnp.min(jnp.stack(bounds)) * rounding
        nonnegative, size = is_nonnegative(x), jnp.abs(x)
        phase = jnp.where(size > 0, x / jnp.where(size > 0, size, 1).astype(x.dtype), nonnegative.astype(x.dtype))
        g = constant(lambda phase: phase * magnitudes.attained().astype(x.dtype), phase)
        known = _linear(x, magnitudes.value, g)
        upper = jnp.min(jnp.stack([known, *bounds])) * rounding
        return jnp.where(nonnegative, known, upper) if self.p == inf or self.q == 1 else upper

    def gradient(self, x: Array, certificate: Any) -> Array:
        return jax.grad(self.formula)(x, certificate).conj()


def _linear(x: Array, value: Array, g: Array) -> Array:
    """``value`` at x, with the gradient that is a multiple of g such that ``Re<G, x> = value``."""
    along = inner(g, x)
    at = jax.lax.stop_gradient(along)
    return value + value / at * (along - at)


def _routes(p: float, q: float, m: int, n: int) -> Routes:
    """Upper bounds ``factor * prod ||a||_{p_k -> q_k}^(w_k)``: the points average to ``(1/p, 1/q)`` with weights w."""
    # ||x||_1 <= n^(1-1/p) ||x||_p and ||y||_q <= m^(1/q) ||y||_inf
    routes: Routes = [(n ** (1 - 1 / p), (Point(1.0, q, 1.0),)), (m ** (1 / q), (Point(p, inf, 1.0),))]
    if p >= 2 >= q:
        return [*routes, (1.0, (Point(p, q, 1.0),))]
    # Exact fractions, so that points that are meant to be corners are: 1/p from 1 to 0, like 1/q.
    x, y = (Fraction(0) if order == inf else 1 / Fraction(order) for order in (p, q))
    half = Fraction(1, 2)
    across, down = 2 * x - 1, 1 - 2 * y  # how far from the middle to p = 1, and from the middle to q = inf
    if p < 2 and q <= 2:
        interpolated = [[(1, y, across), (half, y, 1 - across)]]
    elif p >= 2:
        interpolated = [[(x, 0, down), (x, half, 1 - down)]]
    else:
        centre = half, half, (1 - across) * (1 - down)
        interpolated = [
            [(1, y, across), (half, 0, (1 - across) * down), centre],
            [(x, 0, down), (1, half, across * (1 - down)), centre],
        ]
    if p <= q:
        # From the corners inf -> inf and 1 -> 1, and from the centre, through (1/p, 1/q) to the edges.
        interpolated += [[(0, 0, 1 - x), (1, y / x, x)], [(1, 1, y), ((x - y) / (1 - y), 0, 1 - y)]]
        far = max(across, down)
        interpolated.append([(half + (x - half) / far, half + (y - half) / far, far), (half, half, 1 - far)])
    # A norm of an order beyond 10^4 is left out: its powers feel the rounding of the entries.
    safe = [c for c in interpolated if all(i == 0 or i > 1e-4 for x, y, _ in c for i in (1 - x, y))]
    return routes + [(1.0, tuple(Point(_order(x), _order(y), float(w)) for x, y, w in corners)) for corners in safe]


def _order(reciprocal: Fraction | int) -> float:
    return float(1 / Fraction(reciprocal)) if reciprocal else inf
