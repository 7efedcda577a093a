"""Large matrices and many matrices: jaxnorms beside its peers in one process, as ratios of interleaved runs.

    python benchmarks/scale.py [--match WORDS] [--rounds N] [--seeds N]

prints Markdown tables and saves them, with a plot of cost against n, in ``benchmarks/results``. A ratio
above 1 means that jaxnorms is *faster*. Nothing is saved if ``--match`` selects only some of the rows.
About fifteen minutes on two cores.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import peers
from timing import compiled, machine

import jaxnorms as jn
from jaxnorms._scaling import magnitude
from jaxnorms.decompositions import krylov

RESULTS = Path(__file__).parent / "results"
inf = float("inf")

HEADER = """\
| work | shape | method | must (aim) | faster than best of jnp, torch | ours / jnp / torch, ms \
| value error, median (worst) | gradient error, median (worst) | of float32 SVD | compile, s | temporaries |
|---|---|---|---|---|---|---|---|---|---|---|"""
NOTE = """\
Value and gradient under jit, float32. "Faster": the time of the faster of jnp and torch over ours, median
(smallest-largest) of {rounds} interleaved rounds. Errors against LAPACK in float64 over {seeds} seeds: of the value
relative, of the gradient in Frobenius norm relative to its own; beside it the worst gradient error of the
float32 SVD of jnp. Temporaries in multiples of the input's bytes. n/a: peer not installed, or not measured."""


TRIED = """\
## What fell short, and what was tried

The rows marked MISSED are below what they must reach. The aim, in brackets, is reached where the ratio is above it.

- Spectral, large: the time is that of 80 to 130 passes over the matrix at the speed of memory, and falls behind as soon
  as it does not fit the cache. A block of four vectors costs as much as one; larger blocks need fewer passes that
  take more. A tall matrix costs its Gram matrix, half the time or more: blocks above the diagonal alone save 5%.
  Tried: both products of a step by blocks of rows that stay in the cache, 1.0 to 3 times the time of two passes.
- Spectral, s_2 = 0.999 s_1: the error of the gradient, up to 2e-4, is the rounding of A v over the gap, 6e-8 / 1e-3,
  times two or three, as that of an SVD is; from seed to seed one or the other is larger. The space found has v to 2e-6.
- Nuclear, square: 25 products of full size. An SVD is worth as many on a CPU whose LAPACK is threaded. Tried: the
  symmetric products by blocks (saves an eighth, kept). Not built: QDWH after three polynomial steps, 31 n^3 in place of
  56 n^3 on paper, because its Cholesky factorisation and triangular solve were measured at one to two times a product
  each, which makes a step dearer than two of the polynomial; polynomials of degree 9 and more, 2% fewer products. From
  1025 on one SVD is the faster, and taken.
- Nuclear, (1024, 16, 16) and (64, 64, 64): polar iterations by groups of matrices that stay in the cache, with
  products as sums up to 32 rows: 27 ms where one call of LAPACK after the other took 60, and 18 ms where steps of the
  whole batch took 33. Jacobi rotations took 0.8 of LAPACK's time at 16 x 16, and 3 s to compile.
- Nuclear, (4096, 8, 8): between 1.8 and 2.8 times from run to run.
- Spectral, (1024, 16, 16): half the time is in batched products of 16 x 16, at a tenth of the speed of large ones.
- Frobenius: two passes, for the scale and for the sum, where one that may overflow takes one."""


class Work(NamedTuple):
    """One row: a norm of matrices of one shape, and the ratios that it must reach and aims at."""

    name: str
    ord: str | int
    shape: tuple[int, ...]
    must: float
    aim: float
    gap: float | None = None


