"""Functions of a matrix through its spectrum, with derivatives that never touch the phase or basis of its vectors."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.core import Tracer
from jax.typing import ArrayLike

from jaxnorms import _checks, _rules
from jaxnorms._batching import over_batch
from jaxnorms._scaling import exponent, layout, max_abs, poison, scale
from jaxnorms.decompositions import tie_tolerance
from jaxnorms.scalar_functions import ByJax, Function, Plain
from jaxnorms.spectrum_kinds import HERMITIAN, SINGULAR, Decomposed, Kind

Elementwise = Callable[..., Array]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class _Sum:
    """``sum f(w)`` as a lift (``jaxnorms._rules.norms``): its gradient is the spectral function of f'."""

    kind: Kind = field(metadata={"static": True})
    f: Function = field(metadata={"static": True})
    params: tuple[Array, ...]
    names: tuple[str, ...] = field(default=(), metadata={"static": True})

    def value(self, a: Array) -> Array:
        return self._sum(self.kind.spectrum(a))

    def _sum(self, w: Array) -> Array:
        largest = max_abs(w)
        return poison(jnp.isfinite(largest), jnp.sum(self.f(w, largest, *self.params)))

    def factors(self, a: Array) -> tuple[Array, Decomposed]:
        d = self.kind.decompose(a)
        return self._sum(d.values), d

    def subgradient(self, a: Array, factors: Decomposed) -> Array:
        return self.kind.image(self.f.derivative(), factors, *self.params)

    def curvature(self, a: Array, e: Array) -> Array:
        return self.kind.change(self.f.derivative(), self.kind.decompose(a), e, *self.params)


def spectral_sum(
    f: Elementwise, a: ArrayLike, *params: ArrayLike, hermitian: bool = False, df: Elementwise | None = None
) -> Array:
    """``sum_i f(s_i, *params)`` over the singular values of ``(..., m, n)`` matrices, of shape ``(...)``.

    With ``hermitian=True`` over the eigenvalues of the Hermitian part of ``(..., n, n)`` matrices. f, ``df`` and
    ``params`` as for :func:`spectral_function`, except that f(0) may be anything.

    Twice differentiable in ``a`` and ``params``, in every mode, at repeated values too: the gradient is
    ``U diag(f'(s)) V^H``, or ``V diag(f'(w)) V^H``. Where ``f'(0) != 0`` the sum of singular values has a kink at
    singular matrices: zero values then have gradient and curvature 0. NaN or infinite entries give NaN. A third
    derivative in ``a`` raises ``ValueError``. Cost: one decomposition. Source: Lewis 1995; Lewis and Sendov 2001.

    >>> import jax, jax.numpy as jnp, jaxnorms as jn
    >>> entropy = jax.grad(lambda a: jn.spectral_sum(jnp.cosh, a, hermitian=True))
    >>> entropy(jnp.zeros((2, 2)))
    Array([[0., 0.],
           [0., 0.]], dtype=float32)
    """
    x, kind = _matrix(a, "spectral_sum", hermitian)
    function, numbers = _function(f, df, x, params)
    return over_batch(_sum, x, *numbers, kind=kind, function=function)


def _sum(a: Array, *params: Array, kind: Kind, function: Function) -> Array:
    if not a.size:
        return jnp.zeros((), jnp.finfo(a.dtype).dtype)
    return _rules.evaluate(_Sum(kind, function, params), a)


