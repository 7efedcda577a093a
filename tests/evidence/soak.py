"""A long training run: ``python tests/evidence/soak.py [--steps N]``

One model, trained with every norm as a penalty in turn, and with what else of the package belongs into a step. After
each program has run once, nothing may be compiled any more, the number of live arrays and the resident memory may not
grow, and no number may be NaN. Weights begin at zero, where most norms have a kink, and return there again and again.
"""

import argparse
import collections
import contextlib
import gc
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxnorms as jn

sys.path += [str(Path(__file__).parent), str(Path(__file__).parents[1])]
from norm_cases import NORMS
from page import table, write

Params = dict[str, Any]
STEPS = 10_000
RETURN = 97  # steps after which all weights are zero again, each time for another penalty: coprime to their number
GROWTH = 4  # MiB, within which resident memory counts as the same
STATUS = Path("/proc/self/status")
COMPILED = "/jax/core/compile/backend_compile_duration"


class Soak(NamedTuple):
    """What a run did; pairs are after the first steps, ``warm``, and after all. Memory is in MiB."""

    steps: int
    warm: int
    penalties: int
    compiled: tuple[int, int]
    arrays: tuple[int, int]
    memory: tuple[float, float]
    not_finite: int  # steps
    met_at_zero: int  # penalties
    still_at_zero: int  # parameters, at the end

    @property
    def good(self) -> bool:
        same = self.compiled[0] == self.compiled[1] and self.arrays[0] == self.arrays[1]
        return same and self.memory[1] < self.memory[0] + GROWTH and not self.not_finite and not self.still_at_zero


# Penalties that are not one norm of each matrix.
OTHERS = {
    "lipschitz_bound": lambda params: jn.lipschitz_bound([params["first"], params["last"]]),
    "spectral_complexity": lambda params: jn.spectral_complexity([params["first"] + jnp.eye(12, 16), params["last"]]),
    "conv_spectral_norm": lambda params: jn.conv_spectral_norm(params["kernel"], (8, 8)),
    "factored_nuclear_norm": lambda params: jn.factored_nuclear_norm(params["b"], params["a"]),
    "attention_logit_bound": lambda params: jn.attention_logit_bound(*params["deep"]),
    "slogdet": lambda params: -jnp.sum(jn.slogdet(params["deep"] + 4 * jnp.eye(16)[None]).logabsdet),
    "cond": lambda params: jnp.sum(jn.cond(params["deep"] + 4 * jnp.eye(16)[None])),
    "stable_rank": lambda params: jn.stable_rank(params["first"] + jnp.eye(12, 16)),
    "moreau_envelope": lambda params: jn.moreau_envelope(params["first"], 0.5, "nuc"),
    "induced_norm_bounds": lambda params: jn.induced_norm_bounds(params["last"], 2, 1).upper,
}


PENALTIES = {name: partial(jn.penalty, ord=norm) for name, norm in NORMS.items()} | OTHERS


SHAPES = {"first": (12, 16), "deep": (2, 16, 16), "last": (16, 4), "kernel": (3, 3, 4, 4), "b": (16, 3), "a": (3, 16)}


def zeros() -> Params:
    return {name: jnp.zeros(shape, jnp.float32) for name, shape in SHAPES.items()}


def model(params: Params, x: jax.Array) -> jax.Array:
    """Residual layers, a pair of low rank and a convolution: weights of zero pass their inputs on."""
    h = x @ (params["first"] + jnp.eye(12, 16))
    for w in params["deep"]:
        h = h + jax.nn.relu(h @ w)
    h = h + h @ params["b"] @ params["a"]
    order = ("NHWC", "HWIO", "NHWC")
    image = h.reshape(-1, 2, 2, 4)
    image += jax.lax.conv_general_dilated(image, params["kernel"], (1, 1), "SAME", dimension_numbers=order)
    return image.reshape(h.shape) @ (params["last"] + jnp.eye(16, 4))


