"""Maps of magnitudes carried to matrices, as lifts carry gauges: of the entries or of the singular values.

The map, ``h(x, *parameters)`` of magnitudes ``x >= 0`` (a vector, or the matrix of all of them), is symmetric,
vanishes where x does, and is differentiable by JAX in x and in the parameters; read as an odd function of each
entry it is what proximal operators and projections are. A carrier offers

    image(a, *parameters)                          the matrix
    change(a, parameters, e, rates)                its derivative, linear in e and in the rates of the parameters
    magnitudes(a)                                  x
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxnorms._layout import on_grid
from jaxnorms._scaling import exponent, max_abs, poison, poison_along, prepare, scale
from jaxnorms.ball_projections import WIDEST, ratio
from jaxnorms.decompositions import singular_values, tie_tolerance
from jaxnorms.lifts import SpectralLift, phase
from jaxnorms.options import AUTO, Request
from jaxnorms.spectral_images import Parameters, Part, decomposed, image
from jaxnorms.spectral_methods import turned


@dataclass(frozen=True)
class OfEntries:
    """``phase h(|a|)``. A direction ``phase (d + i t)`` changes the magnitudes by d and turns the phases:
    ``phase (Jh d + i (h/x) t)``."""

    h: Callable[..., Array]

    def magnitudes(self, a: Array) -> Array:
        return jnp.abs(a)

    def image(self, a: Array, *parameters: Array) -> Array:
        y = self.h(jnp.abs(a), *parameters)
        return poison(jnp.isfinite(max_abs(a)), phase(a) * y.astype(a.dtype))

    def change(self, a: Array, parameters: Parameters, e: Array, rates: Parameters) -> Array:
        turn, x = phase(a), jnp.abs(a)
        e = turn.conj() * e
        _, dy = jax.jvp(self.h, (x, *parameters), (e.real, *rates))
        if jnp.iscomplexobj(a):
            dy = jax.lax.complex(dy, ratio(self.h, x, x == 0, parameters) * e.imag)
        return poison_along(jnp.isfinite(max_abs(a)), turn * dy, e)


@dataclass(frozen=True)
class OfSingularValues:
    """``U diag(h(s)) V^H`` of ``a = U diag(s) V^H``; the derivative is that of :class:`jaxnorms.lifts.SpectralLift`
    with the divided differences of h."""

    h: Callable[..., Array]
    request: Request = AUTO

    def magnitudes(self, a: Array) -> Array:
        x, ok, largest, power = prepare(a)
        return jnp.where(ok, scale(singular_values(x), power), largest)

    def image(self, a: Array, *parameters: Array) -> Array:
        return image(self.h, self.request, a, parameters)

    def change(self, a: Array, parameters: Parameters, e: Array, rates: Parameters) -> Array:
        u, s, vh, ok, power = decomposed(a)
        # h is homogeneous in all that it takes: its derivatives do not depend on the scale, a small one would overflow.
        common = power if not parameters else jnp.maximum(exponent(max_abs(jnp.stack(parameters))), power - WIDEST)
        s = scale(s, power - common)
        parameters = tuple(jnp.maximum(scale(p, -common), jnp.finfo(s.dtype).tiny) for p in parameters)
        minus, plus, along = self.differences(s, parameters, tie_tolerance(s.dtype, *a.shape))
        zeros = jnp.zeros_like(s)
        drift = jax.jvp(self.h, (s, *parameters), (zeros, *rates))[1] if parameters else zeros

        def core_of(m: Array) -> Array:
            sym, skew = (m + m.conj().T) / 2, (m - m.conj().T) / 2
            d = jax.jvp(self.h, (s, *parameters), (jnp.diag(m).real, *map(jnp.zeros_like, parameters)))[1]
            off = jnp.where(jnp.eye(s.shape[0], dtype=bool), 0, minus).astype(m.dtype)
            return off * sym + plus.astype(m.dtype) * skew + jnp.diag(d + drift).astype(m.dtype)

        return poison(ok, on_grid(turned(u, vh, e, core_of, along.astype(a.dtype))))

    def differences(self, s: Array, parameters: Parameters, tol: float) -> tuple[Array, Array, Array]:
        """``(h_i - h_j)/(s_i - s_j)``, ``(h_i + h_j)/(s_i + s_j)`` and ``h_i / s_i`` with their limits.

        At a tie the limit is ``J_ii - J_ij``, which is taken, as the mean of both, wherever the quotient would lose
        half of its digits, unless h bends in between.
        """
        y = self.h(s, *parameters)
        slopes = jax.jacfwd(self.h)(s, *parameters)
        limit = jnp.diag(slopes)[:, None] - slopes
        mean, bend = (limit + limit.T) / 2, jnp.abs(limit - limit.T)
        largest, root = max_abs(s), float(jnp.finfo(s.dtype).eps) ** 0.5
        gap = jnp.abs(s[:, None] - s[None, :])
        tied = (gap <= tol * largest) | ((gap <= root * largest) & (bend <= root * jnp.max(jnp.abs(mean))))
        minus = jnp.where(tied, mean, (y[:, None] - y[None, :]) / jnp.where(tied, 1, s[:, None] - s[None, :]))
        zero = s <= tol * largest
        along = ratio(self.h, s, zero, parameters)
        both = zero[:, None] & zero[None, :]
        y, s = y / 2, s / 2  # whose sums do not overflow
        plus = (y[:, None] + y[None, :]) / jnp.where(both, 1, s[:, None] + s[None, :])
        return minus, jnp.where(both, (along[:, None] + along[None, :]) / 2, plus), along


def carrier(lift: Any, name: str, request: Request = AUTO) -> OfEntries | OfSingularValues:
    """The map ``name`` of the gauge of a norm, carried as its lift carries the gauge."""
    h = Part(lift.gauge, name)
    if isinstance(lift, SpectralLift):
        return OfSingularValues(h, request)
    if request != AUTO:
        raise ValueError(
            "method must be 'auto' and rank None for a norm of the entries, "
            f"got method={request.method!r} and rank={request.rank}"
        )
    return OfEntries(h)
