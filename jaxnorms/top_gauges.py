"""The gauges of the Ky Fan norms: the l_p norm of the k largest entries, and its dual."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array

from jaxnorms._scaling import exponent, max_abs, quotient, scale
from jaxnorms.ball_projections import capped, inside, power_ball, power_prox
from jaxnorms.decompositions import tie_tolerance
from jaxnorms.gauges import Gauge, Lp, conjugate_exponent, inf, power_differences


@dataclass(frozen=True)
class TopK(Gauge):
    """``(sum of x_i^p over the k largest)^(1/p)``, ``1 <= k <= n``, ``1 <= p < inf``.

    Where the k-th largest value t is tied, the block shares: with a entries above the block and mu
    in it, each has weight w = (k - a)/mu, and it is a kink unless a + mu = k. Then
    g_i = w_i (x_i/f)^(p-1), with the block's term dropped where t = 0.
    """

    k: int
    p: float = 1.0

    def value(self, x: Array) -> Array:
        return Lp(self.p).value(jax.lax.top_k(x, self.k)[0])

    def _split(self, x: Array, tol: float) -> tuple[Array, Array, Array]:
        """Weights w, the kink's block, and x with that block replaced by its mean."""
        t, gap = jax.lax.top_k(x, self.k)[0][-1], tol * max_abs(x)
        above, tie = x > t + gap, jnp.abs(x - t) <= gap
        mu = jnp.sum(tie).astype(x.dtype)
        share = (self.k - jnp.sum(above)).astype(x.dtype)
        kink = tie & (share < mu)
        w = jnp.where(kink, jnp.where(t > gap, share / mu, 0), (above | tie).astype(x.dtype))
        return w, kink, jnp.where(kink, _mean(kink, x), x)

    def subgradient(self, x: Array, tol: float) -> Array:
        w, _, y = self._split(x, tol)
        if self.p == 1:
            return jnp.where(x > tol * max_abs(x), w, 0)
        _, u = self._unit(x, y)
        return jnp.where(x > tol * max_abs(x), w * u ** (self.p - 1), 0)

    def _unit(self, x: Array, y: Array) -> tuple[Array, Array]:
        f = self.value(x)
        f = jnp.where(f > 0, f, inf)
        return f, quotient(y, f)

    def hessian(self, x: Array, tol: float, d: Array) -> Array:
        if self.p == 1:
            return jnp.zeros_like(d)
        w, kink, y = self._split(x, tol)
        f, u = self._unit(x, y)
        g = self.subgradient(x, tol)
        d = quotient(jnp.where(kink, _mean(kink, d), d), f)
        slopes = _slopes(self.p, u, x <= tol * max_abs(x))
        return w * slopes * d - (self.p - 1) * g * jnp.sum(g * d)

    def diagonal(self, x: Array, tol: float) -> Array:
        if self.p == 1:
            return jnp.zeros_like(x)
        w, kink, y = self._split(x, tol)
        f, u = self._unit(x, y)
        return jnp.where(kink, 0, w * _slopes(self.p, u, x <= tol * max_abs(x)) / f)

    def smooth_differences(self, x: Array, tol: float, minus: Array) -> Array:
        if self.p == 1:
            return minus
        w, _, y = self._split(x, tol)
        f, u = self._unit(x, y)
        return jnp.where((w[None, :] == 1) & (w[:, None] == 1), power_differences(u, self.p - 1) / f, minus)

    def support(self, n: int) -> int:
        return min(self.k, n)

    def spread(self, n: int) -> float:
        return Lp(self.p).spread(min(n, self.k))

    def project(self, x: Array, r: Array) -> Array:
        y = power_ball(x, r, self.value(x) > r, self.p, self.k)
        return inside(y, self.value(y), r)

    def prox(self, x: Array, t: Array) -> Array:
        if self.p == 1:
            return super().prox(x, t)
        return power_prox(x, t, self.dual().value(x) > t, self.p, self.k)

    def dual(self) -> "DualTopK":
        return DualTopK(self.k, self.p)


