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

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax import Array

from jaxnorms._mesh import like
from jaxnorms._scaling import magnitude, prepare, quotient, scale
from jaxnorms._split import Names, sum_over
from jaxnorms.decompositions import cofactors, matmul, singular_values, thin_svd, tie_tolerance

Search = Callable[[Any, Array | None], tuple[Array, Array, Array]]


class Lift(Protocol):
    """What a norm must offer on one matrix (or vector, for the entrywise lift)."""

    @property
    def names(self) -> Names: ...  # mesh axes over which the matrix is split

    def value(self, a: Array) -> Array: ...
    def factors(self, a: Array) -> tuple[Array, Any]: ...
    def subgradient(self, a: Array, factors: Any) -> Array: ...
    def curvature(self, a: Array, e: Array) -> Array: ...


def inner(g: Array, e: Array) -> Array:
    """``Re<g, e>``."""
    if jnp.iscomplexobj(g):
        return jnp.sum(g.real * e.real + g.imag * e.imag)
    return jnp.sum(g * e)


def _end_of_derivatives(message: str) -> Callable[[Any], Any]:
    """The identity on a pytree, beyond which no derivative is defined."""

    @jax.custom_jvp
    def identity(x: Any) -> Any:
        return x

    @identity.defjvp
    def _(primals, tangents):
        raise ValueError(message)

    return identity


last_derivative = _end_of_derivatives(
    "jaxnorms: third derivatives of a matrix norm or determinant are not defined; "
    "value, first and second derivatives are"
)


def constant(f: Callable[..., Any], *args: Any) -> Any:
    """``f(*args)``, which no derivative sees."""
    return jax.lax.stop_gradient(f(*jax.lax.stop_gradient(args)))


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
    tangent = sum_over(_pair(lift, a, factors, da), lift.names)
    if jax.tree.leaves(lift):  # traced parameters, such as the order p of schatten_norm
        tangent += _tree_inner(_slope(lift, a), dlift)
    return (value, factors), tangent


@partial(jax.checkpoint, prevent_cse=False)
def _pair(lift: Lift, a: Array, factors: Any, da: Array) -> Array:
    return inner(_subgradient(lift, a, factors), da)


# The second derivative.


@jax.custom_jvp
def _subgradient(lift: Lift, a: Array, factors: Any) -> Array:
    return like(a, lift.subgradient(a, factors))


@_subgradient.defjvp
def _(primals, tangents):
    (lift, a, factors), (dlift, da, _) = primals, tangents
    g = _subgradient(lift, a, factors)
    lift, a = last_derivative((lift, a))
    dg = like(a, lift.curvature(a, da))
    if jax.tree.leaves(lift):
        dg += jax.jvp(lambda p: _dense(p, a), (lift,), (dlift,))[1]
    return g, dg


def subgradient(lift: Lift, a: Array) -> Array:
    """G as a function of its own, once differentiable."""
    return _subgradient(lift, a, _factors(lift, a)[1])


def _dense(lift: Lift, a: Array) -> Array:
    return lift.subgradient(a, lift.factors(a)[1])


# Maps of magnitudes carried to matrices (``jaxnorms.carried``), differentiable once in the matrix and the parameters.

only_once = _end_of_derivatives(
    "jaxnorms: second derivatives of a proximal operator, projection or spectral map are not defined; "
    "value and first derivative are"
)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def carry(carrier: Any, a: Array, *parameters: Array) -> Array:
    """The image of one matrix."""
    return like(a, carrier.image(a, *parameters))


@carry.defjvp
def _(carrier, primals, tangents):
    image = carry(carrier, *primals)
    (a, *parameters), (e, *rates) = only_once(primals), tangents
    return image, like(a, carrier.change(a, tuple(parameters), e, tuple(rates)))


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def envelope(carrier: Any, gauge: Any, a: Array, step: Array) -> Array:
    """``min f(y) + |a - y|^2 / 2 step`` for a gauge f and the carrier of what its prox leaves, ``a - y``. Its gradient
    is that over the step: a difference would cancel where the step is small."""
    x = carrier.magnitudes(a)
    return gauge.value(gauge.prox(x, step)) + _half_square(carrier.h(x, step), step)


