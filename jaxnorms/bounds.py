"""Certified lower and upper bounds of norms, from a few products with the matrix."""

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxnorms import _checks, _rules
from jaxnorms._batching import over_batch
from jaxnorms._mesh import replicated
from jaxnorms._scaling import exponent, prepare, scale
from jaxnorms.decompositions import matmul, singular_values
from jaxnorms.decompositions.truncated_svd import residual, truncated_svd
from jaxnorms.gauges import Gauge, Lp, inf
from jaxnorms.lifts import EntrywiseLift, SpectralLift
from jaxnorms.norm_objects import as_norm
from jaxnorms.operator_norms import RitzValues, ritz_of_operator, size_of_operator
from jaxnorms.operators import LinearOperator, checked

# Triplets asked for where the norm depends on all of them.
_TRIPLETS = 8
# Largest quotient of the bounds from Gram powers, before rounding.
_GRAM_RATIO = 1.05


class NormBounds(NamedTuple):
    """``lower <= norm <= upper``, each of shape (...).

    >>> import jax.numpy as jnp, jaxnorms as jn
    >>> jn.norm_bounds(jnp.zeros((2, 3)), "nuc")
    NormBounds(lower=Array(0., dtype=float32), upper=Array(0., dtype=float32))
    """

    lower: Array
    upper: Array


def norm_bounds(a: ArrayLike | LinearOperator, ord: Any = "spectral", *, method: str = "ritz") -> NormBounds:
    """Bounds of a Schatten, Ky Fan or Frobenius norm of ``(..., m, n)`` matrices, without a full SVD.

    ``method="ritz"`` takes k leading triplets ``A ~ U T V^H``, their residuals ``R = (1 - P) A V`` and
    ``L = U^H A (1 - Q)`` and the rest ``E = (1 - P) A (1 - Q)``, in Frobenius norms r, l and e. With the
    gauge f of the norm and c(j) the maximum of f over the Euclidean unit ball of R^j,

        f(t) <= ||A|| <= f(t) + c(k) (r + l) + c(min(m, n) - k) e,

    for the spectral norm ``||A||_2 <= ||[[t_1, l], [r, e]]||_2``. It is tight where A has few large singular values.
    ``method="gram"``, for the spectral norm, squares the Gram matrix until ``upper / lower <= 1.06``
    for every matrix: ``||A||_2 <= ||(A^H A)^(2^(t-1))||_F^(2^-t)``.

    Of a :class:`LinearOperator` only ``method="ritz"``. The lower bound follows from the products with the k
    triplets; an upper one cannot be certified from a few products, since A may be large where nobody looked. So
    e, and the Frobenius norm, is computed from min(m, n) products, and certified as far as these are right
    to rounding: what ``matvec`` itself rounds cannot be seen from outside.

    Both bounds are moved apart by the rounding of their own computation (a probabilistic bound,
    ``8 eps sqrt(m + n)`` relative). They are constants: no derivative. Raises ``ValueError`` for another norm
    or method. Cost: about 40 passes over ``a``, or 5 to 8 products of n x n matrices. Source: Golub and
    Van Loan 2013, sec. 10.4; Delattre et al. 2023 (Gram iteration); Higham and Mary 2019 (rounding).

    >>> import jax.numpy as jnp, jaxnorms as jn
    >>> lower, upper = jn.norm_bounds(jnp.diag(jnp.array([2.0, 1.0, 1.0])), "spectral", method="gram")
    >>> bool(lower <= 2 <= upper <= 1.06 * lower)
    True
    """
    x = a if isinstance(a, LinearOperator) else _checks.matrix(a, "norm_bounds")
    lift = as_norm(ord).lift
    exact = isinstance(lift, EntrywiseLift) and lift.gauge == Lp(2.0)
    known = exact or (isinstance(lift, SpectralLift) and lift.gauge.spread(1) < inf)
    if not known:
        raise ValueError(f"norm_bounds: ord must be a Schatten, Ky Fan or Frobenius norm, got {ord!r}")
    _checks.choice(method, "norm_bounds: method", ("ritz", "gram"))
    if method == "gram" and lift.gauge != Lp(inf):
        raise ValueError(f"norm_bounds: method='gram' is for the spectral norm, got ord={ord!r}")
    as_norm(ord).check(*x.shape[-2:])
    if isinstance(x, LinearOperator):
        if method != "ritz":
            raise ValueError(f"norm_bounds: method of a LinearOperator must be 'ritz', got {method!r}")
        return _rules.constant(partial(_bounds_of_operator, gauge=lift.gauge, exact=exact), checked(x))
    function = _exact if exact else _from_gram_powers if method == "gram" else _from_ritz_triplets
    return over_batch(_bounds, x, function=function, gauge=lift.gauge)


