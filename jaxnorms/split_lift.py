"""Norms of the singular values of a matrix whose rows, columns or both are split over the devices of
``jax.shard_map``: what ``jaxnorms.lifts.SpectralLift`` is for a matrix on one device.

Leading triplets come from products in which vectors travel, never the matrix. All triplets take a layout
in which the longer side is split over all devices, by one all-to-all unless it is so already (and another one
back for the gradient), and a QR decomposition whose n x n factor every device has, n the shorter side: about
six such matrices are alive at a time.
"""

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
from jax import Array

from jaxnorms._scaling import halves, magnitude, poison, prepare, scale
from jaxnorms._split import Names, count, gathered, mine, sum_over, with_own_columns, with_whole_rows
from jaxnorms.decompositions import krylov, matmul, tie_tolerance
from jaxnorms.decompositions.cholesky_qr import tall_svd
from jaxnorms.decompositions.truncated_svd import by_krylov
from jaxnorms.gauges import Gauge
from jaxnorms.options import Request
from jaxnorms.spectral_methods import curvature_core


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class SplitSpectralLift:
    """The gauge of the singular values. ``a``, directions and derivatives are this device's blocks.

    Factors: this device's rows of U diag(g) and columns of V^H of the leading triplets, or its block of G.
    """

    gauge: Gauge
    request: Request = field(metadata={"static": True})

    @property
    def names(self) -> Names:
        rows, columns = self.request.axis_name
        return rows + columns

    def value(self, a: Array) -> Array:
        return self.factors(a)[0]

    def factors(self, a: Array) -> tuple[Array, tuple[Array, ...]]:
        wanted = self._leading(a)
        if wanted is not None:
            return self._by_krylov(a, wanted)
        x, ok, largest, e = prepare(a, self.names)
        u, s, vh = tall_svd(self._tall(x), self._total)
        g = self._block(matmul(u * self._weights(s, a)[None, :], vh), a)
        return jnp.where(ok, scale(self.gauge.value(s), e), largest), (poison(ok, g),)

    def subgradient(self, a: Array, factors: tuple[Array, ...]) -> Array:
        return factors[0] if len(factors) == 1 else matmul(*factors)

    def curvature(self, a: Array, e: Array) -> Array:
        x, ok, _, power = prepare(a, self.names)
        before, after = halves(-power)
        e = self._tall(before(e))
        u, s, vh = tall_svd(self._tall(x), self._total)
        ev = matmul(e, vh.conj().T)
        m = self._total(matmul(u.conj().T, ev))
        tol = self._tolerance(a)
        core, ratio = curvature_core(self.gauge, s, tol, m), self.gauge.ratio(s, tol).astype(a.dtype)
        # As of a tall matrix: columns of u that are too short, where s vanishes, are made up for by the rest.
        dg = matmul(matmul(u, core) + (ev - matmul(u, m)) * ratio[None, :], vh)
        return poison(ok, self._block(after(dg), a))

    def _weights(self, s: Array, a: Array) -> Array:
        return self.gauge.subgradient(s, self._tolerance(a)).astype(a.dtype)

    def _tolerance(self, a: Array) -> float:
        return tie_tolerance(a.dtype, *self._shape(a))

    def _shape(self, a: Array) -> tuple[int, int]:
        """The shape of the whole matrix."""
        m, n = (size * count(names) for size, names in zip(a.shape, self.request.axis_name, strict=True))
        return m, n

    def _total(self, x: Array) -> Array:
        return sum_over(x, self.names)

    # The layout for all triplets.

    def _tall(self, x: Array) -> Array:
        """Rows of the matrix, or of its adjoint if that is taller, split over all devices."""
        m, n = self._shape(x)
        rows, columns = self.request.axis_name
        return with_whole_rows(x, columns) if m >= n else with_whole_rows(x.conj().T, rows)

    def _block(self, x: Array, a: Array) -> Array:
        """The inverse, for a block of the shape of ``a``."""
        m, n = self._shape(a)
        rows, columns = self.request.axis_name
        if m >= n:
            return with_own_columns(x, columns, a.shape[0])
        return with_own_columns(x, rows, a.shape[1]).conj().T

    # Leading triplets.

    def _leading(self, a: Array) -> int | None:
        """How many triplets to search for by products; None if all of them are taken."""
        request, shape = self.request, self._shape(a)
        wanted = min(request.rank or self.gauge.support(min(shape)), *shape)
        methods = ("auto", "svd", "krylov") if krylov.affordable(shape, wanted) else ("auto", "svd")
        if request.method not in methods:
            allowed, (m, n) = ", ".join(map(repr, methods)), shape
            raise ValueError(
                f"method must be one of {allowed} with axis_name, for this norm of {m} x {n} matrices, "
                f"got {request.method!r}"
            )
        if request.compute_dtype is not None:
            raise ValueError(f"compute_dtype must be None with axis_name, got {request.compute_dtype}")
        products = request.method == "krylov" or (request.method == "auto" and by_krylov(shape, wanted))
        return wanted if products else None

    def _by_krylov(self, a: Array, wanted: int) -> tuple[Array, tuple[Array, Array]]:
        ok, largest, e = magnitude(a, self.names)
        (m, n), names, (forward, adjoint) = self._shape(a), self.request.axis_name, krylov.products(a, e)
        wide = m < n
        if wide:  # the search is in the space of the shorter side
            m, n, names, forward, adjoint = n, m, names[::-1], adjoint, forward
        rows, columns = names

        def ahead(vectors: Array) -> Array:
            return sum_over(forward(mine(vectors, columns)), columns)

        def back(vectors: Array) -> Array:
            return gathered(sum_over(adjoint(vectors), rows), columns)

        u, s, vh, _, _ = krylov.leading_triplets_of(
            (lambda vectors: gathered(ahead(vectors), rows), lambda vectors: back(mine(vectors, rows))),
            (m, n),
            a.dtype,
            wanted,
            normal=lambda vectors: back(ahead(vectors)),
            tol=self.request.tol,
        )
        u, vh = mine(u.T, rows).T, mine(vh, columns)
        if wide:
            u, vh = vh.conj().T, u.conj().T
        value = jnp.where(ok, scale(self.gauge.value(s), e), largest)
        return value, (poison(ok, u * self._weights(s, a)[None, :]), vh)
