"""Determinant and cofactors of one finite matrix of magnitude about 1, as numbers ``x 2^e`` of any size.

With ``a = U diag(s) V^H`` the cofactor matrix, the gradient of det, is the product of those of the three factors,

    C = d conj(U) diag(p) V^T,    d = det(U V^H),    p_i = prod_{j != i} s_j,

and its derivative in the direction e, with ``M = U^H e V`` and ``P_ij = prod_{k != i, j} s_k`` (0 on the diagonal),

    d conj(U) D V^T,    D_ii = sum_j P_ij M_jj,    D_ij = -P_ij M_ji.

Products that leave out a factor are made of those before and after it: nothing is divided, so they are right at every
rank. Both formulas are polynomials in the entries, and do not depend on the basis that an SVD returns.
"""

import jax
import jax.numpy as jnp
from jax import Array

from jaxnorms._scaling import exponent, layout, scale
from jaxnorms.decompositions import lapack
from jaxnorms.decompositions.products import matmul
from jaxnorms.decompositions.thin_svd import thin_svd

Wide = tuple[Array, Array]  # x and e of x 2^e, elementwise


def narrow(x: Wide, e: Array | int = 0) -> Array:
    """The numbers ``x 2^e``, 0 and infinite ones where they are out of range, for a given power more."""
    most = 2 * layout(x[0].real)[1] - 4
    return scale(x[0], jnp.clip(x[1] + e, -most, most))


def determinant(a: Array) -> Wide:
    """From an LU decomposition."""
    lu, pivots, _ = lapack.lu(a)
    x, e = _product(_wide(jnp.diagonal(lu)))
    swaps = jnp.sum(pivots != jnp.arange(a.shape[0], dtype=pivots.dtype))
    return jnp.where(swaps % 2 == 0, x, -x), e


def cofactor(a: Array) -> Wide:
    """C, with one power for all entries."""
    u, s, vh = thin_svd(a)
    p, e = _common(_without_one(_wide(s)))
    return _turned(u, vh, jnp.diag(p)), e


def cofactor_change(a: Array, direction: Array) -> Wide:
    """The derivative of C."""
    u, s, vh = thin_svd(a)
    p, e = _common(_without_two(_wide(s)))
    m = matmul(matmul(u.conj().T, direction), vh.conj().T)
    p = p.astype(m.dtype)
    return _turned(u, vh, jnp.diag(matmul(p, jnp.diagonal(m)[:, None])[:, 0]) - p * m.T), e


def _turned(u: Array, vh: Array, core: Array) -> Array:
    x, _ = determinant(matmul(u, vh))
    unit = x / jnp.abs(x).astype(x.dtype)
    return unit * matmul(matmul(u.conj(), core.astype(u.dtype)), vh.conj())


def _wide(x: Array) -> Wide:
    e = exponent(jnp.maximum(jnp.abs(x.real), jnp.abs(x.imag)) if jnp.iscomplexobj(x) else jnp.abs(x))
    return scale(x, -e), e


def _times(x: Wide, y: Wide) -> Wide:
    z, e = _wide(x[0] * y[0])
    return z, e + x[1] + y[1]


def _products(x: Wide, *, reverse: bool = False) -> Wide:
    """Of all entries up to each one along the last axis."""
    return jax.lax.associative_scan(_times, x, axis=x[0].ndim - 1, reverse=reverse)


def _product(x: Wide) -> Wide:
    return tuple(y[..., -1] for y in _products(x))  # pyright: ignore[reportReturnType]


def _without_one(s: Wide) -> Wide:
    return _times(_before(_products(s)), _after(_products(s, reverse=True)))


def _without_two(s: Wide) -> Wide:
    """For i < j the product of the entries before i, between i and j, and after j; symmetric, 0 on the diagonal."""
    n = s[0].shape[0]
    beyond = jnp.arange(n)[None, :] > jnp.arange(n)[:, None]
    between = _before(_products((jnp.where(beyond, s[0][None, :], 1), jnp.where(beyond, s[1][None, :], 0))))
    before, after = _before(_products(s)), _after(_products(s, reverse=True))
    outside = _times(tuple(x[:, None] for x in before), tuple(x[None, :] for x in after))  # pyright: ignore
    p, e = _times(outside, between)
    return jnp.where(beyond, p, jnp.where(beyond.T, p.T, 0)), jnp.where(beyond, e, e.T)


def _before(x: Wide) -> Wide:
    """Entry i - 1 in the place of i, first 1."""
    widths = [(0, 0)] * (x[0].ndim - 1) + [(1, 0)]
    return jnp.pad(x[0], widths, constant_values=1)[..., :-1], jnp.pad(x[1], widths)[..., :-1]


def _after(x: Wide) -> Wide:
    return jnp.append(x[0][1:], jnp.ones_like(x[0][:1])), jnp.append(x[1][1:], jnp.zeros_like(x[1][:1]))


def _common(x: Wide) -> Wide:
    """One power for all entries."""
    e = jnp.max(jnp.where(x[0] == 0, jnp.iinfo(x[1].dtype).min // 4, x[1]))
    e = jnp.maximum(e, jnp.min(x[1]))
    return narrow(x, -e), e
