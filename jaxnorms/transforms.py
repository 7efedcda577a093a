"""Gradient transformations by matrix norms, for optax (``pip install "jaxnorms[optax]"``).

Which leaves are matrices, and what ``ord``, ``where`` and ``batch_axes`` mean, is as for :func:`jaxnorms.penalty`. A
leaf that is none, or that has no norm, is passed through. Bounds, weights and steps are numbers, which may be traced,
schedules, which are functions of the count of updates, or mappings from regular expressions of paths to either. Nothing
depends on the scale of gradients, from 1e-30 to 1e30; 16-bit leaves are computed in float32; on a mesh every matrix
stays sharded as it is. A NaN in a matrix makes the update of that matrix NaN, and by its momentum all later ones:
``optax.apply_if_finite`` drops such a step. Gradients of complex parameters are the conjugates of those of
``jax.grad``, as for every transformation of optax. ``optax.inject_hyperparams`` may trace bounds, weights, steps, a
radius that is a number, and ``momentum``; all other arguments are its ``static_args``.
"""

from collections.abc import Callable, Mapping
from math import inf
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike, DTypeLike

from jaxnorms import _checks
from jaxnorms._layout import like
from jaxnorms.geometry import lmo, project, prox, subgradient
from jaxnorms.learning.clipping import clip_by_norm
from jaxnorms.learning.leaves import BatchAxes, ByPath, Ord, Stack, Where, check, chosen, inexact, replaced, stacks
from jaxnorms.norm_objects import Schatten
from jaxnorms.options import How

try:
    import optax
except ImportError as error:
    raise ImportError('jaxnorms.transforms needs optax: pip install "jaxnorms[optax]"') from error

__all__ = ["add_norm_penalty", "clip_by_matrix_norm", "project_params", "proximal_step", "scale_by_lmo"]

Number = ByPath[ArrayLike | Callable[[Array], ArrayLike]]
Shaped = ByPath[ArrayLike] | Callable[[int, int], ArrayLike]


class CountState(NamedTuple):
    """How many updates there have been."""

    steps: Array


class MomentumState(NamedTuple):
    """The momentum of each leaf, and ``optax.MaskedNode()`` for those that are passed through."""

    momentum: Any


def clip_by_matrix_norm(
    max_norm: Number,
    ord: Ord = "spectral",
    *,
    by: Literal["scaling", "projection"] = "scaling",
    where: Where = None,
    batch_axes: BatchAxes = 0,
) -> optax.GradientTransformation:
    """Each matrix of the updates clipped by its own norm: :func:`jaxnorms.clip_by_norm`.

    >>> import jax.numpy as jnp, jaxnorms as jn
    >>> from jaxnorms import transforms
    >>> clip = transforms.clip_by_matrix_norm(2.0)
    >>> g = jnp.diag(jnp.array([8.0, 1.0]))
    >>> clip.update(g, clip.init(g))[0]
    Array([[2.  , 0.  ],
           [0.  , 0.25]], dtype=float32)
    """

    clip_by_norm((), 0.0, ord, by=by, where=where, batch_axes=batch_axes)  # refuses what it does not take

    def update(updates: Any, _params: Any, bound: Any) -> Any:
        return clip_by_norm(updates, bound, ord, by=by, where=where, batch_axes=batch_axes)

    return _scheduled(max_norm, update, None)


