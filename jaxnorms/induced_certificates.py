"""What certifies bounds of the induced p -> q norm of one nonzero matrix of size about 1.

From below a vector, found by the power method; from above a factorisation through l_2, or, of a nonnegative matrix,
two positive vectors. Every one holds however far the iteration came that found it. Nothing here is differentiated.
"""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxnorms._split import varying_like
from jaxnorms.decompositions import matmul, singular_values
from jaxnorms.gauges import Lp, conjugate_exponent, inf
from jaxnorms.lifts import EntrywiseLift

# Starts of the power method: columns and rows of the largest norm, roundings of the vectors that certify the
# upper bound, and random ones.
_LARGEST, _ROUNDED, _RANDOM = 4, 16, 16
# Most steps of the iterations, which stop when nothing changes any more.
_POWER_STEPS, _FACTOR_STEPS, _POSITIVE_STEPS = 200, 1000, 300
# For a start, a rough factor is as good as an exact one.
_ROUGH_STEPS = 50


class Certificate(NamedTuple):
    """``value`` bounds the norm, ``Re<G, a>`` is about as large, with G the outer product ``left right^H``."""

    value: Array
    left: Array
    right: Array

    def attained(self) -> Array:
        left, right = (x.reshape(len(x), -1) for x in (self.left, self.right))
        return matmul(left, right.conj().T)


def _dual_vector(q: float, y: Array) -> Array:
    """psi with ``Re psi^H y = ||y||_q`` and ``||psi||_{q*} = 1`` of least length: 0 where y is."""
    return EntrywiseLift(Lp(q)).subgradient(y, ())


def _size(q: float, y: Array) -> Array:
    return Lp(q).value(jnp.abs(y))


def _fixed_normal(shape: tuple[int, int], like: Array) -> Array:
    """The random numbers of every start: constants, from the seed 0."""
    real, imaginary = np.random.default_rng(0).standard_normal((2, *shape))
    return jnp.asarray(real + 1j * imaginary if jnp.iscomplexobj(like) else real, like.dtype)


def power_method(x: Array, p: float, q: float) -> Certificate:
    """Boyd's iteration ``y = A x, z = A^H psi_q(y), x = psi_{p*}(z)`` from many starts, as columns.

    Each half step maximises ``Re w^H A x``, over the w and over the x allowed, so that no step loses. On
    a flat side of the ball (q = 1, p = inf) a coordinate that does not count is free: 1, where
    it may count later.
    """
    dual, ah = conjugate_exponent(p), x.conj().T
    rows, columns = jnp.any(x != 0, axis=1), jnp.any(x != 0, axis=0)

    def best(order: float, y: Array, used: Array) -> Array:
        w = jax.vmap(partial(_dual_vector, order), 1, 1)(y)
        return jnp.where((y == 0) & used[:, None], 1, w) if order == 1 else w

    def sizes(y: Array) -> Array:
        return jax.vmap(partial(_size, q), 1)(y)

    def step(state: tuple[Array, Array, Array, Array]) -> tuple[Array, Array, Array, Array]:
        v, _, reached, count = state
        v = best(dual, matmul(ah, best(q, matmul(x, v), rows)), columns)
        now = sizes(matmul(x, v))
        return v, reached, now, count + 1

    def unfinished(state: tuple[Array, Array, Array, Array]) -> Array:
        _, before, now, count = state
        return jnp.any(now > before * (1 + 2 * jnp.finfo(now.dtype).eps)) & (count < _POWER_STEPS)

    v = best(dual, _starts(x, p, q), columns)
    now = sizes(matmul(x, v))
    state = varying_like((v, jnp.zeros_like(now), now, jnp.zeros((), jnp.int32)), x)
    v, _, now, _ = jax.lax.while_loop(unfinished, step, state)
    v = v[:, jnp.argmax(now)]
    y = matmul(x, v[:, None])[:, 0]
    return Certificate(_size(q, y), _dual_vector(q, y), v)


