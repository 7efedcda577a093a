"""The one place where derivative rules are attached.

A norm is a *lift* (see ``jaxnorms.lifts``): an object with four methods on one matrix,

    value(a)                  the norm
    factors(a)                (value, f): what the backward pass keeps besides ``a``
    subgradient(a, f)         G, the subgradient of minimum Frobenius norm
    curvature(a, e)           dG(a, e), the derivative of G in the direction e

and, if it has traced parameters, those are its pytree leaves. The rule, for a tangent da, is

    d norm(a) = Re<G(a, f), da>                                                      (1)
    d G(a, f) = curvature(a, da)                                                     (2)

A bare ``custom_vjp`` would refuse forward mode, so (1) is written as the tangent of a
``custom_jvp`` function and reverse mode is its transpose. Three things make that exact:

* ``factors`` is evaluated by its own ``custom_jvp`` function whose factors have *zero* tangent:
  they are data that save a second decomposition. All of the second derivative comes from (2), so
  that no derivative ever passes through singular vectors, in whatever order modes are nested.
* The pairing (1) is rematerialised (``jax.checkpoint``): what is kept between the forward and the
  backward pass is ``a`` itself and the factors, never the dense G. Under ``jit`` the common
  subexpressions of both passes are computed once.
* (2) may be differentiated in ``da`` but not in ``a``: a third derivative raises.
"""

from functools import partial
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax import Array

from jaxnorms._scaling import prepare, scale
from jaxnorms.decompositions import matmul, singular_values, thin_svd, tie_tolerance


class Lift(Protocol):
    """What a norm must offer on one matrix (or vector, for the entrywise lift)."""

    def value(self, a: Array) -> Array: ...
    def factors(self, a: Array) -> tuple[Array, Any]: ...
    def subgradient(self, a: Array, factors: Any) -> Array: ...
    def curvature(self, a: Array, e: Array) -> Array: ...


def inner(g: Array, e: Array) -> Array:
    """``Re<g, e>``."""
    if jnp.iscomplexobj(g):
        return jnp.sum(g.real * e.real + g.imag * e.imag)
    return jnp.sum(g * e)


@jax.custom_jvp
def last_derivative(x: Any) -> Any:
    """The identity on a pytree, beyond which no derivative is defined."""
    return x


@last_derivative.defjvp
def _(primals, tangents):
    raise ValueError(
        "jaxnorms: third derivatives of a matrix norm are not defined; value, first and second derivatives are"
    )


# The norm and its first derivative.


@jax.custom_jvp
def evaluate(lift: Lift, a: Array) -> Array:
    """The norm of one matrix, with the derivatives described above."""
    return lift.value(a)


@evaluate.defjvp
def _(primals, tangents):
    (value, _), tangent = _first_order(primals, tangents)
    return value, tangent


@jax.custom_jvp
def _factors(lift: Lift, a: Array) -> tuple[Array, Any]:
    return lift.factors(a)


@_factors.defjvp
def _(primals, tangents):
    (value, factors), tangent = _first_order(primals, tangents)
    return (value, factors), (tangent, jax.tree.map(jnp.zeros_like, factors))


def _first_order(primals, tangents):
    (lift, a), (dlift, da) = primals, tangents
    value, factors = _factors(lift, a)
    tangent = _pair(lift, a, factors, da)
    if jax.tree.leaves(lift):  # traced parameters, such as the order p of schatten_norm
        tangent += _tree_inner(_slope(lift, a), dlift)
    return (value, factors), tangent


@partial(jax.checkpoint, prevent_cse=False)
def _pair(lift: Lift, a: Array, factors: Any, da: Array) -> Array:
    return inner(_subgradient(lift, a, factors), da)


# The second derivative.


@jax.custom_jvp
def _subgradient(lift: Lift, a: Array, factors: Any) -> Array:
    return lift.subgradient(a, factors)


@_subgradient.defjvp
def _(primals, tangents):
    (lift, a, factors), (dlift, da, _) = primals, tangents
    g = _subgradient(lift, a, factors)
    lift, a = last_derivative((lift, a))
    dg = lift.curvature(a, da)
    if jax.tree.leaves(lift):
        dg += jax.jvp(lambda p: _dense(p, a), (lift,), (dlift,))[1]
    return g, dg


