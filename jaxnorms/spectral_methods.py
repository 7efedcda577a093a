"""Ways to evaluate a gauge of the singular values with its subgradient, and the choice between them.

A method acts on one matrix and offers ``value``, ``factors`` and ``subgradient`` of
``jaxnorms._rules``. Where fewer singular values carry the subgradient than there are, the factors are
``(U diag(g), V^H, missed)`` of the leading triplets, else the dense G: their shapes depend on the gauge and
the shape of the matrix alone, never on the method. Second derivatives always take a full decomposition.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import Array

from jaxnorms._batching import in_groups, single_or_all, single_or_batch
from jaxnorms._layout import by_rows, on_grid
from jaxnorms._scaling import exponent, magnitude, poison, prepare, scale
from jaxnorms.decompositions import krylov, matmul, singular_values, thin_svd, tie_tolerance
from jaxnorms.decompositions.polar_express import polar_factor
from jaxnorms.decompositions.products import SUMMED_TO, summed
from jaxnorms.decompositions.squaring import leading_by_squaring
from jaxnorms.gauges import Gauge

_EXACT = "minimum-norm subgradient"
_CLUSTER = f"{_EXACT}; any subgradient where more than {krylov.BLOCK} values are tied with the last that counts"

Factors = tuple[Array, ...]
Result = tuple[Array, Factors]


def kept(gauge: Gauge, shape: tuple[int, ...]) -> int | None:
    """How many triplets the backward pass keeps; None if the dense G is smaller."""
    m, n = shape
    count = krylov.kept_triplets(gauge.support(min(m, n)))
    return count if count * (m + n) < m * n else None


def full_gradient(gauge: Gauge, a: Array) -> Array:
    """G from all singular triplets."""
    x, ok, _, _ = prepare(a)
    u, s, vh = thin_svd(x)
    return poison(ok, on_grid(matmul(u * _weights(gauge, s, a)[None, :], vh)))


def _weights(gauge: Gauge, s: Array, a: Array) -> Array:
    return gauge.subgradient(s, tie_tolerance(s.dtype, *a.shape)).astype(a.dtype)


def curvature_core(gauge: Gauge, s: Array, tol: float, m: Array) -> Array:
    """dG between the singular vectors for a direction e, from ``m = U^H e V``."""
    sym, skew = (m + m.conj().T) / 2, (m - m.conj().T) / 2
    minus, plus = (x.astype(m.dtype) for x in gauge.differences(s, tol))
    core = jnp.where(jnp.eye(s.shape[0], dtype=bool), 0, minus) * sym + plus * skew
    return core + jnp.diag(gauge.hessian(s, tol, jnp.diag(m).real)).astype(m.dtype)


def turned(u: Array, vh: Array, e: Array, core_of: Callable[[Array], Array], along: Array) -> Array:
    """``U core(U^H e V) V^H``, and what leads out of the singular vectors, times ``along``."""
    rows, columns = e.shape
    v, uh = vh.conj().T, u.conj().T
    ev = matmul(e, v)
    m = matmul(uh, ev)
    core = core_of(m)
    if rows > columns:
        return matmul(matmul(u, core) + (ev - matmul(u, m)) * along[None, :], vh)
    if rows < columns:
        return matmul(u, matmul(core, vh) + along[:, None] * (matmul(uh, e) - matmul(m, vh)))
    return matmul(matmul(u, core), vh)


def at_most_once(pending: Array, otherwise: Callable[[Array], Any], a: Array, result: Any) -> Any:
    """``otherwise(a)`` where ``pending``, else ``result``.

    A loop of at most one round is a branch that, under vmap, is paid for only if some matrix of the
    batch takes it. Its body reads the state, or the compiler would move the work in front of it.
    """
    return jax.lax.while_loop(
        lambda state: state[0],
        lambda state: (~state[0], otherwise(jnp.where(state[0], a, 0))),
        (pending, result),
    )[1]


@dataclass(frozen=True)
class Full:
    """All singular triplets, or values: closed forms and Jacobi rotations where small, else LAPACK."""

    name: ClassVar[str] = "svd"

    def explain(self, shape: tuple[int, ...], dtype: Any) -> tuple[str, str, str]:
        m, n = max(shape), min(shape)
        return f"one SVD, about {4 * m * n**2 + n**3 / 2:.2g} multiplications", "a few eps", _EXACT

    def value(self, gauge: Gauge, a: Array) -> Array:
        x, ok, largest, e = prepare(a)
        return jnp.where(ok, scale(gauge.value(singular_values(x)), e), largest)

    def factors(self, gauge: Gauge, a: Array) -> Result:
        x, ok, largest, e = prepare(a)
        u, s, vh = thin_svd(x)
        g = _weights(gauge, s, a)
        value = jnp.where(ok, scale(gauge.value(s), e), largest)
        count = kept(gauge, a.shape)
        if count is None:
            return value, (poison(ok, on_grid(matmul(u * g[None, :], vh))),)
        missed = jnp.sum(g[count:].real)
        return value, (poison(ok, (u * g[None, :])[:, :count]), vh[:count], missed)

    def subgradient(self, gauge: Gauge, a: Array, factors: Factors) -> Array:
        if len(factors) == 1:
            return factors[0]
        w, vh, missed = factors
        # A cluster larger than the triplets kept: decompose again.
        return at_most_once(missed > 0, lambda a: full_gradient(gauge, a), a, on_grid(matmul(w, vh)))


@dataclass(frozen=True)
class Krylov:
    """The leading triplets alone, by products with the matrix."""

    count: int
    tol: float | None = None

    name: ClassVar[str] = "krylov"

    def explain(self, shape: tuple[int, ...], dtype: Any) -> tuple[str, str, str]:
        passes = (
            f"{2 * krylov.EARLY} to {krylov.MAX_PASSES} passes, twice the steps of a block of {krylov.BLOCK} vectors"
        )
        m, n = max(shape), min(shape)
        return (
            f"A^H A, about {m * n**2:.2g} multiplications, and {passes} over it" if krylov.by_gram(shape) else passes,
            f"value a few eps, subgradient {self.tol or krylov.default_tolerance(dtype):.0e} or eps / gap",
            _CLUSTER,
        )

    def _leading(self, a: Array, until: krylov.Until) -> tuple[krylov.Leading, Array, Array, Array]:
        ok, largest, e = magnitude(a)
        return krylov.leading_triplets(a, self.count, e, tol=self.tol, until=until), ok, largest, e

    def value(self, gauge: Gauge, a: Array) -> Array:
        leading, ok, largest, e = self._leading(a, krylov.for_value(self.tol))
        return jnp.where(ok, scale(gauge.value(leading.s), e), largest)

    def factors(self, gauge: Gauge, a: Array) -> Result:
        leading, ok, largest, e = self._leading(a, "subspace")
        value = jnp.where(ok, scale(gauge.value(leading.s), e), largest)
        w = poison(ok, leading.u * _weights(gauge, leading.s, a)[None, :])
        if kept(gauge, a.shape) is None:
            return value, (matmul(w, leading.vh),)
        return value, (w, leading.vh, jnp.zeros_like(value))

    def subgradient(self, gauge: Gauge, a: Array, factors: Factors) -> Array:
        return factors[0] if len(factors) == 1 else matmul(factors[0], factors[1])


@dataclass(frozen=True)
class Squaring:
    """The largest singular value of matrices of medium size, by squaring their Gram matrices.

    Where that value is not simple, or too close to the next one, all triplets. So too for a matrix that is
    in no batch, unless ``alone``: LAPACK is as fast then, and compiles in less time.
    """

    alone: bool = False

    name: ClassVar[str] = "squaring"

    def explain(self, shape: tuple[int, ...], dtype: Any) -> tuple[str, str, str]:
        m, n = max(shape), min(shape)
        return (
            f"7 to 40 products, about {8 * n**2 * m:.2g} multiplications; an SVD where s_1 is not simple"
            + ("" if self.alone else ", and outside of batches"),
            f"value a few eps, subgradient {krylov.default_tolerance(dtype):.0e} or eps / gap",
            _EXACT,
        )

    def value(self, gauge: Gauge, a: Array) -> Array:
        return self._unless_alone(partial(Full().value, gauge), lambda a: self._by_squaring(gauge, a)[0])(a)

    def factors(self, gauge: Gauge, a: Array) -> Result:
        return self._unless_alone(partial(Full().factors, gauge), partial(self._by_squaring, gauge))(a)

    def _unless_alone(self, single: Callable[[Array], Any], batch: Callable[[Array], Any]) -> Callable[[Array], Any]:
        return batch if self.alone else single_or_batch(single, batch)

    def _by_squaring(self, gauge: Gauge, a: Array) -> Result:
        x, ok, largest, e = prepare(a)
        u, s, v, simple = leading_by_squaring(x)
        count = kept(gauge, a.shape)
        if count is None:
            factors = (poison(ok, u[:, None] * v.conj()[None, :]),)
        else:
            w, vh = (jnp.zeros((count, y.shape[0]), a.dtype).at[0].set(y) for y in (u, v.conj()))
            factors = (poison(ok, w.T), vh, jnp.zeros_like(s))
        result = jnp.where(ok, scale(s, e), largest), factors
        return at_most_once(~simple, lambda a: Full().factors(gauge, a), a, result)

    def subgradient(self, gauge: Gauge, a: Array, factors: Factors) -> Array:
        return Full().subgradient(gauge, a, factors)


@dataclass(frozen=True)
class Polar:
    """The nuclear norm ``Re <Q, A>`` and its subgradient, the polar factor Q, by matrix products.

    Where the products cannot be trusted, near rank deficiency, all triplets. A ``compute_dtype`` takes
    them as they are.
    """

    compute_dtype: Any = None
    tol: float | None = None
    alone: bool = True

    name: ClassVar[str] = "polar"

    def explain(self, shape: tuple[int, ...], dtype: Any) -> tuple[str, str, str]:
        m, n = max(shape), min(shape)
        return (
            f"about 25 products, {25 * m * n**2:.2g} multiplications; an SVD as well near rank deficiency"
            + ("" if self.alone else ", and outside of batches"),
            "value a few eps, subgradient a few times that of an SVD",
            _EXACT,
        )

    def value(self, gauge: Gauge, a: Array) -> Array:
        return self.factors(gauge, a)[0]

    def factors(self, gauge: Gauge, a: Array) -> Result:
        if self.compute_dtype is not None:
            if jnp.iscomplexobj(a):
                raise ValueError(f"compute_dtype must be None for a complex matrix, got {self.compute_dtype}")
            return self._by_products(gauge, matmul, a)[0]
        one = partial(self._checked, gauge, matmul)
        # Each group of a batch takes the steps that its matrices need, and falls back by itself.
        by_sums = partial(self._checked, gauge, summed) if max(a.shape) <= SUMMED_TO else one
        single = one if self.alone else partial(Full().factors, gauge)
        return single_or_all(single, in_groups(by_sums, elsewhere=one))(a)

    def _checked(self, gauge: Gauge, product: Callable[[Array, Array], Array], a: Array) -> Result:
        result, good = self._by_products(gauge, product, a)
        return at_most_once(~good, lambda a: Full().factors(gauge, a), a, result)

    def _by_products(self, gauge: Gauge, product: Callable[[Array, Array], Array], a: Array) -> tuple[Result, Array]:
        x, ok, largest, e = prepare(a)
        x = by_rows(x)
        q, good = polar_factor(x, compute_dtype=self.compute_dtype, tol=self.tol, full=product)
        value = jnp.sum((q.conj() * x).real)
        return (jnp.where(ok, scale(value, e), largest), (poison(ok, on_grid(q)),)), good

    def subgradient(self, gauge: Gauge, a: Array, factors: Factors) -> Array:
        return factors[0]


@dataclass(frozen=True)
class GramPower:
    """Schatten p for even p = 2h: ``||A||_p^p = tr (A^H A)^h`` and ``G = A (A^H A)^(h-1) / ||A||_p^(p-1)``."""

    p: int

    name: ClassVar[str] = "gram"

    def explain(self, shape: tuple[int, ...], dtype: Any) -> tuple[str, str, str]:
        m, n = max(shape), min(shape)
        products = 1 + (self.p // 2).bit_length()
        return f"{products} products, about {products * m * n**2:.2g} multiplications", "a few eps", _EXACT

    def value(self, gauge: Gauge, a: Array) -> Array:
        return self.factors(gauge, a)[0]

    def factors(self, gauge: Gauge, a: Array) -> Result:
        x, ok, largest, e = prepare(a)
        x = by_rows(x)
        m, n = a.shape
        gram = matmul(x.conj().T, x) if m >= n else matmul(x, x.conj().T)
        # ||gram||_F <= 4^c: its powers neither overflow nor vanish, and no digit changes.
        c = (exponent(jnp.sqrt(jnp.sum(jnp.square(jnp.abs(gram))))) + 1) // 2
        x, gram = scale(x, -c), scale(gram, -2 * c)
        half = self.p // 2
        power = _power(gram, half - 1)
        trace = jnp.sum((power.conj() * gram).real)
        norm = trace ** (1 / self.p)
        g = matmul(x, power) if m >= n else matmul(power, x)
        zero = norm == 0
        u = jnp.where(zero, 0, 1 / jnp.where(zero, 1, norm)) ** (self.p - 1)
        return jnp.where(ok, scale(norm, e + c), largest), (poison(ok, on_grid(g * u.astype(a.dtype))),)

    def subgradient(self, gauge: Gauge, a: Array, factors: Factors) -> Array:
        return factors[0]


def _power(x: Array, k: int) -> Array:
    """``x^k`` for k >= 1 by repeated squaring."""
    if k == 1:
        return x
    half = _power(x, k // 2)
    square = matmul(half, half)
    return matmul(square, x) if k % 2 else square
