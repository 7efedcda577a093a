"""Norms of a product ``W = B A`` of thin factors, from the factors alone, and what goes with them."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxnorms import _checks, _rules
from jaxnorms._layout import tied
from jaxnorms._mesh import replicated
from jaxnorms._scaling import poison, scale
from jaxnorms.decompositions import matmul
from jaxnorms.gauges import Lp
from jaxnorms.learning.factored_lift import FactoredLift, Pair, restored, triplets
from jaxnorms.lifts import SpectralLift
from jaxnorms.norm_objects import KyFan, Norm, Schatten, as_norm, inf
from jaxnorms.operators import LinearOperator

Params = tuple[Array, Array, Array | None]


def factored_norm(b: ArrayLike, a: ArrayLike, ord: Norm | str) -> Array:
    """A unitarily invariant norm of ``W = B A`` without forming W.

    B has shape ``(..., m, r)``, A ``(..., r, n)``; leading axes broadcast; real or complex, of one type. ``ord``: a
    Schatten, Ky Fan, dual Ky Fan or other unitarily invariant norm object (a function of the singular values is given
    the min(m, n, r) that may be nonzero), ``'fro'``, ``'nuc'``, ``'spectral'``; any other raises ``ValueError``.

    Derivatives with respect to both factors, the first and the second: ``G A^H`` and ``B^H G`` with the subgradient G
    of minimum Frobenius norm of the norm at W, also where the factors or W are rank-deficient, or zero. (At a kink that
    need not be the element of least norm of the pair: as a function of the factors the norm is not convex.) Singular
    values at the level of the rounding of the terms ``b_j a_j`` count as zeros: what cancels in B A has no direction,
    and the error of the value is a small multiple of ``eps (sum_j |b_j|^2 |a_j|^2)^(1/2)``.
    Range-safe: columns of B and rows of A may be of any sizes that make up for each other. NaN gives NaN, an infinite
    entry inf, with NaN derivatives. Factors of different types, or shapes that do not fit, raise ``TypeError`` and
    ``ValueError``.

    Cost: two QR decompositions and one SVD of an r x r matrix, ``O((m + n + r) r^2)``; kept for the backward pass:
    min(m, n, r) triplets. Of ``W_0 + B A`` take the norm of :func:`factored_operator`.

    >>> import jax, jax.numpy as jnp, jaxnorms as jn
    >>> b, a = jnp.array([[3.0], [4.0]]), jnp.array([[0.0, 2.0, 0.0]])
    >>> jn.factored_norm(b, a, jn.KyFan(2))
    Array(10., dtype=float32)
    >>> jax.grad(jn.factored_norm)(b, a, "nuc").ravel()
    Array([1.2, 1.6], dtype=float32)
    """
    return _factored_norm(b, a, ord, "factored_norm")


def factored_nuclear_norm(b: ArrayLike, a: ArrayLike) -> Array:
    """Nuclear norm of ``B A``: :func:`factored_norm`. At most ``||B||_F ||A||_F``: :func:`factored_nuclear_bound`.

    >>> import jax.numpy as jnp, jaxnorms as jn
    >>> jn.factored_nuclear_norm(jnp.eye(3)[:, :2], jnp.array([[3.0, 0.0], [0.0, 4.0]]))
    Array(7., dtype=float32)
    """
    return _factored_norm(b, a, Schatten(1), "factored_nuclear_norm")


def factored_spectral_norm(b: ArrayLike, a: ArrayLike) -> Array:
    """Spectral norm of ``B A``: :func:`factored_norm`.

    >>> import jax.numpy as jnp, jaxnorms as jn
    >>> jn.factored_spectral_norm(jnp.eye(3)[:, :2], jnp.array([[3.0, 0.0], [0.0, 4.0]]))
    Array(4., dtype=float32)
    """
    return _factored_norm(b, a, Schatten(inf), "factored_spectral_norm")


def factored_frobenius_norm(b: ArrayLike, a: ArrayLike) -> Array:
    """Frobenius norm of ``B A``: :func:`factored_norm`.

    >>> import jax.numpy as jnp, jaxnorms as jn
    >>> jn.factored_frobenius_norm(jnp.eye(3)[:, :2], jnp.array([[3.0, 0.0], [0.0, 4.0]]))
    Array(5., dtype=float32)
    """
    return _factored_norm(b, a, Schatten(2), "factored_frobenius_norm")


def factored_schatten_norm(b: ArrayLike, a: ArrayLike, p: float) -> Array:
    """Schatten p norm of ``B A``, ``1 <= p <= inf``, static: :func:`factored_norm`.

    >>> import jax.numpy as jnp, jaxnorms as jn
    >>> jn.factored_schatten_norm(jnp.eye(3)[:, :2], jnp.array([[3.0, 0.0], [0.0, 4.0]]), 2)
    Array(5., dtype=float32)
    """
    return _factored_norm(b, a, Schatten(p), "factored_schatten_norm")


def factored_ky_fan_norm(b: ArrayLike, a: ArrayLike, k: int, p: float = 1.0) -> Array:
    """Ky Fan (p, k) norm of ``B A``, ``1 <= k <= min(m, n)``, ``1 <= p <= inf``, static: :func:`factored_norm`.

    >>> import jax.numpy as jnp, jaxnorms as jn
    >>> jn.factored_ky_fan_norm(jnp.eye(3), jnp.diag(jnp.array([3.0, 2.0, 1.0])), 2)
    Array(5., dtype=float32)
    """
    return _factored_norm(b, a, KyFan(k, p), "factored_ky_fan_norm")


def factored_singular_values(b: ArrayLike, a: ArrayLike) -> Array:
    """The min(m, n, r) singular values of ``B A`` that may be nonzero, descending.

    Shapes, types and cost are those of :func:`factored_norm`. The derivative of tied values is averaged over their
    block, and 0 for the zero block, as of :func:`singular_values`; a second derivative raises ``ValueError`` (norms
    have one).

    >>> import jax.numpy as jnp, jaxnorms as jn
    >>> jn.factored_singular_values(jnp.eye(3)[:, :2], jnp.diag(jnp.array([3.0, 4.0])))
    Array([4., 3.], dtype=float32)
    """
    return _over_pairs(_values, None, *_checked(b, a, "factored_singular_values"))


def _values(_: None, pair: Pair) -> Array:
    (m, r), n = pair[0].shape, pair[1].shape[1]
    if 0 in (m, r, n):
        return jnp.zeros(min(m, r, n), jnp.finfo(pair[0].dtype).dtype)
    return _rules.leading_by_products(_every_triplet, _operator(*pair, None))[1]


def _every_triplet(op: LinearOperator, key: Array | None) -> tuple[Array, Array, Array]:
    t = triplets(op.params[:2])
    return poison(t.ok, t.u), jnp.where(t.ok, restored(t.s, t.e), t.largest), poison(t.ok, t.vh)


def factored_nuclear_bound(b: ArrayLike, a: ArrayLike) -> Array:
    """``||B||_F ||A||_F >= ||B A||_*``, of the shapes of :func:`factored_norm`; two passes over the factors.

    So is ``(||B||_F^2 + ||A||_F^2) / 2``, which weight decay of both factors penalises. Equality holds if and only if
    ``B^H B = c A A^H`` (with c = 1 for the mean of squares): for :func:`balanced_factors`, and all that gradient flow
    from a small start reaches. Differentiable twice, as Frobenius norms are. Source: Srebro, Rennie and Jaakkola 2005,
    lemma 1.

    >>> import jax.numpy as jnp, jaxnorms as jn
    >>> b, a = jnp.eye(2), jnp.diag(jnp.array([3.0, 4.0]))
    >>> jn.factored_nuclear_bound(b, a) >= jn.factored_nuclear_norm(b, a)
    Array(True, dtype=bool)
    """
    pair = _checked(b, a, "factored_nuclear_bound")
    frobenius = as_norm("fro")
    return frobenius(pair[0]) * frobenius(pair[1])


def balanced_factors(b: ArrayLike, a: ArrayLike) -> Pair:
    """``(B', A')`` with ``B' A' = B A`` and ``B'^H B' = A' A'^H``: the factors for which ``||B'||_F ||A'||_F``
    is the nuclear norm of the product.

    ``B' = U S^(1/2)``, ``A' = S^(1/2) V^H`` of the shapes of B and A, padded with zeros where r > min(m, n). Constants
    of the derivative: they depend on the basis of tied singular values. Shapes, types and cost are those of
    :func:`factored_norm`; NaN or infinite entries give NaN. To move weights between the factors of an adapter without
    changing its product.

    >>> import jax.numpy as jnp, jaxnorms as jn
    >>> b, a = jn.balanced_factors(jnp.array([[8.0]]), jnp.array([[2.0]]))
    >>> jnp.abs(b), jnp.abs(a)
    (Array([[4.]], dtype=float32), Array([[4.]], dtype=float32))
    """
    return _over_pairs(_balanced, None, *jax.lax.stop_gradient(_checked(b, a, "balanced_factors")))


def _balanced(_: None, pair: Pair) -> Pair:
    (m, r), n = pair[0].shape, pair[1].shape[1]
    if 0 in (m, r, n):
        return jnp.zeros_like(pair[0]), jnp.zeros_like(pair[1])
    t = triplets(pair)
    half = t.e // 2
    root = jnp.sqrt(scale(t.s, t.e - 2 * half)).astype(t.u.dtype)
    b, a = (poison(t.ok, scale(x, half)) for x in (t.u * root[None, :], root[:, None] * t.vh))
    more = r - len(t.s)
    return jnp.pad(b, ((0, 0), (0, more))), jnp.pad(a, ((0, more), (0, 0)))


def factored_operator(b: ArrayLike, a: ArrayLike, w: ArrayLike | None = None) -> LinearOperator:
    """``W_0 + B A`` as a :class:`LinearOperator` with the parameters ``(b, a, w)``, for the norms that take one.

    B is (m, r), A (r, n), W_0 (m, n) or None, of one type; nothing is formed: a product costs ``m n + (m + n) r``
    multiplications. Differentiated with respect to the operator, or to what it was made of. ``nuclear_norm`` needs
    ``rank``. Raises ``ValueError`` for shapes that do not fit.

    >>> import jax, jax.numpy as jnp, jaxnorms as jn
    >>> b, a, w = jnp.array([[2.0], [0.0]]), jnp.array([[1.0, 0.0]]), jnp.diag(jnp.array([3.0, 1.0]))
    >>> jax.value_and_grad(lambda b: jn.spectral_norm(jn.factored_operator(b, a, w)))(b)
    (Array(5., dtype=float32), Array([[1.],
           [0.]], dtype=float32))
    """
    x, y = _checked(b, a, "factored_operator")
    shape = (x.shape[-2], y.shape[-1])
    base = None if w is None else _checks.matrix(w, "factored_operator", "w")
    given = x.ndim, y.ndim, shape if base is None else base.shape
    if given != (2, 2, shape):
        raise ValueError(
            f"factored_operator: b, a and w must have shapes (m, r), (r, n) and (m, n), got {x.shape}, {y.shape}"
            + ("" if base is None else f" and {base.shape}")
        )
    if base is not None and base.dtype != x.dtype:
        raise TypeError(f"factored_operator: w must have the type of b and a, {x.dtype}, got {base.dtype}")
    return _operator(x, y, base)


def _operator(b: Array, a: Array, w: Array | None) -> LinearOperator:
    return LinearOperator((b, a, w), _forward, _adjoint, (b.shape[0], a.shape[1]), b.dtype)


def _forward(params: Params, x: Array) -> Array:
    return replicated(_product, params, x)


def _adjoint(params: Params, y: Array) -> Array:
    b, a, w = params
    return replicated(_product, (a.conj().T, b.conj().T, None if w is None else w.conj().T), y)


def _product(params: Params, x: Array) -> Array:
    b, a, w = params
    product = matmul(b, matmul(a, x))
    return product if w is None else product + matmul(w, x)


def latent_attention_factors(down: ArrayLike, up_key: ArrayLike, up_value: ArrayLike) -> Pair:
    """``(b, a)`` of the map from a token to all its keys and values in latent attention: ``x -> x B A``.

    Keys and values are ``(x D) U_k`` and ``(x D) U_v`` with the shared latent vector ``x D`` that is kept in the cache:
    ``down`` D is (d, r), ``up_key`` and ``up_value`` are (r, heads, size), or (r, columns). B is D, and A the columns
    of U_k and U_v beside each other, so that ``factored_norm(b, a, ...)`` is the norm of the joint map. That of the
    keys of a single head has ``a = up_key[:, head]``. Source: DeepSeek-AI 2024 (arXiv 2405.04434, section 2.1).

    >>> import jax.numpy as jnp, jaxnorms as jn
    >>> b, a = jn.latent_attention_factors(jnp.ones((6, 2)), jnp.ones((2, 3, 4)), jnp.ones((2, 3, 5)))
    >>> b.shape, a.shape
    ((6, 2), (2, 27))
    """
    ups = []
    for name, up in (("up_key", up_key), ("up_value", up_value)):
        x = _checks.as_inexact(up, name)
        if x.ndim not in (2, 3):
            raise ValueError(
                f"latent_attention_factors: {name} must have shape (r, heads, size) or (r, columns), got {x.shape}"
            )
        ups.append(x.reshape(x.shape[0], -1))
    if ups[0].shape[0] != ups[1].shape[0]:
        raise ValueError(
            "latent_attention_factors: up_key and up_value must have the same number of rows, "
            f"got shapes {ups[0].shape} and {ups[1].shape}"
        )
    return _checked(down, jnp.concatenate(ups, axis=1), "latent_attention_factors", ("down", "up_key"))


def _checked(b: ArrayLike, a: ArrayLike, function: str, names: tuple[str, str] = ("b", "a")) -> Pair:
    x, y = _checks.matrix(b, function, names[0]), _checks.matrix(a, function, names[1])
    if x.dtype != y.dtype:
        raise TypeError(f"{function}: {names[0]} and {names[1]} must have one type, got {x.dtype} and {y.dtype}")
    if x.shape[-1] != y.shape[-2]:
        raise ValueError(
            f"{function}: {names[0]} and {names[1]} must have shapes (..., m, r) and (..., r, n), "
            f"got {x.shape} and {y.shape}"
        )
    return x, y


def _factored_norm(b: ArrayLike, a: ArrayLike, ord: Norm | str, function: str) -> Array:
    pair, norm = _checked(b, a, function), as_norm(ord)
    lift = SpectralLift(Lp(2.0)) if norm == as_norm("fro") else norm.lift
    if not isinstance(lift, SpectralLift):
        raise ValueError(f"{function}: ord must be a unitarily invariant norm, got {norm!r}")
    (m, r), n = pair[0].shape[-2:], pair[1].shape[-1]
    if m and n:
        norm.check(m, n)
    if 0 in (m, r, n):
        batch = jnp.broadcast_shapes(pair[0].shape[:-2], pair[1].shape[:-2])
        return jnp.zeros(batch, jnp.finfo(pair[0].dtype).dtype)
    return _over_pairs(_rules.evaluate, FactoredLift(lift.gauge), *pair)


def _over_pairs(f: Callable[[Any, Pair], Any], lift: Any, b: Array, a: Array) -> Any:
    """``f(lift, (b, a))`` over broadcast leading axes, in working precision."""
    return replicated(partial(_batched, f, lift), tied(b), tied(a))


@partial(jax.jit, static_argnums=0)
def _batched(f: Callable[[Any, Pair], Any], lift: Any, b: Array, a: Array) -> Any:
    dtype, batch = b.dtype, max(b.ndim, a.ndim) - 2
    b, a = (jnp.expand_dims(x, tuple(range(batch + 2 - x.ndim))) for x in (b, a))
    batches = [*zip(b.shape[:-2], a.shape[:-2], strict=True)]
    axes = [tuple(None if size == 1 and sizes != (1, 1) else 0 for size in sizes) for sizes in batches]
    # An axis of one entry is shared by those that the other factor has: what depends on it alone is computed once.
    b, a = (jnp.squeeze(x, tuple(i for i, pair in enumerate(axes) if pair[j] is None)) for j, x in enumerate((b, a)))

    def run(b: Array, a: Array) -> Any:
        wide = _checks.working_dtype(dtype)
        out = f(lift, (b.astype(wide), a.astype(wide)))
        return jax.tree.map(lambda y: y.astype(dtype if jnp.iscomplexobj(y) else jnp.finfo(dtype).dtype), out)

    shape = tuple(0 if 0 in sizes else max(sizes) for sizes in batches)
    if 0 in shape:
        single = (jax.ShapeDtypeStruct(x.shape[-2:], dtype) for x in (b, a))
        return jax.tree.map(lambda y: jnp.zeros((*shape, *y.shape), y.dtype), jax.eval_shape(run, *single))
    for pair in reversed(axes):
        run = jax.vmap(run, in_axes=pair)
    return run(b, a)
