"""Correctness: the same call in jaxnorms, jnp.linalg and torch.linalg, beside the exact answer.

    python benchmarks/correctness.py [--update README.md] [--check [README.md]]

prints a Markdown table and saves it in ``benchmarks/results/correctness.md``. Every cell is the
outcome of running the call. ``--update`` replaces the text between the markers
``<!-- correctness -->`` and ``<!-- /correctness -->`` of a file by the table; ``--check`` fails if
a cell of jaxnorms is not "right", or if the table in that file says something else than was
measured (digits aside: where a peer is wrong they depend on its LAPACK; so are peers that are not
installed). A peer that cannot be imported is marked so and does no harm.
"""

import argparse
import re
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxnorms as jn

try:
    import torch
except ImportError:
    torch = None

RESULT = Path(__file__).parent / "results" / "correctness.md"
OPEN, CLOSE = "<!-- correctness -->", "<!-- /correctness -->"
MISSING = "not installed"
NOTE = """\
float32 unless said otherwise. "right": the exact answer to a few units of the type's precision, for a gradient at
a kink the subgradient of minimum Frobenius norm. "another subgradient": a valid one, but not the one that is
independent of the basis of a decomposition. Entries are numbered from 1. Schatten and Ky Fan norms of the peers are
composed from their singular values."""


# The three libraries: the same norms under the same names.


class Library(NamedTuple):
    """The norms of a library, and how to differentiate them."""

    name: str
    norms: dict[str, Callable]
    array: Callable[[np.ndarray, str], Any]
    numpy: Callable[[Any], np.ndarray]
    grad: Callable[[Callable], Callable]
    hessian: Callable[[Callable], Callable]


def _float64(x: Any) -> np.ndarray:
    return np.asarray(x).astype(np.float64)


def _jax_library(name: str, norms: dict[str, Callable]) -> Library:
    return Library(name, norms, lambda x, dtype: jnp.asarray(x, dtype), _float64, jax.grad, jax.hessian)


def jaxnorms_library() -> Library:
    """The package itself."""
    norms = {
        "frobenius": jn.frobenius_norm,
        "squared": jn.squared_frobenius_norm,
        "nuclear": jn.nuclear_norm,
        "spectral": jn.spectral_norm,
        "first": lambda a: jn.singular_values(a)[0],
        "induced 1": lambda a: jn.induced_norm(a, 1),
        "Schatten 4": lambda a: jn.schatten_norm(a, 4),
        "Ky Fan 2": lambda a: jn.ky_fan_norm(a, 2),
        "l2": jn.vector_norm,
        "l100": lambda a: jn.vector_norm(a, ord=100),
    }
    return _jax_library("jaxnorms", norms)


def _peer_norms(norm: Callable, svdvals: Callable) -> dict[str, Callable]:
    """The norms of a library with NumPy's interface."""
    return {
        "frobenius": norm,
        "squared": lambda a: norm(a) ** 2,
        "nuclear": lambda a: norm(a, "nuc"),
        "spectral": lambda a: norm(a, 2),
        "first": lambda a: svdvals(a)[0],
        "induced 1": lambda a: norm(a, 1),
        "Schatten 4": lambda a: norm(svdvals(a), 4),
        "Ky Fan 2": lambda a: svdvals(a)[:2].sum(),
        "l2": norm,
        "l100": lambda a: norm(a, 100),
    }


def jnp_library() -> Library:
    """JAX's own functions."""
    return _jax_library("jnp.linalg", _peer_norms(jnp.linalg.norm, jnp.linalg.svdvals))


def torch_library() -> Library | None:
    """None where PyTorch is not installed."""
    if torch is None:
        return None

    def grad(f: Callable) -> Callable:
        def gradient(x: Any) -> Any:
            x = x.clone().requires_grad_()
            return torch.autograd.grad(f(x), x)[0]

        return gradient

    def hessian(f: Callable) -> Callable:
        return lambda x: torch.autograd.functional.hessian(f, x)

    return Library(
        "torch.linalg",
        _peer_norms(torch.linalg.norm, torch.linalg.svdvals),
        lambda x, dtype: torch.tensor(x, dtype=getattr(torch, dtype)),
        lambda x: x.detach().to(torch.float64).numpy(),
        grad,
        hessian,
    )


# The cases, with exact answers in float64.


