"""Numbers beyond the range of their type, and their products, which neither overflow nor vanish on the way."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxnorms._scaling import exponent, layout, scale


class Wide(NamedTuple):
    """``mantissa 2^exponent``; finite mantissas are 0 or ``1/2 <= |.| < 1``."""

    mantissa: Array
    exponent: Array


def wide(x: Array, e: ArrayLike = 0) -> Wide:
    """``x 2^e``."""
    k = exponent(jnp.abs(x))
    return Wide(scale(x, -k), k + jnp.asarray(e, jnp.int32))


def narrow(x: Wide) -> Array:
    """The number itself."""
    largest = 2 * (layout(x.mantissa)[1] - 2)
    return scale(x.mantissa, jnp.clip(x.exponent, -largest, largest))


def constants(x: Array) -> Wide:
    """Numbers >= 0, NaN below, as a vector."""
    return wide(jnp.where(x >= 0, x, jnp.nan).reshape(-1))


def joined(vectors: list[Wide]) -> Wide:
    """One vector, in the widest of their types."""
    if not vectors:
        return Wide(jnp.ones(0, jnp.float32), jnp.zeros(0, jnp.int32))
    with jax.numpy_dtype_promotion("standard"):
        return Wide(*(jnp.concatenate(parts) for parts in zip(*vectors, strict=True)))


def product(vectors: list[Wide]) -> Wide:
    """The product of all entries; 1 in float32 of none."""
    return _product(joined(vectors))


@jax.jit
def _product(x: Wide) -> Wide:
    while (n := x.mantissa.size) > 1:
        mantissas, exponents = jnp.pad(x.mantissa, (0, n % 2), constant_values=1), jnp.pad(x.exponent, (0, n % 2))
        x = wide(mantissas[::2] * mantissas[1::2], exponents[::2] + exponents[1::2])
    return Wide(x.mantissa[0], x.exponent[0]) if n else wide(jnp.ones((), x.mantissa.dtype))
