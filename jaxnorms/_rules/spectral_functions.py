"""Spectral functions, differentiable twice in the matrix and as often as wanted in the parameters.

A *kind* of spectrum (``jaxnorms.spectrum_kinds``) offers the image F(a), its derivative F'(a)[e] and the second one,
for a function f of x and of parameters p. The decomposition is found once and is a constant:

    d F(f; a, p) = F'(f; a, p)[da] + sum_j dp_j F(df/dp_j; a, p)                                            (1)
    d F'(f; a, p)[e] = F'(f; a, p)[de] + F''(f; a, p)[e, da] + sum_j dp_j F'(df/dp_j; a, p)[e]              (2)

(1) is a linear map of da that depends on a through (2). Under a ``custom_jvp`` JAX would forget (2) as soon as da is
the linear argument of reverse mode; so F' is a primitive, which keeps its rule and is its own transpose: as the
derivative of a gradient it is symmetric.
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
    tangent = jnp.zeros_like(image) if isinstance(e, SymbolicZero) else _change(kind, f, a, e, decomposed, params)
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


# F'(f; a, p)[e], with leading axes of a batch.

_change_p = Primitive("spectral_change")


def _change(kind: Any, f: Any, a: Array, e: Array, decomposed: Any, params: Sequence[Array]) -> Array:
    leaves, structure = jax.tree.flatten(decomposed)
    return _change_p.bind(a, e, *leaves, *params, kind=kind, f=f, structure=structure)


@_change_p.def_impl
@partial(jax.jit, static_argnames=("kind", "f", "structure"))
def _apply(a, e, *rest, kind, f, structure):
    def one(e: Array, *rest: Array) -> Array:
        decomposed, params = _parted(rest, structure)
        return kind.change(f, decomposed, e, *params)

    return _over_leading(one, e)(e, *rest)


def _over_leading(one: Callable[..., Array], e: Array) -> Callable[..., Array]:
    for _ in e.shape[:-2]:
        one = jax.vmap(one)
    return one


def _parted(rest: Any, structure: Any) -> tuple[Any, tuple[Array, ...]]:
    count = structure.num_leaves
    return jax.tree.unflatten(structure, rest[:count]), tuple(rest[count:])


@_change_p.def_abstract_eval
def _(a, e, *rest, **static):
    return e


def _jvp(primals, tangents, *, kind, f, structure):
    (a, e, *rest), (da, de, *others) = primals, tangents
    (decomposed, params), (_, rates) = _parted(rest, structure), _parted(others, structure)
    out = _change(kind, f, a, e, decomposed, params)
    tangent = jnp.zeros_like(out) if isinstance(de, ad.Zero) else _change(kind, f, a, de, decomposed, params)
    if not isinstance(da, ad.Zero):
        _, fixed, numbers = last_derivative((a, decomposed, params))

        def second(fixed: Any, numbers: tuple[Array, ...], e: Array, da: Array) -> Array:
            return kind.second_change(f, fixed, e, da, *numbers)

        tangent += _over_leading(second, e)(fixed, numbers, e, da)

    def by_rates(*unit: Array) -> Array:
        return _change(kind, f.rate(), a, e, decomposed, [*params, *unit])

    return out, tangent + _combined(by_rates, rates, params, e.ndim - 2)


def _transpose(cotangent, a, e, *rest, kind, f, structure):
    decomposed, params = _parted(rest, structure)
    back = _change(kind, f, a, cotangent.conj(), decomposed, params).conj()
    return None, back, *(None for _ in rest)


def _batch(args, axes, **static):
    size = next(x.shape[axis] for x, axis in zip(args, axes, strict=True) if axis is not None)
    moved = (
        jnp.broadcast_to(x, (size, *x.shape)) if axis is None else jnp.moveaxis(x, axis, 0)
        for x, axis in zip(args, axes, strict=True)
    )
    return _change_p.bind(*moved, **static), 0


ad.primitive_jvps[_change_p] = _jvp
ad.primitive_transposes[_change_p] = _transpose
batching.primitive_batchers[_change_p] = _batch
mlir.register_lowering(_change_p, mlir.lower_fun(_apply, multiple_results=False))
