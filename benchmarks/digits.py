"""A small network on scikit-learn's digits by Adam, Muon and the oracles of jaxnorms, over one grid of learning rates.

    OPENBLAS_NUM_THREADS=1 python benchmarks/digits.py [--steps N] [--seeds N] [--match WORDS]

prints a Markdown table and saves it, with a plot of loss and accuracy against the learning rate, in
``benchmarks/results``. Nothing is saved if ``--match`` selects only some of the optimisers. On matrices as small as
these the threads of LAPACK wait for one another.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import peers
from timing import machine
from training import cross_entropy, initial, logits

import jaxnorms as jn
from jaxnorms import transforms

optax: Any = peers.installed("optax")
RESULTS = Path(__file__).parent / "results"
NOTE = """\
A 64-128-128-10 relu network, batches of {batch} with replacement, {steps} steps, learning rates falling linearly to 0;
{train} images for training, {validation} for validation, {test} for testing, split anew for each of {seeds} seeds. The
learning rate of each optimiser is that of the least mean validation loss on one grid, 10^-3.5, 10^-3, ..., 1, which is
the same for all. Mean, with smallest and largest, of the seeds. Loss: over all training images after the last step.
scale_by_lmo moves biases by their normalised gradients, optax's Muon by Adam with the same learning rate; both scale
the step of an m x n matrix by max(1, n / m)^(1/2)."""
RATES = tuple(10 ** (k / 2) for k in range(-7, 1))
BATCH, TRAIN, VALIDATION = 128, 1100, 300
WIDTHS = (64, 128, 128, 10)

Optimiser = Callable[[Any], Any]


class Outcome(NamedTuple):
    """Of one run: losses after the last step and the share of the test images recognised."""

    loss: Any
    validation: Any
    accuracy: Any


def width(m: int, n: int) -> float:
    """The radius by which Muon's steps are the same for all widths."""
    return max(1, n / m) ** 0.5


def oracle(ord: Any, **how: Any) -> Optimiser:
    """The oracle of one norm, and steps of the learning rate."""
    return lambda rate: optax.chain(transforms.scale_by_lmo(ord, **how), optax.scale_by_learning_rate(rate))


def optimisers() -> dict[str, Optimiser]:
    """Functions of the schedule of learning rates."""
    ours = {
        'scale_by_lmo("spectral")': oracle("spectral", radius=width),
        'scale_by_lmo("spectral", compute_dtype=float32)': oracle("spectral", radius=width, compute_dtype=jnp.float32),
        "scale_by_lmo(Entrywise(inf))": oracle(jn.Entrywise(float("inf"))),
    }
    return {"Adam": optax.adam, **ours, "optax.contrib.muon": optax.contrib.muon}


def trainer(optimiser: Optimiser, images: jax.Array, labels: jax.Array, steps: int) -> Callable[..., Outcome]:
    """The compiled outcomes of one learning rate, for all seeds."""

    def one(rate: jax.Array, key: jax.Array) -> Outcome:
        mixing, start, key = jax.random.split(key, 3)
        order = jax.random.permutation(mixing, len(labels))
        x, y = images[order], labels[order]
        optimise = optimiser(lambda count: rate * (1 - count / steps))
        params = initial(start, WIDTHS)

        def step(carry: Any, key: jax.Array) -> tuple[Any, None]:
            params, state = carry
            batch = jax.random.randint(key, (BATCH,), 0, TRAIN)
            gradient = jax.grad(cross_entropy)(params, x[batch], y[batch])
            changes, state = optimise.update(gradient, state, params)
            return (optax.apply_updates(params, changes), state), None

        (params, _), _ = jax.lax.scan(step, (params, optimise.init(params)), jax.random.split(key, steps))
        train, validation, test = slice(TRAIN), slice(TRAIN, TRAIN + VALIDATION), slice(TRAIN + VALIDATION, None)
        found = jnp.argmax(logits(params, x[test]), axis=1) == y[test]
        losses = [cross_entropy(params, x[part], y[part]) for part in (train, validation)]
        return Outcome(losses[0], losses[1], jnp.mean(found))

    return jax.jit(lambda rate, keys: jax.lax.map(lambda key: one(rate, key), keys))


