"""The choice of a method, from the gauge, the shape, the dtype and the platform alone.

It never looks at the size of a batch, so that leading axes and ``vmap`` agree. A method may treat a matrix
that is in no batch in another way, to the same accuracy and by the same convention.
"""

from functools import partial
from typing import Any, ClassVar, Protocol

import jax
import jax.numpy as jnp
from jax import Array

from jaxnorms._mesh import on_mesh
from jaxnorms.decompositions import krylov
from jaxnorms.decompositions.truncated_svd import by_krylov
from jaxnorms.gauges import Gauge, Lp, inf
from jaxnorms.options import Request
from jaxnorms.spectral_methods import Full, GramPower, Krylov, Polar, Squaring


class Method(Protocol):
    """What ``jaxnorms._rules`` asks of a lift, for a given gauge; and cost, accuracy, derivative in words."""

    name: ClassVar[str]

    def explain(self, shape: tuple[int, ...], dtype: Any) -> tuple[str, str, str]: ...
    def value(self, gauge: Gauge, a: Array) -> Array: ...
    def factors(self, gauge: Gauge, a: Array) -> Any: ...
    def subgradient(self, gauge: Gauge, a: Array, factors: Any) -> Array: ...


# Measured crossovers, in rows or columns of the smaller side (benchmarks/scale.py). Up to
# decompositions.thin_svd.JACOBI_TO all triplets cost less than anything else.
PRODUCTS_FROM = 9
SQUARING_TO = 256
# On CPU the polar iteration needs matrices large enough for products to be fast, in batches only below
# POLAR_ALONE_FROM, and square ones so small that LAPACK does not yet use its own.
POLAR_FROM, POLAR_ALONE_FROM, SQUARE_POLAR_TO = 16, 32, 1024
# Largest even p evaluated by Gram powers: (A^H A)^(p/2) stays in the range of float32.
LARGEST_GRAM_POWER = 16


def suitable(gauge: Gauge, request: Request, shape: tuple[int, ...]) -> dict[str, Method]:
    """The methods that serve this gauge on matrices of this shape, by name."""
    n = min(shape)
    methods: list[Method] = [Full()]
    count = min(request.rank or gauge.support(n), n)
    if krylov.affordable(shape, count):
        methods.append(Krylov(count, request.tol))
    p = gauge.p if isinstance(gauge, Lp) and not gauge.traced else 0
    if p == inf:
        methods.append(Squaring(alone=request.method == "squaring"))
    if p == 1:
        methods.append(Polar(request.compute_dtype, request.tol, request.method == "polar" or n >= POLAR_ALONE_FROM))
    if p in range(4, LARGEST_GRAM_POWER + 1, 2):
        methods.append(GramPower(int(p)))
    return {method.name: method for method in methods}


def choose(gauge: Gauge, request: Request, shape: tuple[int, ...], dtype: Any, platform: str) -> Method:
    """The method asked for, or else the fastest that keeps the contract."""
    methods = suitable(gauge, request, shape)
    name = request.method
    if request.compute_dtype is not None:
        if "polar" not in methods or name not in ("auto", "polar"):
            raise ValueError(
                "compute_dtype must be None except for method='polar' of the nuclear norm, "
                f"got {request.compute_dtype} with method={name!r}"
            )
        name = "polar"
    elif name == "auto":
        name = _fastest(methods, shape, dtype, platform)
    if name not in methods:
        allowed = ", ".join(map(repr, ("auto", *methods)))
        m, n = shape
        raise ValueError(f"method must be one of {allowed} for this norm of {m} x {n} matrices, got {name!r}")
    return methods[name]


def _fastest(methods: dict[str, Method], shape: tuple[int, ...], dtype: Any, platform: str) -> str:
    n, leading = min(shape), methods.get("krylov")
    if n < PRODUCTS_FROM:
        return "svd"
    if platform == "mesh":  # of products alone, and where all triplets are needed, those of a small factor
        large = isinstance(leading, Krylov) and by_krylov(shape, leading.count)
        return "krylov" if large else "gram" if "gram" in methods else "svd"
    single = jnp.finfo(dtype).eps > 1e-10
    # In double precision squaring stops at eps^(2/3), far from what an SVD of this size gives.
    if "squaring" in methods and n <= SQUARING_TO and single:
        return "squaring"
    if isinstance(leading, Krylov) and by_krylov(shape, leading.count):
        return "krylov"
    if "gram" in methods:
        return "gram"
    tall = max(shape) >= 2 * n
    # In double precision LAPACK is as fast as the products on CPU.
    on_cpu = single and (n >= POLAR_ALONE_FROM if tall else POLAR_FROM <= n <= SQUARE_POLAR_TO)
    return "polar" if "polar" in methods and (on_cpu or platform != "cpu") else "svd"


def run(gauge: Gauge, request: Request, function: str, a: Array, *rest: Any) -> Any:
    """``function`` of the method chosen for the platform that the program is compiled for, or for a mesh."""
    if on_mesh(a):
        return getattr(choose(gauge, request, a.shape, a.dtype, "mesh"), function)(gauge, a, *rest)
    cpu, other = (choose(gauge, request, a.shape, a.dtype, platform) for platform in ("cpu", "accelerator"))
    if cpu == other:
        return getattr(cpu, function)(gauge, a, *rest)
    branches = (partial(getattr(method, function), gauge) for method in (cpu, other))
    return jax.lax.platform_dependent(a, *rest, cpu=next(branches), default=next(branches))