def spectral_function(
    f: Elementwise, a: ArrayLike, *params: ArrayLike, hermitian: bool = False, df: Elementwise | None = None
) -> Array:
    """``U diag(f(s, *params)) V^H`` of ``a = U diag(s) V^H``, ``(..., m, n)`` like ``a``.

    With ``hermitian=True`` ``V diag(f(w, *params)) V^H`` of the Hermitian part of ``(..., n, n)`` matrices.

    * ``f(x, *params)``: a real function applied elementwise to a real array x of any shape, jittable. It must be 0
      at 0 unless ``hermitian``: the limits at a singular matrix depend on the basis otherwise, and zero values count
      as ``f = 0`` with derivative 0. Compared by identity: define it once, or each new one compiles anew.
    * ``params``: the traced numbers that f needs, real arrays, the same for all matrices of a batch.
    * ``df(x, *params)``: the derivative of f in x; by JAX if not given.

    Twice differentiable in ``a`` and ``params``, in every mode, at repeated values too, by divided differences, for
    which f must have so many derivatives; terms that are infinite at a tie, or at zero singular values, are left out.
    Those of first order are accurate to about ``eps`` for a smooth f, of second order to about ``eps**(2/3)``, relative
    to the size of f' and f'' in between, if f itself is as accurate as ``f(x) + eps max|x| f'(x)``; f' and f'' must be
    in range, which of the logarithm f'' is for sizes between about 1e-19 and 1e19 in single precision. A kink or jump
    of f at an eigenvalue is decided by its rounding. A third derivative, mixed ones included, raises ``ValueError``.
    NaN or infinite entries give NaN. Raises ``ValueError`` for shapes other than stated, for an f that returns another
    shape or complex numbers, or closes over a traced value, ``TypeError`` for complex ``params``. Cost: one
    decomposition, 4 products for a derivative, about 12 for a second one (50 for singular values), and n^2 evaluations
    of f and its derivatives. Source: Daleckii and Krein 1965; Noferini 2017 (singular values).

    >>> import jax, jax.numpy as jnp, jaxnorms as jn
    >>> jn.spectral_function(jnp.sqrt, jnp.array([[0.0, 4.0], [-9.0, 0.0]]))
    Array([[ 0.,  2.],
           [-3.,  0.]], dtype=float32)
    """
    x, kind = _matrix(a, "spectral_function", hermitian)
    function, numbers = _function(f, df, x, params)
    return over_batch(_image, x, *numbers, kind=kind, function=function)


def _image(a: Array, *params: Array, kind: Kind, function: Function) -> Array:
    return _rules.spectral_image(kind, function, a, _rules.constant(kind.decompose, a), *params) if a.size else a


def _matrix(a: ArrayLike, function: str, hermitian: bool) -> tuple[Array, Kind]:
    if _checks.flag(hermitian, "hermitian"):
        return _checks.square(a, function), HERMITIAN
    return _checks.matrix(a, function), SINGULAR


def _function(f: Any, df: Any, x: Array, params: tuple[ArrayLike, ...]) -> tuple[Plain, tuple[Array, ...]]:
    real = jnp.finfo(_checks.working_dtype(x.dtype)).dtype
    numbers = []
    for i, value in enumerate(params):
        number = _checks.as_inexact(value, f"params[{i}]")
        if jnp.iscomplexobj(number):
            raise TypeError(f"params[{i}] must be real, got dtype {number.dtype}")
        numbers.append(number.astype(real))
    sample = jax.ShapeDtypeStruct((3,), real)
    for name, function in (("f", f), ("df", df)):
        if function is None and name == "df":
            continue
        if not callable(function):
            raise TypeError(f"{name} must be a function of x and params, got {function!r}")
        closed = jax.make_jaxpr(function)(sample, *numbers)
        if any(isinstance(value, Tracer) for value in closed.consts):
            raise ValueError(f"{name} must not close over a traced value: pass it as one of params, {name}(x, *params)")
        kinds = [(out.shape, out.dtype) for out in closed.out_avals]  # pyright: ignore[reportAttributeAccessIssue]
        if len(kinds) != 1 or kinds[0][0] != sample.shape or jnp.issubdtype(kinds[0][1], jnp.complexfloating):
            raise ValueError(f"{name} must return one real number for each of x, got {kinds} for x of shape (3,)")
    return Plain(f, df), tuple(numbers)


# Named uses.


@dataclass(frozen=True)
class _Root(ByJax):
    """NaN where clearly negative."""

    tol: float
    cusp: bool = True

    def __call__(self, x: Array, largest: Array, *params: Array) -> Array:
        least = self.tol * largest
        positive = x > (0 if self.cusp else least)
        return jnp.where(positive, jnp.sqrt(jnp.where(positive, x, 1)), jnp.where(x >= -least, 0, jnp.nan))

    def without_cusp(self) -> Function:
        return replace(self, cusp=False)


