"""Singular triplets as functions of their own.

A search, ``search(a, key) -> (u, s, vh)``, returns some of the leading triplets, or all, of ``a`` scaled to about 1
(``prepare``). Derivatives flow through the values alone. At ties the derivative is averaged over the block, so that it
does not depend on the basis; a second derivative exists only at distinct, nonzero values.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxnorms._rules.ends import last_derivative
from jaxnorms._scaling import halves, magnitude, poison, prepare, scale
from jaxnorms.decompositions import matmul, singular_values, thin_svd, tie_tolerance

Search = Callable[[Any, Array | None], tuple[Array, Array, Array]]


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def leading(search: Search, a: Array, key: Array | None = None) -> tuple[Array, Array, Array]:
    """Singular triplets of one matrix; NaN vectors where it is not finite."""
    u, s, vh = search(a, key)
    ok, largest, power = magnitude(a)
    return poison(ok, u), jnp.where(ok, scale(s, power), largest), poison(ok, vh)


@leading.defjvp
def _(search, primals, tangents):
    (a, key), (e, _) = primals, tangents
    u, s, vh = _triplets(search, a, key)
    ok, largest, power = magnitude(jax.lax.stop_gradient(a))
    tied, zero = blocks(a, s)
    slopes = average(jnp.sum((u.conj() * matmul(e, vh.conj().T)).real, axis=0), tied, zero & ok)
    u, vh = jax.lax.stop_gradient((u, vh))
    triplets = poison(ok, u), jnp.where(ok, scale(s, power), largest), poison(ok, vh)
    return triplets, (jnp.zeros_like(u), poison(ok, slopes), jnp.zeros_like(vh))


def every_triplet(a: Array, key: Array | None = None) -> tuple[Array, Array, Array]:
    """The search that finds them all."""
    return thin_svd(prepare(a)[0])


@jax.custom_jvp
def spectrum(a: Array) -> Array:
    """All singular values, without their vectors."""
    x, ok, largest, power = prepare(a)
    return jnp.where(ok, scale(singular_values(x), power), largest)


@spectrum.defjvp
def _(primals, tangents):
    (_, s, _), (_, slopes, _) = jax.jvp(partial(leading, every_triplet), primals, tangents)
    return s, slopes


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _triplets(search: Search, a: Array, key: Array | None) -> tuple[Array, Array, Array]:
    return search(a, key)


@_triplets.defjvp
def _(search, primals, tangents):
    primal_out = _triplets(search, *primals)
    ((a, _), (u, s, vh)), (e, _) = last_derivative((primals, primal_out)), tangents
    tied, zero = blocks(a, s)
    before, after = halves(-magnitude(a)[2])
    e = before(e)
    v = vh.conj().T
    ev, eu = matmul(e, v), matmul(e.conj().T, u)
    # With all triplets (p, t, q) of a: u' = p x + (1 - p p^H) e v / s and v' = q y + (1 - q q^H) e^H u / s.
    # From a v = s u, t_j y_ji + p_j^H e v_i = s_i x_ji + s_i' [i = j], and likewise for a^H u = s v.
    p, t, qh = every_triplet(a) if search is not every_triplet else (u, s, vh)
    m, k = matmul(p.conj().T, ev), matmul(qh, eu)
    near = jnp.abs(t[:, None] - s[None, :]) <= tie_tolerance(s.dtype, *a.shape) * s[0]
    off = jnp.where(near, 0, 1 / jnp.where(near, 1, (s[None, :] - t[:, None]) * (s[None, :] + t[:, None])))
    inverse = jnp.where(zero, 0, 1 / jnp.where(zero, 1, s))
    off, inverse, s, t = (x.astype(a.dtype) for x in (off, inverse, s, t))
    du = matmul(p, off * (s[None, :] * m + t[:, None] * k)) + (ev - matmul(p, m)) * inverse[None, :]
    dv = matmul(qh.conj().T, off * (t[:, None] * m + s[None, :] * k)) + (eu - matmul(qh.conj().T, k)) * inverse[None, :]
    slopes = jnp.sum(u.conj() * ev, axis=0)
    if jnp.iscomplexobj(a):  # the phase of a pair is carried by u alone
        du += u * (jax.lax.complex(jnp.zeros_like(slopes.real), slopes.imag) * inverse)[None, :]
    changes = du, average(slopes.real, tied, zero), dv.conj().T
    return primal_out, tuple(map(after, changes))


def blocks(a: Any, s: Array) -> tuple[Array, Array]:
    """Which pairs of singular values are tied (as 0/1 weights), and which are zero."""
    gap = tie_tolerance(s.dtype, *a.shape) * s[0]
    return (jnp.abs(s[None, :] - s[:, None]) <= gap).astype(s.dtype), s <= gap


def average(slopes: Array, tied: Array, zero: Array) -> Array:
    return jnp.where(zero, 0, matmul(tied / jnp.sum(tied, axis=1, keepdims=True), slopes))
