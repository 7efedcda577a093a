"""Eigenvalues of the Hermitian part of a matrix. At ties the derivative is averaged over the block, so that it does not
depend on the basis; a second derivative exists only at distinct values."""

import jax
import jax.numpy as jnp
from jax import Array

from jaxnorms._rules.ends import last_derivative
from jaxnorms._rules.triplets import average
from jaxnorms._scaling import halves, magnitude, max_abs, poison, prepare, scale
from jaxnorms.decompositions import hermitian_part, lapack, matmul, tie_tolerance


@jax.custom_jvp
def eigenvalues(a: Array) -> Array:
    """Of one matrix, ascending."""
    return _unscaled(a, _pairs(a)[0])[0]


@eigenvalues.defjvp
def _(primals, tangents):
    (a,), (e,) = primals, tangents
    w, v = _pairs(a)
    slopes = average(jnp.sum((v.conj() * matmul(e, v)).real, axis=0), _tied(w), jnp.zeros(w.shape, bool))
    value, ok = _unscaled(a, w)
    return value, poison(ok, slopes)


def _unscaled(a: Array, w: Array) -> tuple[Array, Array]:
    """Those of ``a``, and whether it is finite."""
    ok, _, power = magnitude(jax.lax.stop_gradient(a))
    return poison(ok, scale(w, power)), ok


@jax.custom_jvp
def _pairs(a: Array) -> tuple[Array, Array]:
    """Of a scaled to about 1."""
    return lapack.eigh(hermitian_part(prepare(a)[0]))


@_pairs.defjvp
def _(primals, tangents):
    w, v = _pairs(*primals)
    ((a,), (w, v)), (e,) = last_derivative((primals, (w, v))), tangents
    before, after = halves(-magnitude(a)[2])
    m = matmul(matmul(v.conj().T, hermitian_part(before(e))), v)
    tied = _tied(w)
    off = jnp.where(tied > 0, 0, 1 / jnp.where(tied > 0, 1, w[None, :] - w[:, None]))
    slopes = average(jnp.diagonal(m).real, tied, jnp.zeros(w.shape, bool))
    return (w, v), (after(slopes), after(matmul(v, off.astype(m.dtype) * m)))


def _tied(w: Array) -> Array:
    """Within three times the tolerance for singular values: measured with 2 to 256 rows, LAPACK's eigenvalues of a tie
    lie 10 eps n^(1/4) apart, its singular values a fraction of that."""
    gap = 3 * tie_tolerance(w.dtype, *w.shape) * max_abs(w)
    return (jnp.abs(w[None, :] - w[:, None]) <= gap).astype(w.dtype)