class Case(NamedTuple):
    """One row: a quantity ("value", "gradient", "hessian") of a norm, at inputs with exact answers."""

    label: str
    quantity: str
    norm: str
    pairs: list[tuple[np.ndarray, np.ndarray]]
    dtypes: tuple[str, ...] = ("float32",)


# The largest relative error that is "right": small multiples of the rounding error of each type.
TOLERANCES = {"float32": 1e-5, "float16": 2e-3, "bfloat16": 1e-2}

# Norm and dual norm: a gradient G at A is a subgradient if <G, A> = ||A|| and ||G||_dual <= 1.


def _nuclear(a: np.ndarray) -> float:
    return np.linalg.norm(a, "nuc")


def _spectral(a: np.ndarray) -> float:
    return np.linalg.norm(a, 2)


CERTIFICATES = {
    "frobenius": (np.linalg.norm, np.linalg.norm),
    "nuclear": (_nuclear, _spectral),
    "spectral": (_spectral, _nuclear),
    "first": (_spectral, _nuclear),
    "induced 1": (lambda a: np.linalg.norm(a, 1), lambda g: np.abs(g).max(axis=0).sum()),
    "Ky Fan 2": (
        lambda a: np.linalg.svd(a, compute_uv=False)[:2].sum(),
        lambda g: max(_spectral(g), _nuclear(g) / 2),
    ),
}


def nuclear_hessian(a: np.ndarray) -> np.ndarray:
    """Of a square matrix of full rank: ``dG = U [2 K_ij / (s_i + s_j)] V^T``, K = skew(U^T E V)."""
    u, s, vh = np.linalg.svd(a)
    m = np.einsum("ki,lj->klij", u, vh.T)  # U^T E_kl V
    skew = (m - m.swapaxes(2, 3)) / (s[:, None] + s[None, :])
    return np.einsum("ai,klij,jb->klab", u, skew, vh)


def spectral_hessian(*s: float) -> np.ndarray:
    """At ``diag(s)`` with ``s_1 > s_j``: the block (1j, j1) is ``[[s_1, s_j], [s_j, s_1]] / (s_1^2 - s_j^2)``."""
    h = np.zeros((len(s),) * 4)
    for j in range(1, len(s)):
        gap = s[0] ** 2 - s[j] ** 2
        h[0, j, 0, j] = h[j, 0, j, 0] = s[0] / gap
        h[0, j, j, 0] = h[j, 0, 0, j] = s[j] / gap
    return h


def schatten_4_hessian_at_identity() -> np.ndarray:
    """For 2 x 2: ``f^2 = sqrt(tr (A^T A)^2)``, differentiated by hand."""
    h = np.zeros((2,) * 4)
    c = 2**-0.75
    for i in range(2):
        j = 1 - i
        h[i, i, i, i], h[i, i, j, j] = 1.5 * c, -1.5 * c
        h[i, j, i, j], h[i, j, j, i] = 2 * c, c
    return h


def orthogonals(count: int, n: int = 4) -> list[np.ndarray]:
    """Random orthogonal matrices, rounded to float32."""
    random = (np.random.default_rng(seed).standard_normal((n, n)) for seed in range(count))
    return [np.linalg.qr(a)[0].astype(np.float32) for a in random]


