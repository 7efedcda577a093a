"""Norms of a product of thin factors, which is never formed: time, memory and error.

    python benchmarks/factored.py [--size N] [--rank R]

prints a Markdown table and saves it in ``benchmarks/results``.
"""

import argparse
import resource
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from timing import machine

import jaxnorms as jn

RESULT = Path(__file__).parent / "results" / "factored.md"
NOTE = """\
float32, B of {size} x {rank} and A of {rank} x {size} with prescribed singular values of B A, {dense:.0f} MB if it were
formed. "first": value and both gradients, compilation included, must be below 2 s; "again": the same, compiled.
Error: of the value, relative, and of <G A^H, B> and <B^H G, A>, which are the norm as well; must be below 1e-6.
Memory: by how much the process grew at its largest, over all rows; must be below 200 MB."""
SECONDS, ERROR, MEGABYTES = 2, 1e-6, 200


def peak() -> float:
    """Megabytes that the process has used at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e3 if sys.platform.startswith("linux") else 1e6)


def factors(size: int, s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """With the singular values ``s`` of the product, and a random basis between them."""
    rng, rank = np.random.default_rng(0), len(s)
    u, v, w = (np.linalg.qr(rng.standard_normal((n, rank)))[0] for n in (size, size, rank))
    return ((u * s**0.5) @ w.T).astype(np.float32), ((w * s**0.5) @ v.T).astype(np.float32)


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description="Time norms of products of thin factors.")
    parser.add_argument("--size", type=int, default=10_000, help="rows and columns of the product")
    parser.add_argument("--rank", type=int, default=8, help="columns of the first factor")
    args = parser.parse_args()
    s = np.linspace(3, 1, args.rank)
    b, a = map(jnp.asarray, factors(args.size, s))
    jax.block_until_ready(jnp.linalg.norm(b) + jnp.linalg.norm(a))  # what JAX takes to start
    before, lines = peak(), []
    norms = {
        "nuclear": (jn.factored_nuclear_norm, s.sum()),
        "spectral": (jn.factored_spectral_norm, s[0]),
        "Frobenius": (jn.factored_frobenius_norm, np.linalg.norm(s)),
        "Schatten 3": (lambda b, a: jn.factored_schatten_norm(b, a, 3), np.sum(s**3) ** (1 / 3)),
        "Ky Fan 2": (lambda b, a: jn.factored_ky_fan_norm(b, a, 2), s[:2].sum()),
    }
    for name, (norm, exact) in norms.items():
        run, times = jax.jit(jax.value_and_grad(norm, argnums=(0, 1))), []
        for _ in range(6):
            start = time.perf_counter()
            value, gradients = jax.block_until_ready(run(b, a))
            times.append(time.perf_counter() - start)
        pairs = zip(gradients, (b, a), strict=True)
        found = [float(value), *(float(np.sum(np.asarray(g, np.float64) * np.asarray(x))) for g, x in pairs)]
        errors = [abs(x / exact - 1) for x in found]
        missed = " MISSED" if times[0] > SECONDS or max(errors) > ERROR else ""
        cells = [f"{times[0]:.2f}", f"{1e3 * min(times):.1f}", *(f"{e:.0e}" for e in errors)]
        lines.append(f"| {name}{missed} | {' | '.join(cells)} |")
    grown = peak() - before
    head = "| norm | first, s | again, ms | error of the value | of <G A^H, B> | of <B^H G, A> |\n" + "|---" * 6 + "|"
    memory = f"Memory: {grown:.0f} MB{' MISSED' if grown > MEGABYTES else ''}."
    note = NOTE.format(**vars(args), dense=4e-6 * args.size**2)
    page = "\n\n".join(
        [f"# Norms of factors\n\nOn {machine()}; jax {jax.__version__}.", "\n".join([head, *lines]), memory, note]
    )
    print(page)
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(page + "\n")


if __name__ == "__main__":
    main()
