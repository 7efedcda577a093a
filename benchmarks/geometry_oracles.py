"""Proximal operators and projections beside CVXPY's, which sees nothing but the definition of the norm.

    python benchmarks/geometry_oracles.py

prints a Markdown table and saves it in ``benchmarks/results/geometry_oracles.md``; fails where an answer is further
from the solver's than the tolerance. CVXPY that is not installed is a named gap. A minute on two cores.
"""

import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from peers import installed, version

import jaxnorms as jn
from jaxnorms.norm_objects import Norm

cp = installed("cvxpy")

jax.config.update("jax_enable_x64", True)

RESULT = Path(__file__).parent / "results" / "geometry_oracles.md"
inf = float("inf")
SOLVER, ACCURACY = "CLARABEL", 1e-9
# The objective f, up to 13 here, is strongly convex: a relative gap g allows a distance of sqrt(2 g f).
TOLERANCE = 2e-4
NOTE = f"""\
float64, matrices of 4 x 3 and 5 x 5: Gaussian, with tied singular values, of low rank; two steps and two radii each.
An error is the largest entry of the difference from the solution that CVXPY finds by {SOLVER}, with tolerances of
{ACCURACY:.0e} for gap and feasibility, absolute and relative; {TOLERANCE:.0e} is allowed, since distances go as the
root of the gap. Objective: that of the prox of jaxnorms minus the solver's, at most; negative: the solver's is worse.
Violation: how far the norm of a projection is above the radius, relative to it. Met: how many problems the solver
solved to its tolerances; of the others it gave what it calls an inaccurate solution."""


class Case(NamedTuple):
    """A norm, and the epigraph of it: the constraints on X and on a number s that say ``norm(X) <= s``."""

    label: str
    norm: Norm
    epigraph: Callable[[Any, Any], list]


def top(x: Any, k: int) -> Any:
    """The sum of the k largest singular values: the eigenvalues of ``[[0, X], [X^T, 0]]`` are plus and minus them."""
    m, n = x.shape
    return cp.lambda_sum_largest(cp.bmat([[np.zeros((m, m)), x], [x.T, np.zeros((n, n))]]), k)


def squared(x: Any, s: Any, measure: Callable[[Any], Any]) -> list:
    """``measure(X^T X) <= s^2`` for a monotone norm: some ``W >= X^T X / s`` has ``measure(W) <= s``."""
    m, n = x.shape
    w = cp.Variable((n, n), symmetric=True)
    return [cp.bmat([[w, x.T], [x, s * np.eye(m)]]) >> 0, measure(w) <= s]


CASES = [
    Case("Schatten 1 (nuclear)", jn.Schatten(1), lambda x, s: [cp.normNuc(x) <= s]),
    Case("Schatten 2 (Frobenius)", jn.Schatten(2), lambda x, s: [cp.norm(x, "fro") <= s]),
    Case("Schatten 4", jn.Schatten(4), lambda x, s: squared(x, s, lambda w: cp.norm(w, "fro"))),
    Case("Schatten inf (spectral)", jn.Schatten(inf), lambda x, s: [cp.sigma_max(x) <= s]),
    Case("Ky Fan 2", jn.KyFan(2), lambda x, s: [top(x, 2) <= s]),
    Case("Ky Fan 3", jn.KyFan(3), lambda x, s: [top(x, 3) <= s]),
    Case("Ky Fan (2, 2)", jn.KyFan(2, 2), lambda x, s: squared(x, s, lambda w: cp.lambda_sum_largest(w, 2))),
    Case("dual of Ky Fan 2", jn.Dual(jn.KyFan(2)), lambda x, s: [cp.sigma_max(x) <= s, cp.normNuc(x) <= 2 * s]),
]