@dataclass(frozen=True)
class _Logarithm(ByJax):
    def __call__(self, x: Array, largest: Array, *params: Array) -> Array:
        positive = x > 0
        return jnp.where(positive, jnp.log(jnp.where(positive, x, 1)), jnp.nan)


@dataclass(frozen=True)
class _Reciprocal(ByJax):
    """Of what is above ``rtol * largest``, else 0."""

    rtol: float

    def __call__(self, x: Array, largest: Array, *params: Array) -> Array:
        kept = x > self.rtol * largest
        return jnp.where(kept, 1 / jnp.where(kept, x, 1), 0)


@dataclass(frozen=True)
class _Regularized(ByJax):
    """``x / (x^2 + lam)``, without squaring what is large or small."""

    def __call__(self, x: Array, largest: Array, *params: Array) -> Array:
        (lam,) = params
        e = exponent(jnp.maximum(jnp.abs(x), jnp.sqrt(jnp.where(lam > 0, lam, 0))))
        t = scale(x, -e)
        square = jnp.square(t) + scale(scale(lam, -e), -e)
        zero = square == 0
        return jnp.where(zero, 0, scale(t / jnp.where(zero, 1, square), -e))


def matrix_sqrt(a: ArrayLike) -> Array:
    """The square root ``V diag(w^(1/2)) V^H`` of positive semidefinite ``(..., n, n)`` matrices.

    Of the Hermitian part. An eigenvalue below 0 by rounding, about ``8 eps n^(1/4) max |w|``, counts as 0; a more
    negative one gives a NaN matrix. What is 0 to that rounding, on either side, is differentiated as 0, and the
    infinite terms of the derivative, those between two such eigenvalues, are left out. Derivatives, errors and cost:
    :func:`spectral_function`. Source: Higham 2008, ch. 6.

    >>> import jax.numpy as jnp, jaxnorms as jn
    >>> jn.matrix_sqrt(jnp.array([[5.0, 4.0], [4.0, 5.0]])).round(5)
    Array([[2., 1.],
           [1., 2.]], dtype=float32)
    """
    x = _checks.square(a, "matrix_sqrt")
    root = _Root(tie_tolerance(_checks.working_dtype(x.dtype), *x.shape[-2:]))
    return over_batch(_image, x, kind=HERMITIAN, function=root)


def matrix_log(a: ArrayLike) -> Array:
    """The logarithm ``V diag(log w) V^H`` of positive definite ``(..., n, n)`` matrices; NaN if ``w <= 0`` occurs.

    Of the Hermitian part. Eigenvalues below ``eps max w`` are rounding, and so are their logarithms.
    Derivatives, errors and cost: :func:`spectral_function`. Source: Higham 2008, ch. 11.

    >>> import jax.numpy as jnp, jaxnorms as jn
    >>> jn.matrix_log(jnp.eye(2))
    Array([[0., 0.],
           [0., 0.]], dtype=float32)
    """
    return over_batch(_image, _checks.square(a, "matrix_log"), kind=HERMITIAN, function=_Logarithm())


def matrix_exp(a: ArrayLike) -> Array:
    """The exponential ``V diag(exp w) V^H`` of Hermitian ``(..., n, n)`` matrices.

    Of the Hermitian part; ``jax.scipy.linalg.expm`` takes any matrix. Where ``exp(max w)`` is out of range, all entries
    may be infinite or NaN: subtract a multiple of the identity first. Derivatives, errors and cost:
    :func:`spectral_function`. Source: Higham 2008, ch. 10.

    >>> import jax.numpy as jnp, jaxnorms as jn
    >>> jn.matrix_exp(jnp.zeros((2, 2)))
    Array([[1., 0.],
           [0., 1.]], dtype=float32)
    """
    f = Plain(jnp.exp, jnp.exp)
    return over_batch(_image, _checks.square(a, "matrix_exp"), kind=HERMITIAN, function=f)


