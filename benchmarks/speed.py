"""Speed of one SVD: jaxnorms with ``method="svd"`` beside jnp.linalg, as ratios of paired runs in one process.

    python benchmarks/speed.py [--match WORDS] [--pairs N]

prints a Markdown table and saves it in ``benchmarks/results/speed.md``. A ratio above 1 means that
jaxnorms is slower. Nothing is saved if ``--match`` selects only some of the rows. About five
minutes on two cores.
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jaxlib
from timing import PAIRS, Program, Ratio, compiled, machine, paired

import jaxnorms as jn

RESULT = Path(__file__).parent / "results" / "speed.md"
Function = Callable[[jax.Array], jax.Array]

HEADER = """\
| work | peer | shape | time, ratio to the peer's | ms | compile, s | temporaries | SVDs |
|---|---|---|---|---|---|---|---|"""
NOTE = """\
Ratio of jaxnorms to the peer, median (smallest-largest) of {pairs} paired, interleaved runs. The
other columns give jaxnorms / the peer: milliseconds (median), seconds to trace and compile,
temporary memory in multiples of the input's bytes, and SVD calls in the compiled program ("1+1": one
of them in a loop that may not run). Hv is a Hessian-vector product, `jvp(grad(f))`. jnp has no
Schatten or Ky Fan norm: its nuclear norm stands beside them."""


class Work(NamedTuple):
    """One row: two functions of a Gaussian array of this shape."""

    name: str
    peer: str
    shape: tuple[int, ...]
    ours: Callable
    theirs: Callable
    jit: bool = True


def peer_norm(ord: str | int) -> Function:
    """``jnp.linalg.norm`` of the matrices in the last two axes."""
    return partial(jnp.linalg.norm, ord=ord, axis=(-2, -1))


def first(f: Function) -> Callable:
    """Value and gradient of the sum of ``f`` over the batch."""
    return jax.value_and_grad(lambda x: jnp.sum(f(x)))


def second(f: Function) -> Callable:
    """The Hessian times a vector: here the matrix with its axes reversed."""
    gradient = jax.grad(lambda x: jnp.sum(f(x)))
    return lambda x: jax.jvp(gradient, (x,), (x[..., ::-1, ::-1],))[1]


def rows() -> Iterator[Work]:
    """All rows, the cheap ones first."""
    reference: Any = {"method": "svd"}
    ky_fan = partial(jn.ky_fan_norm, k=4, **reference)
    schatten = partial(jn.schatten_norm, p=4, **reference)
    spectral, nuclear = partial(jn.spectral_norm, **reference), partial(jn.nuclear_norm, **reference)
    both = [
        ("spectral", "norm(x, 2)", spectral, peer_norm(2)),
        ("nuclear", "norm(x, 'nuc')", nuclear, peer_norm("nuc")),
    ]
    for n in (64, 512, 1024):
        for name, peer, ours, theirs in both:
            yield Work(name, peer, (n, n), ours, theirs)
            yield Work(f"{name}, value and gradient", peer, (n, n), first(ours), first(theirs))
            yield Work(f"{name}, Hv", peer, (n, n), second(ours), second(theirs))
        for name, ours in (("Schatten 4", schatten), ("Ky Fan 4", ky_fan)):
            peer = "norm(x, 'nuc')"
            yield Work(f"{name}, value and gradient", peer, (n, n), first(ours), first(peer_norm("nuc")))
    for name, peer, ours, theirs in both:
        yield Work(f"{name}, value and gradient, no jit", peer, (512, 512), first(ours), first(theirs), jit=False)
    for n in (2, 16):
        for name, peer, ours, theirs in both:
            ours, theirs = jax.vmap(ours), jax.vmap(theirs)
            yield Work(f"{name}, vmap", peer, (1024, n, n), ours, theirs)
            yield Work(f"{name}, vmap, value and gradient", peer, (1024, n, n), first(ours), first(theirs))
    frobenius = first(jn.frobenius_norm), first(jnp.linalg.norm)
    yield Work("Frobenius, value and gradient", "norm(x)", (4096, 4096), *frobenius)


def measure(work: Work, pairs: int) -> str:
    """Run one row and format it."""
    x = jax.random.normal(jax.random.key(0), work.shape, jnp.float32)
    prepare = (lambda f: compiled(f, x)) if work.jit else Program
    programs = prepare(work.ours), prepare(work.theirs)
    return format_row(work, programs, paired(*(p.call for p in programs), x, pairs=pairs), x.nbytes)


def format_row(work: Work, programs: tuple[Program, Program], ratio: Ratio, size: int) -> str:
    """One line of the table."""

    def beside(values: list, form: Callable[[Any], str]) -> str:
        return " / ".join("n/a" if v is None else form(v) for v in values)

    return " | ".join(
        [
            f"| {work.name}",
            f"`{work.peer}`",
            "x".join(map(str, work.shape)),
            f"{ratio.median:.2f} ({ratio.smallest:.2f}-{ratio.largest:.2f})",
            beside([ratio.first, ratio.second], lambda t: f"{1e3 * t:.3g}"),
            beside([p.compile_seconds for p in programs], "{:.2f}".format),
            beside([p.temporary_bytes for p in programs], lambda b: f"{b / size:.1f}"),
            beside([p.svd_calls for p in programs], lambda n: f"{n[0]}+{n[1]}" if n[1] else str(n[0])) + " |",
        ]
    )


def main() -> None:
    """Measure the rows asked for, print the table and save it if it is whole."""
    parser = argparse.ArgumentParser(description="Time jaxnorms beside jnp.linalg.")
    parser.add_argument("--match", default="", help="only rows whose name and shape contain these words")
    parser.add_argument("--pairs", type=int, default=PAIRS, help="paired runs per row")
    args = parser.parse_args()
    lines = []
    for work in rows():
        label = f"{work.name} {'x'.join(map(str, work.shape))}"
        if all(word in label for word in args.match.split()):
            lines.append(measure(work, args.pairs))
            print(lines[-1], file=sys.stderr, flush=True)
    versions = f"float32 on {machine()}; jaxnorms beside JAX {jax.__version__}, jaxlib {jaxlib.__version__}."
    table = "\n".join([versions, "", HEADER, *lines, "", NOTE.format(pairs=args.pairs)]) + "\n"
    print(table, end="")
    if not args.match:
        RESULT.parent.mkdir(exist_ok=True)
        RESULT.write_text(table)


if __name__ == "__main__":
    main()
