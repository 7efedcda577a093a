"""Norm objects: a norm as a value that can be passed around, compared and called.

They are frozen, hashable and static under ``jit``. Two objects are equal if they are the same
norm: ``Schatten(2) == Entrywise(2)``, ``Induced(1, q) == Mixed(q, inf)``. What they all share, the
lift of a gauge, is their canonical form.
"""

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import partial
from typing import Any, Unpack

import jax
import jax.numpy as jnp
from jax import Array
from jax.core import Tracer
from jax.typing import ArrayLike

from jaxnorms import _checks
from jaxnorms._layout import tied
from jaxnorms._mesh import partitioned
from jaxnorms._rules import Lift, evaluate
from jaxnorms._split import count
from jaxnorms.column_gauge import Columns
from jaxnorms.gauges import Gauge, Lp, Symmetric, conjugate_exponent, inf
from jaxnorms.lifts import EntrywiseLift, SpectralLift
from jaxnorms.operator_norms import norm_of_operator
from jaxnorms.operators import LinearOperator
from jaxnorms.options import Options, place, refuse_unknown, request
from jaxnorms.top_gauges import TopK


def apply(lift: Lift, x: Array, axes: tuple[int, ...], keepdims: bool) -> Array:
    """The norm over ``axes`` of ``x``, batched over the others."""
    # Axes that are last already are not moved at all, so that a backward pass keeps x, not a copy.
    value = _batched(lift, tied(x), axes)
    return jnp.expand_dims(value, axes) if keepdims else value


@partial(jax.jit, static_argnames="axes")
def _batched(lift: Lift, x: Array, axes: tuple[int, ...]) -> Array:
    x = jnp.moveaxis(x, axes, tuple(range(-len(axes), 0)))
    batch, dtype = x.shape[: x.ndim - len(axes)], x.dtype
    if 0 in x.shape:
        return jnp.zeros(batch, jnp.finfo(dtype).dtype)

    def one(a: Array) -> Array:
        return evaluate(lift, a)

    for _ in batch:
        one = jax.vmap(one)
    return partitioned(
        lambda x: one(x.astype(_checks.working_dtype(dtype))).astype(jnp.finfo(dtype).dtype), x, len(axes)
    )


class Norm(ABC):
    """A matrix norm. Call it on a ``(..., m, n)`` array; compare it with others."""

    @property
    @abstractmethod
    def lift(self) -> Any:
        """The canonical form: a gauge and its lift."""

    @property
    def _key(self) -> Hashable:
        return self.lift

    def check(self, m: int, n: int) -> None:
        """Raise ``ValueError`` if the norm is not defined for m x n matrices."""

    def __call__(self, a: ArrayLike | LinearOperator, **options: Unpack[Options]) -> Array:
        return matrix_norm_of(self, a, type(self).__name__, options)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Norm) and self._key == other._key

    def __hash__(self) -> int:
        return hash((type(self._key), self._key))  # lifts of one gauge differ in type alone

    def __init_subclass__(cls):
        jax.tree_util.register_static(cls)


def matrix_norm_of(
    norm: Norm, a: ArrayLike | LinearOperator, function: str, options: Options, rank: int | None = None
) -> Array:
    """``norm`` of the matrices in ``a``, which ``function`` was given: checks, axes, batching."""
    refuse_unknown(options, function)
    if isinstance(a, LinearOperator):
        norm.check(*a.shape)
        return norm_of_operator(norm.lift, a, function, options, rank)
    how = request(options, rank)
    lift = norm.lift.using(how)
    axis, keepdims, diagonal = place(options)
    if diagonal:
        d = _checks.diagonal(a, axis, function)
        n = d.shape[-1]
        if n:
            norm.check(n, n)
        value = apply(lift.of_diagonal(), d, (d.ndim - 1,), False)
        return value[..., None, None] if keepdims else value
    x = _checks.matrix(a, function)
    axes = _checks.axes(axis, x.ndim, 2, function)
    m, n = (x.shape[i] * count(names) for i, names in zip(axes, how.axis_name, strict=True))
    if m and n:
        norm.check(m, n)
        if rank is not None:
            _checks.count(rank, "rank", min(m, n))
    return apply(lift, x, axes, keepdims)


