"""Spectral normalisation with an explicit state, warm from step to step."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxnorms import _checks, _rules
from jaxnorms._scaling import prepare, scale
from jaxnorms.decompositions import matmul, thin_svd
from jaxnorms.norms import spectral_norm


class SpectralNormState(NamedTuple):
    """Estimates of the leading singular vectors of an m x n matrix, ``u`` (m, k) and ``v`` (n, k), and the
    ``residual`` ``||W^H u - sigma v|| / sigma`` of the first pair at the last estimate; inf before it.

    >>> import jax, jax.numpy as jnp, jaxnorms as jn
    >>> jn.init_spectral_norm(jax.random.key(0), jnp.ones((4, 3))).residual
    Array(inf, dtype=float32)
    """

    u: Array
    v: Array
    residual: Array


def init_spectral_norm(key: Array, w: ArrayLike, *, block: int = 1) -> SpectralNormState:
    """A random start for the spectral norm of ``w``: an ``(m, n)`` matrix, or a kernel ``(..., in, out)`` as a matrix.

    ``block``: how many vectors are iterated, at most min(m, n). More of them converge faster where leading singular
    values are close: like ``(s_{block+1} / s_1)^2`` per step, not ``(s_2 / s_1)^2``. Stacks of layers: ``jax.vmap``.
    Raises ``ValueError`` for fewer than two axes, an empty matrix, another block.

    >>> import jax, jax.numpy as jnp, jaxnorms as jn
    >>> jn.init_spectral_norm(jax.random.key(0), jnp.ones((3, 3, 8, 16)), block=2).u.shape
    (72, 2)
    """
    x = _matrix(w, "init_spectral_norm")
    block = _checks.count(block, "block", min(x.shape))
    u, _, vh = thin_svd(jax.random.normal(key, (x.shape[0], block), x.dtype))
    v, _, _ = thin_svd(matmul(x.conj().T, matmul(u, vh)))
    return SpectralNormState(u, v, jnp.full((), jnp.inf, jnp.finfo(x.dtype).dtype))


def estimate_spectral_norm(
    w: ArrayLike, state: SpectralNormState, *, n_steps: int | None = 1
) -> tuple[Array, SpectralNormState]:
    """``(sigma, state)`` with ``sigma = Re u^H W v <= ||W||_2`` after ``n_steps`` of power iteration from ``state``.

    Each step is two products with ``w``, ``v <- W^H u`` and ``u <- W v``, orthonormalised; with a block of vectors the
    leading Ritz pair is the first one. The derivative is ``u v^H``, with u and v constant (Miyato et al. 2018): that
    of the spectral norm once they have converged, of which ``state.residual`` tells. ``n_steps=None``: the exact norm
    and its subgradient of minimum norm, by :func:`spectral_norm`, with the state unchanged.

    ``w`` is as for :func:`init_spectral_norm` and is never changed; real or complex, of any size and floating type
    (16-bit types are computed in float32). A zero matrix gives 0. Non-finite ones give NaN, and leave ``state`` as it
    was. Raises ``ValueError`` for a state of another shape or negative ``n_steps``.

    >>> import jax, jax.numpy as jnp, jaxnorms as jn
    >>> w = jnp.diag(jnp.array([3.0, 1.0]))
    >>> sigma, state = jn.estimate_spectral_norm(w, jn.init_spectral_norm(jax.random.key(0), w), n_steps=8)
    >>> sigma, bool(state.residual < 1e-6)
    (Array(3., dtype=float32), True)
    """
    given = _checks.as_inexact(w, "w")
    sigma, _, e, state = _estimated(given, state, n_steps, "estimate_spectral_norm")
    return scale(sigma, e).astype(jnp.finfo(given.dtype).dtype), state


def spectral_normalize(
    w: ArrayLike, state: SpectralNormState, *, n_steps: int | None = 1
) -> tuple[Array, SpectralNormState]:
    """``(W / sigma, state)`` with sigma of :func:`estimate_spectral_norm`: of spectral norm 1, once that converged.

    The derivative includes that of sigma, with u and v constant. ``w`` itself is not changed, zeros stay zeros, and
    nothing overflows or vanishes on the way. Pass ``state`` on from step to step, outside of what is differentiated;
    use ``n_steps=0`` at evaluation. Shapes, errors and bad input as for :func:`estimate_spectral_norm`. Of a kernel it
    is the norm of the reshaped matrix: a convolution divided by its own norm is ``kernel / conv_spectral_norm(kernel,
    ...)``.

    >>> import jax, jax.numpy as jnp, jaxnorms as jn
    >>> w = jnp.diag(jnp.array([4.0, 2.0]))
    >>> jn.spectral_normalize(w, jn.init_spectral_norm(jax.random.key(0), w), n_steps=None)[0]
    Array([[1. , 0. ],
           [0. , 0.5]], dtype=float32)
    """
    given = _checks.as_inexact(w, "w")
    sigma, x, _, state = _estimated(given, state, n_steps, "spectral_normalize")
    y = x / jnp.where(sigma > 0, sigma, 1).astype(x.dtype)
    return jnp.where(jnp.isnan(sigma), jnp.nan, y).reshape(given.shape).astype(given.dtype), state


def _estimated(
    w: ArrayLike, state: SpectralNormState, n_steps: int | None, function: str
) -> tuple[Array, Array, Array, SpectralNormState]:
    """Sigma of ``W 2^-e``, that matrix, e, and the new state."""
    x = _matrix(w, function)
    if not isinstance(state, SpectralNormState):
        raise TypeError(f"{function}: state must be a SpectralNormState, got {type(state).__name__}")
    shapes = [(n, state.u.shape[-1]) for n in x.shape]
    if [state.u.shape, state.v.shape] != shapes:
        raise ValueError(
            f"{function}: state must have u and v of shapes {shapes}, got {state.u.shape}, {state.v.shape}"
        )
    if jnp.iscomplexobj(state.u) != jnp.iscomplexobj(x):
        raise TypeError(f"{function}: state must be complex if w is, got dtypes {state.u.dtype} and {x.dtype}")
    if n_steps is not None and (isinstance(n_steps, bool) or not isinstance(n_steps, int) or n_steps < 0):
        raise ValueError(f"{function}: n_steps must be None or an integer >= 0, got {n_steps!r}")
    a, ok, _, e = prepare(x)
    if n_steps is None:
        sigma = spectral_norm(a)
    else:
        start = state.u.astype(a.dtype), state.v.astype(a.dtype)
        u, v, residual = _rules.constant(lambda a, u, v: _iterated(a, u, v, n_steps), a, *start)
        sigma = jnp.sum((u[:, 0].conj() * matmul(a, v[:, :1])[:, 0]).real)
        new = (jnp.where(ok, x.astype(y.dtype), y) for x, y in zip((u, v, residual), state, strict=True))
        state = SpectralNormState(*new)
    return jnp.where(ok, sigma, jnp.nan), a, e, state


def _iterated(a: Array, u: Array, v: Array, n_steps: int) -> tuple[Array, Array, Array]:
    def step(_: Any, pair: tuple[Array, Array]) -> tuple[Array, Array]:
        v = thin_svd(matmul(a.conj().T, pair[0]))[0]
        u, _values, qh = thin_svd(matmul(a, v))
        return u, matmul(v, qh.conj().T)

    u, v = jax.lax.fori_loop(0, n_steps, step, (u, v))
    back = matmul(a.conj().T, u[:, :1])
    sigma = jnp.sum((back.conj() * v[:, :1]).real)
    gap = jnp.linalg.norm(back - sigma.astype(a.dtype) * v[:, :1])
    return u, v, jnp.where(sigma > 0, gap / jnp.where(sigma > 0, sigma, 1), 0)


def _matrix(w: ArrayLike, function: str) -> Array:
    x = _checks.matrix(w, function, "w")
    if 0 in x.shape:
        raise ValueError(f"{function}: w must not be empty, got shape {x.shape}")
    return x.reshape(-1, x.shape[-1]).astype(_checks.working_dtype(x.dtype))
