"""Real functions of a real variable, applied elementwise, and their divided differences.

A function is called as ``f(x, largest, *params)``: ``largest`` is the largest magnitude of the spectrum that x is
from, which decides what counts as zero. ``f.derivative()`` is its derivative in x, ``f.rate()`` that in the
parameters, called as ``f.rate()(x, largest, *params, *rates)``; ``f.without_cusp()`` is what f is differentiated as: 0
near a zero at which its derivative is infinite. All are static: hashed by what they are made of.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import jax
import jax.numpy as jnp
from jax import Array

from jaxnorms._scaling import scale


class Function(Protocol):
    def __call__(self, x: Array, largest: Array, *params: Array) -> Array: ...
    def derivative(self) -> "Function": ...
    def rate(self) -> "Function": ...
    def without_cusp(self) -> "Function": ...


class ByJax(ABC):
    """Derivatives by JAX."""

    @abstractmethod
    def __call__(self, x: Array, largest: Array, *params: Array) -> Array: ...

    def derivative(self) -> Function:
        return _Slope(self)

    def rate(self) -> Function:
        return _Rate(self)

    def without_cusp(self) -> Function:
        return self


@dataclass(frozen=True)
class _Slope(ByJax):
    f: Function

    def __call__(self, x: Array, largest: Array, *params: Array) -> Array:
        return jax.jvp(lambda x: self.f(x, largest, *params), (x,), (jnp.ones_like(x),))[1]


@dataclass(frozen=True)
class _Rate(ByJax):
    f: Function

    def __call__(self, x: Array, largest: Array, *params: Array) -> Array:
        half = len(params) // 2
        return jax.jvp(lambda *params: self.f(x, largest, *params), params[:half], params[half:])[1]

    def derivative(self) -> Function:
        return _Rate(self.f.derivative())

    def without_cusp(self) -> Function:
        return _Rate(self.f.without_cusp())


@dataclass(frozen=True)
class Plain(ByJax):
    """``f(x, *params)`` as somebody wrote it, with its derivative in x if that was given."""

    f: Callable[..., Array]
    df: Callable[..., Array] | None = None

    def __call__(self, x: Array, largest: Array, *params: Array) -> Array:
        return jnp.asarray(self.f(x, *params), x.dtype)

    def derivative(self) -> Function:
        return _Slope(self) if self.df is None else Plain(self.df)


@dataclass(frozen=True)
class Reflected(ByJax):
    """The odd or even extension of f from ``x >= 0``; f itself, or a derivative of the ``anchor``.

    Up to ``tol * largest`` it is 0 where the anchor is not 0 at 0, and so has no odd extension that is continuous;
    ``cusps`` (as if they were jumps): also where the derivative of the anchor is infinite there.
    """

    f: Function
    anchor: Function
    tol: float
    odd: bool = True
    cusps: bool = False

    def __call__(self, x: Array, largest: Array, *params: Array) -> Array:
        size, zero = jnp.abs(x), jnp.zeros((), x.dtype)
        broken = self.anchor(zero, largest, *params) != 0
        if self.cusps:
            broken |= ~jnp.isfinite(self.anchor.derivative()(zero, largest, *params))
        masked = broken & (size <= self.tol * largest)
        y = self.f(jnp.where(masked, 1, size), largest, *params)
        return jnp.where(masked, 0, jnp.sign(x) * y if self.odd else y)

    def derivative(self) -> Function:
        return replace(self, f=self.f.derivative(), odd=not self.odd)

    def without_cusp(self) -> Function:
        return replace(self, cusps=True)


@dataclass(frozen=True)
class Scaled(ByJax):
    """``f 2^p``, the integer p being the first of the parameters."""

    f: Function

    def __call__(self, x: Array, largest: Array, *params: Array) -> Array:
        p, *others = params
        return scale(self.f(x, largest, *others), p)

    def derivative(self) -> Function:
        return Scaled(self.f.derivative())

    def without_cusp(self) -> Function:
        return Scaled(self.f.without_cusp())


def odd(f: Function, tol: float) -> Function:
    """The odd extension of f."""
    return Reflected(f, f, tol)


# Divided differences: quotients where values are far apart, means of a derivative by Gauss's rules where they are
# close. The difference of two rules bounds the error of the better one, the rounding of f that of the quotient; the
# smaller bound decides, so that nothing need be known of the scale on which f varies. The mean must also agree with the
# quotient, to the rounding of f and of what it is made of, so that what jumps or has a kink in between is a quotient.
# Within the rounding of the eigenvalues themselves no quotient can be trusted. At a tie a derivative that is not
# finite is left out.

_TWO, _THREE = 3**-0.5, 0.6**0.5
_ULPS = 16  # of f, and of the divided differences that those of second order are made of
_NOISE = 32  # eps of the largest eigenvalue: three times what is measured between two that are tied


def first(f: Function, x: Array, y: Array, largest: Array, *params: Array) -> Array:
    """``f[x, y] = (f(x) - f(y)) / (x - y)``, with the limit ``f'(x)``."""

    def slope(t: float) -> Array:
        return df(middle + t * half, largest, *params)

    df, gap = f.derivative(), x - y
    half = gap / 2
    middle = y + half
    two = (slope(-_TWO) + slope(_TWO)) / 2
    three = (5 * slope(-_THREE) + 8 * slope(0) + 5 * slope(_THREE)) / 18
    left, right = f(x, largest, *params), f(y, largest, *params)
    return _better(left - right, jnp.abs(left) + jnp.abs(right), gap, three, jnp.abs(three - two), largest)


