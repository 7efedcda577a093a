"""Checks of arguments, at trace time: every refusal names the argument, what came, what is allowed."""

import numbers
import operator
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer
from jax.typing import ArrayLike

_ACCEPTED = "a float, complex, integer or boolean array"
_AXES = "an integer or a tuple of integers"


def as_inexact(x: ArrayLike, name: str) -> Array:
    """``x`` as a floating or complex array; integers and booleans promote as ``jnp`` does."""
    x = _as_array(x, name, _ACCEPTED)
    if jnp.issubdtype(x.dtype, jnp.inexact):
        return x
    if jnp.issubdtype(x.dtype, jnp.integer) or x.dtype == bool:
        return x.astype(jax.eval_shape(jnp.sqrt, x).dtype)
    raise TypeError(f"{name} must be {_ACCEPTED}, got dtype {x.dtype}")


def as_integers(x: ArrayLike, name: str) -> Array:
    """``x`` as an array of integers."""
    x = _as_array(x, name, "an integer array")
    if not jnp.issubdtype(x.dtype, jnp.integer):
        raise TypeError(f"{name} must be an integer array, got dtype {x.dtype}")
    return x


def _as_array(x: ArrayLike, name: str, accepted: str) -> Array:
    if isinstance(x, Array):  # stays the one it is: asarray would copy a tracer's
        return x
    if any(isinstance(leaf, str | bytes) for leaf in jax.tree.leaves(x)):  # would be parsed, or taken for a dtype
        raise TypeError(f"{name} must be {accepted}, got {type(x).__name__}")
    try:
        return jnp.asarray(x)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name} must be {accepted}, got {type(x).__name__}") from error


def inexact_dtype(dtype: Any, name: str) -> Any:
    """A floating or complex type, of those that the default precision has."""
    found = _dtype(dtype)
    if found is None or not jnp.issubdtype(found, jnp.inexact):
        raise TypeError(f"{name} must be a floating or complex type, got {found or repr(dtype)}")
    return found


def wide_dtype(dtype: Any, name: str) -> Any:
    """A real floating type for products of matrices of norm 1, which leave the range of one of 8 bits."""
    found = _dtype(dtype)
    if found is None or not jnp.issubdtype(found, jnp.floating) or jnp.finfo(found).bits < 16:
        raise TypeError(f"{name} must be a real floating type of 16 bits or more, got {found or repr(dtype)}")
    return found


def _dtype(dtype: Any) -> Any:
    """A type that JAX can hold, else None."""
    if dtype is None:  # would be the default type
        return None
    try:
        return jax.eval_shape(lambda: jnp.zeros((), jax.dtypes.canonicalize_dtype(dtype))).dtype
    except (TypeError, ValueError):
        return None


