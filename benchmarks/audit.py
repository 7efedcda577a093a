"""The audit of a transformer-shaped checkpoint with prescribed spectra: its numbers, its time and its memory.

    python benchmarks/audit.py [--seed N]

writes the checkpoint, of 20 million parameters, into a temporary directory, runs ``python -m jaxnorms audit`` on it,
and on one of a single small kernel for the memory of the interpreter, prints a Markdown table and saves it in
``benchmarks/results``. A minute on two cores.
"""

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import ml_dtypes
import numpy as np
from timing import machine

RESULTS = Path(__file__).parent / "results"
SECONDS, RELATIVE, ENERGY = 60.0, 1e-4, 0.99
TYPES = {"F32": np.dtype("<f4"), "BF16": np.dtype(ml_dtypes.bfloat16), "F16": np.dtype("<f2")}
WIDTH, LAYERS, WORDS = 512, 3, 16384
# The kernel of the stem is a 3 x 512 matrix times a window of ones, of norm 1: that of the convolution is 4 times the
# matrix's, at the frequency 0, and the bound of zero padding at most 2 % above it.
WINDOW, LOOSE = 4, 1.02
NORMS = ("spectral_norm", "nuclear_norm", "frobenius_norm", "stable_rank", "effective_rank", "cond")
RANKS = ("numerical_rank", "energy_rank")
# The command as it is, and then the peak of its memory in KiB.
PROCESS = """
import resource, runpy, sys
try:
    runpy.run_module("jaxnorms", run_name="__main__", alter_sys=True)
finally:
    try:
        peak = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (1024 if sys.platform == "darwin" else 1)
    print(peak, file=sys.stderr)
"""
NOTE = """\
{parameters:.1f} million parameters, each tied tensor once, in {size:.1f} MB. Error: the largest relative one of
{norms}
of any tensor, over {relative:g} for those stored in float32, over the type's epsilon for those in 16 bits (bfloat16
{bf16:.2g}, float16 {f16:.2g}). Where the prescribed rank is below min(m, n), the condition is infinite and not
compared, nor, in 16 bits, the effective rank, which the rounding of the zero singular values changes. Ranks: tensors
whose {ranks} are not the prescribed ones. Kernel: the bound of the
convolution over its norm. Memory: peak of the process, above that of the same command on a file of one 4 x 4 matrix
({base:.0f} MB); the limit is twice the largest tensor."""


class Prescribed(NamedTuple):
    """A tensor of the checkpoint: singular values of its matrix, none of a vector, and the tensor that it repeats."""

    shape: tuple[int, ...]
    dtype: str
    values: np.ndarray | None = None
    tied_to: str | None = None


def checkpoint(rng: np.random.Generator) -> dict[str, Prescribed]:
    """A stem, an embedding in bfloat16 that the head repeats, and layers; of different decay, some deficient."""

    def values(n: int, kind: int) -> np.ndarray:
        j = np.arange(n) / n
        decays = (10 ** (-2 * j), 1 / (1 + 20 * j), 2 - j, np.where(j < 0.25, 1.5 - j, 0), np.exp(-3 * j**2))
        return (1 + rng.random()) * decays[kind % len(decays)]

    stem = np.r_[values(3, 2), np.zeros(3 * WINDOW**2 - 3)]
    found = {
        "stem.kernel": Prescribed((WINDOW, WINDOW, 3, WIDTH), "F32", stem),
        "embed.weight": Prescribed((WORDS, WIDTH), "BF16", values(WIDTH, 1)),
    }
    for i in range(LAYERS):
        for j, name in enumerate(("query", "key", "value", "out")):
            found[f"layers.{i}.{name}"] = Prescribed((WIDTH, WIDTH), "F32", values(WIDTH, 2 * i + j))
        found[f"layers.{i}.up"] = Prescribed((WIDTH, 4 * WIDTH), "F32", values(WIDTH, i))
        found[f"layers.{i}.down"] = Prescribed((4 * WIDTH, WIDTH), ("F16", "BF16", "F32")[i], values(WIDTH, i + 3))
        found[f"layers.{i}.scale"] = Prescribed((WIDTH,), "F32")
    found["head.hidden"] = Prescribed((4 * WIDTH, 2 * WIDTH), "F32", values(2 * WIDTH, 0))
    found["head.weight"] = Prescribed((WORDS, WIDTH), "BF16", found["embed.weight"].values, "embed.weight")
    return found


def entries(rng: np.random.Generator, tensor: Prescribed) -> np.ndarray:
    """With random singular vectors, formed in double precision and rounded once."""
    if tensor.values is None:
        return np.ones(tensor.shape, TYPES[tensor.dtype])
    m, n = tensor.shape[-2:]
    k = min(m, n)
    left, right = (np.linalg.qr(rng.standard_normal((size, k)))[0] for size in (m, n))
    matrix = (left * tensor.values[:k]) @ right.T
    window = np.full((*tensor.shape[:-2], 1, 1), 1 / WINDOW) if len(tensor.shape) > 2 else 1.0
    return (window * matrix).astype(TYPES[tensor.dtype])


