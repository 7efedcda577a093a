"""The signatures that others have: ``jnp.linalg.norm`` and the Python array API."""

import math
from typing import Any, Unpack

from jax import Array
from jax.typing import ArrayLike

from jaxnorms import _checks
from jaxnorms.column_gauge import Columns
from jaxnorms.gauges import Lp
from jaxnorms.lifts import EntrywiseLift, SpectralLift
from jaxnorms.norm_objects import Norm, apply, inf, matrix_norm_of
from jaxnorms.options import How, refuse_unknown, request

_MATRIX_LIFTS = {
    "fro": EntrywiseLift(Lp(2.0)),
    "f": EntrywiseLift(Lp(2.0)),
    "nuc": SpectralLift(Lp(1.0)),
    2.0: SpectralLift(Lp(inf)),
    -2.0: SpectralLift(Lp(-inf)),
    1.0: EntrywiseLift(Columns(Lp(1.0), Lp(inf))),
    -1.0: EntrywiseLift(Columns(Lp(1.0), Lp(-inf))),
    inf: EntrywiseLift(Columns(Lp(1.0), Lp(inf), rows=True)),
    -inf: EntrywiseLift(Columns(Lp(1.0), Lp(-inf), rows=True)),
}


def norm(x: ArrayLike, ord: Any = None, axis: Any = None, keepdims: bool = False, **how: Unpack[How]) -> Array:
    """Norm of vectors or matrices: the drop-in for ``jnp.linalg.norm``, or any norm object.

    ``axis=None`` takes the whole array: with ``ord=None`` the l_2 norm of all entries of an array
    of any rank, else a vector or a matrix. An integer ``axis`` gives vector norms, a pair matrix
    norms. For vectors ``ord`` is any real number (0 counts nonzeros, ``-inf`` is the smallest
    magnitude); for matrices ``'fro'``, ``'nuc'``, 2, -2 (largest, smallest singular value), 1, -1
    (largest, smallest column sum), inf, -inf (row sums), or an object such as ``Schatten(4)``.
    All of them are static, and so is ``how`` (see :class:`jaxnorms.options.How`).

    Derivatives as in ``jaxnorms.norms``. Orders below 1 are no norms: their derivative is averaged
    over ties and 0 at zeros, their second derivative that of the formula with infinite terms
    dropped. Raises ``ValueError`` for an order that is not defined for the number of axes, and for
    a negative order of an empty array.

    >>> import jax.numpy as jnp, jaxnorms as jn
    >>> jn.norm(jnp.array([3.0, 4.0]))
    Array(5., dtype=float32)
    >>> jn.norm(jnp.ones((2, 3, 3)), ord="nuc", axis=(1, 2))
    Array([3., 3.], dtype=float32)
    """
    refuse_unknown(how, "norm", How)
    array, keepdims = _checks.as_inexact(x, "x"), _checks.flag(keepdims, "keepdims")
    if isinstance(ord, Norm):
        axis = (-2, -1) if axis is None else axis
        return matrix_norm_of(ord, array, "norm", {"axis": axis, "keepdims": keepdims, **how})
    if axis is None:
        if ord is None:
            return apply(EntrywiseLift(Lp(2.0)).using(request(how)), array, tuple(range(array.ndim)), keepdims)
        if array.ndim not in (1, 2):
            raise ValueError(f"norm: without axis, x must have 1 or 2 axes for ord={ord!r}, got shape {array.shape}")
        axis = tuple(range(array.ndim))
    axes = _checks.axes(axis, array.ndim, None, "norm")
    if len(axes) == 1:
        lift = EntrywiseLift(_vector_gauge(2 if ord is None else ord, array, axes))
        return apply(lift.using(request(how)), array, axes, keepdims)
    if len(axes) == 2:
        lift = _matrix_lift("fro" if ord is None else ord, array, axes)
        return apply(lift.using(request(how)), array, axes, keepdims)
    raise ValueError(f"norm: axis must name one axis (vectors) or two (matrices), got {axis!r}")


def vector_norm(x: ArrayLike, /, *, ord: float | None = 2, axis: Any = None, keepdims: bool = False) -> Array:
    """l_p norm ``(sum_i |x_i|^p)^(1/p)`` over one axis, several, or all (the array API's signature).

    ``ord`` is any static real number, as for vectors in :func:`norm`. Cost: two passes, three with
    the derivative.

    >>> import jax, jax.numpy as jnp, jaxnorms as jn
    >>> jn.vector_norm(jnp.array([[3.0, 4.0], [0.0, 0.0]]), axis=-1)
    Array([5., 0.], dtype=float32)
    """
    array, keepdims = _checks.as_inexact(x, "x"), _checks.flag(keepdims, "keepdims")
    axes = _checks.axes(tuple(range(array.ndim)) if axis is None else axis, array.ndim, None, "vector_norm")
    return apply(EntrywiseLift(_vector_gauge(2 if ord is None else ord, array, axes)), array, axes, keepdims)


def matrix_norm(x: ArrayLike, /, *, ord: Any = "fro", keepdims: bool = False, **how: Unpack[How]) -> Array:
    """Matrix norm over the last two axes (the array API's signature).

    ``ord`` and ``how`` as for matrices in :func:`norm`.

    >>> import jax.numpy as jnp, jaxnorms as jn
    >>> jn.matrix_norm(jnp.eye(3), ord=2)
    Array(1., dtype=float32)
    """
    array = _checks.matrix(x, "matrix_norm", "x")
    return norm(array, "fro" if ord is None else ord, axis=(-2, -1), keepdims=keepdims, **how)


def _vector_gauge(ord: Any, x: Array, axes: tuple[int, ...]) -> Lp:
    allowed = "a real number for vectors"
    p = math.nan if isinstance(ord, str | Norm) else _checks.real(ord, "ord", allowed, "; entrywise_norm takes one")
    if math.isnan(p):
        raise ValueError(f"ord must be {allowed}, got {ord!r}")
    _refuse_empty(p, x, axes)
    return Lp(p)


def _matrix_lift(ord: Any, x: Array, axes: tuple[int, ...]) -> Any:
    allowed = "'fro', 'nuc', ±1, ±2, ±inf or a norm object for matrices"
    p = None if isinstance(ord, str) else _checks.real(ord, "ord", allowed, "; schatten_norm and entrywise_norm take p")
    lift = _MATRIX_LIFTS.get(ord if p is None else p)
    if lift is None:
        raise ValueError(f"ord must be {allowed}, got {ord!r}")
    if p is not None:
        _refuse_empty(p, x, axes)
    return lift


def _refuse_empty(p: float, x: Array, axes: tuple[int, ...]) -> None:
    if p < 0 and any(x.shape[i] == 0 for i in axes):
        raise ValueError(f"ord={p:g} is not defined for an empty array, got shape {x.shape}")
