"""Steps of a training with norms in them, beside the plain step and the same in jnp, as ratios of interleaved runs.

    python benchmarks/training.py [--rounds N] [--trained STEPS] [--size N] [--match WORD]

prints Markdown tables and saves them in ``benchmarks/results``. Nothing is saved if ``--match`` selects only some of
the sections ("steps", "clipping", "oracles", "updates").
"""

import argparse
import statistics
import sys
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import peers
from geometry import distance
from scale import interleaved, spread
from timing import machine

import jaxnorms as jn
from jaxnorms import transforms

RESULT = Path(__file__).parent / "results" / "training.md"
NOTES = {
    "steps": """\
A 784-512-512-10 relu network in float32, batch of 256, softmax cross entropy, one step of SGD; medians, with smallest
and largest, of {rounds} rounds, in each of which every step is taken some times in a row and the shortest counts. "At
the start": He initialisation; "after {trained} steps" of the same training. The inputs are ten patterns in [0, 1] with
noise.. "must": what the row is
held to.""",
    "clipping": """\
float32, n = {size}, to half of the spectral norm; medians, with smallest and largest, of {rounds} rounds.
"decaying": 32 gradients of one layer, each an outer product, with sizes 1/k, plus noise of 1e-3 of the largest.
Error: in Frobenius norm, relative to the image, against LAPACK in float64.""",
    "oracles": """\
The updates of one matrix by scale_by_lmo and by optax.contrib.scale_by_muon with Nesterov's momentum: their cosine
<X, Y> / (||X|| ||Y||), and that of each with the U V^H of the gradient by LAPACK in float64 (of the singular values
above 1e-6 of the largest). Muon's five steps leave singular values between 0.7 and 1.2, and small ones small, where
the exact oracle makes all of them 1. Digits: the gradients of a relu network at He initialisation.""",
    "updates": """\
One update of optax for one matrix in float32, momentum included; medians, with smallest and largest, of {rounds}
interleaved rounds. "Orthogonal to": how far the singular values are from 1.""",
}

Params = list[dict[str, jax.Array]]
States = list[jn.SpectralNormState]
Loss = Callable[[Params, States, jax.Array, jax.Array], tuple[jax.Array, States]]
WIDTHS, BATCH, RATE, WEIGHT = (784, 512, 512, 10), 256, 0.05, 1e-3


def initial(key: jax.Array, widths: tuple[int, ...] = WIDTHS) -> Params:
    """Weights of variance 2 / rows (He et al. 2015), no biases yet."""
    keys = jax.random.split(key, len(widths) - 1)
    shapes = list(pairwise(widths))
    return [
        {"kernel": jax.random.normal(k, shape) * (2 / shape[0]) ** 0.5, "bias": jnp.zeros(shape[1])}
        for k, shape in zip(keys, shapes, strict=True)
    ]


def batches(key: jax.Array) -> Iterator[tuple[jax.Array, jax.Array]]:
    """Ten patterns of 784 numbers in [0, 1] with noise, and which of the ten they are."""
    first, key = jax.random.split(key)
    patterns = jax.random.uniform(first, (10, WIDTHS[0]))
    while True:
        which, noise, key = jax.random.split(key, 3)
        y = jax.random.randint(which, (BATCH,), 0, 10)
        yield jnp.clip(patterns[y] + jax.random.normal(noise, (BATCH, WIDTHS[0])), 0, 1), y


def logits(params: Params, x: jax.Array) -> jax.Array:
    """Of the relu network."""
    for layer in params[:-1]:
        x = jax.nn.relu(x @ layer["kernel"] + layer["bias"][None])
    return x @ params[-1]["kernel"] + params[-1]["bias"][None]


def cross_entropy(params: Params, x: jax.Array, y: jax.Array) -> jax.Array:
    """The mean of a batch."""
    return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(logits(params, x)), y[:, None], axis=1))


def plain(params: Params, states: States, x: jax.Array, y: jax.Array) -> tuple[jax.Array, States]:
    """The loss alone."""
    return cross_entropy(params, x, y), states


Divide = Callable[[jax.Array, jn.SpectralNormState], tuple[jax.Array, jn.SpectralNormState]]


def normalised(divide: Divide) -> Loss:
    """The loss of the network with every kernel divided by its spectral norm."""

    def loss(params: Params, states: States, x: jax.Array, y: jax.Array) -> tuple[jax.Array, States]:
        kernels, new = zip(*(divide(p["kernel"], s) for p, s in zip(params, states, strict=True)), strict=True)
        layers = [{**p, "kernel": w} for p, w in zip(params, kernels, strict=True)]
        return cross_entropy(layers, x, y), list(new)

    return loss


