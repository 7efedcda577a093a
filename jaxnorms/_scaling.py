"""Exact scaling by powers of two, so that intermediate squares neither overflow nor vanish.

A multiplication by a power of two commits no rounding error, so ``norm(2**k * A)`` equals
``2**k * norm(A)`` bit for bit. The exponent comes from ``frexp`` and the factors from ``ldexp``:
``exp2`` is inexact at most integers and ``floor(log2(x))`` is off by one below many powers of two.
"""

import jax.numpy as jnp
from jax import Array


def max_abs(x: Array) -> Array:
    """Largest ``|x_i|`` (of real and imaginary parts), NaN if there is one, 0 if ``x`` is empty."""
    if jnp.iscomplexobj(x):
        return jnp.maximum(max_abs(x.real), max_abs(x.imag))
    return jnp.max(jnp.abs(x), initial=0)


def exponent(largest: Array) -> Array:
    """``e`` with ``2**(e-1) <= largest < 2**e``; 0 where ``largest`` is 0, infinite or NaN."""
    _, e = jnp.frexp(largest)
    return jnp.where(jnp.isfinite(largest) & (largest > 0), e, 0)


def scale(x: Array, e: Array) -> Array:
    """``x * 2**e``, in two halves because ``2**-127`` by itself is flushed to zero in float32."""
    half = e // 2
    one = jnp.ones((), x.real.dtype)
    return x * jnp.ldexp(one, half).astype(x.dtype) * jnp.ldexp(one, e - half).astype(x.dtype)


def quotient(x: Array, y: Array) -> Array:
    """``x / y`` for a scalar y of any size: compilers multiply by ``1 / y``, which may vanish."""
    e = exponent(jnp.abs(y))
    return scale(x, -e) / scale(y, -e)


def magnitude(a: Array) -> tuple[Array, Array, Array]:
    """Whether ``a`` is finite; ``max |a|``; its exponent, 0 if not finite."""
    largest = max_abs(a)
    return jnp.isfinite(largest), largest, exponent(largest)


def prepare(a: Array) -> tuple[Array, Array, Array, Array]:
    """``a 2^-e`` of magnitude about 1, or zeros if not finite; whether it is; ``max |a|``; ``e``."""
    ok, largest, e = magnitude(a)
    return jnp.where(ok, scale(a, -e), 0), ok, largest, e
