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

from jaxnorms._mesh import on_mesh
from jaxnorms._scaling import prepare, scale
from jaxnorms.decompositions import lapack, matmul, thin_svd, tie_tolerance
from jaxnorms.decompositions.cholesky_qr import tall_qr
from jaxnorms.decompositions.spreading import by_rows
from jaxnorms.gauges import Gauge
from jaxnorms.spectral_methods import curvature_core, poison
from jaxnorms.top_gauges import TopK

Pair = tuple[Array, Array]


class Triplets(NamedTuple):
    """Of ``B A 2^-e``, and the factors scaled by ``powers``, which add up to e."""

    u: Array
    s: Array
    vh: Array
    ok: Array
    largest: Array  # what an infinite product is reported as
    b: Array
    a: Array
    powers: Pair


def triplets(pair: Pair) -> Triplets:
    (b, ok_b, largest_b, e_b), (a, ok_a, largest_a, e_a) = map(prepare, pair)
    (q_b, r_b), (q_a, r_a) = _qr(b), _qr(a.conj().T)
    u, s, vh = thin_svd(matmul(r_b, r_a.conj().T))
    # Cancellation in the product leaves the rounding of its terms, one for each column of B.
    terms = jnp.linalg.norm(r_b, axis=0) * jnp.linalg.norm(r_a, axis=0)
    s = jnp.where(s > tie_tolerance(s.dtype, *r_b.shape) * jnp.linalg.norm(terms), s, 0)
    ok, largest = ok_b & ok_a, jnp.where(ok_b, largest_a, jnp.where(ok_a, largest_b, largest_a + largest_b))
    return Triplets(matmul(q_b, u), s, matmul(vh, q_a.conj().T), ok, largest, b, a, (e_b, e_a))


def _qr(x: Array) -> Pair:
    if x.shape[0] <= x.shape[1]:
        return jnp.eye(x.shape[0], dtype=x.dtype), x
    return tall_qr(by_rows(x)) if on_mesh(x) else lapack.qr(x)


def restored(x: Array, powers: Pair) -> Array:
    """``x 2^e``; what is clipped is infinite or zero."""
    most = 2 * (int(jnp.finfo(x.dtype).maxexp) - 2)
    return scale(x, jnp.clip(powers[0] + powers[1], -most, most))


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
        value = jnp.where(t.ok, restored(self._gauge(t.s).value(t.s), t.powers), t.largest)
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
        scaled_db, scaled_da = scale(db, -t.powers[0]), scale(da, -t.powers[1])
        ev = matmul(scaled_db, matmul(t.a, v)) + matmul(t.b, matmul(scaled_da, v))
        eu = matmul(t.a.conj().T, matmul(scaled_db.conj().T, u)) + matmul(scaled_da.conj().T, matmul(t.b.conj().T, u))
        m = matmul(uh, ev)
        x = matmul(u, curvature_core(gauge, t.s, tol, m)) + (ev - matmul(u, m)) * along[None, :]
        y = (eu - matmul(v, m.conj().T)) * along[None, :]
        w, ah, bh, yh = u * g[None, :], a.conj().T, b.conj().T, y.conj().T
        return (
            poison(t.ok, matmul(x, matmul(vh, ah)) + matmul(u, matmul(yh, ah)) + matmul(w, matmul(vh, da.conj().T))),
            poison(t.ok, matmul(matmul(bh, x), vh) + matmul(matmul(bh, u), yh) + matmul(matmul(db.conj().T, w), vh)),
        )

    def _gauge(self, s: Array) -> Gauge:
        """For as many values as there are: all others are 0."""
        gauge = self.gauge
        return replace(gauge, k=len(s)) if isinstance(gauge, TopK) and gauge.k > len(s) else gauge

    def _tolerance(self, pair: Pair) -> float:
        return tie_tolerance(pair[0].dtype, *pair[0].shape, *pair[1].shape)