@dataclass(frozen=True)
class DualTopK(Gauge):
    """The dual of ``TopK(k, p)``: for p = 1 ``max(x_1, sum(x)/k)``, for p = 2 the k-support norm.

    For p > 1, with q = p*, x sorted and the smallest r in 0..k-1 whose tail mean
    tau = (x_{k-r} + ... + x_n)/(r+1) is below x_{k-r-1}: f^q = sum_{i<k-r} x_i^q + (r+1) tau^q and
    g_i = (max(x_i, tau)/f)^(q-1), 0 at zeros (Argyriou, Foygel, Srebro 2012 for p = 2).
    """

    k: int
    p: float = 1.0

    @property
    def q(self) -> float:
        return conjugate_exponent(self.p)

    def value(self, x: Array) -> Array:
        if self.p == 1:
            return jnp.maximum(max_abs(x), jnp.sum(x / self.k))
        return Lp(self.q).value(self._spread(x)[1])

    def _spread(self, x: Array) -> tuple[Array, Array]:
        """``tau``, and the k values whose l_q norm is f: the entries above tau, and r + 1 times tau."""
        e = exponent(max_abs(x))
        ordered = jax.lax.top_k(scale(x, -e), x.shape[0])[0]
        top, rest = ordered[: self.k], jnp.sum(ordered[self.k :])
        r = jnp.arange(self.k)
        # tails[r] = x_{k-r} + ... + x_n; before[r] = x_{k-r-1}, infinite for r = k-1.
        tails = rest + jnp.cumsum(top[::-1])
        means = tails / (r + 1).astype(x.dtype)
        before = jnp.append(top[::-1][1:], jnp.asarray(inf, x.dtype))
        chosen = jnp.argmax(before > means)
        tau = means[chosen]
        return scale(tau, e), scale(jnp.where(r < self.k - 1 - chosen, top, tau), e)

    def subgradient(self, x: Array, tol: float) -> Array:
        positive = x > tol * max_abs(x)
        if self.p == 1:
            return self._flat_subgradient(x, tol, positive)
        tau, spread = self._spread(x)
        f = Lp(self.q).value(spread)
        return jnp.where(positive, quotient(jnp.maximum(x, tau), jnp.where(f > 0, f, 1)) ** (self.q - 1), 0)

    def _flat_subgradient(self, x: Array, tol: float, positive: Array) -> Array:
        largest, mean = max_abs(x), jnp.sum(x / self.k)
        gap = tol * largest
        # Whether the two parts are equal is decided within the rounding of the sum.
        slack = max(tol, tie_tolerance(x.dtype, x.shape[0])) * largest
        leading = (x >= largest - gap) & positive
        mu, r = (jnp.maximum(jnp.sum(b), 1).astype(x.dtype) for b in (leading, positive))
        # theta 1_T/mu + (1 - theta) 1_R/k: the multiples of smallest norm where both parts attain f.
        a, b, k = 1 / mu, r / self.k**2, self.k
        bend = a - 2 / k + b
        balanced = jnp.clip((b - 1 / k) / jnp.where(bend > 0, bend, 1), 0, 1)
        theta = jnp.where(jnp.abs(largest - mean) <= slack, balanced, (largest > mean).astype(x.dtype))
        return jnp.where(leading, theta / mu, 0) + jnp.where(positive, (1 - theta) / k, 0)

    def hessian(self, x: Array, tol: float, d: Array) -> Array:
        if self.p == 1:
            return jnp.zeros_like(d)
        f, slopes, tail, size = self._smooth_data(x, tol)
        g, d = self.subgradient(x, tol), quotient(d, f)
        # Along the tail only its sum matters; it enters g through tau = sum / size.
        mean = jnp.sum(jnp.where(tail, d, 0)) / size
        return slopes * jnp.where(tail, mean, d) - (self.q - 1) * g * jnp.sum(g * d)

    def _smooth_data(self, x: Array, tol: float):
        tau, spread = self._spread(x)
        f = Lp(self.q).value(spread)
        f = jnp.where(f > 0, f, inf)
        zero, gap = x <= tol * max_abs(x), tol * max_abs(x)
        # Zeros are a kink where the tail reaches them: there tau, not x_i, is what enters.
        slopes = _slopes(self.q, quotient(jnp.maximum(x, tau), f), zero)
        slopes = jnp.where(zero & (tau > gap), 0, slopes)
        # Entries equal to tau may be counted on either side; above it they are free to move.
        top = (x >= tau - gap) & ~zero
        size = jnp.maximum(self.k - jnp.sum(top), 1).astype(x.dtype)
        return f, slopes, ~top & ~zero, size

    def diagonal(self, x: Array, tol: float) -> Array:
        if self.p == 1:
            return jnp.zeros_like(x)
        f, slopes, tail, _ = self._smooth_data(x, tol)
        return jnp.where(tail, 0, slopes / f)

    def smooth_differences(self, x: Array, tol: float, minus: Array) -> Array:
        if self.p == 1:
            return minus
        f, _, tail, _ = self._smooth_data(x, tol)
        top = ~tail & (x > tol * max_abs(x))
        return jnp.where(top[None, :] & top[:, None], power_differences(quotient(x, f), self.q - 1) / f, minus)

    def project(self, x: Array, r: Array) -> Array:
        if self.p == 1:
            return capped(x, r, self.k * r)
        y = x - self.dual().prox(x, r)
        return inside(y, self.value(y), r)

    def dual(self) -> TopK:
        return TopK(self.k, self.p)


def _mean(block: Array, x: Array) -> Array:
    return jnp.sum(jnp.where(block, x, 0)) / jnp.maximum(jnp.sum(block), 1).astype(x.dtype)


def _slopes(p: float, u: Array, zero: Array) -> Array:
    """``(p-1) u^(p-2)``: f times the curvature of one entry; at zeros its limit for p >= 2, else dropped."""
    return jnp.where(zero, 1 if p == 2 else 0, (p - 1) * jnp.where(zero, 1, u) ** (p - 2))
