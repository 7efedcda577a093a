"""Determinants and cofactors: polynomials of the entries, with derivatives at every rank."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxnorms import _checks, _rules
from jaxnorms._batching import over_batch
from jaxnorms._scaling import poison, prepare


class SignAndLog(NamedTuple):
    """``det a = sign exp(logabsdet)``, each of shape (...).

    >>> import jax.numpy as jnp, jaxnorms as jn
    >>> jn.slogdet(jnp.zeros((2, 2)))
    SignAndLog(sign=Array(0., dtype=float32), logabsdet=Array(-inf, dtype=float32))
    """

    sign: Array
    logabsdet: Array


def det(a: ArrayLike) -> Array:
    """The determinant of ``(..., n, n)`` matrices, of shape ``(...)``; 1 for n = 0.

    Neither overflows nor vanishes while the result itself is in range. Derivative: :func:`cofactor`, exact at every
    rank, which ``jnp.linalg.det`` has not for singular matrices; the second derivative is exact as well, a third one
    raises ``ValueError``. Holomorphic for complex matrices: ``jax.grad(..., holomorphic=True)``. NaN or infinite
    entries give NaN. Raises ``ValueError`` for shapes other than ``(..., n, n)``. Cost: one LU decomposition; one SVD
    for each derivative. Source: Golub and Van Loan 2013, ch. 3.2.

    >>> import jax, jax.numpy as jnp, jaxnorms as jn
    >>> jax.grad(jn.det)(jnp.array([[1.0, 2.0], [2.0, 4.0]])).round(5)
    Array([[ 4., -2.],
           [-2.,  1.]], dtype=float32)
    """
    return over_batch(_rules.determinant, _checks.square(a, "det"))


def cofactor(a: ArrayLike) -> Array:
    """The cofactor matrix of ``(..., n, n)`` matrices: the gradient of det, ``det(a) a^-T`` where that exists.

    Of ``a = U diag(s) V^H`` it is ``det(U V^H) conj(U) diag(prod_{j != i} s_j) V^T``, by products that divide by
    nothing: of rank 1 where ``a`` has rank n - 1, and 0 below. Differentiable once, exactly at every rank; a second
    derivative raises ``ValueError``. Errors and NaN as for :func:`det`. Cost: one SVD. Source: Stewart 1998,
    Linear Algebra Appl. 283.

    >>> import jax.numpy as jnp, jaxnorms as jn
    >>> jn.cofactor(jnp.array([[1.0, 2.0], [3.0, 4.0]])).round(5)
    Array([[ 4., -3.],
           [-2.,  1.]], dtype=float32)
    """
    return over_batch(_rules.cofactor, _checks.square(a, "cofactor"))


def adjugate(a: ArrayLike) -> Array:
    """The adjugate of ``(..., n, n)`` matrices: the transpose of :func:`cofactor`, ``a @ adjugate(a) = det(a) I``.

    >>> import jax.numpy as jnp, jaxnorms as jn
    >>> jn.adjugate(jnp.array([[1.0, 2.0], [3.0, 4.0]])).round(5)
    Array([[ 4., -2.],
           [-3.,  1.]], dtype=float32)
    """
    return over_batch(_adjugate, _checks.square(a, "adjugate"))


def _adjugate(a: Array) -> Array:
    return _rules.cofactor(a).T


def slogdet(a: ArrayLike) -> SignAndLog:
    """Sign (phase) and logarithm of the modulus of the determinant of ``(..., n, n)`` matrices.

    For determinants out of range, and for the density of a normalising flow. Singular matrices: ``(0, -inf)``,
    with derivatives that are not finite, since there are none. Derivatives of
    every order by JAX, through solves. NaN or infinite entries
    give NaN. Raises ``ValueError`` for shapes other than ``(..., n, n)``. Cost: one LU decomposition.

    >>> import jax.numpy as jnp, jaxnorms as jn
    >>> jn.slogdet(1e-30 * jnp.eye(4)).sign
    Array(1., dtype=float32)
    """
    return SignAndLog(*over_batch(_sign_and_log, _checks.square(a, "slogdet")))


def _sign_and_log(a: Array) -> tuple[Array, Array]:
    x, ok, _, power = prepare(a)
    sign, log = jnp.linalg.slogdet(x)
    shift = jnp.asarray(power * a.shape[0], log.dtype) * math.log(2)
    return poison(ok, sign), poison(ok, log + shift)


def charpoly(a: ArrayLike) -> Array:
    """Coefficients ``(..., n + 1)`` of the characteristic polynomial ``det(x I - a)``, highest power first, monic.

    The order of ``np.poly``; real for real matrices. Computed without eigenvalues, from the Hessenberg form: the
    polynomial is that of a matrix within a small multiple of eps ||a|| of ``a``. A coefficient overflows or vanishes
    only where it is out of range itself. Derivatives of every order and in both modes, exact at every matrix, repeated
    eigenvalues included: ``d c_{k+1} = -tr(B_k da)``, ``B_k = a^k + c_1 a^(k-1) + ... + c_k I``. Holomorphic for
    complex matrices: ``jax.jacrev(..., holomorphic=True)``. NaN or infinite entries give NaN. Raises ``ValueError``
    for shapes other than ``(..., n, n)``. Cost: about 4 n^3 flops in n steps; n matrix products for a derivative,
    which keeps n matrices for the backward pass, so n up to about 100. Source: Rehman and Ipsen 2011 (arXiv
    1104.3769); Horner's scheme as in Faddeev and LeVerrier.

    >>> import jax, jax.numpy as jnp, jaxnorms as jn
    >>> jn.charpoly(jnp.eye(2))
    Array([ 1., -2.,  1.], dtype=float32)
    >>> jax.jacobian(jn.charpoly)(jnp.eye(2))[2]
    Array([[1., 0.],
           [0., 1.]], dtype=float32)
    """
    return over_batch(_rules.charpoly, _checks.square(a, "charpoly"))


def charpoly_value(a: ArrayLike, x: ArrayLike) -> Array:
    """The characteristic polynomial ``det(x I - a)`` of ``(..., n, n)`` matrices at ``x``, a number or of shape (...).

    Differentiable twice, in ``x`` and in ``a``, at eigenvalues too, where a formula through the inverse breaks down.
    Errors and cost as for :func:`det`.

    >>> import jax, jax.numpy as jnp, jaxnorms as jn
    >>> jax.grad(jn.charpoly_value, argnums=1)(jnp.diag(jnp.array([1.0, 3.0])), 3.0)
    Array(2., dtype=float32, weak_type=True)
    """
    matrix, number = _checks.square(a, "charpoly_value"), _checks.as_inexact(x, "x")
    batch = matrix.shape[:-2]
    with jax.numpy_dtype_promotion("standard"):
        dtype = jnp.promote_types(matrix.dtype, number.dtype)
    if number.ndim > len(batch) or jnp.broadcast_shapes(number.shape, batch) != batch:
        raise ValueError(f"x must have a shape that broadcasts to {batch}, got shape {number.shape}")
    number = jnp.broadcast_to(number.astype(_checks.working_dtype(dtype)), batch)
    return over_batch(_charpoly_value, matrix.astype(dtype), along=(number,))


def _charpoly_value(a: Array, x: Array) -> Array:
    return _rules.determinant(x * jnp.eye(a.shape[0], dtype=a.dtype) - a)
