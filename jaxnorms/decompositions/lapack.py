"""LAPACK's decompositions of small matrices, over batches and on several devices."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import NamedSharding, PartitionSpec

from jaxnorms._batching import single_or_batch
from jaxnorms._mesh import on_mesh


def _on_cpu_one_by_one(decompose: Callable[[Array], Any], ranks: tuple[int, ...]) -> Callable[[Array], Any]:
    """``decompose``, with results of these ranks, which takes the matrices of a batch in turn on CPU, as one
    batch elsewhere.

    jaxlib's LAPACK kernels split a batch over XLA's thread pool and wait for the parts *inside* a
    thread of that pool: as many independent batched SVDs as there are threads wait for each other
    for ever. One matrix runs in its own thread, and takes about as long (measured: 0.8 to 1.0 times the
    batched call from 16 x 16 to 256 x 256, 1.5 times for 4 x 4).
    """
    in_turn = jax.custom_batching.sequential_vmap(decompose)
    on_each_device = _in_turn_on_each_device(decompose, ranks)

    def chosen(a: Array) -> Any:
        return jax.lax.platform_dependent(a, cpu=on_each_device if on_mesh(a) else in_turn, default=decompose)

    return chosen


def _in_turn_on_each_device(f: Callable[[Array], Any], ranks: tuple[int, ...]) -> Callable[[Array], Any]:
    """``f`` of one matrix, whose results have these ranks, and which takes those of a batch in turn, on the
    device where they lie."""

    def stack(a: Array) -> Any:
        batch = a.shape[:-2]
        out = jax.lax.map(f, a.reshape(-1, *a.shape[-2:]))
        return jax.tree.map(lambda x: x.reshape(*batch, *x.shape[1:]), out)

    def leading(mesh: Any, arguments: Any, results: Any) -> tuple[Any, NamedSharding]:
        count = len(arguments[0].shape) - 2
        spec = (*arguments[0].sharding.spec, *(None,) * (count + 2))[:count]
        sharding = NamedSharding(mesh, PartitionSpec(*spec))
        return jax.tree.map(lambda _: sharding, results), sharding

    def partition(mesh: Any, arguments: Any, results: Any) -> Any:
        out, sharding = leading(mesh, arguments, results)
        return mesh, stack, out, (sharding,)

    # Axes named once are whole on every device.
    sizes = [" ".join(f"r{i}{j}" for j in range(rank)) for i, rank in enumerate(ranks)]
    local = custom_partitioning(stack)
    local.def_partition(
        partition=partition,
        infer_sharding_from_operands=lambda *args: leading(*args)[0],
        sharding_rule="... i j -> " + ", ".join(f"... {size}" for size in sizes),
        need_replication_factors=("i", "j", *" ".join(sizes).split()),
    )
    batched = jax.custom_batching.custom_vmap(local)

    @batched.def_vmap
    def _(_size: int, _batched: list[bool], a: Array) -> tuple[Any, Any]:
        out = batched(a)
        return out, jax.tree.map(lambda _: True, out)

    return single_or_batch(f, batched)


svd = _on_cpu_one_by_one(lambda a: tuple(jnp.linalg.svd(a, full_matrices=False)), (2, 1, 2))
values = _on_cpu_one_by_one(partial(jnp.linalg.svd, compute_uv=False), (1,))
eigh = _on_cpu_one_by_one(lambda a: tuple(jnp.linalg.eigh(a)), (1, 2))
eig = _on_cpu_one_by_one(lambda a: tuple(jnp.linalg.eig(a)), (1, 2))
qr = _on_cpu_one_by_one(lambda a: tuple(jnp.linalg.qr(a)), (2, 2))
lu = _on_cpu_one_by_one(lambda a: tuple(jax.lax.linalg.lu(a)), (2, 1, 1))
