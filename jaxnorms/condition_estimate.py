"""Estimates of condition numbers from a few solves, with bounds on both sides."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxnorms import _checks, _rules
from jaxnorms._batching import over_batch
from jaxnorms._mesh import replicated
from jaxnorms._rules.inverses import solved, with_first_derivative
from jaxnorms._scaling import exponent, max_abs, prepare, scale
from jaxnorms.decompositions import matmul, singular_values
from jaxnorms.decompositions.lu import LU, factored, solve, solve_adjoint
from jaxnorms.decompositions.one_norm import maximiser
from jaxnorms.decompositions.truncated_svd import truncated_svd
from jaxnorms.drop_in import norm
from jaxnorms.norms import spectral_norm
from jaxnorms.operator_norms import leading_of_operator
from jaxnorms.operators import LinearOperator, checked, forward, in_working_precision, scaled


class CondEstimate(NamedTuple):
    """``lower <= cond <= upper``, and the estimate ``value``, each of shape (...).

    >>> import jax.numpy as jnp, jaxnorms as jn
    >>> jn.condest(jnp.zeros((2, 2)))
    CondEstimate(value=Array(inf, dtype=float32), lower=Array(inf, dtype=float32), upper=Array(inf, dtype=float32))
    """

    value: Array
    lower: Array
    upper: Array


def condest(
    a: ArrayLike | LinearOperator, p: float = 1, *, inverse: LinearOperator | None = None, certified: bool = False
) -> CondEstimate:
    """Estimate of ``||A||_p ||A^-1||_p`` for ``(..., n, n)`` matrices, p = 1, 2 or inf, from one LU decomposition.

    For p = 1 and inf ``||A^-1||`` is sought by the block algorithm of Higham and Tisseur with 4 columns, at most 5
    steps and fixed starts: the mean of the unit vectors, and random signs of seed 0. For p = 2 by the Krylov method of
    :func:`spectral_norm` for ``A^-1``. ``value`` is ``||A|| ||A^-1 x|| / ||x||`` for the x found: below the
    condition number but for rounding, and hardly ever by more than a factor 3.

    ``lower``: ``||A|| ||y|| / ||A y||`` for the ``y ~ A^-1 x`` computed, with the rounding of the product ``A y`` and
    of the norms on its side; so it holds however inaccurate the solves are, as after a growth of pivots, which spoils
    the value. ``upper`` is inf unless ``certified``: then ``||A|| ||R|| / (1 - ||I - R A||)`` for a computed inverse R,
    likewise, and inf where ``||I - R A||`` may be 1 or more, as for condition numbers from about ``1 / (n eps)`` on.
    (For p = 2 singular values are taken to be right to ``8 (n + 8) eps``.)

    Where a pivot is 0, ``value`` is inf and ``lower`` what is proved all the same; with a row or column of zeros all
    three are inf. NaN gives three NaNs, an infinite entry inf. ``value`` is differentiable once, with x held constant,
    which is exact where the maximiser is unique, and with derivative 0 where it is infinite (where it is nearly so the
    derivative may be out of range); a second derivative raises ``ValueError``. The bounds are constants.

    ``a`` may be a :class:`LinearOperator`, with ``inverse`` the operator of ``A^-1``: products only, with ``||A||``
    estimated, too, and ``value`` differentiated in the parameters of both. ``lower`` then holds as far as the products
    are right, to ``8 n eps``; there is no ``upper``. Raises ``ValueError`` for another shape or p, an operator without
    inverse or the reverse, and ``certified`` for an operator. Cost: one LU and 20 solves or fewer; an inverse and
    a product for ``certified``. Source: Higham and Tisseur 2000, Algorithm 2.4; Higham 2002, ch. 15; Rump 2010.

    >>> import jax.numpy as jnp, jaxnorms as jn
    >>> value, lower, upper = jn.condest(jnp.array([[1.0, 2.0], [3.0, 4.0]]), certified=True)
    >>> print(f"{value:.3f}", bool(lower <= 21 <= upper), bool(upper < 1.001 * lower))
    21.000 True True
    """
    order = _order(p)
    certified = _checks.flag(certified, "certified")
    if isinstance(a, LinearOperator):
        if certified:
            raise ValueError("condest: certified must be False for a LinearOperator, which has no entries, got True")
        return _of_operators(checked(a), inverse_operator(a, inverse, "condest"), order)
    refuse_inverse(a, inverse, "condest")
    x = _checks.square(a, "condest")
    if x.shape[-1] == 0:
        raise ValueError(f"condest: a must have shape (..., n, n) with n >= 1, got shape {x.shape}")
    return _apart(over_batch(_estimate, x, p=order, certified=certified), x.dtype)


def _order(p: Any) -> float:
    order = _checks.real(p, "condest: p", "1, 2 or inf")
    if order not in (1, 2, math.inf):
        raise ValueError(f"condest: p must be 1, 2 or inf, got {p!r}")
    return order


def refuse_inverse(a: Any, inverse: Any, function: str) -> None:
    """Raise ``ValueError`` if an inverse came with an array."""
    if inverse is not None:
        raise ValueError(f"{function}: inverse is for a LinearOperator, got a of type {type(a).__name__}")


def inverse_operator(a: LinearOperator, inverse: Any, function: str) -> LinearOperator:
    """The operator of ``A^-1`` that came with the operator ``a``, checked."""
    if not isinstance(inverse, LinearOperator):
        raise ValueError(f"{function}: a LinearOperator needs inverse, the LinearOperator of A^-1, got {inverse!r}")
    n = a.shape[0]
    if a.shape != (n, n) or inverse.shape != (n, n) or a.dtype != inverse.dtype:
        raise ValueError(
            f"{function}: a and inverse must have one shape (n, n) and one dtype, got shapes {a.shape} and "
            f"{inverse.shape}, dtypes {a.dtype} and {inverse.dtype}"
        )
    return checked(inverse)


def _apart(found: CondEstimate, dtype: Any) -> CondEstimate:
    """What rounding to a 16-bit type would move together."""
    if _checks.working_dtype(dtype) == dtype:
        return found
    eps = float(jnp.finfo(dtype).eps)
    lower, upper = (bound * (1 + sign * eps) for bound, sign in ((found.lower, -1), (found.upper, 1)))
    return found._replace(lower=lower.astype(found.lower.dtype), upper=upper.astype(found.upper.dtype))


# A matrix. The inf-norm is the 1-norm of the adjoint.


def _estimate(a: Array, p: float, certified: bool) -> CondEstimate:
    x, ok, _, _ = prepare(a)
    x = x.conj().T if p == math.inf else x
    p = 2 if p == 2 else 1
    f, start = _rules.constant(partial(_factors_and_start, p=p), x)
    lower, upper = _rules.constant(partial(_bounds, p=p, certified=certified), x, f, start)
    # A pivot of 0 says that the estimate is inf, a row or column of zeros that the condition number is.
    entries = x == 0
    proved = jnp.any(jnp.all(entries, axis=0)) | jnp.any(jnp.all(entries, axis=1))
    eye, order = jnp.eye(x.shape[0], dtype=x.dtype), jnp.arange(x.shape[0], dtype=f.order.dtype)
    regular = jax.tree.map(partial(jnp.where, f.singular), (eye, LU(eye, order, f.singular)), (x, f))
    value = with_first_derivative(partial(_value, p), *regular, start)
    value = jnp.maximum(jnp.where(jnp.isfinite(value), value, jnp.inf), 1)
    found = CondEstimate(
        jnp.where(f.singular, jnp.inf, value), jnp.where(proved, jnp.inf, lower), jnp.where(proved, jnp.inf, upper)
    )
    rest = norm(jnp.where(ok, 1, a), "fro")
    return CondEstimate(*(jnp.where(ok, y, rest) for y in found))


def _factors_and_start(x: Array, p: int) -> tuple[LU, Array]:
    """The decomposition, and a vector of largest ``||A^-1 x|| / ||x||``."""
    f, n = factored(x), x.shape[0]
    if p == 1:
        return f, maximiser(partial(solve, f), partial(solve_adjoint, f), n, x.dtype)
    inverse = LinearOperator(f, _solve_vector, _solve_adjoint_vector, (n, n), x.dtype)
    return f, leading_of_operator(inverse, 1, None, None)[2][0].conj()


def _solve_vector(f: LU, b: Array) -> Array:
    return solve(f, b[:, None])[:, 0]


def _solve_adjoint_vector(f: LU, b: Array) -> Array:
    return solve_adjoint(f, b[:, None])[:, 0]


def _value(p: int, x: Array, f: LU, start: Array) -> Array:
    return norm(x, p) * norm(solved(x, f, start), p) / norm(start, p)


# Certificates. A sum of n rounded products misses no more than g times that of the magnitudes, in any order, also
# of complex numbers, with or without fused products; what falls below the normal range, ``_floor`` takes care of.


def _rounding(n: int, dtype: Any) -> float:
    return (n + 8) * float(jnp.finfo(dtype).eps)


def _floor(dtype: Any) -> float:
    return 4 * float(jnp.finfo(dtype).tiny)


def _size(x: Array, p: int) -> Array:
    """The norm of each column of magnitudes."""
    if p == 1:
        return jnp.sum(x, axis=0)
    e = exponent(jnp.max(x, axis=0))
    return scale(jnp.sqrt(jnp.sum(jnp.square(scale(x, -e[None])), axis=0)), e)


def _product_error(x: Array, y: Array) -> Array:
    n = x.shape[1]
    g, floor = _rounding(n, x.dtype), n * _floor(x.dtype)
    return g * matmul(jnp.abs(x), jnp.abs(y)) + floor


def _bounds(x: Array, f: LU, start: Array, p: int, certified: bool) -> tuple[Array, Array]:
    n = x.shape[0]
    g = _rounding(n, x.dtype)
    y = _solve_vector(f, start)
    usable = jnp.isfinite(max_abs(y)) & (max_abs(y) > 0)
    y = jnp.where(usable, y, 1)[:, None]
    y = scale(y, -exponent(max_abs(y)))
    image = jnp.abs(matmul(x, y)) + _product_error(x, y)
    inverse = _size(jnp.abs(y), p)[0] / _size(image, p)[0]
    if p == 1:
        size = jnp.max(_size(jnp.abs(x), 1))
    else:
        v = truncated_svd(x, 1, None, None)[2][0].conj()[:, None]
        size = _size(jnp.maximum(jnp.abs(matmul(x, v)) - _product_error(x, v), 0), 2)[0] / _size(jnp.abs(v), 2)[0]
    # Every one of these norms and quotients is right to g.
    lower = jnp.maximum(size * inverse * (1 - 6 * g), 1)
    return lower, _upper(x, f, p) if certified else jnp.full_like(lower, jnp.inf)


def _upper(x: Array, f: LU, p: int) -> Array:
    n = x.shape[0]
    g = _rounding(n, x.dtype)
    eye = jnp.eye(n, dtype=x.dtype)
    r = solve(f, eye)
    usable = jnp.all(jnp.isfinite(r))
    r = jnp.where(usable, r, 0)
    residual = jnp.abs(matmul(r, x) - eye)
    # The difference is rounded, too; entries of x below the normal range may be missing from it.
    residual = residual * (1 + g) + _product_error(r, jnp.abs(x) + _floor(x.dtype) / g)
    by_columns, by_rows = (jnp.max(jnp.sum(residual, axis=axis)) for axis in (0, 1))
    defect = (by_columns if p == 1 else jnp.sqrt(by_columns * by_rows)) * (1 + 2 * g)
    if p == 1:
        sizes = [jnp.max(jnp.sum(jnp.abs(y), axis=0)) for y in (x, r)]
    else:
        e = exponent(max_abs(r))
        sizes = [singular_values(x)[0], scale(singular_values(scale(r, -e))[0], e)]
    small = usable & (defect < 1)
    product = sizes[0] * sizes[1] * (1 + (8 if p == 1 else 24) * g)
    return jnp.where(small, product / jnp.where(small, (1 - defect) * (1 - 2 * g), 1), jnp.inf)


# Operators.


@partial(jax.jit, static_argnames="p")
def _of_operators(op: LinearOperator, inverse: LinearOperator, p: float) -> CondEstimate:
    found = replicated(partial(_estimate_by_products, p=p), op, inverse)
    real = jnp.finfo(op.dtype).dtype
    return _apart(CondEstimate(*(x.astype(real) for x in found)), op.dtype)


def _estimate_by_products(op: LinearOperator, inverse: LinearOperator, p: float) -> CondEstimate:
    both = in_working_precision(op), in_working_precision(inverse)
    x, y = _rules.constant(lambda a, b: (_stretched(a, p), _stretched(b, p)), *both)
    if p == 2:
        value = spectral_norm(both[0]) * spectral_norm(both[1])
    else:
        value = with_first_derivative(partial(_value_by_products, p), *both, x, y)
    lower = _rules.constant(partial(_lower_by_products, p), *both, x, y)
    return CondEstimate(value, lower, jnp.full_like(lower, jnp.inf))


class _By(NamedTuple):
    """Products with columns of ``A 2^-e``, or of its adjoint for p = inf."""

    product: Callable[[Array], Array]
    adjoint: Callable[[Array], Array]
    ok: Array
    largest: Array
    e: Array


def _by(op: LinearOperator, p: float) -> _By:
    by = scaled(op)

    def columns(product: Callable[[Array], Array]) -> Callable[[Array], Array]:
        return lambda x: product(x.T).T

    product, adjoint = columns(by.forward), columns(by.adjoint)
    if p == math.inf:
        product, adjoint = adjoint, product
    return _By(product, adjoint, by.ok, by.largest, by.e)


def _stretched(op: LinearOperator, p: float) -> Array:
    """A vector that A, or its adjoint for p = inf, stretches most."""
    if p == 2:
        x = leading_of_operator(op, 1, None, None)[2][0].conj()
        return jnp.where(jnp.isfinite(x), x, 1)
    by = _by(op, p)
    return maximiser(by.product, by.adjoint, op.shape[0], op.dtype)


def _value_by_products(p: float, op: LinearOperator, inverse: LinearOperator, x: Array, y: Array) -> Array:
    a, b = _by(op, p), _by(inverse, p)
    first, second = (norm(by.product(z[:, None])[:, 0], 1) / norm(z, 1) for by, z in ((a, x), (b, y)))
    finite = a.ok & b.ok
    # The norm of products that are not finite is inf or NaN, with a NaN derivative.
    rest = (norm(jnp.where(finite, 1, forward(op, z[None])), "fro") for op, z in ((op, x), (inverse, y)))
    return jnp.where(finite, scale(first * second, a.e + b.e), math.prod(rest))


def _lower_by_products(p: float, op: LinearOperator, inverse: LinearOperator, x: Array, y: Array) -> Array:
    """``||A x|| / ||x||`` and ``||w|| / ||A w||`` for ``w ~ A^-1 y``."""
    order, a, b = 2 if p == 2 else 1, _by(op, p), _by(inverse, p)
    w = b.product(y[:, None])
    w = scale(w, -exponent(max_abs(w)))
    first, second = (_size(jnp.abs(a.product(z)), order)[0] / _size(jnp.abs(z), order)[0] for z in (x[:, None], w))
    rounding = 8 * op.shape[0] * float(jnp.finfo(op.dtype).eps)
    return jnp.where(a.ok & b.ok, jnp.maximum(first / second * (1 - rounding), 1), a.largest * b.largest)