SPECTRAL, NUCLEAR = 2, "nuc"
ROWS = [
    Work("spectral, Gaussian", SPECTRAL, (1024, 1024), 20, 60),
    Work("spectral, Gaussian", SPECTRAL, (2048, 2048), 35, 60),
    Work("spectral, s_2 = 0.999 s_1", SPECTRAL, (1024, 1024), 10, 30, 1e-3),
    Work("spectral, s_2 = 0.999 s_1", SPECTRAL, (2048, 2048), 10, 30, 1e-3),
    Work("spectral, Gaussian", SPECTRAL, (8192, 512), 10, 30),
    Work("spectral, Gaussian", SPECTRAL, (1024, 16, 16), 6, 20),
    Work("spectral, Gaussian", SPECTRAL, (4096, 4, 4), 5, 20),
    Work("spectral, Gaussian", SPECTRAL, (64, 64, 64), 5, 20),
    Work("nuclear, Gaussian", NUCLEAR, (512, 512), 1, 2),
    Work("nuclear, Gaussian", NUCLEAR, (1024, 1024), 1.4, 2),
    Work("nuclear, Gaussian", NUCLEAR, (2048, 2048), 1.25, 2),
    Work("nuclear, Gaussian", NUCLEAR, (4096, 256), 2, 4),
    Work("nuclear, Gaussian", NUCLEAR, (64, 64, 64), 3, 6),
    Work("nuclear, Gaussian", NUCLEAR, (1024, 16, 16), 2, 5),
    Work("nuclear, Gaussian", NUCLEAR, (4096, 8, 8), 2, 5),
    Work("nuclear, Gaussian", NUCLEAR, (4096, 4, 4), 4, 10),
    Work("nuclear, Gaussian", NUCLEAR, (65536, 3, 3), 4, 10),
    Work("nuclear, Gaussian", NUCLEAR, (65536, 2, 2), 10, 30),
    Work("Frobenius, Gaussian", "fro", (4096, 4096), 1 / 1.5, 1),
]
OURS = {SPECTRAL: jn.Schatten(inf), NUCLEAR: jn.Schatten(1), "fro": jn.Entrywise(2)}


def matrices(work: Work, seed: int) -> np.ndarray:
    """Gaussian, or with ``s_2 = (1 - gap) s_1`` and the other values uniform below."""
    x = np.random.default_rng(seed).standard_normal(work.shape).astype(np.float32)
    if work.gap is None:
        return x
    n = min(work.shape)
    s = np.concatenate([[1, 1 - work.gap], np.linspace(0.99, 0.01, n - 2)])
    u, v = (np.linalg.qr(y)[0] for y in (x, x.T[:, ::-1]))
    return ((u * s.astype(np.float32)) @ v.T).astype(np.float32)