def _dense(lift: Lift, a: Array) -> Array:
    return lift.subgradient(a, lift.factors(a)[1])


# Derivatives in the traced parameters of the lift, at a fixed matrix.


@jax.custom_jvp
def _slope(lift: Lift, a: Array) -> Lift:
    return jax.grad(lambda p: p.value(a))(lift)


@_slope.defjvp
def _(primals, tangents):
    slope = _slope(*primals)
    (lift, a), (dlift, da) = last_derivative(primals), tangents
    _, along = jax.jvp(jax.grad(lambda p: p.value(a)), (lift,), (dlift,))
    # By symmetry of the mixed derivative: d(slope) in the direction da is the slope of Re<G, da>.
    mixed = jax.grad(lambda p: inner(_dense(p, a), da))(lift)
    return slope, jax.tree.map(jnp.add, along, mixed)


def _tree_inner(x: Any, y: Any) -> Array:
    return jax.tree.reduce(jnp.add, jax.tree.map(lambda p, q: jnp.sum(p * q), x, y))


# Singular values as functions of their own. At ties their derivative is averaged over the block, so
# that it does not depend on the basis; a second derivative exists only at distinct, nonzero ones.


@jax.custom_jvp
def spectrum(a: Array) -> Array:
    """The singular values of one matrix, descending."""
    x, ok, largest, power = prepare(a)
    return jnp.where(ok, scale(singular_values(x), power), largest)


@spectrum.defjvp
def _(primals, tangents):
    (a,), (e,) = primals, tangents
    u, s, vh = _triplets(a)
    slopes = jnp.sum((u.conj() * matmul(e, vh.conj().T)).real, axis=0)
    tied, zero = _blocks(a, s)
    _, ok, largest, power = prepare(jax.lax.stop_gradient(a))
    return jnp.where(ok, scale(s, power), largest), jnp.where(ok, _average(slopes, tied, zero), jnp.nan)


@jax.custom_jvp
def _triplets(a: Array) -> tuple[Array, Array, Array]:
    """The thin SVD of ``a`` scaled to about 1."""
    return thin_svd(prepare(a)[0])


@_triplets.defjvp
def _(primals, tangents):
    primal_out = _triplets(*primals)
    (a, (u, s, vh)), (e,) = last_derivative((*primals, primal_out)), tangents
    tied, zero = _blocks(a, s)
    v, uh = vh.conj().T, u.conj().T
    e = scale(e, -prepare(a)[3])
    ev, eu = matmul(e, v), matmul(e.conj().T, u)
    m = matmul(uh, ev)
    # u' = u x + (1 - u u^H) e v / s and v' = v y + ..., where the skew-Hermitian x and y solve
    # m = s' + x s - s y; the phase of a complex pair is carried by u alone.
    off = jnp.where(tied > 0, 0, 1 / jnp.where(tied > 0, 1, (s**2)[None, :] - (s**2)[:, None]))
    inverse = jnp.where(zero, 0, 1 / jnp.where(zero, 1, s))
    off, inverse, values = (t.astype(a.dtype) for t in (off, inverse, s))
    x = off * (m * values[None, :] + values[:, None] * m.conj().T)
    y = off * (values[:, None] * m + m.conj().T * values[None, :])
    if jnp.iscomplexobj(a):
        x += jnp.diag(jax.lax.complex(jnp.zeros_like(s), jnp.diag(m).imag) * inverse)
    du = matmul(u, x) + (ev - matmul(u, m)) * inverse[None, :]
    dv = matmul(v, y) + (eu - matmul(v, m.conj().T)) * inverse[None, :]
    return primal_out, (du, _average(jnp.diag(m).real, tied, zero), dv.conj().T)


def _blocks(a: Array, s: Array) -> tuple[Array, Array]:
    """Which pairs of singular values are tied (as 0/1 weights), and which are zero."""
    gap = tie_tolerance(s.dtype, *a.shape) * s[0]
    return (jnp.abs(s[None, :] - s[:, None]) <= gap).astype(s.dtype), s <= gap


def _average(slopes: Array, tied: Array, zero: Array) -> Array:
    return jnp.where(zero, 0, matmul(tied / jnp.sum(tied, axis=1, keepdims=True), slopes))
