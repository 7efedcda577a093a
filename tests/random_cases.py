"""Random matrices and norms for properties (Hypothesis)."""

import itertools

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
from hypothesis import strategies as st
from matrices import REAL, unitary
from norm_cases import largest_plus_sum, scaled_frobenius
from references import inf

import jaxnorms as jn

TYPES = [np.dtype(np.float32), np.dtype(np.complex64), np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16)]
TYPES += [np.dtype(np.float64), np.dtype(np.complex128)] if REAL.itemsize == 8 else []
ORDERS = st.sampled_from([1.0, 1.5, 2.0, 3.0, 4.0, inf]) | st.floats(1, 20).map(lambda p: round(p, 2))
GAUGES = [largest_plus_sum, scaled_frobenius]


@st.composite
def norms(draw, side):
    """A norm that is defined where the smaller side is ``side``."""
    kinds = [
        lambda: jn.Schatten(draw(ORDERS)),
        lambda: jn.Entrywise(draw(ORDERS)),
        lambda: jn.Mixed(draw(ORDERS), draw(ORDERS), axis=draw(st.sampled_from([-1, -2]))),
        lambda: jn.Induced(1, draw(ORDERS)),
        lambda: jn.Induced(draw(ORDERS), inf),
        lambda: jn.KyFan(draw(st.integers(1, max(side, 1))), draw(ORDERS)),
        lambda: jn.Induced(2, 2),
        lambda: jn.Dual(jn.KyFan(draw(st.integers(1, max(side, 1))), draw(ORDERS))),
        lambda: jn.Dual(draw(st.sampled_from([jn.Schatten, jn.Entrywise]))(draw(ORDERS))),
        lambda: jn.Dual(jn.Mixed(draw(ORDERS), draw(ORDERS), axis=draw(st.sampled_from([-1, -2])))),
        lambda: jn.Dual(jn.Induced(1, draw(ORDERS))),
        lambda: jn.UnitarilyInvariant(draw(st.sampled_from(GAUGES))),
    ]
    return draw(st.sampled_from(kinds))()


DRAWN = itertools.count(1)


@st.composite
def matrices(draw):
    """A ``(batch, m, n)`` stack: one spectrum, of ties and zeros among others, in different bases and sizes."""
    if next(DRAWN) % 100 == 0:  # the programs of thousands take more maps of memory than a process may have
        jax.clear_caches()
    m, n, batch = draw(st.integers(0, 12)), draw(st.integers(0, 12)), draw(st.integers(1, 3))
    dtype, seed, least = draw(st.sampled_from(TYPES)), draw(st.integers(0, 2**20)), min(m, n)
    values = st.sampled_from([0.0, 1.0, 1.0, 2.0, 3.0]) | st.floats(0.125, 4.0) | st.sampled_from([1e-3, 1e-6])
    s = np.array(draw(st.lists(values, min_size=least, max_size=least)))
    s *= draw(st.sampled_from([1.0, 1.0, 1.0, 0.5, 0.1, 0.01])) ** np.arange(least)
    info, rng = jnp.finfo(dtype), np.random.default_rng(seed)
    # The largest entry and a sum of all are normal numbers, but of graded spectra that begin with zeros; of float16
    # there are too few, and its conversion is exact.
    least_power, most_power = min(int(info.minexp) + 26, -6), info.maxexp - 11
    powers = [draw(st.integers(least_power, most_power)) for _ in range(batch)]
    stack = [(unitary(rng, m, least, dtype) * s) @ unitary(rng, n, least, dtype).conj().T for _ in powers]
    scaled = [np.ldexp(1.0, e) * a for e, a in zip(powers, stack, strict=True)]
    return flushed(np.stack(scaled).reshape(batch, m, n).astype(dtype))


def flushed(a):
    """As an array of JAX is read: entries below the normal numbers of the type in which it computes are 0."""
    wide = computed_in(a.dtype)
    parts = np.ascontiguousarray(a.astype(wide)).view(jnp.finfo(wide).dtype)
    return np.where(np.abs(parts) < jnp.finfo(wide).tiny, 0, parts).view(wide).astype(a.dtype)


def computed_in(dtype):
    return np.dtype(np.float32) if jnp.finfo(dtype).bits < 32 else dtype


CASES = matrices().flatmap(lambda a: st.tuples(st.just(a), norms(min(a.shape[1:]))))
