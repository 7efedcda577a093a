"""Regularisers over the parameters of a model."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxnorms import _checks
from jaxnorms.learning.leaves import BatchAxes, ByPath, Ord, Where, stacks


def penalty(
    params: Any,
    ord: Ord,
    weight: ByPath[ArrayLike] = 1.0,
    where: Where = None,
    *,
    batch_axes: BatchAxes = 0,
) -> Array:
    """``sum_i weight_i ord(W_i)`` over the matrices W_i of a pytree, a scalar, differentiable in all.

    * Counted are the floating or complex leaves with two axes or more, beyond ``batch_axes`` leading ones (as of layers
      stacked for a scan; ``{"layers": 1}`` if not of all, by patterns as below, and 0 elsewhere). A convolution kernel
      ``(..., in, out)`` counts as the matrix of all its other axes times ``out``: *not* the norm of the convolution,
      which is :func:`conv_spectral_norm`.
    * ``ord``: a norm object, ``'fro'``, ``'nuc'`` or ``'spectral'``; or a mapping from regular expressions to norms, of
      which the first one found in the path of a leaf, ``"layers/0/kernel"``, is taken. Leaves without, or with
      None, do not count.
    * ``weight``: a real number, which may be traced, or a mapping likewise (a leaf without one raises ``ValueError``).
    * ``where``: a regular expression found in the path, or ``where(path, leaf) -> bool``: which leaves may count.

    Matrices of one shape, type and norm are stacked, and take one batched call (not on a mesh, where each keeps its
    sharding). In the widest type of the norms, 32 bits at least; 0 in float32 if nothing counts. Derivatives are those
    of the norms: 0, not NaN, at a zero matrix. Raises ``ValueError`` or ``TypeError`` for an unknown norm, a pattern
    that is none, a complex weight. Cost: that of the norms.

    >>> import jax.numpy as jnp, jaxnorms as jn
    >>> params = {"dense": {"kernel": jnp.diag(jnp.array([3.0, 4.0])), "bias": jnp.ones(2)}}
    >>> jn.penalty(params, "nuc", 0.1)
    Array(0.7, dtype=float32)
    >>> jn.penalty(params, {"embed": None, "kernel": jn.Schatten(float("inf"))})
    Array(4., dtype=float32)
    """
    total = jnp.zeros((), jnp.float32)
    for stack in stacks(params, ord, where, batch_axes, "penalty"):
        values = stack.norm(stack.matrices.astype(_checks.working_dtype(stack.matrices.dtype)))
        with jax.numpy_dtype_promotion("standard"):
            total = total + jnp.sum(stack.each(weight, "weight", "penalty") * values)
    return total
