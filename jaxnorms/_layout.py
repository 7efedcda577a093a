"""How matrices that are on an automatic mesh lie on its devices, where an algorithm or a derivative needs to say so."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.extend.core import Primitive
from jax.extend.mlir import ir
from jax.extend.mlir.dialects import sdy
from jax.interpreters import ad, batching, mlir
from jax.sharding import AbstractMesh, AxisType, NamedSharding, PartitionSpec

from jaxnorms._mesh import on_mesh


def by_rows(a: Array) -> Array:
    """``a`` with its longer side spread over all devices, or as many as divide it: an all-to-all at most.

    The product ``a^H a`` is then one of local rows, and a sum. With columns spread the compiler would gather
    all of ``a``; and so it does for parts of unequal size. In a batch it is the batch that is taken to be spread: there
    this does nothing.
    """
    if not on_mesh(a):
        return a
    mesh, size, names = jax.typeof(a).sharding.mesh, max(a.shape), ()
    for name, count in mesh.shape.items():
        if size % count == 0:
            size, names = size // count, (*names, name)
    names = names or mesh.axis_names
    return _spread(a, (names, None) if a.shape[0] >= a.shape[1] else (None, names))


def on_grid(g: Array) -> Array:
    """``g`` on a grid of devices; in a batch nothing, likewise. From spread rows to the sharding of a matrix the
    compiler gathers all of it, to the grid, and from there, it does not."""
    if not on_mesh(g):
        return g
    first, *others = jax.typeof(g).sharding.mesh.axis_names
    grid = first, tuple(others) or None
    return _spread(g, grid if g.shape[0] >= g.shape[1] else grid[::-1])


def tied(a: Array) -> Array:
    """``a``, whose derivatives lie as it does, and which does not lie as what is made of it.

    On an explicit mesh that is so by itself.
    """
    return like(a, a) if on_mesh(a) else a


def like(a: Array, g: Array) -> Array:
    """``g``, of the shape of ``a``, spread over the devices as ``a`` is; linear in ``g``. Where ``a`` is NaN, ``g`` has
    to be."""
    sharding = jax.typeof(a).sharding
    if AxisType.Explicit in sharding.mesh.axis_types:
        return jax.sharding.reshard(g, sharding)
    return _like_p.bind(a, g) if on_mesh(a) else g


# A sharding constraint that a batch does without: there it would say that the batch itself is not spread.

_spread_p = Primitive("spread")


def _spread(a: Array, spec: tuple) -> Array:
    return _spread_p.bind(a, mesh=jax.typeof(a).sharding.mesh, spec=PartitionSpec(*spec))


@_spread_p.def_impl
def _constrained(a: Array, mesh: AbstractMesh, spec: PartitionSpec) -> Array:
    # A derivative may be traced outside of the function that made the mesh an automatic one.
    with jax.sharding.use_abstract_mesh(mesh):
        return jax.lax.with_sharding_constraint(a, NamedSharding(mesh, spec))


_spread_p.def_abstract_eval(lambda a, **_: a)
ad.deflinear2(_spread_p, lambda cotangent, _, **where: [_spread_p.bind(cotangent, **where)])
batching.primitive_batchers[_spread_p] = lambda arguments, axes, **_: (arguments[0], axes[0])
mlir.register_lowering(_spread_p, mlir.lower_fun(_constrained, multiple_results=False))


# How ``a`` lies on an automatic mesh, the partitioner alone knows. It lays the result of an operation on each entry as
# its operands lie: as ``a`` alone, if it may not look back at ``g``, in which a product or a constraint has had its
# say, nor ahead at what is made of the result.

_like_p = Primitive("like")
_like_p.def_impl(lambda a, g: jax.device_put(g, a.sharding))
_like_p.def_abstract_eval(lambda a, g: g)


def _entry_by_entry(a: Array, g: Array) -> Array:
    """``g``; NaN where ``a`` is, so that no compiler finds that ``a`` is not needed."""
    seen = jnp.where(a == a, _barrier_p.bind(g, open_to="BACKWARD"), jnp.nan)
    return _barrier_p.bind(seen, open_to="FORWARD")


def _jvp(primals: Any, tangents: Any) -> Any:
    (a, g), (_, dg) = primals, tangents
    return like(a, g), dg if isinstance(dg, ad.Zero) else like(a, dg)


def _batch(arguments: Any, axes: Any) -> Any:
    a, g = (x if axis is None else jnp.moveaxis(x, axis, 0) for x, axis in zip(arguments, axes, strict=True))
    shape = max(a.shape, g.shape, key=len)
    return like(jnp.broadcast_to(a, shape), jnp.broadcast_to(g, shape)), 0


ad.primitive_jvps[_like_p] = _jvp
ad.primitive_transposes[_like_p] = lambda cotangent, a, _: (None, like(a, cotangent))
batching.primitive_batchers[_like_p] = _batch
mlir.register_lowering(_like_p, mlir.lower_fun(_entry_by_entry, multiple_results=False))


_barrier_p = Primitive("propagation_barrier")
_barrier_p.def_abstract_eval(lambda g, **_: g)


def _barrier(_: Any, g: Any, open_to: str) -> Any:
    if not getattr(jax.config, "jax_use_shardy_partitioner", True):
        return [g]
    direction = ir.IntegerAttr.get(ir.IntegerType.get_signless(32), sdy.PropagationDirection[open_to].value)
    return [sdy.PropagationBarrierOp(g, direction).result]


mlir.register_lowering(_barrier_p, _barrier)