def by_hand(w: jax.Array, state: jn.SpectralNormState) -> tuple[jax.Array, jn.SpectralNormState]:
    """One step of power iteration as it is usually written, which divides by zero and overflows."""
    u = state.u[:, 0]
    v = jax.lax.stop_gradient(w).T @ u
    v = v / jnp.linalg.norm(v)
    u = jax.lax.stop_gradient(w) @ v
    u = u / jnp.linalg.norm(u)
    return w / (u @ (w @ v)), state._replace(u=u[:, None], v=v[:, None])


def penalised(penalty: Callable[[Params], jax.Array]) -> Loss:
    """The loss and a penalty."""
    return lambda params, states, x, y: (cross_entropy(params, x, y) + penalty(params), states)


def jnp_penalty(params: Params, ord: Any) -> jax.Array:
    """The penalty as it is written down."""
    return WEIGHT * sum((jnp.linalg.norm(p["kernel"], ord) for p in params), jnp.zeros(()))


# Ours; what it must reach, as a multiple of the plain step or of the speed of the last peer; the peers.
STEPS: dict[str, tuple[Loss, str, dict[str, Loss]]] = {
    "spectral normalisation, state carried": (
        normalised(jn.spectral_normalize),
        "plain * 1.15",
        {
            "one power step by hand": normalised(by_hand),
            "jnp.linalg.norm(w, 2)": normalised(lambda w, s: (w / jnp.linalg.norm(w, 2), s)),
        },
    ),
    "spectral penalty, exact": (
        penalised(lambda params: jn.penalty(params, "spectral", WEIGHT)),
        "",
        {"jnp.linalg.norm(w, 2)": penalised(partial(jnp_penalty, ord=2))},
    ),
    "nuclear penalty, exact": (
        penalised(lambda params: jn.penalty(params, "nuc", WEIGHT)),
        "peer / 1.3",
        {'jnp.linalg.norm(w, "nuc")': penalised(partial(jnp_penalty, ord="nuc"))},
    ),
    "nuclear penalty of the first layer": (
        penalised(lambda params: jn.penalty(params[:1], "nuc", WEIGHT)),
        "peer / 1.3",
        {'jnp.linalg.norm(w, "nuc")': penalised(lambda params: jnp_penalty(params[:1], "nuc"))},
    ),
}


def step(loss: Loss) -> Callable[[Params, States, jax.Array, jax.Array], tuple[Params, States]]:
    """One compiled step of SGD."""

    def run(params: Params, states: States, x: jax.Array, y: jax.Array) -> tuple[Params, States]:
        gradient, states = jax.grad(loss, has_aux=True)(params, states, x, y)
        return jax.tree.map(lambda w, g: w - RATE * g, params, gradient), states

    return jax.jit(run)


def over(times: list[float], plain: list[float]) -> list[float]:
    """Ratios, round by round."""
    return [t / p for t, p in zip(times, plain, strict=True)]


def steps(rounds: int, trained: int) -> Iterator[str]:
    """Rows of the time of a step over that of the plain one, at the start and later."""
    start, data = initial(jax.random.key(0)), batches(jax.random.key(1))
    keys = jax.random.split(jax.random.key(2), len(start))
    cold = [jn.init_spectral_norm(k, p["kernel"]) for k, p in zip(keys, start, strict=True)]
    base = step(plain)
    yield "| step with | at | time over the plain step | must | ms | plain, ms | peer | its time over the plain step |"
    yield "|---|---|---|---|---|---|---|---|"
    for name, (ours, must, others) in STEPS.items():
        run, theirs = step(ours), {peer: step(loss) for peer, loss in others.items()}
        params, states = start, cold
        for when in ("start", f"{trained} steps"):
            x, y = next(data)
            args = (params, states, x, y)
            times = interleaved([partial(f, *args) for f in (base, run, *theirs.values())], rounds)
            ratios = [over(t, times[0]) for t in times[1:]]
            if "plain" in must:  # a few per cent are told from the machine's moods by turns that are short
                pairs = interleaved([partial(f, *args) for f in (base, run)], 10 * rounds, block=0.01, rest=0)
                ratios[0] = over(pairs[1], pairs[0])
            most = {"": float("inf"), "plain * 1.15": 1.15}.get(must, statistics.median(ratios[-1]) / 1.3)
            missed = " MISSED" if statistics.median(ratios[0]) > most else ""
            cells = [name, when, spread(ratios[0]) + missed, must and f"<= {most:.3g}"]
            cells += [f"{1e3 * statistics.median(t):.3g}" for t in (times[1], times[0])]
            for peer, ratio in zip(theirs, ratios[1:], strict=True):
                yield f"| {' | '.join(cells)} | {peer} | {spread(ratio)} |"
                cells = [""] * len(cells)
            for x, y in (next(data) for _ in range(trained if when == "start" else 0)):
                params, states = run(params, states, x, y)


