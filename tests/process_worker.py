"""One of several processes that share a mesh: ``process_worker.py ID COUNT PORT``, run by test_processes.py."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import jaxnorms as jn

NORMS = [jn.Schatten(float("inf")), jn.KyFan(2), jn.Schatten(1), jn.Schatten(4), jn.Entrywise(2), jn.Induced(1, 1)]


def main(index: int, count: int, port: int) -> None:
    jax.config.update("jax_num_cpu_devices", 2)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"127.0.0.1:{port}", count, index)
    mesh = jax.make_mesh((count, 2), ("x", "y"), axis_types=(AxisType.Auto,) * 2)
    # Rows that the devices cannot share evenly, when the rows are what has to be spread.
    a = np.random.default_rng(0).standard_normal((270, 136)).astype(np.float32)
    run = jax.jit(lambda a: [jax.value_and_grad(norm)(a) for norm in NORMS])
    alone = run(a)
    for spec in (P("y"), P(None, "x"), P("y", "x")):
        sharding = NamedSharding(mesh, spec)
        x = jax.make_array_from_callback(a.shape, sharding, lambda place: a[place])
        for norm, (value, g), (expected, h) in zip(NORMS, run(x), alone, strict=True):
            np.testing.assert_allclose(value.addressable_data(0), expected, rtol=1e-5, err_msg=repr(norm))
            assert g.sharding.is_equivalent_to(sharding, 2), (norm, spec)
            for shard in g.addressable_shards:
                np.testing.assert_allclose(shard.data, np.asarray(h)[shard.index], atol=1e-4, err_msg=repr(norm))
    batch = np.random.default_rng(1).standard_normal((4 * count, 20, 12)).astype(np.float32)
    x = jax.make_array_from_callback(batch.shape, NamedSharding(mesh, P("x")), lambda place: batch[place])
    values = jax.jit(jn.nuclear_norm)(x)
    for shard in values.addressable_shards:
        np.testing.assert_allclose(shard.data, jn.nuclear_norm(jnp.asarray(batch[shard.index[0]])), rtol=1e-5)
    print(f"process {index} of {count}: equal")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