def regularized_inverse(a: ArrayLike, lam: ArrayLike, *, hermitian: bool = False) -> Array:
    """``(a^H a + lam I)^-1 a^H = V diag(s / (s^2 + lam)) U^H`` of ``(..., m, n)`` matrices, ``(..., n, m)``.

    The map from b to Tikhonov's solution of ``a x = b``. ``lam >= 0`` (NaN below) may be traced and has a shape that
    broadcasts to ``(...)``; with ``lam = 0`` it is the inverse, where singular values of 0 are left out, exactly zero
    ones alone: see :func:`pinv`. ``hermitian=True``: of the Hermitian part of ``(..., n, n)`` matrices, by its
    eigenvalues, which takes less. Derivatives, in ``lam`` too, errors and cost: :func:`spectral_function`. Source:
    Tikhonov 1963.

    >>> import jax.numpy as jnp, jaxnorms as jn
    >>> jn.regularized_inverse(jnp.diag(jnp.array([2.0, 0.0])), 1.0)
    Array([[0.4, 0. ],
           [0. , 0. ]], dtype=float32)
    """
    x, kind = _matrix(a, "regularized_inverse", hermitian)
    return over_batch(_regularized, x, along=(_checks.number(lam, "lam", x),), kind=kind)


def pinv(a: ArrayLike, rtol: float | None = None) -> Array:
    """The pseudoinverse ``V diag(1/s) U^H`` of ``(..., m, n)`` matrices, ``(..., n, m)``.

    Singular values up to ``rtol * s_1`` count as 0; static, ``max(m, n) eps`` of the type of a by default.
    Differentiable twice at fixed rank: directions that raise the rank, in which the pseudoinverse is not continuous,
    are left out. NaN, errors and cost as for :func:`spectral_function`. Source: Golub and Pereyra 1973 (the
    derivative).

    >>> import jax.numpy as jnp, jaxnorms as jn
    >>> jn.pinv(jnp.array([[2.0, 0.0], [0.0, 0.0]]))
    Array([[0.5, 0. ],
           [0. , 0. ]], dtype=float32)
    """
    x = _checks.matrix(a, "pinv")
    if rtol is None:
        rtol = max(1, *x.shape[-2:]) * float(jnp.finfo(x.dtype).eps)
    return over_batch(_pseudoinverse, x, rtol=_checks.order(rtol, "rtol", 0.0))


def _pseudoinverse(a: Array, rtol: float) -> Array:
    if not a.size:
        return a.T
    d = _rules.constant(SINGULAR.decompose, a)
    e = _middle(jnp.where(d.values > rtol * d.largest, d.values, 0))
    return scale(_inverse(a, d, e, SINGULAR, _Reciprocal(rtol)), -e)


def _regularized(a: Array, lam: Array, kind: Kind) -> Array:
    y, e = scaled_inverse(a, lam, kind)
    return scale(y, -e)


def scaled_inverse(a: Array, lam: Array, kind: Kind = SINGULAR) -> tuple[Array, Array]:
    """``y`` and ``e`` with ``regularized_inverse(a, lam) = y 2^-e``, of one matrix."""
    if not a.size:
        return a.T, jnp.zeros((), jnp.int32)
    d = _rules.constant(kind.decompose, a)
    e = _middle(jnp.maximum(jnp.abs(d.values), jnp.sqrt(jnp.where(lam > 0, lam, 0))))
    y = _inverse(a, d, e, kind, _Regularized(), scale(scale(lam, -e), -e))
    return y * jnp.where(lam >= 0, 1, jnp.nan).astype(y.dtype), e  # scaled, a small negative one may be zero


def _inverse(a: Array, d: Decomposed, e: Array, kind: Kind, function: Function, *params: Array) -> Array:
    """Of ``a 2^-e``, from the decomposition d of ``a``: of ``a`` itself the squares and cubes of reciprocals in the
    derivatives would be out of range while what they give for a small direction is not."""
    return _rules.spectral_image(kind, function, scale(a, -e), d.scaled(-e), *params).conj().T


def _middle(sizes: Array) -> Array:
    """The exponent in the middle of those of the nonzero sizes, which are to be divided by; at most so large that the
    reciprocal of the cube of the least one is in range, and at least that the largest one is."""
    largest, (_, above, _) = jnp.max(sizes), layout(sizes)
    high, low = exponent(largest), exponent(jnp.min(jnp.where(sizes > 0, sizes, largest)))
    return jnp.maximum(jnp.minimum((high + low) // 2, low + above // 3 - 2), high - above + 2)
