"""Exact scaling by powers of two, so that intermediate squares neither overflow nor vanish.

A multiplication by a power of two commits no rounding error, so ``norm(2**k * A)`` equals
``2**k * norm(A)`` bit for bit. Exponents are read from, and written to, the bits: ``exp2`` is inexact at
most integers, ``floor(log2(x))`` is off by one below many powers of two, and ``frexp`` and ``ldexp``, made
for subnormal numbers too, cost more than the rest of a norm of small matrices.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array


def max_abs(x: Array, names: tuple[str, ...] = ()) -> Array:
    """Largest ``|x_i|`` (of real and imaginary parts), NaN if there is one, 0 if ``x`` is empty; of the blocks
    on all devices along the mesh axes ``names``."""
    if jnp.iscomplexobj(x):
        return jnp.maximum(max_abs(x.real, names), max_abs(x.imag, names))
    largest = jnp.max(jnp.abs(x), initial=0)
    if not names:
        return largest
    # Nonnegative numbers are in the order of their bits, with NaN at the end, which pmax might lose.
    bits = jax.lax.bitcast_convert_type(largest, layout(largest)[2])
    return jax.lax.bitcast_convert_type(jax.lax.pmax(bits, names), largest.dtype)


def exponent(largest: Array) -> Array:
    """``e`` with ``2**(e-1) <= largest < 2**e``; 0 where ``largest`` is 0, infinite or NaN."""
    fraction, above, kind = layout(largest)
    e = (jax.lax.bitcast_convert_type(largest, kind) >> fraction) - (above - 2)
    return jnp.where(jnp.isfinite(largest) & (largest > 0), e, 0).astype(jnp.int32)


def scale(x: Array, e: Array) -> Array:
    """``x * 2**e``, in two halves because ``2**-127`` by itself is flushed to zero in float32.

    For ``|e|`` up to 252 in float32 and 2044 in float64, which no exponent of a finite number exceeds.
    """
    half = e // 2
    return x * _power_of_two(half, x.real).astype(x.dtype) * _power_of_two(e - half, x.real).astype(x.dtype)


def halves(e: Array) -> tuple[Callable[[Array], Array], Callable[[Array], Array]]:
    """To multiply by ``2**e`` before and after a linear map that divides by small gaps: in reverse mode the last step
    comes first, so that neither alone would do."""
    half = e // 2
    return partial(scale, e=half), partial(scale, e=e - half)


def _power_of_two(e: Array, like: Array) -> Array:
    """``2**e`` in the type of ``like``, for normal results."""
    fraction, above, kind = layout(like)
    return jax.lax.bitcast_convert_type((jnp.asarray(e, kind) + (above - 1)) << fraction, like.dtype)


def layout(x: Array) -> tuple[int, int, jnp.dtype]:
    """Bits of the fraction, the least power of two out of range, and the integer type of a floating type."""
    info = jnp.finfo(x.dtype)
    return info.nmant, int(info.maxexp), jnp.dtype(f"int{info.bits}")


def quotient(x: Array, y: Array) -> Array:
    """``x / y`` for a scalar y of any size: compilers multiply by ``1 / y``, which may vanish."""
    e = exponent(jnp.abs(y))
    before, after = halves(-e)
    return after(before(x) / scale(y, -e).astype(x.dtype))


def poison(ok: Array, x: Array) -> Array:
    """``x``, or NaN where the matrix had a NaN or an infinite entry; a product, because the transpose of a choice would
    be zero there."""
    return x * jnp.where(ok, 1, jnp.nan).astype(x.dtype)


def poison_along(ok: Array, dx: Array, e: Array) -> Array:
    """:func:`poison` of a linear map of e that may not look at every entry: zeros carry NaN back to all of them."""
    return poison(ok, dx + 0 * e)


@jax.custom_jvp
def cleared(ok: Array, x: Array) -> Array:
    """``x``, or zeros, with NaN for a derivative."""
    return jnp.where(ok, x, 0)


@cleared.defjvp
def _(primals, tangents):
    (ok, x), (_, e) = primals, tangents
    return cleared(ok, x), poison(ok, e)


def magnitude(a: Array, names: tuple[str, ...] = ()) -> tuple[Array, Array, Array]:
    """Whether ``a`` is finite; ``max |a|``; its exponent, 0 if not finite."""
    largest = max_abs(a, names)
    return jnp.isfinite(largest), largest, exponent(largest)


def prepare(a: Array, names: tuple[str, ...] = ()) -> tuple[Array, Array, Array, Array]:
    """``a 2^-e`` of magnitude about 1, or zeros if not finite; whether it is; ``max |a|``; ``e``."""
    ok, largest, e = magnitude(a, names)
    return cleared(ok, scale(a, -e)), ok, largest, e