def _starts(x: Array, p: float, q: float) -> Array:
    """Columns z, from which the power method starts with ``x = psi_{p*}(z)``."""
    m, n = x.shape
    ah = x.conj().T
    by_column, by_row = (jax.vmap(partial(_size, order), 1)(y) for order, y in ((q, x), (conjugate_exponent(p), ah)))
    columns = x[:, jax.lax.top_k(by_column, min(_LARGEST, n))[1]]
    rows = ah[:, jax.lax.top_k(by_row, min(_LARGEST, m))[1]]
    one_step = matmul(ah, jax.vmap(partial(_dual_vector, q), 1, 1)(columns))
    v = _low_rank_factor(x, max(p, 2.0), min(q, 2.0), _ROUGH_STEPS)[1]
    rounded = matmul(v, _fixed_normal((v.shape[1], _ROUNDED), x))
    return jnp.concatenate([jnp.ones_like(x, shape=(n, 1)), one_step, rows, rounded, _fixed_normal((n, _RANDOM), x)], 1)


def _unit_rows(order: float, y: Array) -> tuple[Array, Array]:
    """Rows along those of y, of lengths psi_order of the lengths of y; and these lengths."""
    length = jax.vmap(partial(_size, 2.0))(y)
    unit = y / jnp.where(length > 0, length, 1)[:, None].astype(y.dtype)
    return unit * Lp(order).subgradient(length, 0)[:, None].astype(y.dtype), length


class _Ascent(NamedTuple):
    v: Array
    ahead: Array  # v, moved on along its last step
    age: Array  # steps since the last time that this lost
    value: Array
    change: Array
    steps: Array


def _low_rank_factor(x: Array, p: float, q: float, steps: int) -> tuple[Array, Array, Array, Array]:
    """u, v of ``max Re<u v^H, A>`` with ``||rows of u||`` in the q* ball and ``||rows of v||`` in the p ball, by
    alternating maximisation; and the lengths of the rows of ``A v`` and ``A^H u``.

    For p >= 2 >= q the problem is convex in the Gram matrix of all rows, and at this rank the factors have in general
    no local maxima but the global one (Burer and Monteiro). Else it only finds starts. Where rows interact little,
    alternation is slow: it goes ahead by Nesterov's rule, and begins anew when that lost (O'Donoghue and Candes).
    """
    m, n = x.shape
    dual, ah, eps = conjugate_exponent(p), x.conj().T, jnp.finfo(x.dtype).eps
    rank = math.isqrt(2 * (m + n)) + 1

    def step(s: _Ascent) -> _Ascent:
        u, _ = _unit_rows(q, matmul(x, s.ahead))
        v, length = _unit_rows(dual, matmul(ah, u))
        value = _size(dual, length)
        age = jnp.where(value < s.value, 0, s.age + 1)
        speed = jnp.maximum(age - 1, 0) / (age + 2)
        change = jnp.max(jnp.abs(v - s.v)) / jnp.max(jnp.abs(v))
        return _Ascent(v, v + speed.astype(v.dtype) * (v - s.v), age, value, change, s.steps + 1)

    v, _ = _unit_rows(dual, _fixed_normal((n, rank), x))
    zero, one = jnp.zeros((), jnp.int32), jnp.ones((), x.real.dtype)
    start = varying_like(_Ascent(v, v, zero, 0 * one, one, zero), x)
    v = jax.lax.while_loop(lambda s: (s.change > 16 * eps) & (s.steps < steps), step, start).v
    u, rows = _unit_rows(q, matmul(x, v))
    _, columns = _unit_rows(dual, matmul(ah, u))
    return u, v, rows, columns


