"""Which leaves of a pytree are matrices, and what belongs to the path of each."""

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax import Array

T = TypeVar("T")

Where = Callable[[str, Array], bool] | str | None


def path_of(keys: Any) -> str:
    """``"layers/0/kernel"``."""
    return jax.tree_util.keystr(keys, simple=True, separator="/")


def selector(where: Where, function: str) -> Callable[[str, Array], bool]:
    """The leaves chosen by ``where``: a pattern found in the path, a function of path and leaf, or all."""
    if where is None:
        return lambda path, leaf: True
    if isinstance(where, str):
        pattern = _compiled(where, "where", function)
        return lambda path, leaf: pattern.search(path) is not None
    if callable(where):
        return where
    raise TypeError(f"{function}: where must be None, a regular expression or a function, got {where!r}")


def by_path(choice: T | Mapping[str, T], name: str, function: str) -> Callable[[str], T | None]:
    """``choice`` itself for every path, or that of the first pattern found in the path; None where there is none."""
    if not isinstance(choice, Mapping):
        return lambda path: choice
    patterns = [(_compiled(pattern, name, function), value) for pattern, value in choice.items()]

    def first(path: str) -> T | None:
        return next((value for pattern, value in patterns if pattern.search(path)), None)

    return first


def _compiled(pattern: Any, name: str, function: str) -> re.Pattern:
    if not isinstance(pattern, str):
        raise TypeError(f"{function}: patterns in {name} must be strings, got {pattern!r}")
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{function}: {name} must hold regular expressions, got {pattern!r}: {error}") from error


def is_matrix(leaf: Any, batch_axes: int) -> bool:
    return jnp.issubdtype(jnp.result_type(leaf), jnp.inexact) and jnp.ndim(leaf) >= batch_axes + 2


def as_matrices(leaf: Array, batch_axes: int) -> Array:
    """Kernels ``(..., spatial, in, out)`` as matrices of ``spatial * in`` rows and ``out`` columns."""
    return leaf.reshape(*leaf.shape[:batch_axes], -1, leaf.shape[-1])


def count_axes(batch_axes: Any, function: str) -> int:
    if isinstance(batch_axes, bool) or not isinstance(batch_axes, int):
        raise TypeError(f"{function}: batch_axes must be an integer, got {batch_axes!r}")
    if batch_axes < 0:
        raise ValueError(f"{function}: batch_axes must be at least 0, got {batch_axes}")
    return batch_axes
