"""Checks of arguments, at trace time: every refusal names the argument, what came, what is allowed."""

import math
import numbers
import operator
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer
from jax.typing import ArrayLike

_ACCEPTED = "a float, complex, integer or boolean array"


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


def dtype_of_kind(dtype: Any, name: str, kind: Any, allowed: str) -> Any:
    """A type, of those that the default precision has, of a kind such as ``jnp.floating``."""
    try:
        found = None if dtype is None else jax.dtypes.canonicalize_dtype(dtype)
    except (TypeError, ValueError):
        found = None
    if found is None or not jnp.issubdtype(found, kind):
        raise TypeError(f"{name} must be {allowed}, got {found or repr(dtype)}")
    return found


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


def scalar(value: ArrayLike, name: str, function: str) -> Array:
    """A real number, which may be traced."""
    number = as_inexact(value, name)
    if jnp.iscomplexobj(number):
        raise TypeError(f"{function}: {name} must be real, got dtype {number.dtype}")
    if number.ndim:
        raise ValueError(f"{function}: {name} must be a number, got shape {number.shape}")
    return number


def number(value: ArrayLike, name: str, x: Array) -> Array:
    """A real number for each matrix of ``x``, in its working precision."""
    number, batch = as_inexact(value, name), x.shape[:-2]
    if jnp.iscomplexobj(number):
        raise TypeError(f"{name} must be real, got dtype {number.dtype}")
    try:
        fits = np.broadcast_shapes(number.shape, batch) == batch
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(f"{name} must have a shape that broadcasts to {batch}, got shape {number.shape}")
    return jnp.broadcast_to(number.astype(jnp.finfo(working_dtype(x.dtype)).dtype), batch)


def diagonal(x: ArrayLike, axis: Any, function: str) -> Array:
    """The ``(..., n)`` diagonals of matrices, whose axes cannot be chosen."""
    d = as_inexact(x, "a")
    if d.ndim < 1 or axis not in ((-2, -1), [-2, -1]):
        raise ValueError(
            f"{function}: with diagonal=True, a must have shape (..., n) and axis its default (-2, -1), "
            f"got shape {d.shape} and axis {axis!r}"
        )
    return d


def axes(axis: Any, ndim: int, count: int | None, function: str) -> tuple[int, ...]:
    """Nonnegative, distinct axes; ``count`` of them where given."""
    given = integers(axis, f"{function}: axis", "an integer or a tuple of integers")
    if count is not None and len(given) != count:
        raise ValueError(f"{function}: axis must name {count} axes, got {axis!r}")
    for i in given:
        if not -ndim <= i < ndim:
            raise ValueError(f"{function}: axis {i} is out of range for an array with {ndim} axes")
    positive = tuple(i % ndim for i in given)
    if len(set(positive)) != len(positive):
        raise ValueError(f"{function}: axis must name distinct axes, got {axis!r} for an array with {ndim} axes")
    return positive


def flag(value: Any, name: str) -> bool:
    """A static truth value, which a number is not."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} must be True or False, got {value!r}")
    return bool(value)


def order(p: Any, name: str, minimum: float = 1.0) -> float:
    """A static order ``minimum <= p <= inf``, as a float."""
    if isinstance(p, Tracer):
        raise TypeError(
            f"{name} must be a static number, got the traced value {p}; only schatten_norm and entrywise_norm "
            "take a traced p"
        )
    if isinstance(p, np.ndarray | jax.Array) and p.ndim == 0:
        p = p.item()
    if not isinstance(p, numbers.Real) or isinstance(p, bool):
        raise TypeError(f"{name} must be a number >= {minimum:g}, got {p!r}")
    if math.isnan(p) or p < minimum:
        raise ValueError(f"{name} must be a number >= {minimum:g} (inf included), got {p!r}")
    return float(p)


def order_or_traced(p: Any, name: str) -> float | Array:
    """A static order >= 1, or an array of orders that may be traced (NaN below 1)."""
    if isinstance(p, Tracer) or (isinstance(p, np.ndarray | jax.Array) and p.ndim > 0):
        if jnp.issubdtype(p.dtype, jnp.complexfloating) or p.dtype == bool:
            raise TypeError(f"{name} must be real, got dtype {p.dtype}")
        return as_inexact(p, name)
    return order(p, name)


def integer(value: Any, name: str, kind: str = "integer") -> int:
    """A static integer, which a truth value is not."""
    if isinstance(value, bool | np.bool_ | Tracer):
        raise TypeError(f"{name} must be a static {kind}, got {value!r}")
    try:
        return operator.index(value)
    except TypeError as error:
        raise TypeError(f"{name} must be an {kind}, got {value!r}") from error


def integers(value: Any, name: str, allowed: str) -> tuple[int, ...]:
    """Static integers, of one or a sequence."""
    try:
        return tuple(operator.index(i) for i in (value if isinstance(value, Sequence) else (value,)))
    except TypeError as error:
        raise TypeError(f"{name} must be {allowed}, got {value!r}") from error


def sides(shape: Any, name: str) -> tuple[int, int]:
    """The static shape of a matrix that is not empty."""
    found = integers(shape, name, allowed := "a pair of positive integers (m, n)")
    if len(found) != 2:
        raise TypeError(f"{name} must be {allowed}, got {shape!r}")
    if min(found) < 1:
        raise ValueError(f"{name} must be {allowed}, got {shape!r}")
    return found


def count(k: Any, name: str, largest: int | None = None) -> int:
    """A static integer ``1 <= k <= largest``."""
    if isinstance(k, Tracer):
        raise TypeError(f"{name} must be a static integer, got the traced value {k}")
    try:
        value = operator.index(k)
    except TypeError as error:
        raise TypeError(f"{name} must be an integer, got {k!r}") from error
    if isinstance(k, bool):
        raise TypeError(f"{name} must be an integer, got {k!r}")
    if value < 1 or (largest is not None and value > largest):
        allowed = "at least 1" if largest is None else f"between 1 and min(m, n) = {largest}"
        raise ValueError(f"{name} must be {allowed}, got {value}")
    return value