def second(
    f: Function, x: Array, y: Array, z: Array, xy: Array, yz: Array, xz: Array, largest: Array, *params: Array
) -> Array:
    """``f[x, y, z] = (f[x, y] - f[y, z]) / (x - z)``, from those of first order; the limit is ``f''(x) / 2``."""

    def bend(s: float, t: float, u: float) -> Array:
        return ddf(s * x + t * y + u * z, largest, *params)

    # The two that are farthest apart.
    gaps, above, below = (
        jnp.stack(jnp.broadcast_arrays(*v)) for v in ((x - z, x - y, y - z), (xy, xz, xy), (yz, yz, xz))
    )
    widest = jnp.argmax(jnp.abs(gaps), axis=0)[None]
    gap, left, right = (jnp.take_along_axis(v, widest, axis=0)[0] for v in (gaps, above, below))
    ddf = f.derivative().derivative()
    one = bend(1 / 3, 1 / 3, 1 / 3)
    three = (bend(2 / 3, 1 / 6, 1 / 6) + bend(1 / 6, 2 / 3, 1 / 6) + bend(1 / 6, 1 / 6, 2 / 3)) / 3
    return _better(left - right, jnp.abs(left) + jnp.abs(right), gap, three / 2, jnp.abs(three - one) / 2, largest)


def _better(numerator: Array, size: Array, gap: Array, mean: Array, error: Array, largest: Array) -> Array:
    eps, tiny, tied = jnp.finfo(gap.dtype).eps, jnp.finfo(gap.dtype).tiny, gap == 0
    distance = jnp.where(tied, 1, gap)
    quotient, slope = numerator / distance, jnp.abs(mean)
    rounding = jnp.maximum(eps * size, tiny) / jnp.abs(distance)
    noise = eps * slope * largest / jnp.abs(distance)
    smooth = (error <= rounding) & (jnp.abs(mean - quotient) <= _ULPS * (rounding + noise))
    smooth |= (jnp.abs(gap) <= _NOISE * eps * largest) & (error <= eps**0.5 * slope)
    limit = jnp.where(jnp.isfinite(mean), mean, 0)
    return jnp.where(tied | smooth, limit, quotient)
