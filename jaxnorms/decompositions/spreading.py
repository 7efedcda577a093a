"""How a matrix that is on a mesh lies on its devices, where an algorithm needs to say so.

In a batch it is the batch that is taken to be spread: there these functions do nothing.
"""

import jax
from jax import Array
from jax.sharding import NamedSharding, PartitionSpec

from jaxnorms._batching import single_or_batch
from jaxnorms._mesh import on_mesh


def by_rows(a: Array) -> Array:
    """``a`` with its longer side spread over all devices: an all-to-all at most.

    The product ``a^H a`` is then one of local rows, and a sum. With columns spread the compiler would gather
    all of ``a``.
    """
    if not on_mesh(a):
        return a
    names = jax.typeof(a).sharding.mesh.axis_names
    return _constrained(a, (names, None) if a.shape[0] >= a.shape[1] else (None, names))


def on_grid(g: Array) -> Array:
    """``g`` on a grid of devices. From spread rows to the sharding of a matrix the compiler gathers all of
    it, to the grid, and from there, it does not."""
    if not on_mesh(g):
        return g
    first, *others = jax.typeof(g).sharding.mesh.axis_names
    return _constrained(g, (first, tuple(others) or None))


def _constrained(a: Array, spec: tuple) -> Array:
    mesh = jax.typeof(a).sharding.mesh

    def constrain(a: Array) -> Array:
        # A derivative may be traced outside of the function that made the mesh an automatic one.
        with jax.sharding.use_abstract_mesh(mesh):
            return jax.lax.with_sharding_constraint(a, NamedSharding(mesh, PartitionSpec(*spec)))

    return single_or_batch(constrain, lambda a: a)(a)