def cases() -> list[Case]:
    """The rows of the table; the exact answers follow from the definitions by hand."""
    zero, eye, diag = np.zeros((3, 3)), np.eye(3), lambda *d: np.diag(np.array(d, np.float64))
    rank_1, ones, tied_columns = diag(2, 0, 0), np.ones((5, 5)), np.array([[1.0, 2], [1, 0]])
    graded = np.array([[4.0, 1, 0], [1, 3, 1], [0, 1, 2]])
    huge, tiny, three_four = np.full((2, 2), 3e25), np.array([3e-20, 4e-20]), np.array([3.0, 4])
    half = ("bfloat16", "float16")

    def value(norm: str, label: str, x: np.ndarray, exact: float, *dtypes: str) -> Case:
        return Case(label, "value", norm, [(x, np.asarray(exact))], dtypes or ("float32",))

    def gradient(norm: str, label: str, *pairs: tuple[np.ndarray, np.ndarray], dtypes=("float32",)) -> Case:
        return Case(f"gradient of the {label}", "gradient", norm, list(pairs), dtypes)

    def hessian(norm: str, label: str, x: np.ndarray, exact: np.ndarray) -> Case:
        return Case(f"Hessian of the {label}", "hessian", norm, [(x, exact)])

    return [
        gradient("frobenius", "Frobenius norm at 0", (zero, zero)),
        gradient("squared", "squared Frobenius norm at 0", (zero, zero)),
        hessian("squared", "squared Frobenius norm at 0", zero, 2 * np.eye(9).reshape(3, 3, 3, 3)),
        gradient("nuclear", "nuclear norm at 0", (zero, zero)),
        gradient("nuclear", "nuclear norm at diag(2, 0, 0)", (rank_1, rank_1 / 2)),
        gradient("nuclear", "nuclear norm at ones(5, 5)", (ones, ones / 5)),
        gradient("spectral", "spectral norm at 0", (zero, zero)),
        gradient("spectral", "spectral norm at I", (eye, eye / 3)),
        gradient("spectral", "spectral norm at 20 random orthogonal 4x4", *((q, q / 4) for q in orthogonals(20))),
        gradient("first", "largest singular value at I", (eye, eye / 3)),
        gradient("Ky Fan 2", "Ky Fan 2-norm at diag(3, 2, 2, 1)", (diag(3, 2, 2, 1), diag(1, 0.5, 0.5, 0))),
        gradient("induced 1", "induced 1-norm at 0", (zero, zero)),
        gradient("induced 1", "induced 1-norm at [[1, 2], [1, 0]]", (tied_columns, tied_columns / [[3, 3], [3, 1]])),
        hessian("spectral", "spectral norm at diag(3, 1, 1)", diag(3, 1, 1), spectral_hessian(3, 1, 1)),
        hessian("spectral", "spectral norm at diag(2, 0, 0)", rank_1, spectral_hessian(2, 0, 0)),
        hessian("nuclear", "nuclear norm at I", eye, nuclear_hessian(eye)),
        hessian("nuclear", "nuclear norm at scale 1e-20", 1e-20 * graded, 1e20 * nuclear_hessian(graded)),
        hessian("Schatten 4", "Schatten 4-norm at the 2x2 I", np.eye(2), schatten_4_hessian_at_identity()),
        value("spectral", "spectral norm in bfloat16 and float16", diag(3, 2, 1), 3, *half),
        value("nuclear", "nuclear norm in bfloat16 and float16", diag(3, 2, 1), 6, *half),
        gradient("nuclear", "nuclear norm in bfloat16 and float16", (diag(3, 2, 1), eye), dtypes=half),
        value("l2", "l2 norm of [300, 400] in float16", 100 * three_four, 500, "float16"),
        value("frobenius", "Frobenius norm of entries 3e25", huge, 6e25),
        gradient("frobenius", "Frobenius norm of entries 3e25", (huge, np.full((2, 2), 0.5))),
        value("l2", "l2 norm of [3e-20, 4e-20]", tiny, 5e-20),
        gradient("l2", "l2 norm of [3e-20, 4e-20]", (tiny, np.array([0.6, 0.8]))),
        value("l100", "l100 norm of [3, 4]", three_four, 4 * (1 + 0.75**100) ** 0.01),
    ]


# The verdicts.


def cell(case: Case, library: Library | None) -> str:
    """The outcome of one call, over all inputs and types of the case."""
    if library is None:
        return MISSING
    runs = [(dtype, verdict(case, library, *pair, dtype)) for pair in case.pairs for dtype in case.dtypes]
    verdicts = [v for _, v in runs]
    if len(set(verdicts)) == 1:
        return verdicts[0]
    if len(case.dtypes) > 1:
        return ", ".join(f"{v} ({dtype})" for dtype, v in runs)
    kinds = Counter(kind(v) for v in verdicts if v != "right")
    return ", ".join(f"{name}: {count} of {len(verdicts)}" for name, count in kinds.items())


def verdict(case: Case, library: Library, x: np.ndarray, exact: np.ndarray, dtype: str) -> str:
    """ "right", "NaN", "inf", "raises ...", "another subgradient: ..." or "wrong: ..."."""
    norm = library.norms[case.norm]
    call = {"value": lambda f: f, "gradient": library.grad, "hessian": library.hessian}[case.quantity](norm)
    try:
        got = library.numpy(call(library.array(x, dtype)))
    except Exception as error:  # whatever a peer raises is its answer
        return f"raises {type(error).__name__}"
    if not np.isfinite(got).all():
        return "NaN" if np.isnan(got).any() else "inf"
    error = np.abs(got - exact)
    if error.max() <= TOLERANCES[dtype] * np.abs(exact).max():
        return "right"
    worst = np.unravel_index(error.argmax(), error.shape)
    where = f" at {','.join(str(i + 1) for i in worst)}" if worst else ""
    difference = f"{got[worst]:.3g} for {exact[worst]:.3g}{where}"
    name = "another subgradient" if is_subgradient(case, x, got) else "wrong"
    return f"{name}: {difference}"


