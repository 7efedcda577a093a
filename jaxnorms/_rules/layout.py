"""Results that lie on the devices as their matrix does."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.extend.core import Primitive
from jax.extend.mlir.dialects import sdy
from jax.interpreters import ad, batching, mlir
from jax.sharding import AxisType

from jaxnorms._mesh import on_mesh


def like(a: Array, g: Array) -> Array:
    """``g``, of the shape of ``a``, spread over the devices as ``a`` is; linear in ``g``.

    Two matrices that lie differently may come out alike if one jitted function takes both: JAX lowers it once.
    """
    sharding = jax.typeof(a).sharding
    if AxisType.Explicit in sharding.mesh.axis_types:
        return jax.sharding.reshard(g, sharding)
    return _like_p.bind(a, g) if on_mesh(a) else g


# How ``a`` lies on an automatic mesh, the partitioner alone knows: it is asked to lay both alike. What it can take from
# the operands of an operation is not enough, since a product that made ``g`` may have had a say before.
_like_p = Primitive("like")
_like_p.def_impl(lambda a, g: jax.device_put(g, a.sharding))
_like_p.def_abstract_eval(lambda a, g: g)
# Over all programs: one by itself does not say which numbers it has given. So its text is another each time.
_groups = itertools.count()


def _jvp(primals: Any, tangents: Any) -> Any:
    (a, g), (_, dg) = primals, tangents
    return like(a, g), dg if isinstance(dg, ad.Zero) else like(a, dg)


def _batch(arguments: Any, axes: Any) -> Any:
    a, g = (x if axis is None else jnp.moveaxis(x, axis, 0) for x, axis in zip(arguments, axes, strict=True))
    shape = max(a.shape, g.shape, key=len)
    return like(jnp.broadcast_to(a, shape), jnp.broadcast_to(g, shape)), 0


def _lowered(_: Any, a: Any, g: Any) -> Any:
    if getattr(jax.config, "jax_use_shardy_partitioner", True):
        group = next(_groups)
        for x in (a, g):
            sdy.sharding_group(x, group)
    return [g]


ad.primitive_jvps[_like_p] = _jvp
ad.primitive_transposes[_like_p] = lambda cotangent, a, _: (None, like(a, cotangent))
batching.primitive_batchers[_like_p] = _batch
mlir.register_lowering(_like_p, _lowered, cacheable=False)
