"""Spectra of attention logits ``Q K^T / sqrt(d)``, without forming them."""

import math
from functools import partial
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxnorms import _checks
from jaxnorms._scaling import exponent, scale
from jaxnorms.learning.factored import factored_singular_values, factored_spectral_norm
from jaxnorms.spectra import summary_of


class AttentionRankProfile(NamedTuple):
    """Of ``Q K^T / sqrt(d)`` the singular values (..., q), q = min(n, m, d), descending; ``energy`` (..., q), the part
    of their sum of squares that the first 1, 2, ... have; and the ranks of :class:`SpectrumSummary`, (...).

    >>> import jax.numpy as jnp, jaxnorms as jn
    >>> jn.attention_rank_profile(jnp.eye(4), jnp.eye(4)).energy
    Array([0.25, 0.5 , 0.75, 1.  ], dtype=float32)
    """

    singular_values: Array
    energy: Array
    stable_rank: Array
    effective_rank: Array
    numerical_rank: Array


def attention_logit_bound(q: ArrayLike, k: ArrayLike) -> Array:
    """``||Q K^T||_2 / sqrt(d)``: no logit is larger, and no row or column of logits longer.

    Q has shape ``(..., n, d)``, K ``(..., m, d)``, leading axes (batch, heads) broadcast. Of activations it bounds the
    logits of these tokens; of weights ``(width, d)`` it bounds ``x^T W_q W_k^T y / sqrt(d)`` for all x and y of
    length 1, and is attained. At most ``||Q||_2 ||K||_2 / sqrt(d)``. Derivatives, range and errors are those of
    :func:`factored_norm`. Cost: ``O((n + m + d) d^2)``, for any number of tokens.

    >>> import jax.numpy as jnp, jaxnorms as jn
    >>> q, k = jnp.diag(jnp.array([2.0, 1.0, 1.0, 1.0])), jnp.eye(4)
    >>> jn.attention_logit_bound(q, k)
    Array(1., dtype=float32)
    """
    x, y, root, dtype = _queries_and_keys(q, k, "attention_logit_bound")
    return (factored_spectral_norm(x, y) / root).astype(dtype)


def attention_rank_profile(q: ArrayLike, k: ArrayLike) -> AttentionRankProfile:
    """How many directions the logits ``Q K^T / sqrt(d)`` use: singular values, energy, ranks.

    Shapes and cost are those of :func:`attention_logit_bound`. At most d of the singular values are nonzero; the
    numerical rank counts those above ``max(n, m) eps s_1``. Differentiable once, as :func:`factored_singular_values`; a
    second derivative raises ``ValueError``. Zero logits have ranks 0 and energy 0.

    >>> import jax.numpy as jnp, jaxnorms as jn
    >>> profile = jn.attention_rank_profile(jnp.ones((5, 4)), jnp.eye(4))
    >>> profile.numerical_rank, profile.singular_values.round(4)
    (Array(1, dtype=int32), Array([2.2361, 0.    , 0.    , 0.    ], dtype=float32))
    """
    x, y, root, dtype = _queries_and_keys(q, k, "attention_rank_profile")
    s = factored_singular_values(x, y) / root
    profile = jnp.vectorize(partial(_profile, size=max(x.shape[-2], y.shape[-1])), signature="(q)->(q),(),(),()")
    energy, stable, effective, numerical = profile(s)
    return AttentionRankProfile(
        s.astype(dtype), energy.astype(dtype), stable.astype(dtype), effective.astype(dtype), numerical
    )


def _profile(s: Array, size: int) -> tuple[Array, Array, Array, Array]:
    summary = summary_of(s, size)
    squares = jnp.square(scale(s, -exponent(summary.spectral_norm)))
    energy = jnp.cumsum(squares) / jnp.where(summary.spectral_norm == 0, 1, jnp.sum(squares))
    return energy, summary.stable_rank, summary.effective_rank, summary.numerical_rank


def _queries_and_keys(q: ArrayLike, k: ArrayLike, function: str) -> tuple[Array, Array, float, jnp.dtype]:
    """Q and K^T in working precision, sqrt(d), and the type of the result."""
    x, y = _checks.matrix(q, function, "q"), _checks.matrix(k, function, "k")
    if x.dtype != y.dtype:
        raise TypeError(f"{function}: q and k must have one type, got {x.dtype} and {y.dtype}")
    d = x.shape[-1]
    if d != y.shape[-1]:
        raise ValueError(f"{function}: q and k must have shapes (..., n, d) and (..., m, d), got {x.shape}, {y.shape}")
    wide = _checks.working_dtype(x.dtype)
    return x.astype(wide), jnp.swapaxes(y, -1, -2).astype(wide), math.sqrt(max(d, 1)), jnp.finfo(x.dtype).dtype