def exact(work: Work, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values and gradients by LAPACK in double precision."""
    a = x.astype(np.float64)
    if work.ord == "fro":
        value = np.linalg.norm(a, axis=(-2, -1))
        return value, a / value[..., None, None]
    u, s, vh = np.linalg.svd(a, full_matrices=False)
    if work.ord == SPECTRAL:
        return s[..., 0], u[..., :1] * vh[..., :1, :]
    return s.sum(-1), u @ vh


def errors(work: Work, run: Callable, x: np.ndarray) -> tuple[float, float]:
    """The largest relative error of value and gradient over a batch."""
    value, g = map(np.asarray, run(jnp.asarray(x)))
    reference, h = exact(work, x)
    size = np.linalg.norm(h, axis=(-2, -1))
    value_error = np.max(np.abs(value / reference - 1))
    return float(value_error), float(np.max(np.linalg.norm(g - h, axis=(-2, -1)) / size))


def interleaved(
    runs: list[Callable[[], Any] | None], rounds: int, block: float = 0.2, rest: float = 0.2
) -> list[list[float]]:
    """Seconds of each run in each round: the shortest of the calls that fill a block of so many seconds, three at
    least, after a rest, as LAPACK's threads go on to wait for work on the cores that the next run needs."""
    calls = [0 if run is None else max(3, round(block / min(seconds(run) for _ in range(2)))) for run in runs]

    def shortest(run: Callable[[], Any] | None, calls: int) -> float:
        time.sleep(rest)
        return min((seconds(run) for _ in range(calls)), default=inf) if run else inf

    return [list(t) for t in zip(*([*map(shortest, runs, calls)] for _ in range(rounds)), strict=True)]


def seconds(run: Callable[[], Any]) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    jax.block_until_ready(run())
    return time.perf_counter() - start


def spread(ratios: list[float]) -> str:
    """Median, smallest and largest."""
    return f"{statistics.median(ratios):.3g} ({min(ratios):.3g}-{max(ratios):.3g})"


def row(work: Work, rounds: int, seeds: int) -> str:
    """Measure one row and format it."""
    x = matrices(work, 0)
    a = jnp.asarray(x)
    norm = OURS[work.ord]

    def value_and_gradient(b: jax.Array) -> Any:
        """Values of the batch and the gradient of their sum."""
        value, pullback = jax.vjp(norm, b)
        return value, pullback(jnp.ones_like(value))[0]

    def theirs(b: jax.Array) -> Any:
        value, pullback = jax.vjp(partial(jnp.linalg.norm, ord=work.ord, axis=(-2, -1)), b)
        return value, pullback(jnp.ones_like(value))[0]

    ours, lapack = compiled(value_and_gradient, a), compiled(theirs, a)
    times = interleaved([lambda: ours.call(a), lambda: lapack.call(a), peers.torch_norm(work.ord, x)], rounds)
    ratios = [min(jnp_time, torch_time) / t for t, jnp_time, torch_time in zip(*times, strict=True)]
    found, reference = [], []
    for seed in range(seeds):
        y = matrices(work, seed)
        found.append(errors(work, ours.call, y))
        reference.append(errors(work, lapack.call, y)[1])
    (values, gradients), medians = zip(*found, strict=True), [statistics.median(t) for t in times]
    method = jn.explain(work.shape, "float32", norm).method
    return " | ".join(
        [
            f"| {work.name}",
            "x".join(map(str, work.shape)),
            method,
            f"{work.must:.3g} ({work.aim:.3g})",
            f"{spread(ratios)}{'' if statistics.median(ratios) >= work.must else ' MISSED'}",
            " / ".join("n/a" if t == inf else f"{1e3 * t:.3g}" for t in medians),
            f"{statistics.median(values):.0e} ({max(values):.0e})",
            f"{statistics.median(gradients):.0e} ({max(gradients):.0e})",
            f"{max(reference):.0e}",
            f"{ours.compile_seconds:.2f}",
            f"{(ours.temporary_bytes or 0) / x.nbytes:.2f} |",
        ]
    )


def passes(largest: int) -> Iterator[str]:
    """Products with a square Gaussian matrix until its leading triplet is found."""
    yield "| n | passes over A | peak temporaries of the gradient, multiples of A |"
    yield "|---|---|---|"
    n = 512
    while n <= largest:
        a = jax.random.normal(jax.random.key(n), (n, n), jnp.float32)
        taken = jax.jit(lambda a: krylov.leading_triplets(a, 1, magnitude(a)[2]).passes)(a)
        memory = compiled(jax.grad(jn.spectral_norm), a).temporary_bytes or 0
        yield f"| {n} | {int(taken)} | {memory / a.nbytes:.2f} |"
        n *= 2


def truncated(rounds: int, shape: tuple[int, int] = (20000, 2000), k: int = 16) -> Iterator[str]:
    """The k leading singular values of a decaying matrix, beside iterative peers at no larger an error."""
    rng = np.random.default_rng(0)
    decay = 1 / np.arange(1, shape[1] + 1)
    x = (rng.standard_normal(shape) * decay / np.sqrt(shape[0])).astype(np.float32)
    a, wide = jnp.asarray(x), x.astype(np.float64)
    reference = np.sqrt(np.linalg.eigvalsh(wide.T @ wide)[::-1][:k])
    ours = jax.jit(lambda a: jn.truncated_svd(a, k).s)
    runs = {"jaxnorms.truncated_svd": lambda: np.asarray(ours(a))}
    runs["jaxnorms.singular_values(a, k)"] = lambda: np.asarray(jn.singular_values(a, k))
    runs["scipy svds"] = peers.scipy_svds(x, k)
    for n_iter in (2, 4, 7):
        runs[f"sklearn randomized_svd, n_iter={n_iter}"] = peers.sklearn_randomized(x, k, n_iter)
    for steps in (32, 48, 64):
        runs[f"matfree svd_partial, {steps} steps"] = peers.matfree_partial(a, k, steps)
    times = interleaved(list(runs.values()), rounds)
    yield f"| {shape[0]}x{shape[1]}, k = {k} | time over ours | ms | worst relative error of s |"
    yield "|---|---|---|---|"
    for (name, run), t in zip(runs.items(), times, strict=True):
        if run is None:
            yield f"| {name} | not installed | | |"
            continue
        ratios = [theirs / ours for theirs, ours in zip(t, times[0], strict=True)]
        error = np.max(np.abs(np.asarray(run(), np.float64) / reference - 1))
        yield f"| {name} | {spread(ratios)} | {1e3 * statistics.median(t):.3g} | {error:.0e} |"


def optax_rows(rounds: int, n: int = 1024) -> Iterator[str]:
    """What optax's own iterations cost and how far they get."""
    x = np.random.default_rng(0).standard_normal((n, n)).astype(np.float32)
    a = jnp.asarray(x)
    u, s, vh = np.linalg.svd(x.astype(np.float64))
    spectral, q16 = jax.jit(jn.spectral_norm), jax.jit(lambda a: jn.polar(a, compute_dtype=jnp.bfloat16)[0])
    q = jax.jit(lambda a: jn.polar(a)[0])
    runs = {
        "spectral_norm, value": (lambda: spectral(a), s[0]),
        "optax.power_iteration of A^T A, 100 steps": (peers.optax_power_iteration(a, 100), s[0]),
        "polar, u": (lambda: q(a), u @ vh),
        "polar, u, compute_dtype=bfloat16": (lambda: q16(a), u @ vh),
        "optax Muon, Newton-Schulz": (peers.optax_newton_schulz(a), u @ vh),
    }
    times = interleaved([run for run, _ in runs.values()], rounds)
    yield f"| {n}x{n} Gaussian | ms | relative error |"
    yield "|---|---|---|"
    for (name, (run, reference)), t in zip(runs.items(), times, strict=True):
        if run is None:
            yield f"| {name} | not installed | |"
            continue
        error = np.linalg.norm(np.asarray(run(), np.float64) - reference) / np.linalg.norm(reference)
        yield f"| {name} | {1e3 * statistics.median(t):.3g} | {error:.0e} |"


def plot(sizes: tuple[int, ...], path: Path) -> None:
    """Milliseconds of value and gradient against n, ours beside jnp's."""
    pyplot = peers.installed("matplotlib.pyplot")
    if pyplot is None:
        print("matplotlib is not installed: no plot", file=sys.stderr)
        return
    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.6), sharey=True, layout="constrained")
    for ax, ord, title in zip(axes, (SPECTRAL, NUCLEAR), ("spectral norm", "nuclear norm"), strict=True):
        lines: dict[str, list[float]] = {"jaxnorms": [], "jnp.linalg.norm": []}
        for n in sizes:
            a = jax.random.normal(jax.random.key(n), (n, n), jnp.float32)
            ours, theirs = jax.jit(peers.first(OURS[ord])), jax.jit(peers.jnp_norm(ord))
            times = interleaved([partial(ours, a), partial(theirs, a)], 3)
            for line, t in zip(lines.values(), times, strict=True):
                line.append(1e3 * min(t))
        for (label, line), style in zip(lines.items(), ("o-", "s--"), strict=True):
            ax.loglog(sizes, line, style, label=label)
        ax.set(xlabel="n", title=f"{title}, value and gradient", xticks=sizes, xticklabels=sizes)
        ax.grid(alpha=0.3)
    axes[0].set_ylabel("milliseconds, n x n Gaussian, float32")
    axes[0].legend()
    figure.suptitle(machine(), fontsize=9)
    figure.savefig(path, dpi=130)


