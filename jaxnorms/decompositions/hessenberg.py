"""Characteristic polynomial of one finite matrix of magnitude about 1, without eigenvalues.

A unitary similarity brings the matrix to upper Hessenberg form h. Of its leading blocks the characteristic
polynomials follow each other,

    p_0 = 1,    p_{i+1}(x) = x p_i(x) - sum_{m <= i} h_mi (h_{i,i-1} ... h_{m+1,m}) p_m(x),

in coefficients ``x 2^e`` of any size: the product of the eigenvalues is in range where one of a part of them is not.
Source: La Budde 1956; Rehman and Ipsen 2011 (arXiv 1104.3769).
"""

import jax
import jax.numpy as jnp
from jax import Array

from jaxnorms._scaling import exponent, max_abs, scale
from jaxnorms.decompositions.cofactors import Wide, narrow
from jaxnorms.decompositions.products import matmul


def coefficients(a: Array) -> Wide:
    """Of ``det(x I - a)``, highest power first, each with its own power of two."""
    n = a.shape[0]
    h = hessenberg(a)
    zeros = jnp.zeros_like(a, shape=(n + 1, n + 1))
    # Row m holds p_m, lowest power first.
    polynomials = zeros.at[0, 0].set(1), jnp.zeros_like(zeros.real, dtype=jnp.int32)
    # At step i the products h_{i,i-1} ... h_{m+1,m}, for m <= i.
    products = zeros[0, :n], jnp.zeros_like(polynomials[1][0, :n])

    def step(carry: tuple[Wide, Wide], i: Array) -> tuple[tuple[Wide, Wide], None]:
        (p, e), (t, f) = carry
        t, f = _sum((t * h[i, i - 1])[None], f[None])  # zeros in the first step, where i - 1 is the last column
        t, f = t.at[i].set(1), f.at[i].set(0)
        weights, powers = _sum((h[:, i] * t)[None], f[None])
        terms = jnp.append(jnp.roll(p[i], 1)[None], -weights[:, None] * p[:n], axis=0)
        q, g = _sum(terms, jnp.append(jnp.roll(e[i], 1)[None], powers[:, None] + e[:n], axis=0))
        return ((p.at[i + 1].set(q), e.at[i + 1].set(g)), (t, f)), None

    ((p, e), _), _ = jax.lax.scan(step, (polynomials, products), jnp.arange(n))
    return p[n, ::-1], e[n, ::-1]


def hessenberg(a: Array) -> Array:
    """``Q^H a Q`` for a unitary Q: what lies below the first subdiagonal is meant to be zero, and not set to it."""
    n = a.shape[0]
    rows = jnp.arange(n)

    def reflect(k: Array, h: Array) -> Array:
        x = jnp.where(rows > k, h[:, k], 0)
        x = scale(x, -exponent(max_abs(x)))
        first, size = x[k + 1], jnp.sqrt(jnp.sum(jnp.square(x.real) + jnp.square(x.imag)))
        # I - 2 v v^H / |v|^2 maps x to a multiple of the unit vector k + 1.
        v = x.at[k + 1].add(jnp.where(first == 0, 1, _phase(first)) * size.astype(x.dtype))
        squares = 2 * size * (size + jnp.abs(first))
        w = v * (2 / jnp.where(squares > 0, squares, 1)).astype(v.dtype)
        h = h - w[:, None] * matmul(v.conj()[None, :], h)
        return h - matmul(h, v[:, None]) * w.conj()[None, :]

    return jax.lax.fori_loop(0, n - 2, reflect, a)


def _phase(x: Array) -> Array:
    size = jnp.abs(x)
    return x / jnp.where(size > 0, size, 1).astype(x.dtype)


def _sum(x: Array, e: Array) -> Wide:
    """The sums of ``x 2^e`` over the first axis, as numbers of magnitude about 1 and their powers."""
    most = jnp.max(jnp.where(x == 0, jnp.iinfo(e.dtype).min // 2, e), axis=0, keepdims=True)
    total = jnp.sum(narrow((x, e - most)), axis=0)
    power = exponent(jnp.maximum(jnp.abs(total.real), jnp.abs(total.imag)))
    return scale(total, -power), jnp.where(total == 0, 0, most[0] + power)