@dataclass(frozen=True, eq=False)
class Entrywise(Norm):
    """``(sum_ij |a_ij|^p)^(1/p)``, 1 <= p <= inf: sum, Frobenius and max norm at p = 1, 2, inf.

    >>> Entrywise(1)(jnp.array([[3.0, -4.0], [0.0, 0.0]]))
    Array(7., dtype=float32)
    """

    p: float

    def __post_init__(self):
        object.__setattr__(self, "p", _checks.order(self.p, "p", hint="; entrywise_norm takes one"))

    @property
    def lift(self) -> EntrywiseLift:
        return EntrywiseLift(Lp(self.p))


@dataclass(frozen=True, eq=False)
class Mixed(Norm):
    """L_{p,q}: the l_q norm of the columns' l_p norms (``axis=-2``: of the rows' l_p norms).

    ``Mixed(2, 1)`` is the group-lasso norm over columns. 1 <= p, q <= inf.

    >>> Mixed(2, 1)(jnp.array([[3.0, 0.0], [4.0, 1.0]]))
    Array(6., dtype=float32)
    """

    p: float
    q: float
    axis: int = -1

    def __post_init__(self):
        object.__setattr__(self, "p", _checks.order(self.p, "p"))
        object.__setattr__(self, "q", _checks.order(self.q, "q"))
        allowed = "-1 (norms of columns) or -2 (norms of rows)"
        object.__setattr__(self, "axis", _checks.integer(self.axis, "axis of Mixed", allowed))
        if self.axis not in (-1, -2):
            raise ValueError(f"axis of Mixed must be {allowed}, got {self.axis}")

    @property
    def lift(self) -> EntrywiseLift:
        same = self.p == self.q
        return EntrywiseLift(Lp(self.p) if same else Columns(Lp(self.p), Lp(self.q), rows=self.axis == -2))


@dataclass(frozen=True, eq=False)
class Schatten(Norm):
    """``(sum_i s_i^p)^(1/p)`` of the singular values: nuclear, Frobenius, spectral at p = 1, 2, inf.

    >>> Schatten(1)(jnp.diag(jnp.array([3.0, -4.0])))
    Array(7., dtype=float32)
    """

    p: float

    def __post_init__(self):
        object.__setattr__(self, "p", _checks.order(self.p, "p", hint="; schatten_norm takes one"))

    @property
    def lift(self) -> SpectralLift | EntrywiseLift:
        return EntrywiseLift(Lp(2.0)) if self.p == 2 else SpectralLift(Lp(self.p))


@dataclass(frozen=True, eq=False)
class KyFan(Norm):
    """The l_p norm of the k largest singular values, 1 <= k <= min(m, n), 1 <= p <= inf.

    >>> KyFan(2)(jnp.diag(jnp.array([3.0, 2.0, 1.0])))
    Array(5., dtype=float32)
    """

    k: int
    p: float = 1.0

    def __post_init__(self):
        object.__setattr__(self, "k", _checks.count(self.k, "k"))
        object.__setattr__(self, "p", _checks.order(self.p, "p"))

    @property
    def lift(self) -> SpectralLift:
        if self.k == 1 or self.p == inf:
            return SpectralLift(Lp(inf))
        return SpectralLift(TopK(self.k, self.p))

    def check(self, m: int, n: int) -> None:
        _checks.count(self.k, "k", min(m, n))


@dataclass(frozen=True, eq=False)
class Induced(Norm):
    """``max ||a x||_q`` over ``||x||_p <= 1``.

    Exact pairs: 1 -> q (the largest column l_q norm), p -> inf (the largest row l_{p*} norm) and
    2 -> 2 (the spectral norm). Any other pair is NP-hard in general, and calling it raises.

    >>> Induced(1, 1)(jnp.array([[1.0, 2.0], [3.0, 4.0]]))
    Array(6., dtype=float32)
    """

    p: float
    q: float

    def __post_init__(self):
        object.__setattr__(self, "p", _checks.order(self.p, "p"))
        object.__setattr__(self, "q", _checks.order(self.q, "q"))

    @property
    def _exact(self) -> Norm | None:
        if self.p == 1:
            return Mixed(self.q, inf)
        if self.q == inf:
            return Mixed(conjugate_exponent(self.p), inf, axis=-2)
        return Schatten(inf) if self.p == self.q == 2 else None

    @property
    def lift(self) -> Any:
        if self._exact is None:
            raise ValueError(
                f"the induced {self.p:g} -> {self.q:g} norm is NP-hard to compute in general; "
                "exact are 1 -> q, p -> inf and 2 -> 2"
            )
        return self._exact.lift

    @property
    def _key(self) -> Hashable:
        return (Induced, self.p, self.q) if self._exact is None else self.lift


