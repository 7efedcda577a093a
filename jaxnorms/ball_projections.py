"""Projections of vectors of magnitudes ``x >= 0`` onto balls ``f(y) <= r``, and what is found on the way.

They are once differentiable by JAX at almost every point, in x and in the radius, and have finite derivatives
at all of them: roots are found by bisection and differentiated implicitly.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array

from jaxnorms._roots import root, solve_diagonal
from jaxnorms._scaling import exponent, max_abs, scale

_NEWTON_STEPS = 12
# Powers of two between the largest entry and the radius that a computation keeps apart.
WIDEST = 100


def capped(x: Array, cap: Array | float, total: Array) -> Array:
    """Projection onto ``{0 <= y_i <= cap, sum y <= total}``: ``y_i = clip(x_i - theta, 0, cap)``, theta >= 0.

    In terms of the distances from the largest entry, so that y is accurate relative to ``total``.
    """
    gaps = jax.lax.stop_gradient(jnp.max(x)) - x

    def entries(d: Array) -> Array:
        return _clipped(d - gaps, 0, cap)

    d = root(lambda d: total - jnp.sum(entries(d)), total)
    alone = jnp.where(x < cap, x, cap)  # the identity near zeros, too
    return jnp.where(jnp.sum(alone) <= total, alone, entries(d))


def power_ball(x: Array, r: Array, outside: Array, p: float, k: int | None = None) -> Array:
    """Projection onto the ball ``sum of y_i^p over the k largest <= r^p``, of all entries if k is None.

    ``x_i - y_i = sigma w_i (y_i / r)^(p-1)`` with weights w as in :func:`_entries`; sigma is the dual norm of x - y.
    """
    e, y, r = masked(outside, x, r)
    sigma = root(lambda sigma: _power_sum(_entries(y, sigma, r, p, k), r, p, k) - 1, r)
    return jnp.where(outside, scale(_entries(y, sigma, r, p, k), e), x)


def power_prox(x: Array, t: Array, nonzero: Array, p: float, k: int) -> Array:
    """``argmin f(y) + |x - y|^2 / 2t`` for the same gauge f with p > 1: here ``sigma = t`` and ``rho = f(y)`` is
    unknown."""
    e, y, t = masked(nonzero, x, t)
    rho = root(lambda rho: _power_sum(_entries(y, t, rho, p, k), rho, p, k) - 1, t)
    return jnp.where(nonzero, scale(_entries(y, t, jnp.where(nonzero, rho, 1), p, k), e), 0)


def inside(y: Array, size: Array, r: Array) -> Array:
    """``y`` of the norm ``size``, moved into the ball of radius r where rounding left it outside."""
    return y * jax.lax.stop_gradient(jnp.where(size > r, r / jnp.where(size > r, size, 1), 1))


def masked(proper: Array, x: Array, r: Array) -> tuple[Array, Array, Array]:
    """A common exponent, x and r without it; a case that is not ``proper`` is replaced by one that is."""
    x, r = jnp.where(proper, x, 1), jnp.where(proper, r, 0.5)
    e = jnp.maximum(exponent(r), exponent(max_abs(x)) - WIDEST)
    return e, scale(x, -e), scale(r, -e)


def _power_sum(y: Array, r: Array, p: float, k: int | None) -> Array:
    powers = (y / r) ** p
    return jnp.sum(powers if k is None else jax.lax.top_k(powers, k)[0])


def _entries(x: Array, sigma: Array, rho: Array, p: float, k: int | None) -> Array:
    """y with ``y_i + sigma w_i (y_i / rho)^(p-1) = x_i``: weights w in [0, 1] of sum k, 1 above a threshold tau,
    0 below it; or all 1."""
    shrunk = _shrunk(x, sigma, rho, p)
    if k is None or k >= x.size:
        return shrunk

    def surplus(tau: Array) -> Array:
        some = tau > 0
        step = sigma * (jnp.where(some, tau, rho) / rho) ** (p - 1)
        share = _clipped((x - tau) / jnp.where(step > 0, step, 1), 0, 1)
        return jnp.sum(jnp.where(step > 0, share, (x > tau).astype(x.dtype))) - k

    tau = root(surplus, rho)
    return jnp.where(x <= tau, x, jnp.where(shrunk >= tau, shrunk, tau))


def _shrunk(x: Array, sigma: Array, rho: Array, p: float) -> Array:
    """The root z of ``z + sigma (z / rho)^(p-1) = x``, entry by entry."""
    if p == 1:
        return jnp.where(x > sigma, x - sigma, 0)
    if p == 2:
        return x * (rho / (rho + sigma))
    # With w the one of z / rho and its power that makes it convex: a >= 1.
    if p > 2:
        return rho * _convex_root(x, sigma, rho, p - 1)
    w = _convex_root(x, rho, sigma, 1 / (p - 1))
    # Two formulas for one z: the power multiplies the error of w by its exponent, the difference loses digits of x.
    return jnp.where(sigma * w < x / 2, x - sigma * w, rho * w ** (1 / (p - 1)))


def _convex_root(x: Array, alpha: Array, beta: Array, a: float) -> Array:
    """The root w of ``alpha w^a + beta w = x`` for a >= 1, by Newton's method from above, where it starts within
    a factor of two."""

    def solve(f, _):
        positive = x > 0
        y = jnp.where(positive, x, 1)
        w = jnp.minimum(y / beta, (y / alpha) ** (1 / a))

        def newton(_, w):
            slope = a * alpha * w ** (a - 1) + beta
            return w - jnp.where(slope > 0, (alpha * w**a + beta * w - y) / jnp.where(slope > 0, slope, 1), 0)

        return jnp.where(positive, jax.lax.fori_loop(0, _NEWTON_STEPS, newton, w), 0)

    return jax.lax.custom_root(partial(_residual, x, alpha, beta, a), x, solve, solve_diagonal)


def _residual(x: Array, alpha: Array, beta: Array, a: float, w: Array) -> Array:
    return x - alpha * w**a - beta * w


def ratio(h: Callable[..., Array], x: Array, zero: Array, parameters: tuple[Array, ...]) -> Array:
    """``h_i / x_i`` of a map h of magnitudes, with its limit at zeros: h is odd in each entry, so that there the other
    entries do not see it."""
    y, limit = jax.jvp(h, (x, *parameters), (zero.astype(x.dtype), *map(jnp.zeros_like, parameters)))
    return jnp.where(zero, jax.lax.stop_gradient(limit), y / jnp.where(zero, 1, x))


def _clipped(x: Array, low: float, high: Array | float) -> Array:
    """``clip``, with the derivative 0, not a half, at both ends."""
    return jnp.where(x <= low, low, jnp.where(x >= high, high, x))
