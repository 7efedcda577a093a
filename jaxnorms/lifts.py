"""Lifts carry a gauge of magnitudes to matrices: of the entries (which, with the gauge ``Columns``,
means by columns or rows) or of the singular values.

Each lift acts on one matrix (the entrywise one on an array of any shape) and offers what
``jaxnorms._rules`` needs: ``value``, ``factors``, ``subgradient`` and ``curvature``, and ``dual``,
the lift of the dual norm.

Conventions at kinks, for every norm: the subgradient is the one of minimum Frobenius norm, and the
second derivative is the U-Lagrangian Hessian: the curvature along the manifold on which the norm
is smooth (tied values stay tied, zero values stay zero), and zero across it.
"""

from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxnorms._layout import on_grid
from jaxnorms._scaling import halves, max_abs, poison, poison_along, prepare
from jaxnorms._split import Names, sum_over
from jaxnorms.choice import run
from jaxnorms.decompositions import thin_svd, tie_tolerance
from jaxnorms.gauges import Gauge
from jaxnorms.options import AUTO, WHOLE, Request
from jaxnorms.spectral_methods import curvature_core, turned
from jaxnorms.split_lift import SplitSpectralLift


def phase(a: Array) -> Array:
    """``a / |a|``, and 1 at 0."""
    if not jnp.iscomplexobj(a):
        return jnp.where(a < 0, -1, 1).astype(a.dtype)
    size = jnp.abs(a)
    safe = jnp.where(size > 0, size, 1)
    return jnp.where(size > 0, jax.lax.complex(a.real / safe, a.imag / safe), 1)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class EntrywiseLift:
    """The gauge of the magnitudes ``|a_ij|``. Nothing is kept for the backward pass but the matrix.

    Ties of entries are exact: none was rounded. (A gauge that compares sums allows for their rounding
    by itself.) With ``a = phase * x``, G = phase g; a direction
    ``phase (d + i t)`` changes the magnitudes by d and turns the phases, where g/x is the slope:

        dG = phase (H d + i (g/x) t).
    """

    gauge: Gauge
    names: Names = field(default=(), metadata={"static": True})

    def _polar(self, a: Array) -> tuple[Array, Array]:
        """Phases and magnitudes; a real matrix keeps its signs where they do not matter, which
        spares a pass over it."""
        if self.gauge.even and not jnp.iscomplexobj(a):
            return jnp.ones((), a.dtype), a
        return phase(a), jnp.abs(a)

    def value(self, a: Array) -> Array:
        value, largest = self.gauge.value(self._polar(a)[1]), max_abs(a, self.names)
        return jnp.where(jnp.isfinite(largest), value, largest) if self.gauge.increasing else value

    def factors(self, a: Array) -> tuple[Array, tuple[()]]:
        return self.value(a), ()

    def subgradient(self, a: Array, factors: tuple[()]) -> Array:
        phase, x = self._polar(a)
        return poison(jnp.isfinite(max_abs(a, self.names)), phase * self.gauge.subgradient(x, 0).astype(a.dtype))

    def curvature(self, a: Array, e: Array) -> Array:
        phase, x = self._polar(a)
        e = phase.conj() * e
        dg = self.gauge.hessian(x, 0, e.real)
        if jnp.iscomplexobj(a):
            dg = jax.lax.complex(dg, self.gauge.ratio(x, 0) * e.imag)
        return poison_along(jnp.isfinite(max_abs(a, self.names)), phase * dg, e)

    def of_diagonal(self) -> "EntrywiseLift":
        """The lift for ``diag(d)`` on the vector d."""
        return EntrywiseLift(self.gauge.of_diagonal())

    def using(self, request: Request) -> "EntrywiseLift":
        _refuse_methods(request)
        rows, columns = request.axis_name
        return replace(self, gauge=self.gauge.split(rows, columns), names=rows + columns) if rows + columns else self

    def dual(self) -> "EntrywiseLift":
        return EntrywiseLift(self.gauge.dual())


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
    request: Request = field(default=AUTO, metadata={"static": True})

    @property
    def names(self) -> Names:
        return ()

    def _run(self, function: str, a: Array, *rest: Any) -> Any:
        return run(self.gauge, self.request, function, a, *rest)

    def value(self, a: Array) -> Array:
        return self._run("value", a)

    def factors(self, a: Array) -> tuple[Array, tuple[Array, ...]]:
        return self._run("factors", a)

    def subgradient(self, a: Array, factors: tuple[Array, ...]) -> Array:
        return self._run("subgradient", a, factors)

    def using(self, request: Request) -> "SpectralLift | SplitSpectralLift":
        split = request.axis_name != WHOLE
        return SplitSpectralLift(self.gauge, request) if split else replace(self, request=request)

    def curvature(self, a: Array, e: Array) -> Array:
        x, ok, _, power = prepare(a)
        before, after = halves(-power)
        u, s, vh = thin_svd(x)
        tol = tie_tolerance(s.dtype, *a.shape)
        along = self.gauge.ratio(s, tol).astype(a.dtype)
        dg = turned(u, vh, before(e), partial(curvature_core, self.gauge, s, tol), along)
        return poison(ok, on_grid(after(dg)))

    def of_diagonal(self) -> EntrywiseLift:
        """The lift for ``diag(d)`` on the vector d, whose singular values are the ``|d_i|``."""
        return EntrywiseLift(self.gauge)

    def dual(self) -> "SpectralLift":
        return SpectralLift(self.gauge.dual())


@jax.tree_util.register_static
@dataclass(frozen=True)
class SquaredFrobenius:
    """``sum |a_ij|^2``: smooth, gradient ``2 a``, second derivative ``2 e``."""

    names: Names = ()

    def value(self, a: Array) -> Array:
        squares = jnp.square(a.real) + jnp.square(a.imag) if jnp.iscomplexobj(a) else jnp.square(a)
        return sum_over(jnp.sum(squares), self.names)

    def factors(self, a: Array) -> tuple[Array, tuple[()]]:
        return self.value(a), ()

    def subgradient(self, a: Array, factors: tuple[()]) -> Array:
        return poison(jnp.isfinite(max_abs(a, self.names)), 2 * a)

    def curvature(self, a: Array, e: Array) -> Array:
        return poison(jnp.isfinite(max_abs(a, self.names)), 2 * e)

    def of_diagonal(self) -> "SquaredFrobenius":
        return self

    def using(self, request: Request) -> "SquaredFrobenius":
        _refuse_methods(request)
        return SquaredFrobenius(sum(request.axis_name, ()))


def _refuse_methods(request: Request) -> None:
    """Raise ``ValueError`` if a method is asked for: a formula needs none."""
    if request.method != "auto":
        raise ValueError(f"method must be 'auto' for a norm of the entries, got {request.method!r}")
    if request.compute_dtype is not None:
        raise ValueError(f"compute_dtype must be None for a norm of the entries, got {request.compute_dtype}")