def decaying(rng: np.random.Generator, n: int) -> np.ndarray:
    """A sum of 32 outer products of sizes 1/k and noise of a thousandth of the largest."""
    u, v = rng.standard_normal((2, n, 32))
    noise = rng.standard_normal((n, n)) * n**0.5 / 2
    return ((u / np.arange(1, 33)) @ v.T + 1e-3 * noise).astype(np.float32)


def by_svd(a: jax.Array, c: jax.Array) -> jax.Array:
    """Rescaling by the first of jnp's singular values, which is all that is asked of them."""
    s = jnp.linalg.svd(a, compute_uv=False)
    return a * jnp.minimum(1, c / s[0])


def clipped_svd(a: jax.Array, c: jax.Array) -> jax.Array:
    """The projection as it is written down."""
    u, s, vh = jnp.linalg.svd(a, full_matrices=False)
    return (u * jnp.minimum(s, c)[None, :]) @ vh


def clipping(rounds: int, n: int) -> Iterator[str]:
    """Rows of one gradient clipped by its spectral norm."""
    rng = np.random.default_rng(0)
    gradients = {"Gaussian": rng.standard_normal((n, n)).astype(np.float32), "decaying": decaying(rng, n)}
    ways: list[tuple[str, Any, float | None, str, Any]] = [
        ("scaling", jn.clip_by_norm, 20, "jnp's singular values", by_svd),
        ("projection", partial(jn.clip_by_norm, by="projection"), None, "jnp's SVD", clipped_svd),
    ]
    yield "| gradient | by | peer | faster than peer | must | ms | peer, ms | error | of peer |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for name, x in gradients.items():
        u, s, vh = np.linalg.svd(x.astype(np.float64), full_matrices=False)
        a, c = jnp.asarray(x), jnp.float32(s[0] / 2)
        for by, clip, must, peer, f in ways:
            runs = [partial(jax.jit(partial(clip, ord="spectral")), a, c), partial(jax.jit(f), a, c)]
            times = interleaved([*runs], rounds)
            ratios = [slow / fast for fast, slow in zip(*times, strict=True)]
            image = np.float64(c) / s[0] * x if by == "scaling" else (u * np.minimum(s, np.float64(c))) @ vh
            errors = [np.linalg.norm(np.asarray(run()) - image) / np.linalg.norm(image) for run in runs]
            missed = " MISSED" if must and statistics.median(ratios) < must else ""
            cells = [name, by, peer, spread(ratios) + missed, str(must or "")]
            cells += [f"{1e3 * statistics.median(t):.3g}" for t in times] + [f"{e:.0e}" for e in errors]
            yield f"| {' | '.join(cells)} |"


def cosine(x: Any, y: Any) -> float:
    """Of two matrices as vectors, in double precision."""
    x, y = (np.asarray(z).astype(np.float64) for z in (x, y))
    sizes = np.linalg.norm(x) * np.linalg.norm(y)
    return float(np.sum(x * y) / sizes) if sizes > 0 else float("nan")


def polar_factor(a: Any) -> np.ndarray:
    """``U V^H`` of the singular values that a float32 matrix determines."""
    u, s, vh = np.linalg.svd(np.asarray(a).astype(np.float64), full_matrices=False)
    return u * (s > 1e-6 * s[0]) @ vh


def digits_gradients() -> dict[str, jax.Array]:
    """Those of the three layers of a relu network for a batch of scikit-learn's digits, if it is installed."""
    datasets = peers.installed("sklearn.datasets")
    if datasets is None:
        return {}
    data = datasets.load_digits()
    x, y = jnp.asarray(data.data[:BATCH], jnp.float32) / 16, jnp.asarray(data.target[:BATCH])
    gradient = jax.jit(jax.grad(cross_entropy))(initial(jax.random.key(0), (64, 128, 128, 10)), x, y)
    return {f"digits, {'x'.join(map(str, g['kernel'].shape))}": g["kernel"] for g in gradient}


def muon() -> Any:
    """optax's, or None."""
    contrib = peers.installed("optax.contrib")
    return None if contrib is None else getattr(contrib, "scale_by_muon", lambda: None)()


def descent(g: Any, x: Any) -> float:
    """``Re<G, X> / (||G||_* ||X||_2)``: 1 for the steepest descent in the spectral norm."""
    g, x = (np.asarray(z).astype(np.float64) for z in (g, x))
    most = np.linalg.norm(g / np.max(np.abs(g)), "nuc") * np.linalg.norm(x, 2) if np.all(np.isfinite(x)) else 0
    return float(np.sum(g / np.max(np.abs(g)) * x) / most) if most > 0 else float("nan")


