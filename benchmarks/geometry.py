"""Proximal operators, projections and oracles beside what is used in their place, as ratios of interleaved runs.

    python benchmarks/geometry.py [--rounds N] [--size N]

prints a Markdown table and saves it in ``benchmarks/results``. A ratio above 1 means that jaxnorms is *faster*.
"""

import argparse
import statistics
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import peers
from scale import interleaved, spread
from timing import machine

import jaxnorms as jn

RESULT = Path(__file__).parent / "results" / "geometry.md"
NOTE = """\
float32, n = {n}; medians, with smallest and largest, of {rounds} interleaved rounds. Error of an image: in Frobenius
norm, relative to the matrix, against LAPACK in float64. "Orthogonal to": how far the singular values are from 1, of
a Gaussian matrix. Muon's five steps leave large ones between 0.7 and 1.2 and the smallest near 0; the row after that
goes on with steps of the kind that converges (15/8, -10/8, 3/8) until all are within 1e-2.

"rank=24" tries 24 triplets: where more singular values are above the threshold, as in the Gaussian matrix, an SVD
follows; so, too, for a spectral ball of less than a sixteenth of the norm, as here.
"method='polar'" is what accelerators take, where products are cheap and an SVD is not. A CPU without
arithmetic in bfloat16 gains nothing from it: each product converts its operands."""

Run = Callable[[], Any]


def thresholded(a: jax.Array, t: float) -> jax.Array:
    """The nuclear prox as it is written down."""
    u, s, vh = jnp.linalg.svd(a, full_matrices=False)
    return (u * jnp.maximum(s - t, 0)[None, :]) @ vh


def clipped(a: jax.Array, t: float) -> jax.Array:
    """The projection onto a spectral ball as it is written down."""
    u, s, vh = jnp.linalg.svd(a, full_matrices=False)
    return (u * jnp.minimum(s, t)[None, :]) @ vh


def exact(a: np.ndarray, h: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """The image under h of the singular values, in double precision."""
    u, s, vh = np.linalg.svd(a.astype(np.float64), full_matrices=False)
    return (u * h(s)) @ vh


def images(rounds: int, n: int) -> Iterator[str]:
    """Rows of the prox and the projection by their several ways."""
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((n, n)).astype(np.float32)
    low = (rng.standard_normal((n, 20)) @ rng.standard_normal((20, n))).astype(np.float32)
    t = 2.2 * n**0.5  # above the noise
    shrink, clip = (lambda s, t: np.maximum(s - t, 0)), np.minimum
    cases = [
        ("nuclear prox, Gaussian", noise, n**0.5, jn.prox, "nuc", thresholded, shrink, ({}, {"method": "polar"})),
        ("nuclear prox, rank 20 + noise", low + noise, t, jn.prox, "nuc", thresholded, shrink, ({}, {"rank": 24})),
        ("spectral ball, rank 20 + noise", low + noise, t, jn.project, "spectral", clipped, clip, ({}, {"rank": 24})),
        ("nuclear prox, Gaussian", noise, n**0.5, jn.prox, "nuc", thresholded, shrink, ({"rank": 24},)),
    ]
    yield "| map | by | faster than soft thresholding or clipping jnp's SVD | ms | error | of jnp's |"
    yield "|---|---|---|---|---|---|"
    for name, x, t, f, ord, theirs, h, ways in cases:
        a, reference = jnp.asarray(x), exact(x, lambda s, h=h, t=t: h(s, t))
        for way in ways:
            ours = jax.jit(lambda a, f=f, t=t, ord=ord, way=way: f(a, t, ord, **way))
            peer = jax.jit(lambda a, g=theirs, t=t: g(a, t))
            times = interleaved([lambda g=ours, a=a: g(a), lambda g=peer, a=a: g(a)], rounds)
            ratios = [slow / fast for fast, slow in zip(*times, strict=True)]
            errors = [np.linalg.norm(np.asarray(g(a)) - reference) / np.linalg.norm(x) for g in (ours, peer)]
            by = ", ".join(f"{key}={value!r}" for key, value in way.items()) or "default"
            milliseconds = 1e3 * statistics.median(times[0])
            yield f"| {name} | {by} | {spread(ratios)} | {milliseconds:.3g} | {errors[0]:.0e} | {errors[1]:.0e} |"


def distance(x: Any) -> float:
    """How far the singular values are from 1."""
    return float(np.max(np.abs(np.linalg.svd(np.asarray(x, np.float64), compute_uv=False) - 1)))


def oracles(rounds: int, n: int) -> Iterator[str]:
    """Rows of the oracle of the spectral norm beside Muon's iteration."""
    a = jnp.asarray(np.random.default_rng(0).standard_normal((n, n)).astype(np.float32))
    low = {"compute_dtype": jnp.bfloat16, "tol": 1e-2}
    ways = {"": {}, ", tol=1e-2": {"method": "polar", "tol": 1e-2}, ", compute_dtype=bfloat16, tol=1e-2": low}
    runs: dict[str, Run | None] = {}
    for name, how in ways.items():
        f = jax.jit(lambda a, how=how: jn.lmo(a, 1.0, "spectral", **how))
        runs[f'lmo(a, 1.0, "spectral"{name})'] = lambda f=f: f(a)
    runs["optax Muon, 5 steps"] = peers.optax_newton_schulz(a)
    runs["optax Muon, until within 1e-2"] = next(
        (run for more in range(1, 12) if (run := peers.optax_newton_schulz(a, more)) and distance(run()) < 1e-2), None
    )
    times = interleaved(list(runs.values()), rounds)
    yield f"| {n}x{n} | time over that of the oracle in bfloat16 | ms | orthogonal to |"
    yield "|---|---|---|---|"
    for (name, run), t in zip(runs.items(), times, strict=True):
        if run is None:
            yield f"| {name} | not installed | | |"
            continue
        ratios = [theirs / ours for theirs, ours in zip(t, times[2], strict=True)]
        yield f"| {name} | {spread(ratios)} | {1e3 * statistics.median(t):.3g} | {distance(run()):.0e} |"


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description="Time prox, projections and oracles beside their peers.")
    parser.add_argument("--rounds", type=int, default=9, help="interleaved rounds per row")
    parser.add_argument("--size", type=int, default=1024, help="rows and columns")
    args = parser.parse_args()
    names = ("jax", "jaxlib", "optax")
    sections = [f"# Geometry\n\nOn {machine()}; {', '.join(map(peers.version, names))}."]
    for section in (images(args.rounds, args.size), oracles(args.rounds, args.size)):
        sections.append("\n".join(section))
        print(sections[-1], file=sys.stderr, flush=True)
    sections.append(NOTE.format(n=args.size, rounds=args.rounds))
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text("\n\n".join(sections) + "\n")


if __name__ == "__main__":
    main()