def write(path: Path, tensors: dict[str, Prescribed], seed: int) -> None:
    """A .safetensors file, one tensor at a time."""
    header, end = {}, 0
    for name, tensor in tensors.items():
        start, end = end, end + math.prod(tensor.shape) * TYPES[tensor.dtype].itemsize
        header[name] = {"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [start, end]}
    text, seeds = json.dumps(header).encode(), {name: [seed, i] for i, name in enumerate(tensors)}
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, tensor in tensors.items():
            file.write(entries(np.random.default_rng(seeds[tensor.tied_to or name]), tensor).tobytes())


def audited(path: Path) -> tuple[dict[str, Any], float, float]:
    """What the command prints, its seconds, and its peak of memory in bytes."""
    options = ["--json", "--energy", str(ENERGY), "--layout", "HWIO"]
    command = [sys.executable, "-c", PROCESS, "audit", str(path), *options]
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    seconds = time.perf_counter() - start
    return json.loads(done.stdout), seconds, 1024 * float(done.stderr.split()[-1])


def expected(s: np.ndarray) -> dict[str, float]:
    """By the definitions."""
    p, squares = s[s > 0] / s.sum(), np.cumsum(s**2)
    return {
        "spectral_norm": s[0],
        "nuclear_norm": s.sum(),
        "frobenius_norm": math.sqrt(squares[-1]),
        "stable_rank": squares[-1] / s[0] ** 2,
        "effective_rank": math.exp(-np.sum(p * np.log(p))),
        "cond": s[0] / s[-1] if s[-1] > 0 else math.inf,
        "numerical_rank": int(np.sum(s > 0)),
        "energy_rank": int(np.sum(squares < ENERGY * squares[-1])) + 1,
    }


def compared(tensors: dict[str, Prescribed], rows: list[dict[str, Any]]) -> tuple[float, list[str], float]:
    """Largest error over what is allowed, tensors of other ranks or ties, and the bound of the kernel over its norm."""
    worst, wrong, kernel = 0.0, [], math.nan
    matrices = {name: tensor for name, tensor in tensors.items() if tensor.values is not None}
    if [row["name"] for row in rows] != [*matrices]:
        sys.exit("the audit has other rows than the checkpoint has matrices")
    for row, (name, tensor) in zip(rows, matrices.items(), strict=True):
        assert tensor.values is not None
        exact, short = expected(tensor.values), tensor.dtype != "F32"
        deficient = exact["numerical_rank"] < len(tensor.values)
        allowed = float(ml_dtypes.finfo(TYPES[tensor.dtype]).eps) if short else RELATIVE
        left_out = {"cond", "effective_rank"} if deficient and short else {"cond"} if deficient else set()
        errors = {key: abs(row[key] / exact[key] - 1) / allowed for key in NORMS if key not in left_out}
        key = max(errors, key=errors.__getitem__)
        print(f"{name}: {key} {errors[key]:.2g} of what is allowed", file=sys.stderr)
        worst = max(worst, errors[key])
        if row["tied_to"] != tensor.tied_to or any(row[key] != exact[key] for key in RANKS):
            wrong.append(name)
        if row["kernel"]:
            kernel = row["lipschitz"] / (WINDOW * exact["spectral_norm"])
    return worst, wrong, kernel


def main() -> None:
    """Build, run, compare, print and save."""
    parser = argparse.ArgumentParser(description="Audit a checkpoint of prescribed spectra.")
    parser.add_argument("--seed", type=int, default=0, help="of the checkpoint")
    args = parser.parse_args()
    tensors = checkpoint(np.random.default_rng(args.seed))
    with tempfile.TemporaryDirectory() as folder:
        path, small = Path(folder) / "transformer.safetensors", Path(folder) / "small.safetensors"
        write(path, tensors, args.seed)
        write(small, {"w": Prescribed((4, 4), "F32", np.ones(4))}, args.seed)
        size = path.stat().st_size
        base = audited(small)[2]
        found, seconds, peak = audited(path)
    worst, wrong, kernel = compared(tensors, found["tensors"])
    largest = max(math.prod(tensor.shape) * TYPES[tensor.dtype].itemsize for tensor in tensors.values())
    lines = [
        ("time, s", f"{seconds:.1f}", f"{SECONDS:g}", seconds <= SECONDS),
        (
            "memory above the interpreter's, MB",
            f"{(peak - base) / 1e6:.1f}",
            f"{2e-6 * largest:.1f}",
            peak - base <= 2 * largest,
        ),
        ("largest error, of what is allowed", f"{worst:.2g}", "1", worst <= 1),
        ("tensors of other ranks or ties", ", ".join(wrong) or "none", "none", not wrong),
        ("kernel, bound over norm", f"{kernel:.4f}", f"1 to {LOOSE}", 1 - RELATIVE <= kernel <= LOOSE),
    ]
    table = ["| | found | limit |", "|---|---|---|"]
    table += [f"| {name} | {value} | {limit}{'' if held else ' MISSED'} |" for name, value, limit, held in lines]
    note = NOTE.format(
        parameters=found["parameters"] / 1e6,
        size=size / 1e6,
        norms=", ".join(NORMS),
        ranks=" or ".join(RANKS),
        relative=RELATIVE,
        bf16=float(ml_dtypes.finfo(ml_dtypes.bfloat16).eps),
        f16=float(np.finfo(np.float16).eps),
        base=base / 1e6,
    )
    sections = [
        f"# Audit of a checkpoint\n\nOn {machine()}; jax {jax.__version__}, numpy {np.__version__}.",
        "\n".join(table),
        note,
    ]
    text = "\n\n".join(sections)
    print(text)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "audit.md").write_text(text + "\n")


if __name__ == "__main__":
    main()