def first_update(transformation: Any, g: jax.Array) -> jax.Array:
    """What it makes of the first gradient."""
    return jax.jit(lambda g: transformation.update(g, transformation.init(g))[0])(g)


def oracles() -> Iterator[str]:
    """Rows of the directions of scale_by_lmo and of Muon."""
    gradients = {"Gaussian, 512x256": jax.random.normal(jax.random.key(0), (512, 256)), **digits_gradients()}
    scales = {"": (1.0, jnp.float32), " * 1e-12": (1e-12, jnp.float32), " * 1e19": (1e19, jnp.float32)}
    scales[", bfloat16"] = (1.0, jnp.bfloat16)
    ours, theirs = transforms.scale_by_lmo(jn.Schatten(float("inf"))), muon()
    head = "| gradient | rank | cosine of both, must be >= 0.98 | scale_by_lmo with U V^H | Muon with U V^H"
    yield f"{head} | descent of scale_by_lmo | of Muon |"
    yield "|---|---|---|---|---|---|---|"
    for name, gradient in gradients.items():
        for words, (factor, dtype) in scales.items():
            g = (factor * gradient / jnp.max(jnp.abs(gradient))).astype(dtype)
            x, y = (None if f is None else first_update(f, g) for f in (ours, theirs))
            q = polar_factor(g)
            y = np.full(g.shape, np.nan) if y is None else y
            found = [cosine(x, y), cosine(x, q), cosine(y, q), descent(g, x), descent(g, y)]
            missed = " MISSED" if not words and found[0] < 0.98 else ""
            cells = [f"{c:.3f}" for c in found]
            yield f"| {name}{words} | {round(np.sum(q**2))} | {cells[0]}{missed} | {' | '.join(cells[1:])} |"


def updates(rounds: int, n: int) -> Iterator[str]:
    """Rows of the time of one update of a square matrix and a layer's."""
    ways: dict[str, Any] = {
        "scale_by_lmo": transforms.scale_by_lmo(),
        "scale_by_lmo, tol=1e-2": transforms.scale_by_lmo(tol=1e-2),
        "scale_by_lmo, compute_dtype=float32, tol=1e-2": transforms.scale_by_lmo(compute_dtype=jnp.float32, tol=1e-2),
        "scale_by_lmo, compute_dtype=bfloat16, tol=1e-2": transforms.scale_by_lmo(compute_dtype=jnp.bfloat16, tol=1e-2),
    }
    if (theirs := muon()) is not None:
        ways["optax.contrib.scale_by_muon"] = theirs
    yield "| gradient | update by | time over that of scale_by_lmo | ms | orthogonal to |"
    yield "|---|---|---|---|---|"
    for shape in ((n, n), (WIDTHS[0], WIDTHS[1])):
        g = jax.random.normal(jax.random.key(0), shape)
        runs = [partial(jax.jit(f.update), g, f.init(g)) for f in ways.values()]
        times = interleaved([*runs], rounds)
        for name, run, t in zip(ways, runs, times, strict=True):
            ratios = [a / b for a, b in zip(t, times[0], strict=True)]
            cells = [name, spread(ratios), f"{1e3 * statistics.median(t):.3g}", f"{distance(run()[0]):.0e}"]
            yield f"| {'x'.join(map(str, shape))} | {' | '.join(cells)} |"


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description="Time steps of a training with norms beside their peers.")
    parser.add_argument("--rounds", type=int, default=9, help="interleaved rounds per row")
    parser.add_argument("--trained", type=int, default=200, help="steps of training before the second measurement")
    parser.add_argument("--size", type=int, default=1024, help="rows and columns of a single gradient")
    parser.add_argument("--match", default="", help="only the sections whose name has this word")
    args = parser.parse_args()
    tables = {
        "steps": steps(args.rounds, args.trained),
        "clipping": clipping(args.rounds, args.size),
        "oracles": oracles(),
        "updates": updates(args.rounds, args.size),
    }
    sections = [f"# Training\n\nOn {machine()}; {', '.join(map(peers.version, ('jax', 'jaxlib', 'optax')))}."]
    print(sections[0], file=sys.stderr, flush=True)
    for name, lines in tables.items():
        if args.match not in name:
            continue
        table = []
        for line in lines:
            table.append(line)
            print(line, file=sys.stderr, flush=True)
        sections += ["\n".join(table), NOTES[name].format(**vars(args))]
    if not args.match:
        RESULT.parent.mkdir(exist_ok=True)
        RESULT.write_text("\n\n".join(sections) + "\n")


if __name__ == "__main__":
    main()
