"""Norms, singular values and bounds of an operator given by its products."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxnorms import _checks, _rules
from jaxnorms._mesh import replicated
from jaxnorms._scaling import prepare, scale
from jaxnorms.decompositions import krylov, matmul, singular_values, thin_svd, tie_tolerance
from jaxnorms.gauges import Gauge, Lp, inf
from jaxnorms.lifts import EntrywiseLift, SpectralLift, SquaredFrobenius
from jaxnorms.operators import (
    LinearOperator,
    Scaled,
    adjoint,
    checked,
    forward,
    in_working_precision,
    scaled,
    squares,
    sum_over,
    unit_rows,
)
from jaxnorms.options import Options, Request, request
from jaxnorms.top_gauges import TopK


class _Triplets(NamedTuple):
    """``A ~ u diag(s) vh 2^e``, whether A is finite, and an entry that is not, if so."""

    u: Array
    s: Array
    vh: Array
    ok: Array
    largest: Array
    e: Array

    def values(self, s: Array) -> Array:
        """``s``, or a gauge of it, at the scale of A."""
        return jnp.where(self.ok, scale(s, self.e), self.largest)


def _leading(op: LinearOperator, k: int, tol: float | None, key: Array | None, until: krylov.Until) -> _Triplets:
    """At least k leading triplets, or all where a search would not pay."""
    m, n = op.shape
    if not krylov.affordable(op.shape, k):
        eye = jnp.eye(min(m, n), dtype=op.dtype)
        x, ok, largest, e = prepare(forward(op, eye).T if m >= n else adjoint(op, eye).conj())
        return _Triplets(*thin_svd(x), ok, largest, e)
    by = scaled(op)
    products = (lambda rows: by.forward(rows.conj()).conj(), lambda rows: by.adjoint(rows.conj()).conj())
    leading = krylov.leading_triplets_of(products, op.shape, op.dtype, k, tol=tol, key=key, until=until)
    return _Triplets(leading.u, leading.s, leading.vh, by.ok, by.largest, by.e)


# Norms.


@jax.tree_util.register_static
@dataclass(frozen=True)
class LeadingValues:
    """A gauge of the ``count`` leading singular values: ``Re<G, B> = sum_i g_i Re u_i^H B v_i``."""

    gauge: Gauge
    count: int
    tol: float | None

    def value(self, op: LinearOperator) -> Array:
        found = _leading(op, self.count, self.tol, None, until=krylov.for_value(self.tol))
        return found.values(self.gauge.value(found.s))

    def factors(self, op: LinearOperator) -> tuple[Array, tuple[Array, Array]]:
        found = _leading(op, self.count, self.tol, None, until="subspace")
        g = self.gauge.subgradient(found.s, tie_tolerance(found.s.dtype, *op.shape)).astype(op.dtype)
        w = jnp.where(found.ok, found.u * g[None, :], jnp.nan)
        return found.values(self.gauge.value(found.s)), (w.T, found.vh.conj())

    def pair(self, op: LinearOperator, factors: tuple[Array, Array], other: LinearOperator) -> Array:
        return jnp.sum(_rules.bilinear(other, *factors))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Frobenius:
    """``(sum_j |A e_j|^2)^(1/2)``, or ``(sum_i |A^H e_i|^2)^(1/2)`` where these are fewer, or its square.

    Re<G, B> is ``sum_j Re (A e_j)^H B e_j``, or ``sum_i Re e_i^H B (A^H e_i)``, over the norm, and twice
    that for the square. With ``samples``, vectors of random signs over ``samples^(1/2)`` for the unit vectors.
    """

    key: Any = None
    samples: int = field(default=0, metadata={"static": True})
    squared: bool = field(default=False, metadata={"static": True})

    def value(self, op: LinearOperator) -> Array:
        return self.factors(op)[0]

    def factors(self, op: LinearOperator) -> tuple[Array, Array]:
        by = scaled(op)
        size = jnp.sqrt(self._sum(op, lambda x, wide: squares(by.adjoint(x) if wide else by.forward(x))))
        value = by.restored(size)
        return jnp.square(value) if self.squared else value, size

    def pair(self, op: LinearOperator, factors: Array, other: LinearOperator) -> Array:
        by, size = scaled(op), factors
        weight = scale(jnp.full_like(size, 2), by.e) if self.squared else 1 / jnp.where(size > 0, size, 1)
        weight = jnp.where(by.ok & jnp.isfinite(size), weight, jnp.nan).astype(op.dtype)

        def term(x: Array, wide: bool) -> Array:
            u, v = (x, weight * by.adjoint(x)) if wide else (weight * by.forward(x), x)
            return jnp.sum(_rules.bilinear(other, u, v))

        return self._sum(op, term)

    def _sum(self, op: LinearOperator, term: Callable[[Array, bool], Array]) -> Array:
        m, n = op.shape
        if not self.samples:
            return sum_over(op, min(m, n), lambda i: term(unit_rows(i, min(m, n), op.dtype), m < n))

        def random_rows(indices: Array) -> Array:
            keys = jax.vmap(partial(jax.random.fold_in, self.key))(indices)
            signs = jax.vmap(lambda key: jax.random.rademacher(key, (n,), jnp.int8))(keys).astype(op.dtype)
            return jnp.where((indices < self.samples)[:, None], signs / self.samples**0.5, 0)

        return sum_over(op, self.samples, lambda i: term(random_rows(i), False))


@jax.jit
def _evaluate(lift: _rules.ProductLift, op: LinearOperator) -> Array:
    def one(op: LinearOperator, lift: _rules.ProductLift) -> Array:
        return _rules.evaluate_by_products(lift, in_working_precision(op)).astype(jnp.finfo(op.dtype).dtype)

    return replicated(one, op, lift)


def norm_of_operator(lift: Any, op: LinearOperator, function: str, options: Options, rank: int | None = None) -> Array:
    """The norm with this lift, for what ``function`` was given."""
    how, op = _how(function, options), checked(op)
    if rank is not None:
        rank = _checks.count(rank, "rank", min(op.shape))
    if isinstance(lift, SquaredFrobenius):
        lift.using(how)  # which refuses a method
        return _evaluate(Frobenius(squared=True), op)
    if lift == EntrywiseLift(Lp(2.0)):
        lift.using(how)
        return _evaluate(Frobenius(), op)
    if isinstance(lift, SpectralLift) and (rank or lift.gauge == Lp(inf) or isinstance(lift.gauge, TopK)):
        return _evaluate(LeadingValues(lift.gauge, rank or lift.gauge.support(min(op.shape)), how.tol), op)
    raise ValueError(
        f"{function}: a LinearOperator has no entries, which this norm needs; products alone suffice for the spectral, "
        "Ky Fan and Frobenius norms and for nuclear_norm with rank"
    )


def frobenius_estimate(
    a: Any, samples: int | None, key: Array | None, function: str, options: Options, squared: bool = False
) -> Array:
    """The stochastic estimate of the Frobenius norm or its square, for what ``function`` was given."""
    if not isinstance(a, LinearOperator):
        raise ValueError(f"{function}: samples and key are for a LinearOperator, got {type(a).__name__}")
    if samples is None or key is None:
        raise ValueError(f"{function}: samples and key go together, got samples={samples!r} and key={key!r}")
    SquaredFrobenius().using(_how(function, options))
    return _evaluate(Frobenius(_checks.key(key), _checks.count(samples, "samples"), squared), checked(a))


def _how(function: str, options: Options) -> Request:
    for name in options:
        if name not in ("method", "tol"):
            raise ValueError(f"{function}: of a LinearOperator the keywords are method and tol, got {name}")
    how = request(options)
    if how.method not in ("auto", "krylov"):
        raise ValueError(f"{function}: method of a LinearOperator must be 'auto' or 'krylov', got {how.method!r}")
    return how


# Singular triplets.


@partial(jax.jit, static_argnames=("k", "tol"))
def leading_of_operator(op: LinearOperator, k: int, tol: float | None, key: Array | None) -> tuple[Array, Array, Array]:
    """The k leading triplets; derivatives flow through the values."""

    def search(op: LinearOperator, key: Array | None) -> tuple[Array, Array, Array]:
        found = _leading(op, k, tol, key, until="residuals")
        u, vh = (jnp.where(found.ok, x, jnp.nan) for x in (found.u, found.vh))
        return u, found.values(found.s), vh

    def one(op: LinearOperator, key: Array | None) -> tuple[Array, Array, Array]:
        u, s, vh = _rules.leading_by_products(search, in_working_precision(op), key)
        return u[:, :k].astype(op.dtype), s[:k].astype(jnp.finfo(op.dtype).dtype), vh[:k].astype(op.dtype)

    return replicated(one, op, key)


@jax.jit
def missed_by(op: LinearOperator, u: Array, s: Array, vh: Array) -> Array:
    """An upper bound of ``||A - u diag(s) vh||_F``, by min(m, n) products."""
    return replicated(_missed_by, op, u, s, vh)


def _missed_by(op: LinearOperator, u: Array, s: Array, vh: Array) -> Array:
    op, real = in_working_precision(op), s.dtype
    by = scaled(op)
    s = scale(s.astype(jnp.finfo(op.dtype).dtype), -by.e).astype(op.dtype)
    return by.restored(_rest(op, by, u.astype(op.dtype) * s[None, :], vh.astype(op.dtype))).astype(real)


def _rest(op: LinearOperator, by: Scaled, left: Array, right: Array) -> Array:
    """An upper bound of ``||A - left right||_F`` for the scaled A, rounding of the difference included."""
    m, n = op.shape
    product, p, q = (by.forward, left, right) if m >= n else (by.adjoint, right.conj().T, left.conj().T)

    def square(indices: Array) -> Array:
        x = unit_rows(indices, min(m, n), op.dtype)
        return squares(product(x) - matmul(matmul(x, q.T), p.T))

    total = sum_over(op, min(m, n), square)
    # As in decompositions.truncated_svd.residual, but for the rounding of the products themselves.
    k, eps = right.shape[0], float(jnp.finfo(total.dtype).eps)
    rounding = (k + 3) * eps * jnp.sum(jnp.linalg.norm(left, axis=0) * jnp.linalg.norm(right, axis=1))
    return jnp.sqrt(total) * (1 + eps * (m + n)) + rounding


# What bounds are made of: quantities of a multiple of A, and the way back to its scale.


class RitzValues(NamedTuple):
    """The singular values t of ``U^H A V``, and what U and V miss: ``(1 - P) A V``, ``U^H A (1 - Q)`` and
    ``(1 - P) A (1 - Q)``, in Frobenius norms r, l and e."""

    t: Array
    r: Array
    l: Array
    e: Array


def ritz_of_operator(op: LinearOperator, k: int) -> tuple[RitzValues, Callable[[Array], Array]]:
    """Those of at least k leading triplets; e from min(m, n) products."""
    op = in_working_precision(op)
    found, by = _leading(op, k, None, None, until="residuals"), scaled(op)
    u, vh = found.u, found.vh
    av, ua = by.forward(vh.conj()).T, by.adjoint(u.T).conj()
    core = matmul(u.conj().T, av)
    outside = av - matmul(u, core)
    rest = _rest(op, by, jnp.concatenate([u, outside], axis=1), jnp.concatenate([ua, vh]))
    r, l = jnp.linalg.norm(outside), jnp.linalg.norm(ua - matmul(core, vh))
    return RitzValues(singular_values(core), r, l, rest), by.restored


def size_of_operator(op: LinearOperator) -> tuple[Array, Callable[[Array], Array]]:
    """The Frobenius norm."""
    op = in_working_precision(op)
    return Frobenius().factors(op)[1], scaled(op).restored