def is_subgradient(case: Case, x: np.ndarray, g: np.ndarray) -> bool:
    """Whether ``g`` fulfils the two certificates of a subgradient to four digits."""
    if case.quantity != "gradient" or case.norm not in CERTIFICATES:
        return False
    norm, dual = CERTIFICATES[case.norm]
    value = norm(x.astype(np.float64))
    return bool(dual(g) <= 1 + 1e-4 and np.vdot(g, x) >= (1 - 1e-4) * value)


def kind(text: str) -> str:
    """A cell without its digits."""
    return text.split(":")[0]


# The table, and the place where it stands.


def versions() -> str:
    names = [f"JAX {jax.__version__}"] + ([f"PyTorch {torch.__version__}"] if torch else [])
    return f"Measured with {', '.join(names)}, on {jax.devices()[0].platform}."


def measured_table() -> list[list[str]]:
    """Header and rows of cells."""
    libraries = [("jaxnorms", jaxnorms_library()), ("jnp.linalg", jnp_library()), ("torch.linalg", torch_library())]
    header = ["", *(name for name, _ in libraries)]
    return [header, *([case.label, *(cell(case, library) for _, library in libraries)] for case in cases())]


def markdown(table: list[list[str]]) -> str:
    lines = [f"| {' | '.join(row)} |" for row in table]
    rule = f"|{'---|' * len(table[0])}"
    return "\n".join([versions(), "", lines[0], rule, *lines[1:], "", NOTE]) + "\n"


def parse(text: str) -> list[list[str]]:
    """The cells of the Markdown table in ``text``."""
    rows = [line for line in text.splitlines() if re.match(r"\|(?!---)", line)]
    return [[c.strip() for c in row.split("|")[1:-1]] for row in rows]


def between_markers(text: str, path: Path) -> tuple[int, int]:
    """Start and end of what stands between the markers."""
    if text.count(OPEN) != 1 or text.count(CLOSE) != 1:
        raise SystemExit(f"{path}: needs the markers {OPEN} and {CLOSE}, once each")
    return text.index(OPEN) + len(OPEN), text.index(CLOSE)


def update(path: Path, table: str) -> None:
    """Put the table between the markers of a file."""
    text = path.read_text()
    start, end = between_markers(text, path)
    path.write_text(f"{text[:start]}\n{table}{text[end:]}")


def differences(measured: list[list[str]], path: Path) -> list[str]:
    """What is not right in jaxnorms, and where the file's table differs from the measured one."""
    problems = [f"{row[0]}: jaxnorms is {row[1]}" for row in measured[1:] if row[1] != "right"]
    text = path.read_text()
    start, end = between_markers(text, path)
    written = parse(text[start:end])
    if [row[0] for row in written] != [row[0] for row in measured]:
        return [*problems, f"{path}: its rows are not those measured; run with --update {path}"]
    for old, new in zip(written, measured, strict=True):
        for library, was, now in zip(measured[0][1:], old[1:], new[1:], strict=True):
            if MISSING not in (was, now) and kind(was) != kind(now):
                problems.append(f"{path}: {new[0]}: {library} is {now!r}, written {was!r}")
    return problems


def main() -> None:
    """Measure, print and save the table; update or check a file on request."""
    parser = argparse.ArgumentParser(description="What is right and wrong in jaxnorms and its peers.")
    parser.add_argument("--update", type=Path, metavar="FILE", help="replace the table between FILE's markers")
    parser.add_argument("--check", type=Path, metavar="FILE", nargs="?", const=Path("README.md"))
    args = parser.parse_args()
    measured = measured_table()
    table = markdown(measured)
    print(table, end="")
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(table)
    if args.update:
        update(args.update, table)
    if args.check:
        problems = differences(measured, args.check)
        if problems:
            sys.exit("\n".join(problems))


if __name__ == "__main__":
    main()