def plot(found: dict[str, Outcome], path: Path) -> None:
    """Mean, smallest and largest of the seeds against the learning rate."""
    pyplot = peers.installed("matplotlib.pyplot")
    if pyplot is None:
        print("matplotlib is not installed: no plot", file=sys.stderr)
        return
    figure, axes = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for style, (name, outcome) in zip(("s--", "o-", "x:", "^-.", "d--"), found.items(), strict=False):
        for ax, values in zip(axes, (outcome.loss, 1 - outcome.accuracy), strict=True):
            middle = np.mean(values, axis=1)
            (line,) = ax.loglog(RATES, middle, style, label=name, markersize=5)
            ax.fill_between(RATES, np.min(values, axis=1), np.max(values, axis=1), color=line.get_color(), alpha=0.15)
    for ax, title in zip(
        axes, ("training loss after the last step", "share of test images not recognised"), strict=True
    ):
        ax.set(xlabel="learning rate", title=title)
        ax.grid(alpha=0.3)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8)
    figure.savefig(path, dpi=130)


def main() -> None:
    """Train, print and save."""
    parser = argparse.ArgumentParser(description="Compare optimisers on scikit-learn's digits.")
    parser.add_argument("--steps", type=int, default=300, help="steps of each run")
    parser.add_argument("--seeds", type=int, default=5, help="runs of each learning rate")
    parser.add_argument("--match", default="", help="only optimisers whose name contains these words")
    args = parser.parse_args()
    datasets = peers.installed("sklearn.datasets")
    if optax is None or datasets is None:
        sys.exit("digits.py needs optax and scikit-learn")
    data = datasets.load_digits()
    images, labels = jnp.asarray(data.data, jnp.float32) / 16, jnp.asarray(data.target)
    keys = jax.random.split(jax.random.key(0), args.seeds)
    lines = ["| optimiser | learning rate | training loss | validation loss | test accuracy |", "|---|---|---|---|---|"]
    found: dict[str, Outcome] = {}
    for name, optimiser in optimisers().items():
        if not all(word in name for word in args.match.split()):
            continue
        run, outcomes = trainer(optimiser, images, labels, args.steps), []
        for rate in RATES:
            outcomes.append(jax.tree.map(np.asarray, run(jnp.float32(rate), keys)))
            means = ", ".join(f"{field} {np.mean(x):.3g}" for field, x in outcomes[-1]._asdict().items())
            print(f"{name}, {rate:.3g}: {means}", file=sys.stderr, flush=True)
        found[name] = Outcome(*(np.stack(x) for x in zip(*outcomes, strict=True)))
        means = np.mean(found[name].validation, axis=1)
        best = int(np.argmin(np.where(np.isfinite(means), means, np.inf)))
        cells = [f"{np.mean(x[best]):.3g} ({np.min(x[best]):.3g}-{np.max(x[best]):.3g})" for x in found[name]]
        lines.append(f"| {name} | {RATES[best]:.3g} | {' | '.join(cells)} |")
        print(lines[-1], file=sys.stderr, flush=True)
    names = ", ".join(map(peers.version, ("jax", "jaxlib", "optax", "sklearn")))
    sizes = {"batch": BATCH, "train": TRAIN, "validation": VALIDATION, "test": len(labels) - TRAIN - VALIDATION}
    sections = [f"# Digits\n\nOn {machine()}; {names}.", "\n".join(lines), NOTE.format(**sizes, **vars(args))]
    if args.match:
        print("\n\n".join(sections))
        return
    RESULTS.mkdir(exist_ok=True)
    plot(found, RESULTS / "digits.png")
    sections.append("![Loss and errors against the learning rate](digits.png)")
    (RESULTS / "digits.md").write_text("\n\n".join(sections) + "\n")


if __name__ == "__main__":
    main()