def scale_by_lmo(
    ord: Ord = "spectral",
    *,
    radius: Shaped = 1.0,
    momentum: ArrayLike = 0.95,
    nesterov: bool = True,
    where: Where = None,
    batch_axes: BatchAxes = 0,
    compute_dtype: DTypeLike | None = None,
    tol: float | None = None,
) -> optax.GradientTransformation:
    """``-argmin Re<M, X>`` over ``ord(X) <= radius``, of the momentum M: steepest descent in any norm.

    ``M <- momentum M + (1 - momentum) G``, and with ``nesterov`` that once more for the direction. The sign is that of
    the gradient, to be followed by ``optax.scale_by_learning_rate``; the norm of each update is ``radius``, but 0 for
    a zero momentum. It is

    * Muon for ``'spectral'``, without its failure for gradients of size 1e-12 or 1e19;
    * sign descent for ``Entrywise(inf)``, normalised gradient descent for ``'fro'``, one of rank 1 for ``'nuc'``;
    * Scion for a mapping from paths to norms, such as ``{"embed": Mixed(2, inf, axis=-2), "kernel": 'spectral'}``.

    All leaves count, those with fewer axes than a matrix as columns: for ``'spectral'`` a bias moves by its normalised
    gradient. Leaves without a norm are passed through, without momentum: give them an optimiser by ``optax.partition``.
    ``radius``, a number or one for each path, may be a function of rows and columns, such as ``lambda m, n: max(1, n /
    m) ** 0.5`` of kernels ``(in, out)``; a schedule is that of the learning rate. ``0 <= momentum < 1`` may be traced,
    and gives NaN elsewhere then; the average is kept in 32 bits at least.

    ``compute_dtype`` and ``tol`` are for the spectral norm alone: with a ``compute_dtype``, such as ``jnp.bfloat16`` on
    accelerators and ``jnp.float32`` on CPU, ``U V^H`` comes from products in this type, to ``tol=1e-2`` if so wished,
    of real matrices and with no check: directions in which the momentum has no rank get a step of up to 1, as in Muon.
    By default the result is exact, 0 there, at the cost of an SVD where the momentum is rank-deficient, as for a batch
    of fewer samples than columns. Source: Jordan et al. 2024 (Muon); Pethick et al. 2025 (Scion).

    >>> import jax.numpy as jnp, jaxnorms as jn
    >>> from jaxnorms import transforms
    >>> muon = transforms.scale_by_lmo("spectral")
    >>> g = {"kernel": 1e-30 * jnp.array([[6.0, 8.0], [-4.0, 3.0]]), "bias": jnp.array([3e30, 4e30])}
    >>> updates, _ = muon.update(g, muon.init(g))
    >>> updates["kernel"].round(6), updates["bias"].round(6)
    (Array([[ 0.6,  0.8],
           [-0.8,  0.6]], dtype=float32), Array([0.6, 0.8], dtype=float32))
    """
    check(ord, where, batch_axes, "scale_by_lmo")
    nesterov = _checks.flag(nesterov, "nesterov")
    _checks.scalar(momentum, "momentum", "scale_by_lmo")  # refuses what it is not, before the first update
    if isinstance(momentum, int | float) and not 0 <= momentum < 1:
        raise ValueError(f"scale_by_lmo: momentum must be at least 0 and below 1, got {momentum!r}")
    by_products = compute_dtype is not None or tol is not None
    how: How = {"method": "polar", "compute_dtype": compute_dtype, "tol": tol} if by_products else {}

    def init(params: Any) -> Any:
        counted = {i for i, *_ in chosen(params, ord, where, batch_axes, "scale_by_lmo", columns=True)}
        leaves, structure = jax.tree.flatten(params)
        start = [_wide(jnp.zeros_like(x)) if i in counted else optax.MaskedNode() for i, x in enumerate(leaves)]
        return MomentumState(jax.tree.unflatten(structure, start))

    def oracle(stack: Stack) -> Array:
        m, n = stack.matrices.shape[-2:]
        size = radius(m, n) if callable(radius) else stack.each(radius, "radius", "scale_by_lmo")
        return -lmo(stack.matrices, size, stack.norm, **how if stack.norm == Schatten(inf) else {})

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        del params
        beta = _checks.scalar(momentum, "momentum", "scale_by_lmo")
        beta = jnp.where((beta >= 0) & (beta < 1), beta, jnp.nan)

        def average(g: Array, m: Any) -> Any:
            if isinstance(m, optax.MaskedNode):
                return m
            share = beta.astype(jnp.finfo(m.dtype).dtype)
            return like(g, share.astype(m.dtype) * m + (1 - share).astype(m.dtype) * jnp.asarray(g, m.dtype))

        moments = jax.tree.map(average, updates, state.momentum)
        directions = jax.tree.map(average, updates, moments) if nesterov else moments
        found = stacks(directions, ord, None, batch_axes, "scale_by_lmo", columns=True)
        steps = replaced(directions, [(stack, oracle(stack)) for stack in found])
        return jax.tree.map(_restored, updates, steps), MomentumState(moments)

    return optax.GradientTransformation(init, update)


def add_norm_penalty(
    ord: Ord, weight: Number = 1.0, *, where: Where = None, batch_axes: BatchAxes = 0
) -> optax.GradientTransformation:
    """The updates plus ``weight * subgradient(W, ord)`` of each matrix W of the parameters.

    First in a chain, it is as if :func:`jaxnorms.penalty` were added to the loss; between a ``scale_by_...`` and
    ``optax.scale_by_learning_rate``, it is decoupled decay, as in AdamW.

    >>> import jax.numpy as jnp, jaxnorms as jn
    >>> from jaxnorms import transforms
    >>> decay = transforms.add_norm_penalty("nuc", 0.1)
    >>> w = jnp.diag(jnp.array([3.0, 0.0]))
    >>> decay.update(jnp.zeros((2, 2)), decay.init(w), w)[0]
    Array([[0.1, 0. ],
           [0. , 0. ]], dtype=float32)
    """

    def update(updates: Any, params: Any, value: Any) -> Any:
        def slopes(stack: Stack) -> Array:
            w = stack.each(value, "weight", "add_norm_penalty")[..., None, None]
            return w.astype(stack.matrices.dtype) * subgradient(stack.matrices, stack.norm)

        def added(u: Any, p: Any, g: Any) -> Any:
            return u if g is p else u + _restored(u, g)

        wide = jax.tree.map(_wide, params)
        found = stacks(wide, ord, where, batch_axes, "add_norm_penalty")
        return _map(added, updates, wide, replaced(wide, [(stack, slopes(stack)) for stack in found]))

    check(ord, where, batch_axes, "add_norm_penalty")
    return _scheduled(weight, update, "add_norm_penalty")