def _half_square(x: Array, step: Array) -> Array:
    """``|x|^2 / 2 step``, without squaring what is large or small."""
    size = jnp.max(jnp.abs(x), initial=0)
    unit = quotient(x, jnp.where(size > 0, size, 1))
    return inner(unit, unit) * size * quotient(size, 2 * step)


@envelope.defjvp
def _(carrier, gauge, primals, tangents):
    (a, step), (e, rate) = primals, tangents
    value = envelope(carrier, gauge, a, step)
    g = quotient(carry(carrier, a, step), step)
    return value, inner(g, e) - inner(g, g) / 2 * rate


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
    mixed = jax.grad(lambda p: sum_over(inner(_dense(p, a), da), p.names))(lift)
    return slope, jax.tree.map(jnp.add, along, mixed)


def _tree_inner(x: Any, y: Any) -> Array:
    return jax.tree.reduce(jnp.add, jax.tree.map(lambda p, q: jnp.sum(p * q), x, y))


# Determinants: polynomials of the entries, of which the second derivative is the last that is given.


@jax.custom_jvp
def determinant(a: Array) -> Array:
    """Of one matrix."""
    return _of_finite(cofactors.determinant, a, a.shape[0])


@determinant.defjvp
def _(primals, tangents):
    (a,), (e,) = primals, tangents
    return determinant(a), jnp.sum(cofactor(a) * e)


@jax.custom_jvp
def cofactor(a: Array) -> Array:
    """The gradient of the determinant."""
    return like(a, _of_finite(cofactors.cofactor, a, a.shape[0] - 1))


@cofactor.defjvp
def _(primals, tangents):
    (a,), (e,) = primals, tangents
    value = cofactor(a)
    a = last_derivative(a)
    return value, like(a, _of_finite(lambda x: cofactors.cofactor_change(x, e), a, a.shape[0] - 2))


def _of_finite(f: Callable[[Array], tuple[Array, Array]], a: Array, degree: int) -> Array:
    """A homogeneous polynomial of the entries."""
    if not a.size:
        return jnp.ones((), a.dtype) if degree == 0 else a
    x, ok, _, power = prepare(a)
    return jnp.where(ok, cofactors.narrow(f(x), degree * power), jnp.nan)


# Singular triplets as functions of their own. A search, ``search(a, key) -> (u, s, vh)``, returns some
# of the leading triplets, or all, of ``a`` scaled to about 1 (``prepare``). Derivatives flow through the
# values alone. At ties the derivative is averaged over the block, so that it does not depend on the
# basis; a second derivative exists only at distinct, nonzero values.


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def leading(search: Search, a: Array, key: Array | None = None) -> tuple[Array, Array, Array]:
    """Singular triplets of one matrix; NaN vectors where it is not finite."""
    u, s, vh = search(a, key)
    ok, largest, power = magnitude(a)
    return jnp.where(ok, u, jnp.nan), jnp.where(ok, scale(s, power), largest), jnp.where(ok, vh, jnp.nan)