def matrices() -> list[np.ndarray]:
    rng = np.random.default_rng(0)

    def turned(shape: tuple[int, int], *s: float) -> np.ndarray:
        u, _, vh = np.linalg.svd(rng.standard_normal(shape), full_matrices=False)
        return (u * np.array(s)) @ vh

    return [
        rng.standard_normal((4, 3)),
        rng.standard_normal((5, 5)),
        turned((5, 5), 3, 3, 2, 2, 2),
        turned((4, 3), 2, 2, 2),
        turned((5, 5), 3, 1, 0, 0, 0),
    ]


def solution(case: Case, a: np.ndarray, step: float | None, radius: float | None) -> tuple[np.ndarray, bool]:
    """The prox if ``radius`` is None, else the projection, and whether the solver met its tolerances."""
    x = cp.Variable(a.shape)
    s = cp.Variable() if radius is None else cp.Constant(radius)
    distance = cp.sum_squares(x - a) / 2
    problem = cp.Problem(cp.Minimize(distance if step is None else step * s + distance), case.epigraph(x, s))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an inaccurate solution has a status that says so
        problem.solve(solver=SOLVER, **dict.fromkeys(("tol_gap_abs", "tol_gap_rel", "tol_feas"), ACCURACY))
    if x.value is None:
        raise cp.SolverError(problem.status)
    return x.value, problem.status == cp.OPTIMAL


class Findings(NamedTuple):
    """Of one problem or, at most, of all."""

    prox: float
    projection: float
    objective: float
    theirs: float
    ours: float


def findings(case: Case, a: np.ndarray, part: float) -> tuple[Findings, int]:
    """Of the step and the radius that are a part of those from which on the image is 0 or ``a``; how many were met."""
    norm = case.norm
    step, radius = part * float(jn.dual_norm(a, norm)), part * float(norm(a))
    (x, prox_met), y = solution(case, a, step, None), np.asarray(jn.prox(a, step, norm))
    (u, met), v = solution(case, a, None, radius), np.asarray(jn.project(a, radius, norm))

    def objective(x: np.ndarray) -> float:
        return step * float(norm(x)) + float(np.sum(np.square(x - a))) / 2

    def violation(x: np.ndarray) -> float:
        return max(float(norm(x)) / radius - 1, 0.0)

    errors = float(np.abs(x - y).max()), float(np.abs(u - v).max())
    return Findings(*errors, objective(y) - objective(x), violation(u), violation(v)), prox_met + met


def row(case: Case) -> tuple[list[str], str]:
    """The cells of a norm, and what is wrong."""
    if cp is None:
        return [case.label, *["-"] * 6, "not installed"], ""
    try:
        found, met = zip(*(findings(case, a, part) for a in matrices() for part in (0.15, 0.6)), strict=True)
    except cp.SolverError as error:
        return [case.label, *["-"] * 6, f"{SOLVER} fails"], f"{case.label}: {SOLVER} fails: {error}"
    largest = Findings(*(max(each) for each in zip(*found, strict=True)))
    error = max(largest.prox, largest.projection)
    problem = f"{case.label}: {error:.0e} from the solution of {SOLVER}, allowed is {TOLERANCE:.0e}"
    cells = [case.label, *(f"{x:.0e}" for x in largest), f"{sum(met)} of {2 * len(met)}", f"{SOLVER}, {ACCURACY:.0e}"]
    return cells, "" if error <= TOLERANCE else problem


def main() -> None:
    """Print the table, save it, and fail where it says more than the tolerance."""
    violations = ("violation: solver", "violation: jaxnorms")
    header = ["norm", "prox: error", "projection: error", "objective", *violations, "met", "solver, tolerance"]
    rows, problems = zip(*map(row, CASES), strict=True)
    lines = [f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows)]
    measured = f"Measured with JAX {jax.__version__}, {version('cvxpy')}, on {jax.devices()[0].platform}."
    text = "\n\n".join(["# Prox and projection beside CVXPY", measured, NOTE, "\n".join(lines)]) + "\n"
    print(text, end="")
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(text)
    if any(problems):
        sys.exit("\n".join(filter(None, problems)))


if __name__ == "__main__":
    main()
