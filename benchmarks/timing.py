"""Paired timing of two compiled functions, and what their compiled programs hold."""

import os
import re
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

PAIRS = 21
# One pair lasts about this long: short functions are called many times.
PAIR_SECONDS = 0.05
# Custom calls of LAPACK, cuSOLVER and hipSOLVER.
SVD_CALL = re.compile(r'custom_call_target="[^"]*(?:gesdd|gesvd)[^"]*"')


class Program(NamedTuple):
    """A function to call and the cost of having it compiled; None for what is not known.

    ``svd_calls`` counts those of the program's text outside of loops and inside of them.
    """

    call: Callable[..., Any]
    compile_seconds: float | None = None
    temporary_bytes: int | None = None
    svd_calls: tuple[int, int] | None = None


class Ratio(NamedTuple):
    """Median, smallest and largest ratio of a pair, and the medians of both times in seconds."""

    median: float
    smallest: float
    largest: float
    first: float
    second: float


def compiled(f: Callable[..., Any], *args: jax.Array) -> Program:
    """``f`` compiled for ``args``, timed from the first trace on."""
    start = time.perf_counter()
    program = jax.jit(f).lower(*args).compile()
    seconds = time.perf_counter() - start
    memory = program.memory_analysis()
    # Platforms without an SVD call of their own (TPU) have none to count.
    svds = _svd_calls(program.as_text()) if jax.default_backend() in ("cpu", "gpu") else None
    return Program(program, seconds, getattr(memory, "temp_size_in_bytes", None), svds)


def _svd_calls(text: str) -> tuple[int, int]:
    """SVD calls outside and inside of loop bodies of a compiled program's text."""
    loops = set(re.findall(r"\bbody=%?([\w.-]+)", text))
    counts, inside = [0, 0], False
    for line in text.splitlines():
        if header := re.match(r"(?:ENTRY )?%?([\w.-]+) .*\{$", line):
            inside = header[1] in loops
        elif SVD_CALL.search(line):
            counts[inside] += 1
    return counts[0], counts[1]


def paired(f: Callable[..., Any], g: Callable[..., Any], *args: jax.Array, pairs: int = PAIRS) -> Ratio:
    """The time of ``f`` over that of ``g``, in pairs that run side by side.

    One pair calls both in turn, in alternating order and, if they are short, many times; a side's
    time is that of its fastest call. What slows the machine down for a while touches both sides.
    """
    sides = (f, g)
    typical = sum(min(_seconds(h, args) for _ in range(4)) for h in sides)  # the first calls warm up
    calls = max(1, round(PAIR_SECONDS / typical))
    times = []
    for i in range(pairs):
        best = [float("inf")] * 2
        for j in range(calls):
            for side in (0, 1) if (i + j) % 2 == 0 else (1, 0):
                best[side] = min(best[side], _seconds(sides[side], args))
        times.append(best)
    ratios = [ours / theirs for ours, theirs in times]
    first, second = (statistics.median(side) for side in zip(*times, strict=True))
    return Ratio(statistics.median(ratios), min(ratios), max(ratios), first, second)


def _seconds(f: Callable[..., Any], args: tuple[jax.Array, ...]) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    jax.block_until_ready(f(*args))
    return time.perf_counter() - start


def machine() -> str:
    """The device, the core count and, where it is set, LAPACK's number of threads."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = os.environ.get("OPENBLAS_NUM_THREADS")
    limit = f", OPENBLAS_NUM_THREADS={threads}" if threads else ""
    return f"{jax.devices()[0].device_kind} ({jax.default_backend()}), {cores} cores{limit}"
