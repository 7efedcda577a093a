"""One of several processes that share a mesh: ``process_worker.py ID COUNT PORT [GONE SIGNAL]``.

Run by test_processes.py. Without a signal the processes compare results with those of one; with it, process ``GONE``
sends the signal to itself in the middle of a step, and the others go on.
"""

import os
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import jaxnorms as jn

NORMS = [jn.Schatten(float("inf")), jn.KyFan(2), jn.Schatten(1), jn.Schatten(4), jn.Entrywise(2), jn.Induced(1, 1)]
# Rows that the devices cannot share evenly, when the rows are what has to be spread.
SHAPE = 270, 136


def spread(a: np.ndarray, mesh: jax.sharding.Mesh, spec: P) -> jax.Array:
    return jax.make_array_from_callback(a.shape, NamedSharding(mesh, spec), lambda place: a[place])


def agree(index: int, count: int, mesh: jax.sharding.Mesh) -> None:
    a = np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)
    run = jax.jit(lambda a: [jax.value_and_grad(norm)(a) for norm in NORMS])
    alone = run(a)
    for spec in (P("y"), P(None, "x"), P("y", "x")):
        x = spread(a, mesh, spec)
        for norm, (value, g), (expected, h) in zip(NORMS, run(x), alone, strict=True):
            np.testing.assert_allclose(value.addressable_data(0), expected, rtol=1e-5, err_msg=repr(norm))
            assert g.sharding.is_equivalent_to(x.sharding, 2), (norm, spec)
            for shard in g.addressable_shards:
                np.testing.assert_allclose(shard.data, np.asarray(h)[shard.index], atol=1e-4, err_msg=repr(norm))
    batch = np.random.default_rng(1).standard_normal((4 * count, 20, 12)).astype(np.float32)
    values = jax.jit(jn.nuclear_norm)(spread(batch, mesh, P("x")))
    for shard in values.addressable_shards:
        np.testing.assert_allclose(shard.data, jn.nuclear_norm(jnp.asarray(batch[shard.index[0]])), rtol=1e-5)
    print(f"process {index} of {count}: equal")


def lose(index: int, gone: int, signal: int, mesh: jax.sharding.Mesh) -> None:
    a = np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)
    # Columns on different processes: every product of the Krylov iteration needs them all.
    x = spread(a, mesh, P("y", "x"))
    step = jax.jit(jax.value_and_grad(jn.spectral_norm))
    np.testing.assert_allclose(step(x)[0].addressable_data(0), np.linalg.norm(a, 2), rtol=1e-5)
    print(f"agreed at {time.time()}", flush=True)
    for _ in range(1000):
        results = step(x)  # dispatched, and not yet computed
        if index == gone:
            os.kill(os.getpid(), signal)
        jax.block_until_ready(results)
    print("went on", flush=True)


def main(index: int, count: int, port: int, gone: int = 0, signal: int = 0) -> None:
    jax.config.update("jax_num_cpu_devices", 2)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"127.0.0.1:{port}", count, index, heartbeat_timeout_seconds=10 if signal else 100)
    mesh = jax.make_mesh((count, 2), ("x", "y"), axis_types=(AxisType.Auto,) * 2)
    if signal:
        lose(index, gone, signal, mesh)
    else:
        agree(index, count, mesh)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
