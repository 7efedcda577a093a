"""Singular values as functions of the matrix."""

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxnorms import _checks
from jaxnorms._rules import spectrum


def singular_values(a: ArrayLike) -> Array:
    """Singular values of ``(..., m, n)`` matrices, descending, of shape ``(..., min(m, n))``.

    The derivative of tied values is averaged over their block, ``tr(Re U_t^H da V_t)/mu``, and is 0
    for the zero block, so that it does not depend on the basis. A second derivative exists only
    where the values are distinct and nonzero; it is finite elsewhere, with the terms between tied
    values dropped. For a smooth function of all of them use a norm. Third derivatives raise
    ``ValueError``, as do shapes of fewer than two axes. Cost: one SVD.

    >>> import jax, jax.numpy as jnp, jaxnorms as jn
    >>> jn.singular_values(jnp.array([[3.0, 0.0], [0.0, -4.0]]))
    Array([4., 3.], dtype=float32)
    """
    x = _checks.matrix(a, "singular_values")
    return _batched(x)


@jax.jit
def _batched(x: Array) -> Array:
    *batch, m, n = x.shape
    real = jnp.finfo(x.dtype).dtype
    if 0 in x.shape:
        return jnp.zeros((*batch, min(m, n)), real)
    one = spectrum
    for _ in batch:
        one = jax.vmap(one)
    return one(x.astype(_checks.working_dtype(x.dtype))).astype(real)
