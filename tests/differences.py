"""Derivatives against central differences, in double precision."""

import jax
import jax.numpy as jnp
import numpy as np


def against_differences(f, points, directions, second=True):
    """Both modes, and both orders of mixing them, against central differences; one compilation for a whole stack."""
    step = 1e-5

    def inner(g, e):
        return sum(jnp.sum((x * y).real) for x, y in zip(g, e, strict=True))

    def gradient(x):
        return jax.grad(f, argnums=tuple(range(len(x))))(*x)

    def slope(x, e):
        return jax.jvp(f, x, e)[1]

    def everything(pair):
        x, e = pair
        there, back = (tuple(y + c * d for y, d in zip(x, e, strict=True)) for c in (step, -step))
        first = (f(*there) - f(*back)) / (2 * step), slope(x, e), inner(gradient(x), e)
        if not second:
            return (first,)
        ahead, behind = gradient(there), gradient(back)
        changes = (
            tuple((y - z) / (2 * step) for y, z in zip(ahead, behind, strict=True)),
            jax.jvp(lambda *x: gradient(x), x, e)[1],
            jax.grad(lambda *x: slope(x, e), argnums=tuple(range(len(x))))(*x),
        )
        return first, changes

    # In turn: matrices by themselves take decompositions that compile sooner.
    orders = jax.jit(lambda pairs: jax.lax.map(everything, pairs))((points, directions))
    for expected, *found in orders:
        for each in found:
            for x, y in zip(jax.tree.leaves(each), jax.tree.leaves(expected), strict=True):
                np.testing.assert_allclose(x, y, atol=1e-6 * np.max(np.abs(y)))