def proximal_step(
    step: Number, ord: Ord, *, where: Where = None, batch_axes: BatchAxes = 0
) -> optax.GradientTransformation:
    """Updates after which each matrix is ``prox(W + update, step, ord)``: the last of a chain.

    ``step`` is the learning rate times the weight of the penalty.

    After gradient descent it is the proximal gradient method: exact zeros of entries, columns or singular values, which
    the subgradient of a penalty only comes near. Prox and its errors: :func:`jaxnorms.prox`. What ``params + update``
    rounds to is as near to it as the types of both allow.

    >>> import jax.numpy as jnp, optax
    >>> from jaxnorms import transforms
    >>> descent = optax.chain(optax.sgd(1.0), transforms.proximal_step(1.0, "nuc"))
    >>> w = jnp.diag(jnp.array([3.0, 0.5]))
    >>> updates, _ = descent.update(jnp.zeros((2, 2)), descent.init(w), w)
    >>> optax.apply_updates(w, updates)
    Array([[2., 0.],
           [0., 0.]], dtype=float32)
    """
    return _moved(prox, step, "step", "proximal_step", ord, where, batch_axes)


def project_params(
    radius: Number, ord: Ord, *, where: Where = None, batch_axes: BatchAxes = 0
) -> optax.GradientTransformation:
    """Updates after which each matrix is ``project(W + update, radius, ord)``: the last of a chain.

    Projected gradient descent onto the ball ``ord(W) <= radius``, up to the rounding of ``params + update`` in the
    types of both. Projection and its errors: :func:`jaxnorms.project`.

    >>> import jax.numpy as jnp, optax
    >>> from jaxnorms import transforms
    >>> descent = optax.chain(optax.sgd(1.0), transforms.project_params(1.0, "spectral"))
    >>> w = jnp.diag(jnp.array([3.0, 0.5]))
    >>> updates, _ = descent.update(jnp.zeros((2, 2)), descent.init(w), w)
    >>> optax.apply_updates(w, updates)
    Array([[1. , 0. ],
           [0. , 0.5]], dtype=float32)
    """
    return _moved(project, radius, "radius", "project_params", ord, where, batch_axes)


def _moved(
    image: Callable[..., Array], number: Number, name: str, function: str, ord: Ord, where: Where, batch_axes: BatchAxes
) -> optax.GradientTransformation:
    def update(updates: Any, params: Any, value: Any) -> Any:
        ends = _map(lambda u, p: _wide(p) + _wide(u) if inexact(p) else p, updates, params)
        found = stacks(ends, ord, where, batch_axes, function)
        images = [(stack, image(stack.matrices, stack.each(value, name, function), stack.norm)) for stack in found]

        def shift(u: Any, p: Any, end: Any, image: Any) -> Any:
            return u if image is end else _restored(u, image - jnp.asarray(p, image.dtype))

        return _map(shift, updates, params, ends, replaced(ends, images))

    check(ord, where, batch_axes, function)
    return _scheduled(number, update, function)


def _scheduled(
    number: Number, update: Callable[[Any, Any, Any], Any], needs_params: str | None
) -> optax.GradientTransformation:
    """``update(updates, params, number)``, with the number of this update; the function that needs the parameters."""

    def init(params: Any) -> Any:
        del params
        return CountState(jnp.zeros((), jnp.int32))

    def step(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        if needs_params and params is None:
            raise ValueError(f"{needs_params}: params must be given, as in update(updates, state, params)")
        return update(updates, params, _at(number, state.steps)), CountState(
            jnp.asarray(optax.safe_increment(state.steps))
        )

    return optax.GradientTransformation(init, step)


def _at(number: Any, steps: Array) -> Any:
    if isinstance(number, Mapping):
        return {path: _at(value, steps) for path, value in number.items()}
    return number(steps) if callable(number) else number


def _map(f: Callable[..., Any], updates: Any, *trees: Any) -> Any:
    """``f`` of each update that there is, and of what the trees have in its place."""
    return jax.tree.map(lambda u, *x: None if u is None else f(u, *x), updates, *trees, is_leaf=lambda u: u is None)


def _restored(update: Any, new: Any) -> Any:
    """The new update in the type of the old one, and spread over a mesh like it."""
    if isinstance(new, optax.MaskedNode):
        return update
    update = jnp.asarray(update)
    return like(update, new.astype(update.dtype))


def _wide(x: Any) -> Any:
    if not inexact(x):
        return x
    x = jnp.asarray(x)
    return x.astype(_checks.working_dtype(x.dtype))
