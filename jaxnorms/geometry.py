"""Duals, subgradients, proximal operators, projections and linear minimisation oracles of every norm.

``ord`` is a norm object, or ``'fro'``, ``'nuc'`` or ``'spectral'``. Everything comes from the gauge of the norm:
its subgradient, its dual, and the projection onto its ball, which the lift carries to matrices.
"""

from typing import Any, Literal, Unpack, get_args

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxnorms import _checks, _rules
from jaxnorms._batching import over_batch
from jaxnorms._scaling import max_abs
from jaxnorms.carried import carrier
from jaxnorms.column_gauge import Columns
from jaxnorms.gauges import Lp
from jaxnorms.lifts import EntrywiseLift, SpectralLift
from jaxnorms.norm_objects import Dual, Entrywise, KyFan, Mixed, Norm, Schatten, as_norm, matrix_norm_of
from jaxnorms.options import How, Options, Request, refuse_unknown, request
from jaxnorms.top_gauges import TopK

ImageMethod = Literal["auto", "svd", "krylov", "polar"]


def dual(ord: Any) -> Norm:
    """The dual norm, ``max Re<a, x>`` over ``ord(x) <= 1``, as a norm object.

    It has its own name where there is one, and is ``Dual(ord)`` elsewhere: for Ky Fan norms, and where p*, rounded,
    has not p for its own conjugate. So ``dual(dual(ord)) == ord`` always. Raises ``TypeError`` or ``ValueError``
    for what is not a norm.

    >>> import jaxnorms as jn
    >>> jn.dual("nuc"), jn.dual(jn.Mixed(2, 1)), jn.dual(jn.KyFan(2))
    (Schatten(p=inf), Mixed(p=2.0, q=inf, axis=-1), Dual(ord=KyFan(k=2, p=1.0)))
    """
    norm = as_norm(ord)
    if isinstance(norm, Dual):
        return norm.ord
    named = _named(Dual(norm))
    return named if named is not None and Dual(named) == norm else Dual(norm)


def _named(norm: Norm) -> Norm | None:
    try:
        lift = norm.lift
    except ValueError:
        return None
    match lift:
        case EntrywiseLift(Lp(p)):
            return Entrywise(p)
        case EntrywiseLift(Columns(inner, outer, rows)):
            return Mixed(inner.p, outer.p, -2 if rows else -1)
        case SpectralLift(Lp(p)):
            return Schatten(p)
        case SpectralLift(TopK(k, p)):
            return KyFan(k, p)
    return None


def dual_norm(a: ArrayLike, ord: Any, **options: Unpack[Options]) -> Array:
    """The dual norm of ``(..., m, n)`` matrices: ``max Re<a, x>`` over ``ord(x) <= 1``, of shape ``(...)``.

    Keywords, errors, cost and derivatives are those of every norm (:class:`jaxnorms.options.Options`).

    >>> import jax.numpy as jnp, jaxnorms as jn
    >>> jn.dual_norm(jnp.diag(jnp.array([3.0, -4.0])), "spectral")
    Array(7., dtype=float32)
    """
    return matrix_norm_of(dual(ord), a, "dual_norm", options)


def subgradient(a: ArrayLike, ord: Any, **how: Unpack[How]) -> Array:
    """The subgradient G of minimum Frobenius norm at ``(..., m, n)`` matrices: ``<G, a> = ||a||``, ``||G||_dual <= 1``.

    G itself, of which ``jax.grad`` of the norm returns the conjugate for complex matrices. Differentiable once, by
    the second derivative of the norm. Keywords: :class:`jaxnorms.options.How`. Cost: that of the gradient.

    >>> import jax.numpy as jnp, jaxnorms as jn
    >>> jn.subgradient(jnp.diag(jnp.array([3.0, 0.0])), "nuc")
    Array([[1., 0.],
           [0., 0.]], dtype=float32)
    """
    refuse_unknown(how, "subgradient", How)
    norm, x = _checked(a, ord, "subgradient")
    return over_batch(_subgradient, x, lift=norm.lift.using(request(how)))


def _subgradient(a: Array, lift: Any) -> Array:
    return _rules.subgradient(lift, a) if a.size else a


