"""Comparison of norms and of matrices: equivalence constants, majorisation, dominance in every norm."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxnorms import _checks
from jaxnorms._scaling import exponent, scale
from jaxnorms.column_gauge import Columns
from jaxnorms.decompositions import tie_tolerance
from jaxnorms.gauges import Lp
from jaxnorms.lifts import EntrywiseLift, SpectralLift
from jaxnorms.norm_objects import Norm, as_norm
from jaxnorms.spectra import singular_values
from jaxnorms.top_gauges import DualTopK, TopK


def equivalence_constant(ord: Norm | str, other: Norm | str, shape: tuple[int, int]) -> float:
    """The least C with ``||A||_ord <= C ||A||_other`` for all complex m x n matrices A, ``shape = (m, n)``.

    A Python float, in closed form, attained by a matrix:

    * l_p against l_q of N numbers, singular values or entries: ``N^max(0, 1/p - 1/q)``;
    * the l_p norm of the k largest singular values against the l_q norm of the l largest:
      ``max(1, k^(1/p) min(k, l)^(-1/q))``; and with dual Ky Fan norms;
    * mixed norms: on rank one, where they are products of vector norms, by Minkowski's inequality;
    * norms f of the singular values against mixed ones, so against entrywise and exact induced norms, too:
      ``C(f, l_min(q,2)) m^max(0, 1/2 - 1/p) n^max(0, 1/2 - 1/q)`` against ``Mixed(p, q)``; the reverse by
      duality, ``C(ord, other) = C(Dual(other), Dual(ord))``.

    Real matrices obey the same C. They attain it, too, except perhaps where a spectral norm whose maximiser has
    rank j > 1 meets a mixed or entrywise norm with p > 2 inside (p < 2 in the reverse): complex matrices
    attain that with parts of Fourier matrices, real ones only where Hadamard matrices of this size exist
    (nuclear against max norm: ``sqrt(m n min(m, n))``, by real 2 x 2 matrices, too, but not by 3 x 3 ones).

    ``ord`` and ``other`` are norm objects or ``'fro'``, ``'nuc'``, ``'spectral'``. ``ValueError`` where no
    closed form is proved: user's gauges; inexact induced norms; columns against rows where the first norm
    has its smaller order outside and the second inside, unless one of these inner orders is extreme; some pairs of
    Ky Fan norms and their duals with orders between 1 and 2; and some ranks that divide neither m nor n.
    No cost: some powers of m and n. Source: Horn and Johnson 2013, ch. 5; Marshall, Olkin and Arnold 2011
    (Schur-Horn); the proofs are in the code.

    >>> import jaxnorms as jn
    >>> jn.equivalence_constant("nuc", "spectral", (3, 5))
    3.0
    >>> jn.equivalence_constant(jn.Induced(1, 1), "spectral", (4, 9))
    2.0
    """
    m, n = _checks.sides(shape, "shape")
    norms = as_norm(ord, "ord"), as_norm(other, "other")
    for norm in norms:
        norm.check(m, n)
    (f, by_columns), (g, other_by_columns) = (_known(norm, min(m, n)) for norm in norms)
    if f and g:
        constant = _gauge_constant(f, g, min(m, n))
    elif by_columns and other_by_columns:
        constant = _mixed_constant(by_columns, other_by_columns, m, n)
    elif f and other_by_columns:
        constant = _bridge(f, other_by_columns, m, n)
    else:  # the dual of the reverse
        assert g
        assert by_columns
        constant = _bridge(_polar(g, min(m, n)), by_columns.polar(), m, n)
    if constant is None:
        raise ValueError(
            f"the equivalence constant of {norms[0]!r} and {norms[1]!r} is not known in closed form "
            f"for {m} x {n} matrices"
        )
    return float(constant)


# Orders enter by their reciprocals: 0 for inf, and 1 - a for the conjugate.


class _Top(NamedTuple):
    """The norm of the k largest of r values with reciprocal order a, or its dual.

    Canonical: l_p has k = r, l_inf is (1, 1), and a dual has 1 < k < r.
    """

    k: int
    a: float
    dual: bool = False


class _Grid(NamedTuple):
    """A mixed norm: reciprocal orders inside and outside."""

    a: float
    b: float
    rows: bool = False

    def polar(self) -> "_Grid":
        return _Grid(1 - self.a, 1 - self.b, self.rows)


def _top(k: int, a: float) -> _Top:
    return _Top(1, 1.0) if k == 1 or a == 0 else _Top(k, a)


def _polar(f: _Top, r: int) -> _Top:
    """The dual gauge on r values."""
    if f.dual:
        return _top(f.k, f.a)
    if f.k in (1, r):
        return _top(r, 1 - f.a if f.k == r else 1.0)
    return _Top(f.k, f.a, dual=True)


def _known(norm: Norm, r: int) -> tuple[_Top | None, _Grid | None]:
    """The norm as a gauge of the r singular values, as a mixed norm, or as both (Frobenius)."""
    lift = norm.lift
    if isinstance(lift, EntrywiseLift) and isinstance(lift.gauge, Lp):
        a = 1 / lift.gauge.p
        return _top(r, a) if a == 0.5 else None, _Grid(a, a)
    if isinstance(lift, EntrywiseLift) and isinstance(lift.gauge, Columns):
        return None, _Grid(1 / lift.gauge.inner.p, 1 / lift.gauge.outer.p, lift.gauge.rows)
    gauge = lift.gauge if isinstance(lift, SpectralLift) else None
    if isinstance(gauge, Lp):
        return _top(r, 1 / gauge.p), None
    if isinstance(gauge, TopK):
        return _top(min(gauge.k, r), 1 / gauge.p), None
    if isinstance(gauge, DualTopK):
        return _polar(_top(min(gauge.k, r), 1 / gauge.p), r), None
    raise ValueError(f"the equivalence constants of {norm!r} are not known in closed form")


def _gauge_constant(f: _Top, g: _Top, r: int) -> float | None:
    """``sup f(x)/g(x)`` over r values. Diagonal matrices carry it over to singular values (von Neumann).

    * (k, a) over (l, b), neither of them dual: the entries beyond the l-th are at most the l-th. So for k > l,
      with y_i = x_i^q of sum 1, ``f^p = sum_{i<=l} y_i^(p/q) + (k - l) y_l^(p/q)``: convex for p >= q, with
      its maximum at a flat vector of 1 or l entries, and else largest where all l entries are equal.
    * Duals: ``sup f/g = sup g'/f'`` with the dual gauges.
    * f over a dual (l, b): the extreme points of the ball of g are l-sparse, so it is f on R^l over the
      conjugate l_q norm there.
    * A dual over (l, b): if b = 1, g is linear on the cone of sorted vectors, whose extreme rays are flat;
      dually if a = 1. For a + b <= 1, ``<x, y> <= r^(1-a-b) ||x|| ||y||`` (Hölder), where each norm is
      at most ``(r/l)^b`` and ``(r/k)^a`` of its top-l and top-k part. Both are attained by flat vectors.
    """
    if not f.dual and not g.dual:
        return max(1.0, f.k**f.a / min(f.k, g.k) ** g.a)
    f_polar, g_polar = _polar(f, r), _polar(g, r)
    if not f_polar.dual and not g_polar.dual:
        return _gauge_constant(g_polar, f_polar, r)
    if g.dual:
        k = min(f.k, g.k)
        return max(1.0, k**f.a / k ** (1 - g.a))
    if f.a == 1 or g.a == 1 or f.a + g.a <= 1:
        return max(j / (min(j, f.k) ** f.a * min(j, g.k) ** g.a) for j in (1, f.k, g.k, r))
    return None


def _mixed_constant(f: _Grid, g: _Grid, m: int, n: int) -> float | None:
    """``sup f(A)/g(A)``.

    Along the same axis, from ``l_p <= N^max(0, 1/p - 1/q) l_q`` inside and outside. Along different ones
    Minkowski's inequality, the larger order is the larger norm inside, turns one of them into the other's
    form, if f has the larger order outside or g has it inside. Both are attained on rank one.

    Else let g be the norm of the rows, with l_1 inside: the extreme points of its ball have one entry w_i a row,
    and f is at most ``||w||_q``, q its outer order, attained where each column has one of them: m <= n, or
    else l_inf inside f, which sees one entry a column. Dually for l_inf inside f and n <= m.
    """
    if f.rows:
        return _mixed_constant(f._replace(rows=False), g._replace(rows=not g.rows), n, m)
    if not g.rows or g.a == g.b:
        return m ** max(0.0, f.a - g.a) * n ** max(0.0, f.b - g.b)
    if f.b <= f.a or g.a <= g.b:
        return m ** max(0.0, f.a - g.b) * n ** max(0.0, f.b - g.a)
    if (g.a == 1 and (m <= n or f.a == 0)) or (f.a == 0 and n <= m):
        return min(m, n) ** max(0.0, f.b - g.b)
    return None


def _bridge(f: _Top, g: _Grid, m: int, n: int) -> float | None:
    """``sup f(s(A))/g(A)``, for g a norm of the columns with orders p inside and q outside.

    Let t = min(q, 2), and c the maximum of f over l_t, at a flat vector of j entries. Then

        f <= c ||s||_t <= c ||A||_{2,t} <= c n^(1/t-1/q) ||A||_{2,q} <= c n^(1/t-1/q) m^max(0, 1/2-1/p) g(A).

    The second step is Schur's: the squared norms of the columns, the diagonal of A^H A, are majorised by
    its eigenvalues. Where all are equalities:

    * q <= 2, p <= 2: j equal entries on the diagonal; p > 2: j columns of a Fourier matrix;
    * q > 2, p = 2: columns of equal norms, which any spectrum allows (Horn);
    * q > 2, p < 2: one entry a column, in j rows, n/j in each: if j divides n;
    * q > 2, p > 2: entries of modulus 1 and j equal singular values, from copies of a Fourier matrix with
      j columns or rows: if j divides m or n.
    """
    if g.rows:
        return _bridge(f, g._replace(rows=False), n, m)
    r, b = min(m, n), max(g.b, 0.5)
    if f.dual:
        c, j = r ** (1 - b) / f.k**f.a, r
    else:
        c, j = f.k ** (f.a - b), f.k
    if c <= 1:
        c, j = 1.0, 1
    if g.b < 0.5 and ((g.a > 0.5 and n % j) or (g.a < 0.5 and m % j and n % j)):
        return None
    return c * m ** max(0.0, 0.5 - g.a) * n ** max(0.0, 0.5 - g.b)


def majorizes(x: ArrayLike, y: ArrayLike, weak: bool = False) -> Array:
    """Whether x majorises y: ``sum_{i<=k} x_i >= sum_{i<=k} y_i`` for all k, x and y sorted descending, with equality
    for k = n.

    For real ``(..., n)`` vectors, whose batch axes broadcast; booleans of shape ``(...)``. With ``weak=True`` weak
    majorisation, from below: the totals need not be equal. Sums are compared within ``2 n eps`` times the larger
    of ``sum |x_i|`` and ``sum |y_i|``, eps that of the type, of float32 for 16-bit types: so it is reflexive, and
    only approximately transitive. False where an entry is NaN or infinite. Unequal lengths, or batch axes that do
    not broadcast, raise ``ValueError``; complex vectors ``TypeError``. No derivative. Cost: two sorts. Source:
    Marshall, Olkin and Arnold 2011.

    >>> import jax.numpy as jnp, jaxnorms as jn
    >>> jn.majorizes(jnp.array([3.0, 0.0, 0.0]), jnp.array([[1.0, 1.0, 1.0], [0.0, 2.0, 1.0], [2.0, 2.0, 0.0]]))
    Array([ True,  True, False], dtype=bool)
    """
    x, y = (_checks.as_inexact(v, name) for v, name in ((x, "x"), (y, "y")))
    if jnp.iscomplexobj(x) or jnp.iscomplexobj(y):
        raise TypeError(f"majorizes: x and y must be real, got dtypes {x.dtype} and {y.dtype}")
    if x.ndim < 1 or y.ndim < 1 or x.shape[-1] != y.shape[-1]:
        raise ValueError(f"majorizes: x and y must have shape (..., n) with one n, got shapes {x.shape} and {y.shape}")
    x, y = (v.astype(_checks.working_dtype(v.dtype)) for v in (x, y))
    return _majorizes(x, y, _checks.flag(weak, "weak"), 0.0, "majorizes")


def _majorizes(x: Array, y: Array, weak: bool, error: float, function: str) -> Array:
    """``error``: what the entries of a vector may be off in all, relative to the largest."""
    try:
        shape = jnp.broadcast_shapes(x.shape, y.shape)
    except ValueError as failure:
        raise ValueError(
            f"{function}: batch axes must broadcast, got shapes {x.shape[:-1]} and {y.shape[:-1]}"
        ) from failure
    both = jnp.stack([jnp.broadcast_to(x, shape), jnp.broadcast_to(y, shape)])
    largest = jnp.max(jnp.abs(both), axis=(0, -1), initial=0)
    power = exponent(largest)
    both = jnp.sort(scale(both, -power[None, ..., None]), axis=-1, descending=True)
    sums, total = jnp.cumsum(both, axis=-1), jnp.max(jnp.sum(jnp.abs(both), axis=-1), axis=0)
    slack = 2 * shape[-1] * float(jnp.finfo(both.dtype).eps) * total + error * scale(largest, -power)
    more = sums[0] - sums[1]
    holds = jnp.all(more >= -slack[..., None], axis=-1) & jnp.isfinite(largest)
    return holds if weak or shape[-1] == 0 else holds & (jnp.abs(more[..., -1]) <= slack)


def fan_dominates(a: ArrayLike, b: ArrayLike) -> Array:
    """Whether ``||a|| >= ||b||`` in every unitarily invariant norm: s(a) weakly majorises s(b) (Fan dominance).

    For ``(..., m, n)`` matrices, also of different shapes: the shorter list of singular values ends in zeros, as
    that of a matrix with zero rows or columns appended. Batch axes broadcast; booleans of shape ``(...)``. The Ky
    Fan norms are compared within ``r tie``, r the number of singular values and ``tie = 8 eps max(sides)^(1/4)``,
    relative to the largest singular value of the two, on top of the tolerance of :func:`majorizes`. False where
    an entry is NaN or infinite. No derivative. Cost: two SVDs. Source: Fan 1951; Horn and Johnson 1991, 3.5.

    >>> import jax.numpy as jnp, jaxnorms as jn
    >>> jn.fan_dominates(jnp.diag(jnp.array([2.0, 2.0])), jnp.array([[1.0, 2.0], [2.0, 1.0]]))
    Array(False, dtype=bool)
    """
    x, y = (_checks.matrix(v, "fan_dominates", name) for v, name in ((a, "a"), (b, "b")))
    s, t = (singular_values(v.astype(_checks.working_dtype(v.dtype))) for v in (x, y))
    r = max(s.shape[-1], t.shape[-1])
    s, t = (_padded(v, r) for v in (s, t))
    error = r * tie_tolerance(s.dtype, *x.shape[-2:], *y.shape[-2:])
    return _majorizes(s, t, True, error, "fan_dominates")


def _padded(s: Array, r: int) -> Array:
    return jnp.pad(s, [(0, 0)] * (s.ndim - 1) + [(0, r - s.shape[-1])])
