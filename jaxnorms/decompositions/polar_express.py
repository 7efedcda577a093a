"""draft"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxnorms.decompositions.thin_svd import matmul, tie_tolerance

_PER_DECADE = 8


def _optimal_quintic(l: float) -> tuple[float, float, float, float]:
    q, r = (3 * l + 1) / 4, (l + 3) / 4
    error = math.inf
    while True:
        lhs = np.array([[x, x**3, x**5, s] for x, s in zip((l, q, r, 1.0), (1, -1, 1, -1), strict=True)])
        a, b, c, e = np.linalg.solve(lhs, np.ones(4))
        if abs(error - e) < 1e-13:
            return a, b, c, 1 - abs(e)
        error = e
        root = math.sqrt(9 * b * b - 20 * a * c)
        q, r = math.sqrt((-3 * b - root) / (10 * c)), math.sqrt((-3 * b + root) / (10 * c))


@functools.cache
def _table() -> np.ndarray:
    return np.array([_optimal_quintic(10 ** (-j / _PER_DECADE)) for j in range(6 * _PER_DECADE, 0, -1)])


class _State(NamedTuple):
    x: Array
    r: Array
    centre: Array
    defect: Array
    lower: Array
    upper: Array
    slope: Array


def _gram(x):
    return matmul(x.conj().T, x)


def _sq(x):
    return jnp.sum(jnp.square(x.real) + jnp.square(x.imag)) if jnp.iscomplexobj(x) else jnp.sum(jnp.square(x))


def _centred(r: Array):
    n = r.shape[0]
    trace, f = jnp.trace(r).real, _sq(r)
    c2 = trace / jnp.where(f == 0, 1, f)
    d = jnp.sqrt(_sq(jnp.eye(n, dtype=r.dtype) - c2.astype(r.dtype) * r))
    return jnp.sqrt(c2), d


def _loop(x, lower, slope, dtype_tol, limit):
    n = x.shape[1]
    table = jnp.asarray(_table(), x.real.dtype)
    eye = jnp.eye(n, dtype=x.dtype)

    def cond(s):
        return (s.defect > dtype_tol) & ((s.slope < limit) | (s.defect < 0.3))

    def body(s):
        r2 = matmul(s.r, s.r)
        upper = jnp.minimum(s.upper, _sq(r2) ** 0.125)
        j = jnp.floor(_PER_DECADE * jnp.log10(s.lower / upper)).astype(int) + len(table)
        a, b, c, l = table[jnp.clip(j, 0, len(table) - 1)]
        near = s.defect < 0.3
        unit = jnp.where(near, s.centre, 1 / upper)
        a, b, c = (jnp.where(near, y, z) for y, z in zip((15 / 8, -10 / 8, 3 / 8), (a, b, c), strict=True))
        l = jnp.where(near, 1, l)
        a, b, c = a * unit, b * unit**3, c * unit**5
        p = a.astype(x.dtype) * eye + b.astype(x.dtype) * s.r + c.astype(x.dtype) * r2
        y = matmul(s.x, p)
        r = _gram(y)
        centre, defect = _centred(r)
        # restart
        upper = 2 - l
        l = jnp.where((l > 0.97) & (defect > 0.9), 0.03, l)
        return _State(y, r, centre, defect, l, upper, s.slope * a)

    r = _gram(x)
    centre, defect = _centred(r)
    upper = jnp.sqrt(_sq(r)) ** 0.5
    s = jax.lax.while_loop(cond, body, _State(x, r, centre, defect, lower, upper, slope))
    c = s.centre.astype(x.dtype)
    q = c * matmul(s.x, 1.5 * eye - 0.5 * (c * c) * s.r)
    return q, s.defect <= dtype_tol, s


def _triangular_inverse(t, lower, base=128):
    n = t.shape[0]
    if n <= base:
        return jax.lax.linalg.triangular_solve(t, jnp.eye(n, dtype=t.dtype), left_side=True, lower=lower)
    h = n // 2
    a, d = _triangular_inverse(t[:h, :h], lower, base), _triangular_inverse(t[h:, h:], lower, base)
    if lower:
        o = -matmul(d, matmul(t[h:, :h], a))
        return jnp.block([[a, jnp.zeros((h, n - h), t.dtype)], [o, d]])
    o = -matmul(a, matmul(t[:h, h:], d))
    return jnp.block([[a, o], [jnp.zeros((n - h, h), t.dtype), d]])


def _inverse(a):
    lu, _, perm = jax.lax.linalg.lu(a)
    n = a.shape[0]
    L = jnp.tril(lu, -1) + jnp.eye(n, dtype=a.dtype)
    inv = matmul(_triangular_inverse(jnp.triu(lu), False), _triangular_inverse(L, True))
    return inv[:, jnp.argsort(perm)]


def newton_start(a):
    n = a.shape[0]
    inv = _inverse(a)
    v = inv[0] * 0 + 1
    s1 = jnp.sqrt(_sq(a))
    w = jax.random.normal(jax.random.key(0), (n,), a.real.dtype).astype(a.dtype)
    for _ in range(4):
        w = w / jnp.linalg.norm(w)
        w = matmul(a.conj().T, matmul(a, w))
    s1 = jnp.sqrt(jnp.linalg.norm(w))
    sn = 1 / jnp.sqrt(_sq(inv))
    g = jnp.sqrt(1 / (s1 * sn))
    x = (g.astype(a.dtype) * a + inv.conj().T / g.astype(a.dtype)) / 2
    ok = sn / s1 > 2 * tie_tolerance(a.dtype, *a.shape)
    return jnp.where(ok, x, 0), ok


def polar_newton(a):
    x, ok = newton_start(a)
    dt = a.real.dtype
    n = a.shape[1]
    tol = float((jnp.finfo(dt).eps * n**0.5) ** 0.5)
    q, good, s = _loop(x, jnp.ones((), dt), jnp.where(ok, 1.0, jnp.inf).astype(dt), tol, 1e9)
    return q, good & ok, s


def polar_products(a, l0):
    dt = a.real.dtype
    n = a.shape[1]
    tol = float((jnp.finfo(dt).eps * n**0.5) ** 0.5)
    size = jnp.sqrt(_sq(a))
    x = a / jnp.where(size == 0, 1, size).astype(a.dtype)
    u = jnp.sqrt(_sq(_gram(x))) ** 0.5
    q, good, s = _loop(x, l0 * u.astype(dt), jnp.where(size > 0, 1 , jnp.inf).astype(dt), tol, 1 / tie_tolerance(dt, *a.shape))
    return q, good, s
