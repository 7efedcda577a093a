"""Matrices whose rows or columns are split over named mesh axes, inside ``jax.shard_map``.

A device sees its block. Sums and maxima over rows or columns go on over the devices along the names of
that side, a tuple that is empty where the side is whole; their results are the same on all of them.
"""

from typing import TypeVar

import jax
import jax.numpy as jnp
from jax import Array, lax

Names = tuple[str, ...]
T = TypeVar("T")


def count(names: Names) -> int:
    """Into how many blocks a side is split."""
    return lax.axis_size(names) if names else 1


def sum_over(x: T, names: Names) -> T:
    """The sum of the blocks' ``x``."""
    return lax.psum(x, names) if names else x


def mine(x: Array, names: Names) -> Array:
    """This device's part of the columns of ``x``, which all devices along ``names`` have."""
    if not names:
        return x
    width = x.shape[1] // count(names)
    return lax.dynamic_slice_in_dim(x, lax.axis_index(names) * width, width, axis=1)


def gathered(x: Array, names: Names) -> Array:
    """The columns of all devices along ``names``: as a sum, whose type says that all have the same."""
    if not names:
        return x
    height, width = x.shape
    place = jnp.zeros_like(x, shape=(height, width * count(names)))
    return lax.psum(lax.dynamic_update_slice_in_dim(place, x, lax.axis_index(names) * width, axis=1), names)


def with_whole_rows(x: Array, names: Names) -> Array:
    """Some of the rows of the block, and zeros to fill up, with the columns of all devices along ``names``."""
    if not names:
        return x
    missing = -x.shape[0] % count(names)
    return lax.all_to_all(jnp.pad(x, [(0, missing), (0, 0)]), names, split_axis=0, concat_axis=1, tiled=True)


def with_own_columns(x: Array, names: Names, height: int) -> Array:
    """The inverse of ``with_whole_rows`` for blocks of that height."""
    return lax.all_to_all(x, names, split_axis=1, concat_axis=0, tiled=True)[:height] if names else x


def varying_like(x: T, like: Array) -> T:
    """``x`` of the type of what is computed from ``like``, different on all devices or not: a loop inside
    ``shard_map`` asks that of the values it starts from."""
    no = jnp.zeros_like(like, shape=(), dtype=bool)
    return jax.tree.map(lambda x: jnp.where(no, x, x), x)
