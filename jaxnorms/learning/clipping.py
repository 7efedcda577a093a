"""Clipping of gradients by norms, which never turns a finite gradient into zeros."""

from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxnorms import _checks
from jaxnorms._batching import over_batch
from jaxnorms._scaling import exponent, max_abs, prepare, quotient, scale
from jaxnorms.drop_in import vector_norm
from jaxnorms.geometry import project
from jaxnorms.learning.leaves import BatchAxes, ByPath, Ord, Stack, Where, inexact, replaced, stacks
from jaxnorms.norm_objects import Norm


def clip_by_global_norm(tree: Any, max_norm: ArrayLike) -> Any:
    """``tree * min(1, max_norm / ||tree||)``, with the l_2 norm of all floating and complex leaves together.

    ``max_norm >= 0`` (NaN below), a real number, may be traced. A tree within the ball is returned bit for bit. Nothing
    overflows or vanishes on the way, so that a finite gradient never becomes zeros: the norm is taken of the leaves
    scaled by an exact power of two. 16-bit leaves are computed in float32 and returned in their own type; integers and
    ``None`` are passed through. **A NaN or an infinite entry anywhere makes all leaves NaN**, rather than
    a small gradient that looks clipped: drop such a step with ``optax.apply_if_finite``. Differentiable in both,
    also at zeros. Cost: three passes.

    >>> import jax.numpy as jnp, jaxnorms as jn
    >>> jn.clip_by_global_norm({"w": jnp.array([3e30, 4e30]), "b": jnp.zeros(1)}, 5.0)["w"].round()
    Array([3., 4.], dtype=float32)
    """
    leaves, structure = jax.tree.flatten(tree)
    counted = [i for i, leaf in enumerate(leaves) if inexact(leaf)]
    most = _checks.scalar(max_norm, "max_norm", "clip_by_global_norm")
    if not counted:
        return tree
    arrays = [jnp.asarray(leaves[i]) for i in counted]
    for i, x in zip(counted, _clipped(arrays, most), strict=True):
        leaves[i] = x
    return jax.tree.unflatten(structure, leaves)


@jax.jit
def _clipped(arrays: list[Array], most: Array) -> list[Array]:
    with jax.numpy_dtype_promotion("standard"):
        real = jnp.result_type(*(jnp.finfo(_checks.working_dtype(x.dtype)).dtype for x in arrays))
        wide = [x.astype(jnp.promote_types(x.dtype, real)) for x in arrays]
    most, largest = most.astype(real), jnp.max(jnp.stack([max_abs(x) for x in wide]))
    scaled = [scale(x, -exponent(largest)) for x in wide]
    size = vector_norm(jnp.stack([vector_norm(x) for x in scaled]))
    outside = size > scale(most, -exponent(largest))
    factor = most / jnp.where(outside, size, 1)
    good = jnp.isfinite(largest) & (most >= 0)

    def one(x: Array, y: Array) -> Array:
        clipped = (y * factor.astype(y.dtype)).astype(x.dtype)
        return jnp.where(good, jnp.where(outside, clipped, x), jnp.nan)

    return [one(x, y) for x, y in zip(arrays, scaled, strict=True)]


def clip_by_norm(
    tree: Any,
    max_norm: ByPath[ArrayLike],
    ord: Ord,
    *,
    by: Literal["scaling", "projection"] = "scaling",
    where: Where = None,
    batch_axes: BatchAxes = 0,
) -> Any:
    """Each matrix W of a pytree, clipped by its own norm: ``W min(1, max_norm / ord(W))``; or the nearest point of the
    ball ``ord(W) <= max_norm``, with ``by="projection"`` (:func:`project`).

    Scaling keeps the direction, projection what is below the bound: of a spectral norm the small singular values.
    Matrices, kernels, ``batch_axes`` and ``where``, and ``ord`` and ``max_norm`` by path, are as for :func:`penalty`;
    all other leaves are passed through. ``max_norm >= 0`` (NaN below), real, may be traced. Nothing overflows or
    vanishes on the way; a matrix within the ball is returned bit for bit by scaling, and one with a NaN or infinite
    entry becomes NaN, that one alone. Differentiable in both. Cost: that of the norm, or of the projection.

    >>> import jax.numpy as jnp, jaxnorms as jn
    >>> gradients = {"w": jnp.diag(jnp.array([8.0, 1.0])), "b": 100 * jnp.ones(2)}
    >>> jn.clip_by_norm(gradients, 2.0, "spectral")["w"]
    Array([[2.  , 0.  ],
           [0.  , 0.25]], dtype=float32)
    >>> jn.clip_by_norm(gradients, 2.0, "spectral", by="projection")["w"]
    Array([[2., 0.],
           [0., 1.]], dtype=float32)
    """
    _checks.choice(by, "clip_by_norm: by", ("scaling", "projection"))

    def one(stack: Stack) -> Array:
        x, most = stack.matrices, stack.each(max_norm, "max_norm", "clip_by_norm")
        if by == "projection":
            return project(x, most, stack.norm)
        return over_batch(_scaled, x, along=(most,), norm=stack.norm)

    return replaced(tree, [(stack, one(stack)) for stack in stacks(tree, ord, where, batch_axes, "clip_by_norm")])


def _scaled(a: Array, most: Array, norm: Norm) -> Array:
    x, ok, _, e = prepare(a)
    size = norm(x)
    outside = size > scale(most, -e)
    clipped = x * quotient(most, jnp.where(outside, size, 1)).astype(x.dtype)
    return jnp.where(ok & (most >= 0), jnp.where(outside, clipped, a), jnp.nan)
