"""Functions of one matrix, over the leading axes of an array."""

from collections.abc import Callable, Hashable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxnorms import _checks


def over_batch(f: Callable[..., Any], x: Array, *shared: Any, **static: Hashable) -> Any:
    """``f(matrix, *shared, **static)`` for each matrix of ``x``, computed in its working precision."""
    return _batched(f, tuple(static.items()), x, shared)


@partial(jax.jit, static_argnums=(0, 1))
def _batched(f: Callable[..., Any], static: tuple[tuple[str, Hashable], ...], x: Array, shared: tuple) -> Any:
    def one(a: Array) -> Any:
        return f(a, *shared, **dict(static))

    def restored(y: Array) -> Array:
        if jnp.issubdtype(y.dtype, jnp.integer):
            return y
        return y.astype(x.dtype if jnp.iscomplexobj(y) else jnp.finfo(x.dtype).dtype)

    for _ in x.shape[:-2]:
        one = jax.vmap(one)
    return jax.tree.map(restored, one(x.astype(_checks.working_dtype(x.dtype))))
