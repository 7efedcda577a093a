"""Factors of low rank in the place of matrices."""

import math
from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer
from jax.typing import ArrayLike

from jaxnorms import _checks, _rules
from jaxnorms._batching import over_batch
from jaxnorms._scaling import magnitude, scale
from jaxnorms.decompositions import tie_tolerance
from jaxnorms.drop_in import vector_norm
from jaxnorms.learning.allocation import RankAllocation, allocate
from jaxnorms.learning.leaves import BatchAxes, Stack, Where, chosen


class LowRankFactors(NamedTuple):
    """``b`` (..., m, k) and ``a`` (..., k, n) in the place of a matrix ``b a`` of a pytree.

    >>> import jax.numpy as jnp, jaxnorms as jn
    >>> jn.LowRankFactors(jnp.ones((3, 1)), jnp.ones((1, 2)))._fields
    ('b', 'a')
    """

    b: Array
    a: Array


class LowRankApproximation(NamedTuple):
    """``b`` (..., m, k) and ``a`` (..., k, n), whose product is the approximation; the norms (...) of its error; and
    how many parameters are ``saved`` in all, ``m n - k (m + n)`` for each matrix, which may be negative.

    >>> import jax.numpy as jnp, jaxnorms as jn
    >>> jn.low_rank_approximation(jnp.zeros((6, 3)), rank=1).saved
    9
    """

    b: Array
    a: Array
    spectral_error: Array
    frobenius_error: Array
    saved: int


def low_rank_approximation(
    w: ArrayLike, rank: int | None = None, energy: float | None = None, tol: float | None = None
) -> LowRankApproximation:
    """Balanced factors ``b = U_k S_k^(1/2)``, ``a = S_k^(1/2) V_k^H`` of the best approximation of rank k.

    Of ``(..., m, n)`` matrices with the singular values s; exactly one of these (else ``ValueError``) says what k is:

    * ``rank``: k itself, a static integer from 0 to min(m, n).
    * ``energy`` in [0, 1]: the least k with ``sum_{i<=k} s_i^2 >= energy * sum_i s_i^2``.
    * ``tol >= 0``: the least k with ``s_{k+1} <= tol * s_1``.

    ``energy`` and ``tol`` are met up to the rounding of the decomposition, ``8 eps max(m, n)^(1/4) s_1`` in
    ``sqrt(sum_{i>k} s_i^2)`` and in ``s_{k+1}``: values on the boundary count as met, and ``energy=1`` or ``tol=0``
    leaves out what cannot be told from zeros. Over a batch k is the largest that any matrix needs. The shape then
    depends on the values: a traced ``w`` raises ``TypeError`` (use ``rank``), a NaN or infinite entry ``ValueError``.

    The errors, ``||w - b a||_2 = s_{k+1}`` and ``||w - b a||_F``, are the least of all matrices of rank k; they are
    those of exact factors. The factors of 16-bit matrices are computed in float32 and rounded to the type afterwards.
    Nothing overflows on the way. With ``rank``, an entry that is NaN or infinite gives NaN factors and NaN or infinite
    errors, of that matrix alone.

    The errors are differentiable as :func:`singular_values` are; ``b`` and ``a`` are constants, as U and V are:
    :func:`best_approximation` is the function to differentiate. Cost: one SVD. Source: Eckart and Young 1936.

    >>> import jax.numpy as jnp, jaxnorms as jn
    >>> low = jn.low_rank_approximation(jnp.diag(jnp.array([5.0, 4.0, 3.0])), energy=0.5)
    >>> low.b.shape, low.spectral_error, low.frobenius_error
    ((3, 1), Array(4., dtype=float32), Array(5., dtype=float32))
    """
    x = _checks.matrix(w, "low_rank_approximation", "w")
    given = {name: value for name, value in (("rank", rank), ("energy", energy), ("tol", tol)) if value is not None}
    if len(given) != 1:
        came = ", ".join(f"{name}={value!r}" for name, value in given.items()) or "none"
        raise ValueError(f"low_rank_approximation: exactly one of rank, energy and tol must be given, got {came}")
    (name, value), least = *given.items(), min(x.shape[-2:])
    if name == "rank":
        k = _rank(value, least)
        return _cut(_factored(x), k, x.dtype)
    part = _real(value, name, 1.0 if name == "energy" else np.inf)
    if isinstance(x, Tracer):
        raise TypeError(
            f"low_rank_approximation: with {name} the shape of the factors depends on the values of w, which is traced "
            "here; use rank under jit, vmap and grad"
        )
    factored = _factored(x)
    k = (_by_energy if name == "energy" else _by_tol)(factored, part, tie_tolerance(factored.s.dtype, *x.shape[-2:]))
    return _cut(factored, k, x.dtype)


def compress(params: Any, budget: int, *, where: Where = None, batch_axes: BatchAxes = 0) -> tuple[Any, RankAllocation]:
    """A pytree with :class:`LowRankFactors` in the place of its matrices, within ``budget`` parameters.

    The ranks are those of :func:`rank_allocation`, which is returned, too; the arguments and errors are its own. A
    kernel ``(..., in, out)`` is factored as the matrix of all other axes times ``out``, so that
    ``(b @ a).reshape(kernel.shape)`` approximates it; a leaf with batch axes has the batch axes of its factors, all
    of one rank. Leaves that are not chosen stay as they are, and so do matrices that are dense in the allocation. The
    result can be trained on: its leaves are parameters.
    Cost: that of the allocation, and one SVD of each matrix that is factored.

    >>> import jax.numpy as jnp, jaxnorms as jn
    >>> params = {"w": jnp.ones((8, 4)), "bias": jnp.ones(4)}
    >>> small, allocation = jn.compress(params, 12)
    >>> small["w"].b.shape, small["w"].a.shape, small["bias"].shape, allocation.ranks
    ((8, 1), (1, 4), (4,), {'w': 1})
    """
    allocation, groups = allocate(params, budget, where, batch_axes, "compress")
    leaves, structure = jax.tree.flatten(params)
    batches = {
        i: jnp.shape(leaf)[:batch]
        for i, _, _, batch, leaf in chosen(params, "fro", where, batch_axes, "compress", False)
    }
    for stack in groups:
        for i, path, part in _parts(stack, allocation.ranks):
            k = allocation.ranks[path] or 0
            whole = jax.tree.map(lambda y, batch=batches[i]: y.reshape(*batch, *y.shape[1:]), part)
            leaves[i] = LowRankFactors(*_cut(whole, k, stack.matrices.dtype)[:2])
    return jax.tree.unflatten(structure, leaves), allocation


