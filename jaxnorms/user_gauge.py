"""A user's function of the singular values as a gauge: traced values that it closes over, and a check that
it is a symmetric gauge at all."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun

from jaxnorms.gauges import Gauge, Symmetric

Function = Callable[[Array], Array]


def as_gauge(f: Function, n: int, dtype: Any) -> Symmetric:
    """The gauge ``f`` of n singular values; traced values that f closes over become its ``params``.

    They travel through ``jit``, ``vmap`` and the derivative rules as arguments do, whichever
    transformation traces them. A function that closes over none stays what it is, static and hashable.
    """
    closed = jax.make_jaxpr(f)(jax.ShapeDtypeStruct((n,), dtype))
    traced = [i for i, value in enumerate(closed.consts) if isinstance(value, Tracer)]
    if not traced:
        return Symmetric(f)
    if len(closed.out_avals) != 1:
        raise ValueError(f"gauge must return a real scalar, got {len(closed.out_avals)} arrays")
    for i in traced:
        if not jnp.issubdtype(closed.consts[i].dtype, jnp.number) and closed.consts[i].dtype != bool:
            raise ValueError(f"gauge must close over traced numbers only, got a value of type {closed.consts[i].dtype}")
    like = [jax.ShapeDtypeStruct(jnp.shape(closed.consts[i]), closed.consts[i].dtype) for i in traced]
    # Placeholders, so that the new function holds no tracer itself.
    fixed = [None if i in traced else value for i, value in enumerate(closed.consts)]
    jaxpr, size = closed.jaxpr, [len(_pieces(kind.dtype)) for kind in like]
    ends = np.cumsum(size)

    def with_params(x: Array, *params: Array) -> Array:
        values = list(fixed)
        for i, kind, end, count in zip(traced, like, ends, size, strict=True):
            values[i] = _decode(params[end - count : end], kind.dtype)
        return jaxpr_as_fun(ClosedJaxpr(jaxpr, values))(x)[0]

    params = [piece for i in traced for piece in _encode(closed.consts[i], dtype)]
    return Symmetric(with_params, tuple(params))


# The derivative rules take parameters of the type of the singular values alone. Complex numbers are split in
# two, and integers exactly into digits of 16 bits, through which no derivative flows.


def _pieces(dtype: Any) -> range:
    if jnp.issubdtype(dtype, jnp.complexfloating):
        return range(2)
    return range(0, _bits(dtype), 16) if _bits(dtype) > 16 else range(1)


def _bits(dtype: Any) -> int:
    return jnp.iinfo(dtype).bits if jnp.issubdtype(dtype, jnp.integer) else 1


def _encode(value: Array, dtype: Any) -> list[Array]:
    if jnp.iscomplexobj(value):
        return [value.real.astype(dtype), value.imag.astype(dtype)]
    if _bits(value.dtype) <= 16:
        return [value.astype(dtype)]
    unsigned = jax.lax.bitcast_convert_type(value, f"uint{_bits(value.dtype)}")
    return [((unsigned >> i) & 0xFFFF).astype(dtype) for i in _pieces(value.dtype)]


def _decode(pieces: tuple[Array, ...], dtype: Any) -> Array:
    if jnp.issubdtype(dtype, jnp.complexfloating):
        return jax.lax.complex(*pieces).astype(dtype)
    if _bits(dtype) <= 16:
        return pieces[0].astype(dtype)
    digits = (p.astype(f"uint{_bits(dtype)}") << i for i, p in zip(_pieces(dtype), pieces, strict=True))
    return jax.lax.bitcast_convert_type(sum(digits), dtype)


def refuse_other_than_gauges(f: Function | Gauge, n: int, dtype: Any) -> None:
    """Raise ``ValueError`` if f is seen not to be a symmetric gauge, at fixed vectors of n entries.

    Claims are compared within ``16 n eps``. Finitely many vectors can refute a claim, never prove it.
    """
    gauge = f if isinstance(f, Gauge) else as_gauge(f, n, dtype)
    if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(gauge)):
        raise ValueError(
            "check must be False for a gauge that closes over traced values, which are not known yet: "
            "check it with concrete ones, outside of jit, grad and vmap"
        )
    function = f.value if isinstance(f, Gauge) else f
    slack = 1 + 16 * n * float(jnp.finfo(dtype).eps)

    def at(x: np.ndarray) -> np.ndarray:
        with jax.ensure_compile_time_eval():
            return np.asarray(jax.vmap(function)(jnp.asarray(x, dtype)), np.float64)

    def refuse(claim: str, good: np.ndarray, *witnesses: tuple[np.ndarray, np.ndarray]) -> None:
        if not np.all(good):
            i = int(np.argmin(good))
            seen = " and ".join(f"{value[i]:.7g} at {np.array2string(x[i], precision=7)}" for x, value in witnesses)
            raise ValueError(f"gauge is not {claim}: it is {seen}")

    rng = np.random.default_rng(0)
    x, nothing = _samples(n, rng), np.zeros((1, n))
    y, scaled = np.roll(x, 1, axis=0), 3 * x
    if np.shape(at(nothing)) != (1,):
        raise ValueError(f"gauge must return a real scalar, got shape {np.shape(at(nothing))[1:]}")
    value, other = at(x), at(y)
    refuse("zero at zero", at(nothing) == 0, (nothing, at(nothing)))
    refuse("finite and positive", np.isfinite(value) & (value > 0), (x, value))
    for z in (x[:, ::-1], x[:, rng.permutation(n)]):
        refuse("symmetric", (at(z) <= slack * value) & (value <= slack * at(z)), (x, value), (z, at(z)))
    homogeneous = (at(scaled) <= slack * 3 * value) & (3 * value <= slack * at(scaled))
    refuse("positively homogeneous", homogeneous, (x, value), (scaled, at(scaled)))
    for shrink in (rng.uniform(size=x.shape), np.where(np.arange(n) == n - 1, 0, 1.0), rng.integers(0, 2, x.shape)):
        z = x * shrink
        refuse("monotone", at(z) <= slack * value, (z, at(z)), (x, value))
    total = at(x + y)
    refuse("subadditive", total <= slack * (value + other), (x, value), (y, other), (x + y, total))


def _samples(n: int, rng: np.random.Generator) -> np.ndarray:
    """Nonzero vectors: flat ones, graded ones, ties, zeros, and random entries in any order."""
    j = np.arange(n)
    fixed = [j == 0, j <= n // 2, np.ones(n), n - j, 2.0**-j, 1 + (j == 0), j % 3 + 1]
    random = rng.uniform(size=(8, n))
    sparse = random * (rng.uniform(size=random.shape) < 0.5)
    sparse[:, 0] = 1
    return np.concatenate([np.array(fixed, float), random, np.sort(random)[:, ::-1], sparse])
