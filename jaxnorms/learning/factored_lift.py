"""The lift of a gauge to a product ``W = B A`` of thin factors, as a function of the pair.

With ``B = Q_b R_b`` and ``A^H = Q_a R_a`` the small matrix ``R_b R_a^H = u S v^H`` has the singular values of W, whose
vectors are ``U = Q_b u`` and ``V = Q_a v``. With the gauge f of the norm, g its subgradient at the singular values, and
``G = U diag(g) V^H``:

    d norm = Re<G A^H, dB> + Re<B^H G, dA>.

The second derivative is that of the norm at W in the direction ``E = dB A + B dA`` (see ``jaxnorms.lifts``), kept in
factors ``dG = X V^H + U Y^H``. No derivative passes through the decompositions, so none is lost where the factors are
rank-deficient.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxnorms._layout import by_rows
from jaxnorms._mesh import on_mesh
from jaxnorms._scaling import exponent, max_abs, poison, prepare, scale
from jaxnorms.decompositions import lapack, matmul, thin_svd, tie_tolerance
from jaxnorms.decompositions.cholesky_qr import tall_qr
from jaxnorms.gauges import Gauge
from jaxnorms.spectral_methods import curvature_core
from jaxnorms.top_gauges import TopK

Pair = tuple[Array, Array]


class Triplets(NamedTuple):
    """Of ``B A 2^-e``, and the factors of this: column j of B and row j of A scaled by the powers of two ``-columns_j``
    and ``-rows_j``, which add up to -e."""

    u: Array
    s: Array
    vh: Array
    ok: Array
    largest: Array  # what an infinite product is reported as
    b: Array
    a: Array
    columns: Array
    rows: Array
    e: Array


def triplets(pair: Pair) -> Triplets:
    powers = _balance(*pair)
    b, a = scale(pair[0], -powers[None, :]), scale(pair[1], powers[:, None])
    (b, ok_b, largest_b, e_b), (a, ok_a, largest_a, e_a) = prepare(b), prepare(a)
    (q_b, r_b), (q_a, r_a) = _qr(b), _qr(a.conj().T)
    u, s, vh = thin_svd(matmul(r_b, r_a.conj().T))
    # Cancellation in the product leaves the rounding of its terms, one for each column of B.
    terms = jnp.linalg.norm(r_b, axis=0) * jnp.linalg.norm(r_a, axis=0)
    s = jnp.where(s > tie_tolerance(s.dtype, *r_b.shape) * jnp.linalg.norm(terms), s, 0)
    ok, largest = ok_b & ok_a, jnp.where(ok_b, largest_a, jnp.where(ok_a, largest_b, largest_a + largest_b))
    u, vh = matmul(q_b, u), matmul(vh, q_a.conj().T)
    return Triplets(u, s, vh, ok, largest, b, a, powers + e_b, e_a - powers, e_b + e_a)


def _balance(b: Array, a: Array) -> Array:
    """Powers of two by which to divide the columns of B and multiply the rows of A, so that both of a pair are of one
    size: neither is then lost beside larger ones that the other factor makes up for."""
    sizes = [jax.vmap(max_abs)(x) for x in (b.T, a)]
    left, right = map(exponent, sizes)
    some, zero = (sizes[0] > 0) & (sizes[1] > 0), jnp.zeros_like(left)
    # Of a pair that is half zero, the other half must be no larger than the rest.
    most = jnp.max(jnp.where(some, (left + right) // 2, jnp.iinfo(jnp.int32).min))
    most = jnp.where(jnp.any(some), most, 0)
    alone = jnp.where(sizes[0] > 0, left - most, jnp.where(sizes[1] > 0, most - right, zero))
    limit = int(jnp.finfo(b.dtype).maxexp) - 8
    return jnp.clip(jnp.where(some, (left - right) // 2, alone), -limit, limit)


def _qr(x: Array) -> Pair:
    if x.shape[0] <= x.shape[1]:
        return jnp.eye(x.shape[0], dtype=x.dtype), x
    return tall_qr(by_rows(x)) if on_mesh(x) else lapack.qr(x)


def restored(x: Array, e: Array) -> Array:
    """``x 2^e``; what is clipped is infinite or zero."""
    most = 2 * (int(jnp.finfo(x.dtype).maxexp) - 2)
    return scale(x, jnp.clip(e, -most, most))


@jax.tree_util.register_static
@dataclass(frozen=True)
class FactoredLift:
    """The gauge of the singular values of ``b @ a``, a function of the pair ``(b, a)``."""

    gauge: Gauge

    names = ()

    def value(self, pair: Pair) -> Array:
        return self.factors(pair)[0]

    def factors(self, pair: Pair) -> tuple[Array, Pair]:
        t = triplets(pair)
        g = self._gauge(t.s).subgradient(t.s, self._tolerance(pair)).astype(t.u.dtype)
        value = jnp.where(t.ok, restored(self._gauge(t.s).value(t.s), t.e), t.largest)
        return value, (poison(t.ok, t.u * g[None, :]), poison(t.ok, t.vh))

    def subgradient(self, pair: Pair, factors: Pair) -> Pair:
        (b, a), (w, vh) = pair, factors
        return matmul(w, matmul(vh, a.conj().T)), matmul(matmul(b.conj().T, w), vh)

    def curvature(self, pair: Pair, direction: Pair) -> Pair:
        (b, a), (db, da), t = pair, direction, triplets(pair)
        u, uh, v, vh = t.u, t.u.conj().T, t.vh.conj().T, t.vh
        gauge, tol = self._gauge(t.s), self._tolerance(pair)
        g, along = (x.astype(u.dtype) for x in (gauge.subgradient(t.s, tol), gauge.ratio(t.s, tol)))
        # E V and E^H U for E = dB A + B dA at the scale of the triplets.
        scaled_db, scaled_da = scale(db, -t.columns[None, :]), scale(da, -t.rows[:, None])
        ev = matmul(scaled_db, matmul(t.a, v)) + matmul(t.b, matmul(scaled_da, v))
        eu = matmul(t.a.conj().T, matmul(scaled_db.conj().T, u)) + matmul(scaled_da.conj().T, matmul(t.b.conj().T, u))
        m = matmul(uh, ev)
        x = matmul(u, curvature_core(gauge, t.s, tol, m)) + (ev - matmul(u, m)) * along[None, :]
        y = (eu - matmul(v, m.conj().T)) * along[None, :]
        # d(G A^H) = dG A^H + G dA^H and d(B^H G) = B^H dG + dB^H G.
        w, ah, bh, yh = u * g[None, :], a.conj().T, b.conj().T, y.conj().T
        dgb = matmul(x, matmul(vh, ah)) + matmul(u, matmul(yh, ah)) + matmul(w, matmul(vh, da.conj().T))
        dga = matmul(matmul(bh, x), vh) + matmul(matmul(bh, u), yh) + matmul(matmul(db.conj().T, w), vh)
        return poison(t.ok, dgb), poison(t.ok, dga)

    def _gauge(self, s: Array) -> Gauge:
        """For as many values as there are: all others are 0."""
        gauge = self.gauge
        return replace(gauge, k=len(s)) if isinstance(gauge, TopK) and gauge.k > len(s) else gauge

    def _tolerance(self, pair: Pair) -> float:
        return tie_tolerance(pair[0].dtype, *pair[0].shape, *pair[1].shape)