def _rank(value: Any, largest: int) -> int:
    k = _checks.integer(value, "low_rank_approximation: rank")
    if not 0 <= k <= largest:
        raise ValueError(f"low_rank_approximation: rank must be between 0 and min(m, n) = {largest}, got {k}")
    return k


def _real(value: Any, name: str, largest: float) -> float:
    allowed = "a number >= 0" if largest == np.inf else "a number between 0 and 1"
    part = _checks.real(value, f"low_rank_approximation: {name}", allowed)
    if not 0 <= part <= largest:
        raise ValueError(f"low_rank_approximation: {name} must be {allowed}, got {value!r}")
    return part


class _Factored(NamedTuple):
    """Balanced factors of full rank, of matrices ``w = b a`` with the singular values ``s 2^power``."""

    b: Array
    a: Array
    s: Array
    power: Array


def _factored(x: Array) -> _Factored:
    return over_batch(_factored_one, x.astype(_checks.working_dtype(x.dtype)))


def _factored_one(w: Array) -> _Factored:
    # Scaled to about 1 from here on: s_1 and sums of squares may exceed the range although no result does.
    _, _, power = magnitude(jax.lax.stop_gradient(w))
    if w.size == 0:
        r = min(w.shape)
        return _Factored(w[:, :r], w[:r], jnp.zeros(r, jnp.finfo(w.dtype).dtype), power)
    u, s, vh = _rules.leading(_rules.every_triplet, scale(w, -power))
    half = power // 2
    root = scale(jnp.sqrt(scale(jax.lax.stop_gradient(s), power - 2 * half)), half).astype(w.dtype)
    return _Factored(u * root[None, :], root[:, None] * vh, s, power)


def _cut(whole: _Factored, k: int, dtype: Any) -> LowRankApproximation:
    """The first k triplets."""
    (*batch, m, _), n = whole.b.shape, whole.a.shape[-1]
    return LowRankApproximation(*_leading(whole, k, dtype), saved=math.prod(batch) * (m * n - k * (m + n)))


@partial(jax.jit, static_argnums=(1, 2))
def _leading(whole: _Factored, k: int, dtype: Any) -> tuple[Array, Array, Array, Array]:
    b, a, s, power = whole
    rest = s[..., k:]
    if rest.shape[-1]:
        first, norm = rest[..., 0], vector_norm(rest, axis=-1)
    else:  # no error, but of matrices that are not finite
        largest = jnp.max(s, axis=-1, initial=0)
        first = norm = jnp.where(jnp.isfinite(largest), 0, largest)
    spectral, frobenius = (scale(error, power).astype(jnp.finfo(dtype).dtype) for error in (first, norm))
    return b[..., :k].astype(dtype), a[..., :k, :].astype(dtype), spectral, frobenius


def _by_energy(whole: _Factored, energy: float, rounding: float) -> int:
    s = _values(whole)
    squares = np.cumsum(np.square(s)[:, ::-1], axis=-1)[:, ::-1]  # the smallest first
    tails = np.sqrt(np.concatenate([squares, np.zeros_like(squares[:, :1])], axis=-1))
    met = tails <= np.sqrt(1 - energy) * tails[:, :1] + rounding * s[:, :1]
    return int(np.max(np.argmax(met, axis=-1), initial=0))


def _by_tol(whole: _Factored, tol: float, rounding: float) -> int:
    s = _values(whole)
    return int(np.max(np.sum(s > (min(tol, 1.0) + rounding) * s[:, :1], axis=-1), initial=0))


def _values(whole: _Factored) -> np.ndarray:
    """``(count, min(m, n))``, each matrix relative to its own power of two."""
    s = np.asarray(whole.s, np.float64)
    if not np.all(np.isfinite(s)):
        raise ValueError(
            "low_rank_approximation: with energy or tol w must be finite, got NaN or infinite entries; give rank"
        )
    if not s.shape[-1]:
        return np.zeros((0, 1))
    return s.reshape(-1, s.shape[-1])


def _parts(stack: Stack, ranks: dict[str, int | None]) -> Iterator[tuple[int, str, _Factored]]:
    """Number, path and factors ``(count, ...)`` of the leaves of a stack that are not kept dense: one decomposition."""
    ends = np.cumsum([count for *_, count in stack.leaves])
    matrices = stack.matrices.reshape(ends[-1], *stack.matrices.shape[-2:])
    pieces = [
        (i, path, matrices[end - count : end])
        for (i, path, count), end in zip(stack.leaves, ends, strict=True)
        if ranks[path] is not None
    ]
    if pieces:
        together = _factored(jnp.concatenate([piece for *_, piece in pieces]))
        end = 0
        for i, path, piece in pieces:
            start, end = end, end + piece.shape[0]
            yield i, path, jax.tree.map(lambda y, start=start, end=end: y[start:end], together)
