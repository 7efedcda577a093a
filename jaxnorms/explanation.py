"""What a norm of matrices of a given shape would cost, before anything is computed."""

from typing import Any, NamedTuple, Unpack

import jax
from jax.typing import DTypeLike

from jaxnorms import _checks
from jaxnorms.choice import choose
from jaxnorms.lifts import SpectralLift
from jaxnorms.norm_objects import as_norm
from jaxnorms.options import How, refuse_unknown, request


class Explanation(NamedTuple):
    """The method of a norm, and in words its cost for one matrix, its accuracy and its derivative.

    >>> import jaxnorms as jn
    >>> jn.explain((4, 4), "float32", "fro")
    Explanation(method='direct', cost='2 to 3 passes', accuracy='a few eps', derivative='minimum-norm subgradient')
    """

    method: str
    cost: str
    accuracy: str
    derivative: str


def explain(shape: tuple[int, ...], dtype: DTypeLike, ord: Any, **how: Unpack[How]) -> Explanation:
    """The method that ``ord`` would take for ``(..., m, n)`` matrices on the default platform, and what it costs.

    For matrices that are not spread over several devices.

    ``ord`` is a norm object or one of ``'fro'``, ``'nuc'``, ``'spectral'``; keywords are those of
    :class:`jaxnorms.options.How`. Nothing is computed or compiled. Raises as the norm itself would.

    >>> import jax.numpy as jnp, jaxnorms as jn
    >>> jn.explain((1024, 1024), jnp.float32, "spectral").method
    'krylov'
    >>> jn.explain((1024, 1024), jnp.float32, "spectral", method="svd").cost
    'one SVD, about 4.8e+09 multiplications'
    """
    refuse_unknown(how, "explain", How)
    sides = _checks.integers(shape, "explain: shape", "a tuple of integers (..., m, n)")
    if len(sides) < 2 or min(sides) < 0:
        raise ValueError(f"explain: shape must be (..., m, n), got {shape!r}")
    m, n = sides[-2:]
    dtype = _checks.inexact_dtype(dtype, "explain: dtype")
    norm, dtype = as_norm(ord), _checks.working_dtype(dtype)
    norm.check(m, n)
    lift = norm.lift.using(request(how))
    if not isinstance(lift, SpectralLift):
        return Explanation("direct", "2 to 3 passes", "a few eps", "minimum-norm subgradient")
    platform = "cpu" if jax.default_backend() == "cpu" else "accelerator"
    method = choose(lift.gauge, lift.request, (m, n), dtype, platform)
    return Explanation(method.name, *method.explain((m, n), dtype))