def main() -> None:
    """Measure the rows asked for, print the tables and save them if they are whole."""
    parser = argparse.ArgumentParser(description="Time jaxnorms beside its peers at scale.")
    parser.add_argument("--match", default="", help="only norms whose name and shape contain these words")
    parser.add_argument("--rounds", type=int, default=9, help="interleaved rounds per row")
    parser.add_argument("--seeds", type=int, default=5, help="seeds of the accuracy columns")
    parser.add_argument("--largest", type=int, default=8192, help="largest n of the passes and the plot")
    args = parser.parse_args()
    names = ("jax", "jaxlib", "torch", "scipy", "sklearn", "matfree", "optax")
    head = f"# Scale\n\nOn {machine()}; {', '.join(map(peers.version, names))}."
    lines = [HEADER]
    for work in ROWS:
        if all(word in f"{work.name} {'x'.join(map(str, work.shape))}" for word in args.match.split()):
            lines.append(row(work, args.rounds, args.seeds))
            print(lines[-1], file=sys.stderr, flush=True)
    sections = [head, "\n".join(lines), NOTE.format(rounds=args.rounds, seeds=args.seeds)]
    if args.match:
        print("\n\n".join(sections))
        return
    RESULTS.mkdir(exist_ok=True)
    for section in (truncated(args.rounds), optax_rows(args.rounds), passes(args.largest)):
        sections.append("\n".join(section))
        print(sections[-1], file=sys.stderr, flush=True)
    plot(tuple(2**i for i in range(5, (args.largest // 2).bit_length())), RESULTS / "scale.png")
    sections += ["![Cost against n](scale.png)", TRIED]
    (RESULTS / "scale.md").write_text("\n\n".join(sections) + "\n")
    print("\n\n".join(sections))


if __name__ == "__main__":
    main()