def prox(a: ArrayLike, step: ArrayLike, ord: Any, *, rank: int | None = None, method: ImageMethod = "auto") -> Array:
    """The proximal operator ``argmin_y ord(y) + ||a - y||_F^2 / (2 step)`` of ``(..., m, n)`` matrices.

    Soft thresholding of the entries, columns or singular values for ``Entrywise(1)``, ``Mixed(2, 1)`` and ``'nuc'``;
    in general ``a - project(a, step, dual(ord))`` (Moreau 1965). ``step >= 0`` (NaN below) may be traced and
    differentiated, and has a shape that broadcasts to ``(...)``.

    Differentiable once, in ``a`` and ``step`` (from the right at 0), with an element of the generalised Jacobian at
    kinks. How exact, at what cost, and what ``rank`` and ``method`` do: see :func:`project`. Raises ``ValueError``
    where the dual norm or the projection is not known: general induced norms (NP-hard), a user's gauge without these
    methods.

    >>> import jax.numpy as jnp, jaxnorms as jn
    >>> jn.prox(jnp.diag(jnp.array([3.0, 0.5])), 1.0, "nuc")
    Array([[2., 0.],
           [0., 0.]], dtype=float32)
    """
    return _of_image("prox", a, ord, step, "step", rank, method)


def project(
    a: ArrayLike, radius: ArrayLike, ord: Any, *, rank: int | None = None, method: ImageMethod = "auto"
) -> Array:
    """The nearest point to ``a``, in Frobenius norm, of the ball ``ord(y) <= radius``; ``(..., m, n)`` matrices.

    ``radius >= 0`` (NaN below) may be traced and differentiated, and has a shape that broadcasts to ``(...)``.

    | gauge | projection |
    |---|---|
    | l_inf, l_2 | closed form |
    | l_1, dual of Ky Fan (k, 1) | one threshold by bisection, to the last bit: 31 or 63 sums |
    | l_p | a multiplier by bisection and each entry by 12 steps of Newton's method |
    | Ky Fan (k, p) and their duals | a multiplier and a threshold by nested bisections |
    | L_{p,q}: p = 2, or q = inf | as the gauge of the norms of the columns, or as the gauge of each column |
    | other L_{p,q} | multipliers of the columns, and one for all, by nested bisections: for small matrices |

    Ky Fan norms, their duals with p > 1 and the last row are accurate relative to the norm of ``a``, so that nothing
    but feasibility is left where that is 1 / eps times the radius; the others relative to ``radius`` itself. Of the
    singular values for unitarily invariant norms: one SVD. Differentiable once, in ``a`` and ``radius`` (from the
    right at 0), with an element of the generalised Jacobian at kinks and at the boundary, from an SVD. Raises
    ``ValueError`` where it is not known: general induced norms (NP-hard), a user's gauge without this method. Source:
    Duchi et al. 2008 (l_1); Argyriou, Foygel, Srebro 2012 (k-support); Lewis 1995 (singular values).

    The prox and the projection of the nuclear and of the spectral norm are ``a``, or 0, but for the singular values
    above a threshold. ``rank=k`` expects k of them at most: then the k + 1 leading triplets of a large matrix are
    computed, ``method="krylov"``, and all of them only where that was not enough, which is checked (in a batch, for
    all of its matrices if one needs it): the result is the same to rounding. The derivative takes an SVD all the same.
    Where the threshold is ``step`` or ``radius``, in the prox of the nuclear and the projection of the spectral norm,
    ``method="polar"`` takes two polar factors, about 50 products, and an SVD where one of them is not accurate, or
    where the ball is so small that a difference from ``a`` would not be; ``"auto"`` does so on accelerators, not on
    CPU or a mesh. ``"svd"`` is the reference. Norms of the entries take neither keyword.

    >>> import jax.numpy as jnp, jaxnorms as jn
    >>> jn.project(jnp.diag(jnp.array([3.0, 0.5])), 1.0, "spectral")
    Array([[1. , 0. ],
           [0. , 0.5]], dtype=float32)
    """
    return _of_image("project", a, ord, radius, "radius", rank, method)


def _of_image(
    name: str, a: ArrayLike, ord: Any, number: ArrayLike, called: str, rank: int | None, method: ImageMethod
) -> Array:
    norm, x = _checked(a, ord, name)
    _checks.choice(method, "method", get_args(ImageMethod))
    if rank is not None and x.size:
        rank = _checks.count(rank, "rank", min(x.shape[-2:]))
    how = request({"method": method}, rank)
    return over_batch(_image, x, along=(_checks.number(number, called, x),), lift=norm.lift, name=name, how=how)