def _bounds(a: Array, function: Any, gauge: Gauge) -> NormBounds:
    if a.size == 0:
        return NormBounds(*(jnp.zeros((), jnp.finfo(a.dtype).dtype),) * 2)
    x, ok, largest, e = prepare(a)
    lower, upper = _rules.constant(function, x, gauge)
    return NormBounds(*(jnp.where(ok, scale(bound, e), largest) for bound in _apart(lower, upper, a.shape)))


def _apart(lower: Array, upper: Array, shape: tuple[int, ...]) -> tuple[Array, Array]:
    rounding = 8 * float(jnp.finfo(lower.dtype).eps) * math.sqrt(sum(shape))
    return lower * (1 - rounding), upper * (1 + rounding)


@partial(jax.jit, static_argnames=("gauge", "exact"))
def _bounds_of_operator(op: LinearOperator, gauge: Gauge, exact: bool) -> NormBounds:
    return replicated(partial(_operator_bounds, gauge=gauge, exact=exact), op)


def _operator_bounds(op: LinearOperator, gauge: Gauge, exact: bool) -> NormBounds:
    n, real = min(op.shape), jnp.finfo(op.dtype)
    if exact:
        size, restored = size_of_operator(op)
        lower = upper = size
    else:
        ritz, restored = ritz_of_operator(op, _triplets(gauge, n))
        lower, upper = _around(gauge, n, ritz)
    lower, upper = _apart(lower, upper, op.shape)
    if lower.dtype != real.dtype:  # rounding to 16 bits must not move them together
        lower, upper = lower * (1 - float(real.eps)), upper * (1 + float(real.eps))
    return NormBounds(*(restored(bound).astype(real.dtype) for bound in (lower, upper)))


def _exact(x: Array, gauge: Gauge) -> tuple[Array, Array]:
    value = gauge.value(jnp.abs(x).ravel())
    return value, value


def _from_ritz_triplets(x: Array, gauge: Gauge) -> tuple[Array, Array]:
    n = min(x.shape)
    u, _, vh = truncated_svd(x, _triplets(gauge, n), None, None)
    v, uh = vh.conj().T, u.conj().T
    av, ua = matmul(x, v), matmul(uh, x)
    core = matmul(uh, av)
    t = singular_values(core)
    r = jnp.linalg.norm(av - matmul(u, core))
    l = jnp.linalg.norm(ua - matmul(core, vh))
    # E = A - U (U^H A) - (A V - U U^H A V) V^H
    e = residual(x, jnp.concatenate([u, av - matmul(u, core)], axis=1), jnp.concatenate([ua, vh]))
    return _around(gauge, n, RitzValues(t, r, l, e))


def _triplets(gauge: Gauge, n: int) -> int:
    return gauge.support(n) if gauge.support(n) < n else min(_TRIPLETS, n)


def _around(gauge: Gauge, n: int, ritz: RitzValues) -> tuple[Array, Array]:
    (t, r, l, e), k = ritz, ritz.t.shape[0]
    lower = gauge.value(t)
    if gauge == Lp(inf):
        return lower, singular_values(jnp.stack([jnp.stack([t[0], l]), jnp.stack([r, e])]))[0]
    rest = gauge.spread(n - k) * e if k < n else e
    return lower, lower + gauge.spread(k) * (r + l) + rest


def _from_gram_powers(x: Array, gauge: Gauge) -> tuple[Array, Array]:
    m, n = x.shape
    r = min(m, n)
    steps = 1
    while r ** (0.5 ** (steps + 1)) > _GRAM_RATIO:
        steps += 1
    gram = matmul(x.conj().T, x) if m >= n else matmul(x, x.conj().T)
    # Here (A^H A)^(2^(t-1)) = 2^shift gram.
    shift = jnp.zeros((), jnp.int32)
    for _ in range(steps - 1):
        e = exponent(jnp.linalg.norm(gram))
        gram = scale(gram, -e)
        gram, shift = matmul(gram, gram), 2 * (shift + e)
    size = jnp.linalg.norm(gram)
    zero = size == 0
    upper = jnp.exp2((jnp.log2(jnp.where(zero, 1, size)) + shift.astype(size.dtype)) / 2**steps)
    # A product of rounded factors may miss up to sqrt(r) n eps of its Frobenius norm.
    upper = jnp.where(zero, 0, upper) * (1 + r**1.5 * float(jnp.finfo(size.dtype).eps))
    return upper / _GRAM_RATIO, upper