@dataclass(frozen=True, eq=False)
class UnitarilyInvariant(Norm):
    """``f(s(a))`` for a symmetric gauge f: a function of the singular values, or a gauge object.

    f must be a norm that does not change when entries are permuted or change sign (von Neumann). A
    function must be hashable, and is called on the vector of nonnegative singular values. It must not hold traced
    values (``ValueError`` where it is seen to close over one); :func:`jaxnorms.unitarily_invariant_norm` takes
    functions that do.

    >>> UnitarilyInvariant(jnp.max)(jnp.diag(jnp.array([3.0, -4.0])))
    Array(4., dtype=float32)
    """

    gauge: Callable[[Array], Array] | Gauge

    def __post_init__(self):
        if not (isinstance(self.gauge, Gauge) or callable(self.gauge)):
            raise TypeError(f"gauge must be a function of the singular values or a gauge object, got {self.gauge!r}")
        if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(_closed_over(self.gauge))):
            raise ValueError(
                f"gauge must not close over traced values in a norm object, got {self.gauge!r}: "
                "use unitarily_invariant_norm(a, gauge)"
            )

    @property
    def lift(self) -> SpectralLift | EntrywiseLift:
        if isinstance(self.gauge, Lp):
            return Schatten(self.gauge.p).lift
        return SpectralLift(self.gauge if isinstance(self.gauge, Gauge) else Symmetric(self.gauge))


def _closed_over(f: Any) -> list[Any]:
    """The values that a function closes over, as far as they are there yet; lists are for what it records."""
    held = []
    for cell in getattr(f, "__closure__", None) or ():
        with contextlib.suppress(ValueError):  # assigned after the function was defined
            held.append(cell.cell_contents)
    return [value for value in held if not isinstance(value, list)]


WORDS = {"fro": Entrywise(2), "nuc": Schatten(1), "spectral": Schatten(inf)}


def as_norm(ord: Any, name: str = "ord") -> Norm:
    """A norm object, or the one named by an unambiguous word."""
    if isinstance(ord, Norm):
        return ord
    if isinstance(ord, str) and ord in WORDS:
        return WORDS[ord]
    if isinstance(ord, str):
        raise ValueError(f"{name} must be a norm object or one of 'fro', 'nuc', 'spectral', got {ord!r}")
    hint = f": did you mean Entrywise({ord!r}) or Induced({ord!r}, {ord!r})?" if isinstance(ord, int | float) else ""
    raise TypeError(f"{name} must be a norm object or one of 'fro', 'nuc', 'spectral', got {ord!r}{hint}")


@dataclass(frozen=True, eq=False)
class Dual(Norm):
    """The dual norm, ``max Re<a, x>`` over ``ord(x) <= 1``.

    It equals the named norm where there is one: ``Dual(Schatten(p)) == Schatten(p*)``,
    ``Dual(Dual(ord)) == ord``.

    >>> Dual(KyFan(2))(jnp.diag(jnp.array([3.0, 2.0, 2.0])))
    Array(3.5, dtype=float32)
    """

    ord: Norm

    def __post_init__(self):
        object.__setattr__(self, "ord", as_norm(self.ord))

    @property
    def lift(self) -> Any:
        return self.ord.ord.lift if isinstance(self.ord, Dual) else self.ord.lift.dual()

    @property
    def _key(self) -> Hashable:
        try:
            return self.lift
        except ValueError:  # no closed form: still equal to itself, and its dual to the original
            return self.ord.ord._key if isinstance(self.ord, Dual) else (Dual, self.ord._key)

    def check(self, m: int, n: int) -> None:
        self.ord.check(m, n)
