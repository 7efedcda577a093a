"""Matrices that lie on several devices of one program, where the compiler partitions the work.

What a trace can see: that there is a mesh, not how a matrix lies on it. So the algorithms are made of
products, which partition by themselves, and of decompositions of small matrices, of which every device
takes those of its own part of a batch. Inside ``shard_map`` an array is a local block, on no mesh.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
from jax import Array
from jax.sharding import AbstractMesh, AxisType, NamedSharding, PartitionSpec


def on_mesh(a: Array) -> bool:
    """Whether ``a`` may be spread over several devices by the compiler."""
    mesh = jax.typeof(a).sharding.mesh
    return mesh.size > 1 and set(mesh.axis_types) == {AxisType.Auto}


def partitioned(f: Callable[..., Any], x: Array, dims: int, *rest: Any) -> Any:
    """``f(x, *rest)``, whose results lie as ``x`` if they have its shape, or that of its matrices transposed; the
    others keep its leading axes, all but ``dims`` of them.

    An explicit mesh asks for the sharding of every intermediate result; here the compiler chooses them.
    """
    sharding = jax.typeof(x).sharding
    if AxisType.Explicit not in sharding.mesh.axis_types:
        return f(x, *rest)
    spec = (*sharding.spec, *[None] * (x.ndim - len(sharding.spec)))

    def lies(y: jax.ShapeDtypeStruct) -> PartitionSpec:
        batch = x.ndim - dims
        for turn in (1, -1):  # of the axes that are no batch
            if y.shape == x.shape[:batch] + x.shape[batch:][::turn]:
                return PartitionSpec(*spec[:batch], *spec[batch:][::turn])
        return PartitionSpec(*spec[:batch])

    shapes = jax.eval_shape(f, *jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), (x, *rest)))
    return _automatic(f, sharding.mesh, jax.tree.map(lies, shapes))(x, *rest)


def replicated(f: Callable[..., Any], *args: Any) -> Any:
    """``f`` of pytrees, partitioned likewise, its results the same on every device."""
    for leaf in jax.tree.leaves(args):
        mesh = jax.typeof(leaf).sharding.mesh
        if AxisType.Explicit in mesh.axis_types:
            return _automatic(f, mesh, PartitionSpec())(*args)
    return f(*args)


def _automatic(f: Callable[..., Any], mesh: AbstractMesh, out: Any) -> Callable[..., Any]:
    kinds = zip(mesh.axis_names, mesh.axis_types, strict=True)
    names = tuple(name for name, kind in kinds if kind == AxisType.Explicit)
    return jax.sharding.auto_axes(f, axes=names, out_sharding=jax.tree.map(partial(NamedSharding, mesh), out))
