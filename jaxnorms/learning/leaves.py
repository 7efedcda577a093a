"""The matrices among the leaves of a pytree: which they are, what belongs to the path of each, and stacks of them."""

import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax import Array

from jaxnorms import _checks
from jaxnorms._layout import like, tied
from jaxnorms._mesh import partitioned
from jaxnorms.norm_objects import Norm, as_norm

T = TypeVar("T")

Where = Callable[[str, Array], bool] | str | None
ByPath = T | Mapping[str, T]
Ord = ByPath[Norm | str | None]
BatchAxes = ByPath[int]


@dataclass(frozen=True)
class Stack:
    """Matrices of one norm, shape and type, ``(m, n)`` if it is one and ``(count, m, n)`` else; and the leaves that
    they are from: number, path, and how many matrices."""

    norm: Norm
    matrices: Array
    leaves: tuple[tuple[int, str, int], ...]

    def each(self, choice: ByPath[Any], name: str, function: str) -> Array:
        """The real number that is chosen for the path of each matrix: ``()`` or ``(count,)``."""
        number_of = by_path(choice, name, function)
        numbers = []
        for _, path, count in self.leaves:
            value = number_of(path)
            if value is None and isinstance(choice, Mapping):
                raise ValueError(f"{function}: {name} must have a pattern for the path {path!r}")
            number = _checks.scalar(value, name, function).astype(self.real)
            numbers.append(jnp.broadcast_to(number, count))
        return jnp.concatenate(numbers).reshape(self.matrices.shape[:-2])

    @property
    def real(self) -> Any:
        """The type of a norm of these matrices, of 32 bits at least."""
        return jnp.finfo(_checks.working_dtype(self.matrices.dtype)).dtype


def stacks(
    tree: Any, ord: Ord, where: Where, batch_axes: BatchAxes, function: str, *, columns: bool = False
) -> list[Stack]:
    """The chosen matrices of a pytree, those of one norm, shape and type together.

    Kernels ``(..., spatial, in, out)`` are matrices of ``spatial * in`` rows and ``out`` columns. Leaves with fewer
    axes are ``columns``, or are left out. Matrices on a mesh stay by themselves, each sharded as it is.
    """
    groups: dict[Any, list[tuple[int, str, Array]]] = defaultdict(list)
    for i, path, norm, batch, leaf in chosen(tree, ord, where, batch_axes, function, columns):
        x = jnp.asarray(leaf)
        ends = x.ndim - 1 if x.ndim >= batch + 2 else x.ndim
        shape = (*x.shape[:batch], math.prod(x.shape[batch:ends]), *(x.shape[ends:] or (1,)))
        if shape != x.shape:  # on an explicit mesh rows that are split over several axes are gathered
            x = partitioned(partial(jnp.reshape, shape=shape), tied(x), x.ndim - batch)
        alone = i if jax.typeof(x).sharding.mesh.size > 1 else None
        groups[norm, x.shape[-2:], x.dtype, alone].append((i, path, x))
    return [_stacked(norm, members) for (norm, *_), members in groups.items()]


def chosen(
    tree: Any, ord: Ord, where: Where, batch_axes: BatchAxes, function: str, columns: bool
) -> Iterator[tuple[int, str, Norm, int, Any]]:
    """Number, path, norm, count of batch axes and leaf of each."""
    selected, norm_of, batch_of = check(ord, where, batch_axes, function)
    for i, (keys, leaf) in enumerate(jax.tree_util.tree_leaves_with_path(tree)):
        path = path_of(keys)
        norm, batch = norm_of(path), batch_of(path) or 0
        fits = jnp.ndim(leaf) >= batch + 2 or (columns and jnp.ndim(leaf) >= batch)
        if norm is not None and fits and inexact(leaf) and selected(path, leaf):
            yield i, path, as_norm(norm), batch, leaf


def check(
    ord: Ord, where: Where, batch_axes: BatchAxes, function: str
) -> tuple[Callable[[str, Array], bool], Callable[[str], Norm | str | None], Callable[[str], int | None]]:
    """Which leaves are chosen, the norm of a path, and its count of batch axes."""
    for norm in ord.values() if isinstance(ord, Mapping) else [ord]:
        if norm is not None:
            as_norm(norm)
    for count in batch_axes.values() if isinstance(batch_axes, Mapping) else [batch_axes]:
        _checks.integer(count, f"{function}: batch_axes", "an integer >= 0", least=0)
    return selector(where, function), by_path(ord, "ord", function), by_path(batch_axes, "batch_axes", function)


def _stacked(norm: Norm, members: list[tuple[int, str, Array]]) -> Stack:
    leaves = tuple((i, path, math.prod(x.shape[:-2])) for i, path, x in members)
    first = members[0][2]
    if len(members) == 1 and first.ndim == 2:
        return Stack(norm, first, leaves)
    return Stack(norm, jnp.concatenate([x.reshape(-1, *x.shape[-2:]) for _, _, x in members]), leaves)


def replaced(tree: Any, results: Iterable[tuple[Stack, Array]]) -> Any:
    """The tree with new matrices in the places of those of the stacks, spread over a mesh like these; all other leaves
    as they are."""
    leaves, structure = jax.tree.flatten(tree)
    for stack, new in results:
        end = 0
        for i, _, count in stack.leaves:
            piece = new if new.ndim == 2 else new[end : end + count]
            leaves[i], end = like(leaves[i], piece.reshape(jnp.shape(leaves[i]))), end + count
    return jax.tree.unflatten(structure, leaves)


def inexact(leaf: Any) -> bool:
    """Whether a leaf is floating or complex."""
    return jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)


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


def by_path(choice: ByPath[T], name: str, function: str) -> Callable[[str], T | None]:
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
