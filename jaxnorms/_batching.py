"""Functions of one matrix over a batch: over the leading axes of an array, or along its last."""

import math
from collections.abc import Callable, Hashable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxnorms import _checks
from jaxnorms._layout import like, tied
from jaxnorms._mesh import on_mesh, partitioned


def over_batch(
    f: Callable[..., Any],
    x: Array,
    *shared: Any,
    along: tuple[Array, ...] = (),
    **static: Hashable,
) -> Any:
    """``f(matrix, *numbers, *shared, **static)`` for each matrix of ``x``, computed in its working precision, with
    its entries of the arrays ``along``, which have the shape of the batch."""
    out = _batched(f, tuple(static.items()), tied(x), along, shared)
    return jax.tree.map(lambda y: like(x, y) if y.shape == x.shape else y, out)


@partial(jax.jit, static_argnums=(0, 1))
def _batched(f: Callable[..., Any], static: tuple, x: Array, along: tuple, shared: tuple) -> Any:
    def one(a: Array, along: tuple, shared: tuple) -> Any:
        return f(a, *along, *shared, **dict(static))

    def restored(y: Array) -> Array:
        if jnp.issubdtype(y.dtype, jnp.integer):
            return y
        return y.astype(x.dtype if jnp.iscomplexobj(y) else jnp.finfo(x.dtype).dtype)

    def run(x: Array, along: tuple, shared: tuple) -> Any:
        return jax.tree.map(restored, one(x.astype(_checks.working_dtype(x.dtype)), along, shared))

    batch = x.shape[:-2]
    if 0 in batch:  # no matrix at all: what the algorithms for many need not know
        single = jax.ShapeDtypeStruct(x.shape[-2:], x.dtype), tuple(jax.ShapeDtypeStruct((), n.dtype) for n in along)
        shapes = jax.eval_shape(run, *single, shared)
        return jax.tree.map(lambda y: jnp.zeros((*batch, *y.shape), y.dtype), shapes)
    for _ in batch:
        one = jax.vmap(one, in_axes=(0, 0, None))
    return partitioned(run, x, 2, along, shared)


def single_or_batch(single: Callable[[Array], Any], batch: Callable[[Array], Any]) -> Callable[[Array], Any]:
    """``single`` of a matrix by itself, ``vmap(batch)`` of many: two ways to one result, of one structure."""
    return single_or_all(single, jax.vmap(batch))


def single_or_all(single: Callable[[Array], Any], together: Callable[[Array], Any]) -> Callable[[Array], Any]:
    """``single`` of a matrix by itself, ``together`` of those along a first axis."""
    f = jax.custom_batching.custom_vmap(single)

    @f.def_vmap
    def _(size: int, _: list[bool], a: Array) -> tuple[Any, Any]:
        out = together(a) if size else _of_none(single, a)
        return out, jax.tree.map(lambda _: True, out)

    return f


def _of_none(f: Callable[[Array], Any], a: Array) -> Any:
    """What ``vmap(f)`` gives along a first axis of length 0, which algorithms for many need not know."""
    shapes = jax.eval_shape(f, jax.ShapeDtypeStruct(a.shape[1:], a.dtype))
    return jax.tree.map(lambda y: jnp.zeros((0, *y.shape), y.dtype), shapes)


# Entries of a batch that a CPU's cache holds together with what is computed from them.
_IN_CACHE = 2**15


def batch_last(f: Callable[[Array], Any]) -> Callable[[Array], Any]:
    """``f``, which takes a batch of matrices along the last axis, as a function of one matrix."""

    @jax.custom_batching.custom_vmap
    def on_batch(a: Array) -> Any:
        return f(a)

    @on_batch.def_vmap
    def _(size: int, _: list[bool], a: Array) -> tuple[Any, Any]:
        if size:
            out = on_batch(jnp.moveaxis(a, 0, -1).reshape(*a.shape[1:-1], -1))
            out = jax.tree.map(lambda x: jnp.moveaxis(x.reshape(*x.shape[:-1], -1, size), -1, 0), out)
        else:
            out = _of_none(f, a)
        return out, jax.tree.map(lambda _: True, out)

    return lambda a: jax.tree.map(lambda x: x[..., 0], on_batch(a[..., None]))


def in_pieces(f: Callable[[Array], Any]) -> Callable[[Array], Any]:
    """``f`` of a batch along the last axis, which on CPU goes through it in pieces that stay in the cache."""

    def by_piece(a: Array) -> Any:
        lanes, width = a.shape[-1], max(128, _IN_CACHE // math.prod(a.shape[:-1]))
        if lanes <= width:
            return f(a)
        pieces = -(-lanes // width)
        a = jnp.pad(a, [(0, 0)] * (a.ndim - 1) + [(0, pieces * width - lanes)])
        out = jax.lax.map(f, jnp.moveaxis(a.reshape(*a.shape[:-1], pieces, width), -2, 0))
        return jax.tree.map(lambda x: jnp.moveaxis(x, 0, -2).reshape(*x.shape[1:-1], -1)[..., :lanes], out)

    # On a mesh the batch is in pieces already.
    return lambda a: f(a) if on_mesh(a) else jax.lax.platform_dependent(a, cpu=by_piece, default=f)


def in_groups(f: Callable[[Array], Any], elsewhere: Callable[[Array], Any]) -> Callable[[Array], Any]:
    """``f`` of each matrix along the first axis, by groups that stay in the cache: where f is a loop, the matrices of
    a group wait for each other. On other platforms than CPU, and on a mesh, ``elsewhere`` of all at once."""

    def by_group(a: Array) -> Any:
        size = a.shape[0]
        count = max(1, -(-size // max(1, _IN_CACHE // math.prod(a.shape[1:]))))
        width = max(1, -(-size // count))
        a = jnp.pad(a, [(0, count * width - size), *[(0, 0)] * (a.ndim - 1)])
        out = jax.lax.map(jax.vmap(f), a.reshape(count, width, *a.shape[1:]))
        return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:size], out)

    other = jax.vmap(elsewhere)
    return lambda a: other(a) if on_mesh(a) else jax.lax.platform_dependent(a, cpu=by_group, default=other)
