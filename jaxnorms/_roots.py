"""Roots of monotone functions of nonnegative numbers, to the last bit at any scale, with their derivatives.

Nonnegative floating-point numbers are in the order of their bits, so bisection on the bits needs no bracket
and as many steps as there are bits, 31 or 63, however large or small the root.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from jaxnorms._scaling import layout


def least(reached: Callable[[Array], Array], like: Array) -> Array:
    """Entry by entry the last number in ``[0, max]`` before ``reached``, which turns from False to True once.

    0 where it is True from the start, the largest number where it stays False.
    """
    _, _, kind = layout(like)
    largest = jax.lax.bitcast_convert_type(jnp.finfo(like.dtype).max.astype(like.dtype), kind)
    highest = jnp.iinfo(kind).bits - 2

    def step(i: Array, bits: Array) -> Array:
        trial = bits | jax.lax.shift_left(jnp.ones((), kind), jnp.asarray(highest - i, kind))
        number = jax.lax.bitcast_convert_type(trial, like.dtype)
        return jnp.where((trial <= largest) & ~reached(number), trial, bits)

    bits = jax.lax.fori_loop(0, highest + 1, step, jnp.zeros(like.shape, kind))
    return jax.lax.bitcast_convert_type(bits, like.dtype)


def root(f: Callable[[Array], Array], like: Array) -> Array:
    """The root of a decreasing ``f``, entry by entry; 0 where it has its last sign from the start.

    Differentiable, by the implicit function theorem, in whatever ``f`` closes over; a flat ``f`` gives 0.
    """
    return jax.lax.custom_root(f, jnp.zeros_like(like), lambda f, _: least(lambda x: f(x) <= 0, like), solve_diagonal)


def solve_diagonal(linear: Callable[[Array], Array], y: Array) -> Array:
    """The solution of a diagonal linear system, 0 where its diagonal is."""
    diagonal = linear(jnp.ones_like(y))
    flat = (diagonal == 0) | ~jnp.isfinite(diagonal)
    return jnp.where(flat, 0, y / jnp.where(flat, 1, diagonal))
