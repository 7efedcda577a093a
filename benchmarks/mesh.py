"""Norms of a matrix on a mesh of host devices: what the compiled program moves, holds and costs.

    python benchmarks/mesh.py [--shape M N]

prints Markdown tables and saves them in ``benchmarks/results/mesh.md``: for each way to spread a matrix over
a 4 x 2 mesh the largest array that a collective leaves on a device and the temporaries; and weak scaling over
1, 2, 4 and 8 devices. Needs no more than a CPU. About ten minutes on two cores.
"""

import os

# Every device of the mesh takes an SVD of n x n, on two cores: threads of each would only wait for the others'. The
# limit is read when LAPACK is loaded.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import math
import re
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from timing import machine

import jaxnorms as jn

jax.config.update("jax_num_cpu_devices", 8)

RESULTS = Path(__file__).parent / "results"
inf = float("inf")
NORMS = {
    "spectral": jn.Schatten(inf),
    "Ky Fan 3": jn.KyFan(3),
    "nuclear": jn.Schatten(1),
    "Schatten 4": jn.Schatten(4),
    "Frobenius": jn.Entrywise(2),
    "entrywise 1": jn.Entrywise(1),
    "L_{2,1}": jn.Mixed(2, 1),
    "induced 1": jn.Induced(1, 1),
}
SPREADS = {"rows": P("x"), "columns": P(None, "x"), "both": P("x", "y")}
COLLECTIVE = re.compile(
    r"= (.*?) (all-gather|all-to-all|all-reduce|collective-permute|reduce-scatter)(?:-start)?\((.*)"
)
ARRAY = re.compile(r"([a-z]+)(\d+)\[([\d,]*)\]")
NOTE = """\
Value and gradient of a {m} x {n} float32 matrix under jit, on a mesh of 4 x 2 host devices. The sharding "rows" is over
4 devices, "columns" too, "both" over all 8. Largest: the largest array, in entries, that one collective leaves on a
device, with its shape; a shard has {m}/4 x {n} or {m}/4 x {n}/2 entries. Temporaries are of one device, in multiples
of its shard. Krylov methods gather blocks of vectors. Nuclear and Schatten norms spread the rows over all devices,
by one all-to-all, and sum n x n Gram matrices, of which every device holds copies; the gradient goes back to the
sharding of the input, which gathers a shard where the input had copies along a mesh axis. Nothing gathers the
matrix. Errors are against one device. In the table of weak scaling a collective inside of a loop counts once."""


def collectives(text: str) -> list[tuple[str, str, int, int]]:
    """Kind, shape, entries and bytes of each collective in a compiled program."""
    found = []
    for line in text.splitlines():
        if match := COLLECTIVE.search(line):
            arrays = ARRAY.findall(match[1])
            sizes = [math.prod(map(int, filter(None, shape.split(",")))) for _, _, shape in arrays]
            size = sum(int(bits) // 8 * entries for (_, bits, _), entries in zip(arrays, sizes, strict=True))
            largest = max(range(len(arrays)), key=sizes.__getitem__)
            # The pieces of an all-to-all are one array.
            entries = sum(sizes) if match[2] == "all-to-all" else sizes[largest]
            found.append((match[2], arrays[largest][2].replace(",", "x") or "scalar", entries, size))
    return found


def value_and_gradient(norm: Any) -> Any:
    """Of one matrix."""
    return jax.jit(jax.value_and_grad(norm))


def layouts(m: int, n: int) -> Iterator[str]:
    """A row for each norm, kind of mesh and sharding."""
    a = np.random.default_rng(0).standard_normal((m, n)).astype(np.float32)
    yield "| norm | mesh | spread | largest | temporaries | value error | gradient error |"
    yield "|---|---|---|---|---|---|---|"
    for name, norm in NORMS.items():
        value, g = map(np.asarray, value_and_gradient(norm)(a))
        for kind in (AxisType.Auto, AxisType.Explicit):
            mesh = jax.make_mesh((4, 2), ("x", "y"), axis_types=(kind, kind))
            for label, spec in SPREADS.items():
                x = jax.device_put(a, NamedSharding(mesh, spec))
                program = value_and_gradient(norm).lower(x).compile()
                shard = math.prod(x.sharding.shard_shape(x.shape)) * 4
                moved = max(collectives(program.as_text()), key=lambda c: c[2], default=("none", "", 0, 0))
                there, h = program(x)
                assert h.sharding.is_equivalent_to(x.sharding, 2), (name, kind, spec, h.sharding)
                error = float(np.linalg.norm(np.asarray(h) - g) / np.linalg.norm(g))
                yield (
                    f"| {name} | {kind.name} | {label} | {moved[0]} {moved[1]} "
                    f"| {program.memory_analysis().temp_size_in_bytes / shard:.2f} "
                    f"| {abs(float(there) / float(value) - 1):.0e} | {error:.0e} |"
                )


def weak_scaling(rows: int, n: int) -> Iterator[str]:
    """Rows in proportion to devices: bytes that collectives leave on each, and memory."""
    yield "| norm | devices | shape | collectives in the program | their bytes | temporaries, shards |"
    yield "|---|---|---|---|---|---|"
    for name in ("spectral", "nuclear", "Frobenius"):
        for devices in (1, 2, 4, 8):
            mesh = jax.make_mesh((devices,), ("x",), axis_types=(AxisType.Auto,), devices=jax.devices()[:devices])
            a = jax.ShapeDtypeStruct((rows * devices, n), jnp.float32, sharding=NamedSharding(mesh, P("x")))
            program = value_and_gradient(NORMS[name]).lower(a).compile()
            found = collectives(program.as_text())
            yield (
                f"| {name} | {devices} | {rows * devices} x {n} | {len(found)} | {sum(c[3] for c in found):,} "
                f"| {program.memory_analysis().temp_size_in_bytes / (4 * rows * n):.2f} |"
            )


def main() -> None:
    """Print the tables and save them."""
    parser = argparse.ArgumentParser(description="What norms of matrices on a mesh move and hold.")
    parser.add_argument("--shape", type=int, nargs=2, default=(4096, 2048), metavar=("M", "N"))
    m, n = parser.parse_args().shape
    sections = [f"# Mesh\n\nOn {machine()}, as 8 devices.", NOTE.format(m=m, n=n)]
    for table in (partial(layouts, m, n), partial(weak_scaling, 1024, 512)):
        lines = []
        for line in table():
            print(line, file=sys.stderr, flush=True)
            lines.append(line)
        sections.append("\n".join(lines))
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "mesh.md").write_text("\n\n".join(sections) + "\n")


if __name__ == "__main__":
    main()
