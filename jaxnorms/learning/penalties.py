"""Regularisers over the parameters of a model."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxnorms import _checks
from jaxnorms.learning.leaves import Where, as_matrices, by_path, count_axes, is_matrix, path_of, selector
from jaxnorms.norm_objects import Norm, as_norm

Weight = ArrayLike | Mapping[str, ArrayLike]


def penalty(
    params: Any,
    ord: Norm | str | Mapping[str, Norm | str | None],
    weight: Weight = 1.0,
    where: Where = None,
    *,
    batch_axes: int = 0,
) -> Array:
    """``sum_i weight_i ord(W_i)`` over the matrices W_i of a pytree, a scalar, differentiable in all.

    * Counted are the floating or complex leaves with two axes or more, beyond ``batch_axes`` leading ones (as of layers
      stacked for a scan); all others are not. A convolution kernel ``(..., in, out)`` counts as the matrix of all
      its other axes times ``out``: *not* the norm of the convolution, which is
      :func:`conv_spectral_norm`.
    * ``ord``: a norm object, ``'fro'``, ``'nuc'`` or ``'spectral'``; or a mapping from regular expressions to norms, of
      which the first one found in the path of a leaf, ``"layers/0/kernel"``, is taken. Leaves without, or with
      None, do not count.
    * ``weight``: a real number, which may be traced, or a mapping likewise (a leaf without one raises ``ValueError``).
    * ``where``: a regular expression found in the path, or ``where(path, leaf) -> bool``: which leaves may count.

    Matrices of one shape, type and norm are stacked, and take one batched call. In the widest type of the norms, 32
    bits at least; 0 in float32 if nothing counts. Derivatives are those of the norms: 0, not NaN, at a zero matrix.
    Raises ``ValueError`` or ``TypeError`` for an unknown norm, a pattern that is none, a complex weight. Cost: that of
    the norms.

    >>> import jax.numpy as jnp, jaxnorms as jn
    >>> params = {"dense": {"kernel": jnp.diag(jnp.array([3.0, 4.0])), "bias": jnp.ones(2)}}
    >>> jn.penalty(params, "nuc", 0.1)
    Array(0.7, dtype=float32)
    >>> jn.penalty(params, {"embed": None, "kernel": jn.Schatten(float("inf"))})
    Array(4., dtype=float32)
    """
    batch_axes = count_axes(batch_axes, "penalty")
    chosen = selector(where, "penalty")
    norm_of, weight_of = by_path(ord, "ord", "penalty"), by_path(weight, "weight", "penalty")
    groups: dict[Any, list[tuple[Array, Array]]] = defaultdict(list)
    for keys, leaf in jax.tree_util.tree_leaves_with_path(params):
        path = path_of(keys)
        if not is_matrix(leaf, batch_axes) or not chosen(path, leaf) or norm_of(path) is None:
            continue
        norm, x = as_norm(norm_of(path)), as_matrices(jnp.asarray(leaf), batch_axes)
        groups[norm, x.shape[-2:], x.dtype].append((x.reshape(-1, *x.shape[-2:]), _weight(weight_of(path), path)))
    total = jnp.zeros((), jnp.float32)
    for (norm, _, _), members in groups.items():
        values = norm(jnp.concatenate([x for x, _ in members]))
        values = values.astype(_checks.working_dtype(values.dtype))
        weights = jnp.concatenate([jnp.broadcast_to(w, len(x)) for x, w in members])
        with jax.numpy_dtype_promotion("standard"):
            total = total + jnp.sum(weights.astype(values.dtype) * values)
    return total


def _weight(value: Any, path: str) -> Array:
    if value is None:
        raise ValueError(f"penalty: weight must have a pattern for the path {path!r}")
    weight = _checks.as_inexact(value, "weight")
    if jnp.iscomplexobj(weight):
        raise TypeError(f"penalty: weight must be real, got dtype {weight.dtype}")
    if weight.ndim:
        raise ValueError(f"penalty: weight must be a number for each leaf, got shape {weight.shape}")
    return weight
