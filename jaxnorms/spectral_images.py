"""Ways to the image ``U diag(h(s)) V^H`` of a matrix, and the choice between them.

All triplets serve every h. Where h is soft thresholding, or what that leaves, those above the threshold suffice; where
the threshold is given, two polar factors do. Each of these ways checks itself, and where it cannot tell that it was
right all triplets are computed. The derivative takes them all in any case.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxnorms._layout import by_rows, on_grid
from jaxnorms._mesh import on_mesh
from jaxnorms._scaling import magnitude, poison, prepare, scale
from jaxnorms.choice import PRODUCTS_FROM
from jaxnorms.decompositions import krylov, matmul, thin_svd, tie_tolerance
from jaxnorms.decompositions.polar_express import polar_factor
from jaxnorms.decompositions.truncated_svd import by_krylov
from jaxnorms.gauges import Gauge, Lp, inf
from jaxnorms.options import Request
from jaxnorms.spectral_methods import at_most_once

Parameters = tuple[Array, ...]


@dataclass(frozen=True)
class Part:
    """``prox``, ``rest`` or ``project`` of a gauge, as a function that can be hashed."""

    gauge: Gauge
    name: str

    def __call__(self, x: Array, *parameters: Array) -> Array:
        return getattr(self.gauge, self.name)(x, *parameters)


class Thresholding(NamedTuple):
    """Soft thresholding, ``max(x - theta, 0)``, or the ``rest``, x less that."""

    soft: Part
    rest: bool


# Theta is given or found.
_GIVEN, _FOUND = Part(Lp(1.0), "prox"), Part(Lp(1.0), "project")
_THRESHOLDING = {
    (1.0, "prox"): Thresholding(_GIVEN, rest=False),
    (1.0, "rest"): Thresholding(_GIVEN, rest=True),
    (1.0, "project"): Thresholding(_FOUND, rest=False),
    (inf, "prox"): Thresholding(_FOUND, rest=True),
    (inf, "rest"): Thresholding(_FOUND, rest=False),
    (inf, "project"): Thresholding(_GIVEN, rest=True),
}
# A difference from the matrix is accurate relative to its norm, a projection shall be relative to the radius: s_1 over
# theta up to which that is nearly the same.
_REST_TO = 16


def thresholding(h: Callable[..., Array]) -> Thresholding | None:
    """What h is, if it is soft thresholding or the rest."""
    if isinstance(h, Part) and isinstance(h.gauge, Lp) and not h.gauge.traced:
        return _THRESHOLDING.get((h.gauge.p, h.name))
    return None


def image(h: Callable[..., Array], request: Request, a: Array, parameters: Parameters) -> Array:
    """The image of one matrix, in the way asked for, or else in the fastest."""
    kind, method = thresholding(h), request.method
    every = partial(_by_every_triplet, h, parameters)
    ways = {} if kind is None else _ways(kind, request, a.shape, parameters)
    if method not in ("auto", "svd", *ways) or (kind is None and request.rank is not None):
        raise ValueError(_refusal(kind, request, a.shape, ways))

    def checked(name: str, a: Array) -> Array:
        y, good = ways[name](a)
        return at_most_once(~good, every, a, on_grid(y))

    if method in ways:
        return checked(method, a)
    if method == "auto" and "krylov" in ways and by_krylov(a.shape, (request.rank or 0) + 1):
        return checked("krylov", a)
    if method == "auto" and "polar" in ways and min(a.shape) >= PRODUCTS_FROM and not on_mesh(a):
        # On CPU an SVD costs less than the two factors.
        return jax.lax.platform_dependent(a, cpu=every, default=partial(checked, "polar"))
    return every(a)


def _ways(
    kind: Thresholding, request: Request, shape: tuple[int, ...], parameters: Parameters
) -> dict[str, Callable[[Array], tuple[Array, Array]]]:
    """Those that this map has, each with the word whether it was right."""
    ways = {}
    if request.rank is not None and krylov.affordable(shape, request.rank + 1):
        ways["krylov"] = partial(_by_leading_triplets, kind, request.rank, parameters)
    if kind.soft == _GIVEN:
        ways["polar"] = partial(_by_polar_factors, kind, parameters)
    return ways


def _refusal(kind: Thresholding | None, request: Request, shape: tuple[int, ...], ways: Any) -> str:
    if kind is None and request.rank is not None:
        return f"rank must be None except for the nuclear and the spectral norm, got {request.rank}"
    if kind is not None and request.method == "krylov":
        return (
            f"rank must be given, and be small beside {min(shape)}, for method='krylov' of matrices of "
            f"{shape[0]} x {shape[1]}, got {request.rank}"
        )
    return f"method must be one of {', '.join(map(repr, ('auto', 'svd', *ways)))} for this map, got {request.method!r}"


def decomposed(a: Array) -> tuple[Array, Array, Array, Array, Array]:
    """The triplets of ``a 2^-power``, whether ``a`` is finite, and the power."""
    x, ok, _, power = prepare(a)
    u, s, vh = thin_svd(x)
    return u, s, vh, ok, power


def _by_every_triplet(h: Callable[..., Array], parameters: Parameters, a: Array) -> Array:
    u, s, vh, ok, power = decomposed(a)
    y = h(scale(s, power), *parameters)
    return poison(ok, on_grid(matmul(u * y[None, :].astype(a.dtype), vh)))


def _by_leading_triplets(kind: Thresholding, rank: int, parameters: Parameters, a: Array) -> tuple[Array, Array]:
    """Right if the next triplet vanishes, those above theta are accurate, and none was missed, such as one more of many
    equal values: what is left without them has, from another start, no singular value above theta."""
    ok, _, power = magnitude(a)
    tol = 8 * float(jnp.finfo(a.dtype).eps)
    leading = krylov.leading_triplets(a, rank + 1, power, tol=tol, until="residuals")
    u, s, vh = leading.u[:, : rank + 1], leading.s[: rank + 1], leading.vh[: rank + 1]
    y = scale(kind.soft(scale(s, power), *parameters), -power)
    theta, slack = s[0] - y[0], tie_tolerance(s.dtype, *a.shape) * s[0]
    forward, adjoint = krylov.products(a, power)
    us = u * jnp.where(y > 0, s, 0)[None, :].astype(a.dtype)
    left = krylov.leading_triplets_of(
        (
            lambda rows: forward(rows) - matmul(matmul(rows, vh.conj().T), us.conj().T),
            lambda rows: adjoint(rows) - matmul(matmul(rows, us), vh),
        ),
        a.shape,
        a.dtype,
        1,
        until="residuals",
        seed=1,
    )
    misfits = jnp.linalg.norm(adjoint(us.conj().T) - jnp.square(s).astype(a.dtype)[:, None] * vh, axis=1)
    good = (y[-1] <= slack) & (left.s[0] <= theta + slack) & jnp.all((y == 0) | (misfits <= slack * s))
    if kind.rest:
        good &= s[0] <= _REST_TO * theta
    y = scale(matmul(u * y[None, :].astype(a.dtype), vh), power)
    return poison(ok, a - y if kind.rest else y), good | ~ok


def _by_polar_factors(kind: Thresholding, parameters: Parameters, a: Array) -> tuple[Array, Array]:
    """``a = q h`` less ``(a + t q - q |h - t|) / 2``, the nearest matrix without singular values above t; or that."""
    if a.shape[0] < a.shape[1]:
        y, good = _by_polar_factors(kind, parameters, a.conj().T)
        return y.conj().T, good
    x, ok, _, power = prepare(a)
    x = by_rows(x)
    q, full = polar_factor(x)
    h = matmul(q.conj().T, x)
    h = (h + h.conj().T) / 2
    # At least s_1, at most n^(1/4) times that: a larger t changes nothing but the rounding.
    bound = jnp.sqrt(jnp.linalg.norm(matmul(h, h)))
    t = jnp.minimum(scale(parameters[0], -power), 2 * bound)
    beyond = h - t.astype(a.dtype) * jnp.eye(*h.shape, dtype=a.dtype)
    sign, known = polar_factor(beyond)
    size = matmul(sign, beyond)
    y = scale(matmul(q, beyond + (size + size.conj().T) / 2) / 2, power)
    good = full & known
    if kind.rest:
        good &= bound <= _REST_TO * t
    return poison(ok, a - y if kind.rest else y), good | ~ok
