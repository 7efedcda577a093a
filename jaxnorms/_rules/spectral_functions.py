"""Spectral functions, differentiable twice in the matrix and as often as wanted in the parameters.

A *kind* of spectrum (``jaxnorms.spectrum_kinds``) offers the image F(a), its derivative F'(a)[e] and the second one,
for a function f of x and of parameters p. The decomposition is found once and is a constant:

    d F(f; a, p) = F'(f; a, p)[da] + sum_j dp_j F(df/dp_j; a, p)                                            (1)
    d F'(f; a, p)[e] = F'(f; a, p)[de] + F''(f; a, p)[e, da] + sum_j dp_j F'(df/dp_j; a, p)[e]              (2)

(1) is a linear map of da that depends on a through (2). Under a ``custom_jvp`` JAX would forget (2) as soon as da is
the linear argument of reverse mode; so the derivatives are a primitive, which keeps its rule. It is its own transpose
in each direction: as the derivatives of a gradient are, F' and F'' are symmetric.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.custom_derivatives import SymbolicZero
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from jaxnorms._rules.ends import last_derivative


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def spectral_image(kind: Any, f: Any, a: Array, decomposed: Any, *params: Array) -> Array:
    """F of one matrix, from its decomposition, a constant."""
    return kind.image(f, decomposed, *params)


@partial(spectral_image.defjvp, symbolic_zeros=True)
def _(kind, f, primals, tangents):
    (a, decomposed, *params), (e, _, *rates) = primals, tangents

    def by_rates(*unit: Array) -> Array:
        return spectral_image(kind, f.rate(), a, decomposed, *params, *unit)

    image = spectral_image(kind, f, *primals)
    tangent = jnp.zeros_like(image) if isinstance(e, SymbolicZero) else _derivative(kind, f, a, [e], decomposed, params)
    return image, tangent + _combined(by_rates, rates, params)


def _combined(f: Callable[..., Array], rates: Sequence[Any], params: Sequence[Array], batch: int = 0) -> Array | int:
    """``f(*rates)`` of a linear f, as a combination of its values at unit vectors, which may be infinite where the rate
    is known to be zero; so many leading axes of a batch."""
    total, zeros = 0, [jnp.zeros_like(p) for p in params]
    for i, rate in enumerate(rates):
        if isinstance(rate, SymbolicZero | ad.Zero):
            continue
        own = rate.shape[batch:]
        units = jnp.eye(math.prod(own), dtype=rate.dtype).reshape(-1, *(1,) * batch, *own)

        def at(unit: Array, i: int = i, zeros: list[Array] = zeros) -> Array:
            return f(*zeros[:i], jnp.broadcast_to(unit, zeros[i].shape), *zeros[i + 1 :])

        weights = jnp.moveaxis(rate.reshape(*rate.shape[:batch], -1), -1, 0)[..., None, None]
        values = jax.vmap(at)(units)
        total += jnp.sum(weights.astype(values.dtype) * values, axis=0)
    return total


# F'(f; a, p)[e] and F''(f; a, p)[e, h], with leading axes of a batch.

_derivative_p = Primitive("spectral_derivative")


def _derivative(
    kind: Any, f: Any, a: Array, directions: Sequence[Array], decomposed: Any, params: Sequence[Array]
) -> Array:
    leaves, structure = jax.tree.flatten(decomposed)
    return _derivative_p.bind(
        a, *directions, *leaves, *params, kind=kind, f=f, order=len(directions), structure=structure
    )


def _parted(args: Sequence[Any], order: int, structure: Any) -> tuple[Any, list[Any], Any, list[Any]]:
    """The matrix, the directions, the decomposition and the parameters."""
    a, *rest = args
    directions, rest = rest[:order], rest[order:]
    leaves, params = rest[: structure.num_leaves], rest[structure.num_leaves :]
    return a, directions, jax.tree.unflatten(structure, leaves), params


@_derivative_p.def_impl
@partial(jax.jit, static_argnames=("kind", "f", "order", "structure"))
def _apply(*args, kind, f, order, structure):
    def one(*args: Array) -> Array:
        _, directions, decomposed, params = _parted(args, order, structure)
        return (kind.change if order == 1 else kind.second_change)(f, decomposed, *directions, *params)

    for _ in args[0].shape[:-2]:
        one = jax.vmap(one)
    return one(*args)


@_derivative_p.def_abstract_eval
def _(a, *rest, **static):
    return rest[0]


def _jvp(primals, tangents, *, kind, f, order, structure):
    a, directions, decomposed, params = _parted(primals, order, structure)
    da, moved, _, rates = _parted(tangents, order, structure)
    out = _derivative(kind, f, a, directions, decomposed, params)
    tangent = jnp.zeros_like(out)
    for i, direction in enumerate(moved):
        if not isinstance(direction, ad.Zero):
            tangent += _derivative(kind, f, a, [*directions[:i], direction, *directions[i + 1 :]], decomposed, params)
    if not isinstance(da, ad.Zero):
        held, fixed, numbers = last_derivative((a, decomposed, params))
        tangent += _derivative(kind, f, held, [*directions, da], fixed, numbers)

    def by_rates(*unit: Array) -> Array:
        return _derivative(kind, f.rate(), a, directions, decomposed, [*params, *unit])

    return out, tangent + _combined(by_rates, rates, params, out.ndim - 2)


def _transpose(cotangent, *args, kind, f, order, structure):
    a, directions, decomposed, params = _parted(args, order, structure)
    filled = [cotangent.conj() if ad.is_undefined_primal(e) else e for e in directions]
    back = _derivative(kind, f, a, filled, decomposed, params).conj()
    return None, *(back if ad.is_undefined_primal(e) else None for e in directions), *(None for _ in args[1 + order :])


def _batch(args, axes, **static):
    size = next(x.shape[axis] for x, axis in zip(args, axes, strict=True) if axis is not None)
    moved = (
        jnp.broadcast_to(x, (size, *x.shape)) if axis is None else jnp.moveaxis(x, axis, 0)
        for x, axis in zip(args, axes, strict=True)
    )
    return _derivative_p.bind(*moved, **static), 0


ad.primitive_jvps[_derivative_p] = _jvp
ad.primitive_transposes[_derivative_p] = _transpose
batching.primitive_batchers[_derivative_p] = _batch
mlir.register_lowering(_derivative_p, mlir.lower_fun(_apply, multiple_results=False))