def key(x: Any, name: str = "key") -> Array:
    """One random key, of either kind."""
    new = isinstance(x, Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
    old = isinstance(x, Array | np.ndarray) and x.dtype == np.uint32
    if not (new and not x.shape) and not (old and x.ndim == 1):
        came = f"shape {x.shape} and dtype {x.dtype}" if new or old else repr(x)
        raise TypeError(f"{name} must be one key of jax.random.key or jax.random.PRNGKey, got {came}")
    return jnp.asarray(x)


def working_dtype(dtype: Any) -> Any:
    """float32 for the 16-bit and narrower types, else the type itself."""
    return jnp.float32 if jnp.finfo(dtype).bits < 32 else dtype


def matrix(x: ArrayLike, function: str, name: str = "a") -> Array:
    """A ``(..., m, n)`` array."""
    a = as_inexact(x, name)
    if a.ndim < 2:
        hint = "; use vector_norm" if a.ndim == 1 else ""
        raise ValueError(f"{function}: {name} must have shape (..., m, n), got shape {a.shape}{hint}")
    return a


def square(x: ArrayLike, function: str, name: str = "a") -> Array:
    """A ``(..., n, n)`` array."""
    a = matrix(x, function, name)
    if a.shape[-1] != a.shape[-2]:
        raise ValueError(f"{function}: {name} must have shape (..., n, n), got shape {a.shape}")
    return a


def scalar(value: Any, name: str, function: str) -> Array:
    """A real number, which may be traced."""
    number = _real_array(value, f"{function}: {name}")
    if number.ndim:
        raise ValueError(f"{function}: {name} must be a number, got shape {number.shape}")
    return number


def number(value: ArrayLike, name: str, x: Array) -> Array:
    """A real number for each matrix of ``x``, in its working precision."""
    number, batch = _real_array(value, name), x.shape[:-2]
    try:
        fits = np.broadcast_shapes(number.shape, batch) == batch
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(f"{name} must have a shape that broadcasts to {batch}, got shape {number.shape}")
    return jnp.broadcast_to(number.astype(jnp.finfo(working_dtype(x.dtype)).dtype), batch)


def _real_array(value: ArrayLike, name: str) -> Array:
    """Real numbers, which truth values are not."""
    x = _as_array(value, name, "real")
    if jnp.issubdtype(x.dtype, jnp.complexfloating) or x.dtype == bool:
        raise TypeError(f"{name} must be real, got dtype {x.dtype}")
    return as_inexact(x, name)


def diagonal(x: ArrayLike, axis: Any, function: str) -> Array:
    """The ``(..., n)`` diagonals of matrices, whose axes cannot be chosen."""
    d = as_inexact(x, "a")
    if d.ndim < 1 or integers(axis, f"{function}: axis", _AXES) != (-2, -1):
        raise ValueError(
            f"{function}: with diagonal=True, a must have shape (..., n) and axis its default (-2, -1), "
            f"got shape {d.shape} and axis {axis!r}"
        )
    return d


def axes(axis: Any, ndim: int, count: int | None, function: str) -> tuple[int, ...]:
    """Nonnegative, distinct axes; ``count`` of them where given."""
    given = integers(axis, f"{function}: axis", _AXES)
    if count is not None and len(given) != count:
        raise ValueError(f"{function}: axis must name {count} axes, got {axis!r}")
    if not all(-ndim <= i < ndim for i in given):
        raise ValueError(f"{function}: axis must name axes of an array with {ndim} axes, got {axis!r}")
    positive = tuple(i % ndim for i in given)
    if len(set(positive)) != len(positive):
        raise ValueError(f"{function}: axis must name distinct axes, got {axis!r} for an array with {ndim} axes")
    return positive


def flag(value: Any, name: str) -> bool:
    """A static truth value, which a number is not."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} must be True or False, got {value!r}")
    return bool(value)


def choice(value: Any, name: str, among: Iterable[str]) -> str:
    """One of some words."""
    allowed = tuple(among)
    if not isinstance(value, str) or value not in allowed:
        kind = ValueError if isinstance(value, str) else TypeError
        raise kind(f"{name} must be one of {', '.join(map(repr, allowed))}, got {value!r}")
    return value


def real(value: Any, name: str, allowed: str, hint: str = "") -> float:
    """A static real number, which a truth value is not, as a float; ``hint`` says what takes a traced one."""
    if isinstance(value, Tracer):
        raise TypeError(f"{name} must be static, {allowed}, got the traced value {value}{hint}")
    if isinstance(value, np.ndarray | Array) and value.ndim == 0 and jnp.issubdtype(value.dtype, jnp.number):
        value = value.item()
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        raise TypeError(f"{name} must be {allowed}, got {value!r}")
    try:
        return float(value)
    except OverflowError as error:
        raise ValueError(f"{name} must be {allowed}, got a number beyond the range of a float") from error


def tolerance(tol: Any, name: str = "tol") -> float | None:
    """None, or a static number above 0 and below 1."""
    allowed = "None or a number between 0 and 1"
    value = None if tol is None else real(tol, name, allowed)
    if value is not None and not 0 < value < 1:
        raise ValueError(f"{name} must be {allowed}, got {tol!r}")
    return value


def order(p: Any, name: str, minimum: float = 1.0, hint: str = "") -> float:
    """A static order ``minimum <= p <= inf``, as a float."""
    allowed = f"a number >= {minimum:g}"
    value = real(p, name, allowed, hint)
    if not value >= minimum:
        raise ValueError(f"{name} must be {allowed} (inf included), got {p!r}")
    return value


def order_or_traced(p: Any, name: str) -> float | Array:
    """A static order >= 1, or an array of orders that may be traced (NaN below 1)."""
    if isinstance(p, Tracer) or (isinstance(p, np.ndarray | jax.Array) and p.ndim > 0):
        return _real_array(p, name)
    return order(p, name)


def integer(value: Any, name: str, allowed: str = "an integer", least: int | None = None) -> int:
    """A static integer, which a truth value is not; ``allowed`` tells of ``least``."""
    if isinstance(value, Tracer):
        raise TypeError(f"{name} must be static, {allowed}, got the traced value {value}")
    refusal = TypeError(f"{name} must be {allowed}, got {value!r}")
    if isinstance(value, bool | np.bool_):
        raise refusal
    try:
        found = operator.index(value)
    except TypeError as error:
        raise refusal from error
    if least is not None and found < least:
        raise ValueError(f"{name} must be {allowed}, got {found}")
    return found


def integers(value: Any, name: str, allowed: str) -> tuple[int, ...]:
    """Static integers, of one, a sequence or a NumPy array."""
    several = isinstance(value, Sequence) or (isinstance(value, np.ndarray) and value.ndim)
    try:
        return tuple(integer(i, name) for i in (value if several else (value,)))
    except TypeError as error:
        raise TypeError(f"{name} must be {allowed}, got {value!r}") from error


def sides(shape: Any, name: str) -> tuple[int, int]:
    """The static shape of a matrix that is not empty."""
    allowed = "a pair of positive integers (m, n)"
    found = integers(shape, name, allowed)
    if len(found) != 2 or min(found) < 1:
        raise ValueError(f"{name} must be {allowed}, got {shape!r}")
    return found


def count(k: Any, name: str, largest: int | None = None) -> int:
    """A static integer ``1 <= k <= largest``."""
    value = integer(k, name)
    if value < 1 or (largest is not None and value > largest):
        allowed = "at least 1" if largest is None else f"between 1 and min(m, n) = {largest}"
        raise ValueError(f"{name} must be {allowed}, got {value}")
    return value
