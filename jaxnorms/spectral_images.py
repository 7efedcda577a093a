"""Ways to the image ``U diag(h(s)) V^H`` of a matrix, and the choice between them.

All triplets serve every h. Where h is soft thresholding, or what that leaves, those above the threshold suffice; where
the threshold is given, two polar factors do. Each of these ways checks itself, and where it cannot tell that it was
right all triplets are computed. The derivative takes them all in any case.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array

from jaxnorms._mesh import on_mesh
from jaxnorms._scaling import magnitude, prepare, scale
from jaxnorms.choice import PRODUCTS_FROM
from jaxnorms.decompositions import krylov, matmul, thin_svd, tie_tolerance
from jaxnorms.decompositions.polar_express import polar_factor
from jaxnorms.decompositions.spreading import by_rows, on_grid
from jaxnorms.decompositions.truncated_svd import by_krylov
from jaxnorms.gauges import Gauge, Lp, inf
from jaxnorms.options import Request
from jaxnorms.spectral_methods import at_most_once, poison

Parameters = tuple[Array, ...]


@dataclass(frozen=True)
class Part:
    """``prox``, ``rest`` or ``project`` of a gauge, as a function that can be hashed."""

    gauge: Gauge
    name: str

    def __call__(self, x: Array, *parameters: Array) -> Array:
        return getattr(self.gauge, self.name)(x, *parameters)


# Soft thresholding, ``max(x - theta, 0)``, with theta given or found, and the maps that are it, or (True) x less it.
_GIVEN, _FOUND = Part(Lp(1.0), "prox"), Part(Lp(1.0), "project")
_THRESHOLDING = {
    (1.0, "prox"): (_GIVEN, False),
    (1.0, "rest"): (_GIVEN, True),
    (1.0, "project"): (_FOUND, False),
    (inf, "prox"): (_FOUND, True),
    (inf, "rest"): (_FOUND, False),
    (inf, "project"): (_GIVEN, True),
}


def thresholding(h: Callable[..., Array]) -> tuple[Part, bool] | None:
    """The soft thresholding that h is, and whether h is what that leaves; None if neither."""
    if isinstance(h, Part) and isinstance(h.gauge, Lp) and not h.gauge.traced:
        return _THRESHOLDING.get((h.gauge.p, h.name))
    return None


def image(h: Callable[..., Array], request: Request, a: Array, parameters: Parameters) -> Array:
    """The image of one matrix, in the way asked for, or else in the fastest."""
    soft, method, rank = thresholding(h), request.method, request.rank
    every = partial(_by_every_triplet, h, parameters)
    ways: dict[str, Callable[[Array], tuple[Array, Array]]] = {}
    if soft is not None and rank is not None and krylov.affordable(a.shape, rank + 1):
        ways["krylov"] = partial(_by_leading_triplets, soft[0], rank, parameters)
    if soft is not None and soft[0] == _GIVEN:
        ways["polar"] = partial(_by_polar_factors, parameters)
    if method not in ("auto", "svd", *ways):
        allowed = ", ".join(map(repr, ("auto", "svd", *ways)))
        m, n = a.shape
        raise ValueError(f"method must be one of {allowed} for this map of {m} x {n} matrices, got {method!r}")
    if rank is not None and soft is None:
        raise ValueError(f"rank must be None except for the nuclear and the spectral norm, got {rank}")

    def checked(name: str, a: Array) -> Array:
        y, good = ways[name](a)
        return at_most_once(~good, every, a, on_grid(a - y if soft and soft[1] else y))

    if method in ways:
        return checked(method, a)
    if method == "auto" and "krylov" in ways and rank is not None and by_krylov(a.shape, rank + 1):
        return checked("krylov", a)
    if method == "auto" and "polar" in ways and min(a.shape) >= PRODUCTS_FROM and not on_mesh(a):
        # On CPU an SVD costs less than the two factors.
        return jax.lax.platform_dependent(a, cpu=every, default=partial(checked, "polar"))
    return every(a)


def decomposed(a: Array) -> tuple[Array, Array, Array, Array, Array]:
    """The triplets of ``a 2^-power``, whether ``a`` is finite, and the power."""
    x, ok, _, power = prepare(a)
    u, s, vh = thin_svd(x)
    return u, s, vh, ok, power


def _by_every_triplet(h: Callable[..., Array], parameters: Parameters, a: Array) -> Array:
    u, s, vh, ok, power = decomposed(a)
    y = h(scale(s, power), *parameters)
    return poison(ok, on_grid(matmul(u * y[None, :].astype(a.dtype), vh)))


def _by_leading_triplets(soft: Part, rank: int, parameters: Parameters, a: Array) -> tuple[Array, Array]:
    """Right if the next triplet vanishes, and nothing larger than theta was missed, such as one more of many equal
    values: the largest value of what is left is found from another start."""
    ok, _, power = magnitude(a)
    tol = 8 * float(jnp.finfo(a.dtype).eps)
    found = krylov.leading_triplets(a, rank + 1, power, tol=tol, by_gap=False)
    u, s, vh = found.u[:, : rank + 1], found.s[: rank + 1], found.vh[: rank + 1]
    y = scale(soft(scale(s, power), *parameters), -power)
    forward, adjoint = krylov.products(a, power)
    us = u * s[None, :].astype(a.dtype)
    left = krylov.leading_triplets_of(
        (
            lambda rows: forward(rows) - matmul(matmul(rows, vh.conj().T), us.conj().T),
            lambda rows: adjoint(rows) - matmul(matmul(rows, us), vh),
        ),
        a.shape,
        a.dtype,
        1,
        by_gap=False,
    )
    slack = tie_tolerance(s.dtype, *a.shape) * s[0]
    good = (y[-1] <= slack) & (left.s[0] <= s[0] - y[0] + slack)
    y = scale(matmul(u * y[None, :].astype(a.dtype), vh), power)
    return poison(ok, y), good | ~ok


def _by_polar_factors(parameters: Parameters, a: Array) -> tuple[Array, Array]:
    """``a = q h`` less ``(a + t q - q |h - t|) / 2``, the nearest matrix without singular values above t."""
    if a.shape[0] < a.shape[1]:
        y, good = _by_polar_factors(parameters, a.conj().T)
        return y.conj().T, good
    x, ok, _, power = prepare(a)
    x = by_rows(x)
    t = scale(parameters[0], -power).astype(a.dtype)
    q, good = polar_factor(x)
    h = matmul(q.conj().T, x)
    beyond = (h + h.conj().T) / 2 - t * jnp.eye(*h.shape, dtype=a.dtype)
    sign, known = polar_factor(beyond)
    size = matmul(sign, beyond)
    y = matmul(q, beyond + (size + size.conj().T) / 2) / 2
    return poison(ok, scale(y, power)), good & known | ~ok
