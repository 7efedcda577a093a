"""Norms of matrices and vectors, differentiable twice.

A norm is a *lift* (see ``jaxnorms.lifts``): an object with four methods on one matrix, or on factors of it,

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

from jaxnorms._rules.ends import inner, last_derivative
from jaxnorms._split import Names, sum_over


class Lift(Protocol):
    """What a norm must offer on one matrix (or vector, for the entrywise lift; or pair of factors)."""

    @property
    def names(self) -> Names: ...  # mesh axes over which the matrix is split

    def value(self, a: Any) -> Array: ...
    def factors(self, a: Any) -> tuple[Array, Any]: ...
    def subgradient(self, a: Any, factors: Any) -> Any: ...
    def curvature(self, a: Any, e: Any) -> Any: ...


@jax.custom_jvp
def evaluate(lift: Lift, a: Any) -> Array:
    """The norm of one matrix, with the derivatives described above."""
    return lift.value(a)


@evaluate.defjvp
def _(primals, tangents):
    (value, _), tangent = _first_order(primals, tangents)
    return value, tangent


@jax.custom_jvp
def _factors(lift: Lift, a: Any) -> tuple[Array, Any]:
    return lift.factors(a)


@_factors.defjvp
def _(primals, tangents):
    (value, factors), tangent = _first_order(primals, tangents)
    return (value, factors), (tangent, jax.tree.map(jnp.zeros_like, factors))


def _first_order(primals, tangents):
    (lift, a), (dlift, da) = primals, tangents
    value, factors = _factors(lift, a)
    tangent = sum_over(_pair(lift, a, factors, da), lift.names)
    if jax.tree.leaves(lift):  # traced parameters, such as the order p of schatten_norm
        tangent += inner(_slope(lift, a), dlift)
    return (value, factors), tangent


@partial(jax.checkpoint, prevent_cse=False)
def _pair(lift: Lift, a: Any, factors: Any, da: Any) -> Array:
    return inner(_subgradient(lift, a, factors), da)


# The second derivative.


@jax.custom_jvp
def _subgradient(lift: Lift, a: Any, factors: Any) -> Any:
    return lift.subgradient(a, factors)


@_subgradient.defjvp
def _(primals, tangents):
    (lift, a, factors), (dlift, da, _) = primals, tangents
    g = _subgradient(lift, a, factors)
    lift, a = last_derivative((lift, a))
    dg = lift.curvature(a, da)
    if jax.tree.leaves(lift):
        dg = jax.tree.map(jnp.add, dg, jax.jvp(lambda p: _dense(p, a), (lift,), (dlift,))[1])
    return g, dg


def subgradient(lift: Lift, a: Any) -> Any:
    """G as a function of its own, once differentiable."""
    return _subgradient(lift, a, _factors(lift, a)[1])


def _dense(lift: Lift, a: Any) -> Any:
    return lift.subgradient(a, lift.factors(a)[1])


# Derivatives in the traced parameters of the lift, at a fixed matrix.


@jax.custom_jvp
def _slope(lift: Lift, a: Any) -> Lift:
    return jax.grad(lambda p: p.value(a))(lift)


@_slope.defjvp
def _(primals, tangents):
    slope = _slope(*primals)
    (lift, a), (dlift, da) = last_derivative(primals), tangents
    _, along = jax.jvp(jax.grad(lambda p: p.value(a)), (lift,), (dlift,))
    # By symmetry of the mixed derivative: d(slope) in the direction da is the slope of Re<G, da>.
    mixed = jax.grad(lambda p: sum_over(inner(_dense(p, a), da), p.names))(lift)
    return slope, jax.tree.map(jnp.add, along, mixed)