@partial(jax.jit, static_argnames="penalty", donate_argnums=0)
def step(
    params: Params, x: jax.Array, y: jax.Array, penalty: Callable[[Params], jax.Array]
) -> tuple[Params, jax.Array]:
    def loss(params: Params) -> jax.Array:
        return jnp.mean(jnp.square(model(params, x) - y)) + 1e-3 * penalty(params)

    value, g = jax.value_and_grad(loss)(params)
    g = jn.clip_by_global_norm(g, 1.0)
    return jax.tree.map(lambda w, g: w - 0.05 * g, params, g), value


def resident() -> float:
    """Resident memory of this process, in MiB; 0 where no file tells it."""
    if not STATUS.exists():
        return 0.0
    fields = dict(line.split(":", 1) for line in STATUS.read_text().splitlines())
    return int(fields["VmRSS"].split()[0]) / 1024


@contextlib.contextmanager
def counted() -> Iterator[collections.Counter[str]]:
    """How often each event of JAX has a duration, as of now."""
    found = collections.Counter()

    def count(event: str, _duration: float, **_: Any) -> None:
        found[event] += 1

    jax.monitoring.register_event_duration_secs_listener(count)
    try:
        yield found
    finally:
        jax.monitoring.unregister_event_duration_listener(count)


def run(steps: int, report: Callable[[int, int], None] = lambda done, steps: None) -> Soak:
    with counted() as compiled:
        return _run(steps, report, compiled)


def _run(steps: int, report: Callable[[int, int], None], compiled: collections.Counter[str]) -> Soak:
    def measure() -> tuple[int, int, float]:
        gc.collect()
        return compiled[COMPILED], len(jax.live_arrays()), resident()

    rng = np.random.default_rng(0)
    data = [tuple(rng.standard_normal((32, n)).astype(np.float32) for n in (12, 4)) for _ in range(8)]
    every = list(PENALTIES.values())
    warm, bad, met, before = max(2 * len(every), steps // 10), 0, set(), measure()
    params = zeros()
    for i in range(steps):
        if i % RETURN == 0:
            params = jax.tree.map(np.zeros_like, params)
            met.add(i % len(every))
        if i % RETURN == 1:  # of two factors at zero each is the gradient of the other, and relu has none there
            params |= {name: 0.1 * rng.standard_normal(SHAPES[name]).astype(np.float32) for name in ("deep", "b")}
        params, value = step(params, *data[i % len(data)], every[i % len(every)])
        bad += not all(np.all(np.isfinite(x)) for x in (value, *params.values()))
        if i + 1 == warm:
            before = measure()
        report(i + 1, steps)
    still = sum(not np.asarray(w).any() for w in params.values())
    return Soak(steps, warm, len(every), *zip(before, measure(), strict=True), bad, len(met), still)


def progress() -> Callable[[int, int], None]:
    """Prints where a run is, every few seconds."""
    last = time.monotonic()

    def report(done: int, steps: int) -> None:
        nonlocal last
        if done == steps or time.monotonic() - last > 5:
            last = time.monotonic()
            print(f"step {done} of {steps}, {resident():.0f} MiB", flush=True)

    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=STEPS)
    steps = parser.parse_args().steps
    if steps < 3 * len(PENALTIES):
        parser.error(f"--steps must be at least {3 * len(PENALTIES)}, three of each penalty, got {steps}")
    found = run(steps, progress())
    rows = [
        ["programs compiled", *found.compiled],
        ["live arrays", *found.arrays],
        ["resident memory, MiB", *map(round, found.memory)],
    ]
    head = f"{steps} steps, {found.penalties} penalties in turn, of which {found.met_at_zero} met weights all zero. "
    head += f"Steps with a number that is not finite: {found.not_finite}."
    text = f"{head}\n\n{table(['', f'after step {found.warm}', f'after step {steps}'], rows)}"
    if steps != STEPS:
        print(text)
        sys.exit(not found.good)
    write("soak", text, found.good and found.met_at_zero == found.penalties)


if __name__ == "__main__":
    main()