def _image(a: Array, number: Array, lift: Any, name: str, how: Request) -> Array:
    """At 0 the value, a or 0, with the derivatives of what follows; NaN below."""
    if not a.size:
        return a
    image = _rules.carry(carrier(lift, name, how), a, _positive(number, a))
    at_zero = jax.lax.stop_gradient(a if name == "prox" else jnp.zeros_like(a))
    at_zero += image - jax.lax.stop_gradient(image)
    return jnp.where(number > 0, image, jnp.where(number == 0, at_zero, jnp.nan))


def _positive(number: Array, a: Array) -> Array:
    """The number, and where it is not positive, one so small that the derivatives are those at 0 to rounding."""
    largest = jax.lax.stop_gradient(max_abs(a))
    small = float(jnp.finfo(number.dtype).eps) * jnp.where(largest > 0, largest, 1)
    return jnp.where(number > 0, number, number - jax.lax.stop_gradient(number) + small)


def lmo(a: ArrayLike, radius: ArrayLike = 1.0, ord: Any = "spectral", **how: Unpack[How]) -> Array:
    """The linear minimisation oracle ``argmin Re<a, x>`` over ``ord(x) <= radius``, for ``(..., m, n)`` matrices.

    It is ``-radius`` times the subgradient of minimum norm of the dual norm, and so unique: ``-radius U V^H`` for
    the spectral norm, ``-radius u_1 v_1^H`` for the nuclear norm where s_1 is simple, 0 at 0. It does not
    depend on the scale of ``a``. The finite ``radius >= 0`` (NaN below) broadcasts to ``(...)``.

    Differentiable once in ``a``, and in ``radius``. Keywords, :class:`jaxnorms.options.How`, are for the dual norm:
    for ``ord='spectral'``, ``method='polar'`` with ``compute_dtype=jnp.bfloat16, tol=1e-2`` is the step of an
    optimiser. Cost: that of the gradient of the dual norm.

    >>> import jax.numpy as jnp, jaxnorms as jn
    >>> jn.lmo(jnp.array([[3.0, 0.0], [0.0, -2.0]]), 1.0, "spectral")
    Array([[-1., -0.],
           [-0.,  1.]], dtype=float32)
    """
    refuse_unknown(how, "lmo", How)
    norm, x = _checked(a, ord, "lmo")
    return over_batch(_lmo, x, along=(_checks.number(radius, "radius", x),), lift=norm.lift.dual().using(request(how)))


def _lmo(a: Array, radius: Array, lift: Any) -> Array:
    return -jnp.where(radius >= 0, radius, jnp.nan).astype(a.dtype) * _subgradient(a, lift)


def moreau_envelope(a: ArrayLike, step: ArrayLike, ord: Any) -> Array:
    """``min_y ord(y) + ||a - y||_F^2 / (2 step)`` of ``(..., m, n)`` matrices, of shape ``(...)``.

    A smooth lower bound of the norm, with the gradient ``(a - prox(a, step, ord)) / step``; twice differentiable, in
    ``a`` and ``step > 0`` (NaN elsewhere), with an element of the generalised Hessian at kinks. Errors and cost as
    for :func:`prox`. For ``Entrywise(1)`` of one entry it is Huber's function.

    >>> import jax, jax.numpy as jnp, jaxnorms as jn
    >>> jax.value_and_grad(jn.moreau_envelope)(jnp.diag(jnp.array([3.0, 0.0])), 1.0, "nuc")
    (Array(2.5, dtype=float32), Array([[1., 0.],
           [0., 0.]], dtype=float32))
    """
    norm, x = _checked(a, ord, "moreau_envelope")
    return over_batch(_envelope, x, along=(_checks.number(step, "step", x),), lift=norm.lift)


def _envelope(a: Array, step: Array, lift: Any) -> Array:
    if not a.size:
        return jnp.zeros_like(step)
    positive = step > 0
    value = _rules.envelope(carrier(lift, "rest"), lift.gauge, a, jnp.where(positive, step, 1))
    return jnp.where(positive, value, jnp.nan)


def _checked(a: ArrayLike, ord: Any, function: str) -> tuple[Norm, Array]:
    norm, x = as_norm(ord), _checks.matrix(a, function)
    if x.size:
        norm.check(*x.shape[-2:])
    return norm, x