def by_duality(x: Array, p: float, q: float) -> Certificate:
    """``||A x||_q <= ||d^(1/2)||_r ||D^(-1/2) A E^(-1/2)||_2 ||E^(1/2) x||_2`` for p >= 2 >= q, by Hoelder's inequality
    twice; any positive d and e will do. Stationarity of the factors gives the best: ``A v = d u, A^H u = e v``.
    """
    u, v, rows, columns = _low_rank_factor(x, p, q, _FACTOR_STEPS)

    def weights(order: float, length: Array) -> tuple[Array, Array]:
        d = (length / jnp.max(length)) ** (2 - order)
        d = d + jnp.finfo(d.dtype).eps * jnp.mean(d)  # positive in zero rows, and where rows of A v cancel
        return jnp.sqrt(d), _size(inf if order == 2 else 2 * order / (2 - order), jnp.sqrt(d))

    (d, left), (e, right) = weights(q, rows), weights(conjugate_exponent(p), columns)
    balanced = x / d[:, None].astype(x.dtype) / e[None, :].astype(x.dtype)
    return Certificate(left * right * singular_values(balanced)[0], u, v)


def is_nonnegative(x: Array) -> Array:
    real = jnp.all(x.real >= 0)
    return real & jnp.all(x.imag == 0) if jnp.iscomplexobj(x) else real


def positive(x: Array, p: float, q: float) -> Certificate:
    """The p -> q norm, q <= p, of a matrix that is nonnegative, from above: exact for p = inf and q = 1."""
    used_rows, used_columns = (jnp.any(x != 0, axis=i).astype(x.dtype) for i in (1, 0))
    if p == inf:
        y = matmul(x, used_columns[:, None])[:, 0]
        return Certificate(_size(q, y), _dual_vector(q, y), used_columns)
    if q == 1:
        z = matmul(x.conj().T, used_rows[:, None])[:, 0]
        return Certificate(_size(conjugate_exponent(p), z), used_rows, _dual_vector(conjugate_exponent(p), z))
    return _schur_test(x, p, q)


# For B >= 0, 1 < q <= p < inf and any positive u, v, Hoelder's inequality with 1/p + 1/q* + (1/q - 1/p) = 1 for
#
#     B_ij x_j w_i = [B_ij x_j^p u_i v_j^(1-p)]^(1/p) [B_ij w_i^q* v_j u_i^(1-q*)]^(1/q*) [B_ij u_i v_j]^(1/q-1/p)
#
# gives ||B||_{p->q} <= a^(1/p) b^(1/q*) c^(1/q-1/p), a = max (B^T u)_j / v_j^(p-1), b = max (B v)_i / u_i^(q*-1),
# c = u^T B v. With u = (B v)^(q-1), b is 1 and c is sum (B v)^q. It is attained where B^T u = a v^(p-1), which is
# where the power method of a positive matrix converges to, from any positive start.


def _schur_test(b: Array, p: float, q: float) -> Certificate:
    # Entries above 0 keep all of u and v there; a larger matrix has a larger norm.
    eps = jnp.finfo(b.dtype).eps
    b = b + eps * jnp.max(b)

    def step(t: Array) -> tuple[Array, Array, Array, Array, Array]:
        """From ``t = v^(p-1)``: the next one, the bound, u and v; and how far the quotients in a differ."""
        v = t ** (1 / (p - 1))
        y = matmul(b, v[:, None])[:, 0]
        largest = jnp.max(y)
        y = y / largest
        u = y ** (q - 1)
        z = matmul(b.T, u[:, None])[:, 0]
        top, bottom = jnp.max(z / t), jnp.min(z / t)
        bound = top ** (1 / p) * jnp.sum(y**q) ** (1 / q - 1 / p) * largest ** (1 - 1 / p)
        return z / jnp.max(z), bound, u, v, top / bottom - 1

    def improved(state: tuple[Array, Array, Array, Array]) -> tuple[Array, Array, Array, Array]:
        t, least, _, count = state
        new, bound, _, _, gap = step(t)
        return new, jnp.minimum(least, bound), gap, count + 1

    one = jnp.ones((), b.dtype)
    state = varying_like((jnp.ones_like(b, shape=b.shape[1:]), inf * one, one, jnp.zeros((), jnp.int32)), b)
    t, least, _, _ = jax.lax.while_loop(lambda s: (s[2] > 8 * eps) & (s[3] < _POSITIVE_STEPS), improved, state)
    _, bound, u, v, _ = step(t)
    return Certificate(jnp.minimum(least, bound), u, v)