@leading.defjvp
def _(search, primals, tangents):
    (a, key), (e, _) = primals, tangents
    u, s, vh = _triplets(search, a, key)
    slopes = _average(jnp.sum((u.conj() * matmul(e, vh.conj().T)).real, axis=0), *_blocks(a, s))
    u, vh = jax.lax.stop_gradient((u, vh))
    ok, largest, power = magnitude(jax.lax.stop_gradient(a))
    triplets = jnp.where(ok, u, jnp.nan), jnp.where(ok, scale(s, power), largest), jnp.where(ok, vh, jnp.nan)
    return triplets, (jnp.zeros_like(u), jnp.where(ok, slopes, jnp.nan), jnp.zeros_like(vh))


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
    tied, zero = _blocks(a, s)
    e = scale(e, -prepare(a)[3])
    v = vh.conj().T
    ev, eu = matmul(e, v), matmul(e.conj().T, u)
    # With all triplets (p, t, q) of a: u' = p x + (1 - p p^H) e v / s and v' = q y + (1 - q q^H) e^H u / s.
    # From a v = s u, t_j y_ji + p_j^H e v_i = s_i x_ji + s_i' [i = j], and likewise for a^H u = s v.
    p, t, qh = every_triplet(a) if search is not every_triplet else (u, s, vh)
    m, k = matmul(p.conj().T, ev), matmul(qh, eu)
    near = jnp.abs(t[:, None] - s[None, :]) <= tie_tolerance(s.dtype, *a.shape) * s[0]
    off = jnp.where(near, 0, 1 / jnp.where(near, 1, s[None, :] ** 2 - t[:, None] ** 2))
    inverse = jnp.where(zero, 0, 1 / jnp.where(zero, 1, s))
    off, inverse, s, t = (x.astype(a.dtype) for x in (off, inverse, s, t))
    du = matmul(p, off * (s[None, :] * m + t[:, None] * k)) + (ev - matmul(p, m)) * inverse[None, :]
    dv = matmul(qh.conj().T, off * (t[:, None] * m + s[None, :] * k)) + (eu - matmul(qh.conj().T, k)) * inverse[None, :]
    slopes = jnp.sum(u.conj() * ev, axis=0)
    if jnp.iscomplexobj(a):  # the phase of a pair is carried by u alone
        du += u * (jax.lax.complex(jnp.zeros_like(slopes.real), slopes.imag) * inverse)[None, :]
    return primal_out, (du, _average(slopes.real, tied, zero), dv.conj().T)


def _blocks(a: Any, s: Array) -> tuple[Array, Array]:
    """Which pairs of singular values are tied (as 0/1 weights), and which are zero."""
    gap = tie_tolerance(s.dtype, *a.shape) * s[0]
    return (jnp.abs(s[None, :] - s[:, None]) <= gap).astype(s.dtype), s <= gap


def _average(slopes: Array, tied: Array, zero: Array) -> Array:
    return jnp.where(zero, 0, matmul(tied / jnp.sum(tied, axis=1, keepdims=True), slopes))


# Operators known by their products alone, ``A(params) x = op.matvec(op.params, x)``. There is no dense G:
# a lift offers, in its place, ``pair(op, factors, dop)`` = Re<G, dA> from products with dA, and that is
# differentiated no further. So its factors need no rule of their own.

only_derivative = _end_of_derivatives(
    "jaxnorms: second derivatives of a norm or singular value of a LinearOperator are not defined; value and first "
    "derivative are. The norm of the dense matrix has them"
)


class ProductLift(Protocol):
    """What a norm must offer on an operator."""

    def value(self, op: Any) -> Array: ...
    def factors(self, op: Any) -> tuple[Array, Any]: ...
    def pair(self, op: Any, factors: Any, dop: Any) -> Array: ...


@jax.custom_jvp
def evaluate_by_products(lift: ProductLift, op: Any) -> Array:
    """The norm of an operator, differentiable once in its parameters."""
    return lift.value(op)


@evaluate_by_products.defjvp
def _(primals, tangents):
    (lift, op), (_, dop) = primals, tangents
    op = only_derivative(op)
    value, factors = lift.factors(op)
    return value, jax.checkpoint(lambda op, factors: lift.pair(op, factors, dop), prevent_cse=False)(op, factors)


def slopes(op: Any, dop: Any, u: Array, v: Array) -> Array:
    """``Re u_i^H (dA) v_i`` for rows ``u_i`` and ``v_i``; (dA) v is the derivative of A v in the parameters."""

    def products(params: Any) -> Array:
        return jax.vmap(partial(op.matvec, params))(v)

    _, derivative = jax.jvp(products, (op.params,), (dop.params,))
    return jnp.sum((u.conj() * derivative).real, axis=1)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def leading_by_products(search: Search, op: Any, key: Array | None = None) -> tuple[Array, Array, Array]:
    """Singular triplets of an operator, NaN vectors where it is not finite; :func:`leading` for operators."""
    return search(op, key)


@leading_by_products.defjvp
def _(search, primals, tangents):
    (op, key), (dop, _) = primals, tangents
    op = only_derivative(op)
    u, s, vh = search(op, key)
    each = jax.checkpoint(lambda op, u, vh: slopes(op, dop, u.T, vh.conj()), prevent_cse=False)(op, u, vh)
    return (u, s, vh), (jnp.zeros_like(u), _average(each, *_blocks(op, s)), jnp.zeros_like(vh))
