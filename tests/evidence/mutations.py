"""Deliberate faults, and the test that catches each: ``python tests/evidence/mutations.py [--match WORDS] [--jobs N]``

Every fault is one replacement of text in a copy of the package, on which the test files named beside it run until
one test fails; on a copy without the fault that test must pass. The table goes into ``tests/README.md``, how many are
caught onto the page of evidence; ``--match`` renews only some of the rows, and leaves the page as it is. A fault that
no test catches, or whose text is no longer there once, ends the run with status 1.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from page import README, ROOT, table, write
from suites import SETTINGS

COPIED = "jaxnorms", "tests", "conftest.py", "pyproject.toml", "notebooks/phonons.py"


class Fault(NamedTuple):
    """``what`` goes wrong when ``old`` becomes ``new`` in ``file``, for these test files to see."""

    what: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


FAULTS = [
    Fault(
        "a conjugate is dropped between singular vectors",
        "spectral_methods.py",
        "v, uh = vh.conj().T, u.conj().T",
        "v, uh = vh.T, u.conj().T",
        ("second_order",),
    ),
    Fault(
        "a conjugate is dropped between phases",
        "lifts.py",
        "e = phase.conj() * e",
        "e = phase * e",
        ("second_order",),
    ),
    Fault(
        "a conjugate is dropped in the determinant",
        "decompositions/cofactors.py",
        "m = matmul(matmul(u.conj().T, direction), vh.conj().T)",
        "m = matmul(matmul(u.T, direction), vh.conj().T)",
        ("determinants",),
    ),
    Fault(
        "no singular values are tied",
        "decompositions/thin_svd.py",
        "return 8 * float(jnp.finfo(dtype).eps) * max(shape) ** 0.25",
        "return 0.0",
        ("subgradients", "second_order"),
    ),
    Fault(
        "a division without its mask",
        "gauges.py",
        "return r / jnp.where(length > 0, length, 1)",
        "return r / length",
        ("subgradients",),
    ),
    Fault(
        "U and V are swapped",
        "spectral_methods.py",
        "return poison(ok, on_grid(matmul(u * _weights(gauge, s, a)[None, :], vh)))",
        "g = matmul(u * _weights(gauge, s, a)[None, :], vh)\n"
        "    return poison(ok, on_grid(g.conj().T if g.shape[0] == g.shape[1] else g))",
        ("subgradients",),
    ),
    Fault(
        "the zero block of the nuclear norm counts",
        "gauges.py",
        "return (x > tol * top).astype(x.dtype)",
        "return jnp.ones_like(x)",
        ("subgradients",),
    ),
    Fault(
        "squares are not scaled",
        "gauges.py",
        "                e = exponent(self._largest(x))\n                return scale(jnp.sqrt(",
        "                e = 0 * exponent(self._largest(x))\n                return scale(jnp.sqrt(",
        ("contract",),
    ),
    Fault(
        "Ky Fan sums one value too few",
        "top_gauges.py",
        "return Lp(self.p).value(jax.lax.top_k(x, self.k)[0])",
        "return Lp(self.p).value(jax.lax.top_k(x, max(self.k - 1, 1))[0])",
        ("subgradients",),
    ),
    Fault(
        "the wrong exponent of the dual norm",
        "gauges.py",
        "return inf if p == 1 else 1.0 if p == inf else p / (p - 1)",
        "return inf if p == 1 else 1.0 if p == inf else (p + 1) / p",
        ("subgradients",),
    ),
    Fault(
        "symmetric and skew parts are exchanged",
        "spectral_methods.py",
        "0, minus) * sym + plus * skew",
        "0, minus) * skew + plus * sym",
        ("second_order",),
    ),
    Fault(
        "the curvature out of the singular vectors is missed",
        "spectral_methods.py",
        "matmul(u, core) + (ev - matmul(u, m)) * along[None, :]",
        "matmul(u, core)",
        ("second_order",),
    ),
    Fault(
        "the curvature of a p-norm along itself is missed",
        "gauges.py",
        "return self._slopes(x, tol) * d - self._bend() * g * self._sum(g * d)",
        "return self._slopes(x, tol) * d",
        ("second_order",),
    ),
    Fault(
        "tied columns share by number, not by length",
        "column_gauge.py",
        "self.outer.subgradient(n, ties, w), ties",
        "self.outer.subgradient(n, ties), ties",
        ("subgradients",),
    ),
    Fault(
        "the k-support norm compares with one tail too many",
        "top_gauges.py",
        "chosen = jnp.argmax(before > means)",
        "chosen = jnp.minimum(jnp.argmax(before > means) + 1, self.k - 1)",
        ("subgradients", "contract"),
    ),
    Fault(
        "a projection moves what is inside the ball",
        "ball_projections.py",
        "return jnp.where(jnp.sum(alone) <= total, alone, entries(d))",
        "return entries(d)",
        ("geometry",),
    ),
    Fault(
        "a hard threshold for a soft one",
        "gauges.py",
        "return jnp.where(x > t, x - t, 0) if self.p == 1",
        "return jnp.where(x > t, x, 0) if self.p == 1",
        ("geometry",),
    ),
    Fault(
        "the oracle ascends",
        "geometry.py",
        "return -jnp.where(radius >= 0, radius, jnp.nan)",
        "return jnp.where(radius >= 0, radius, jnp.nan)",
        ("geometry",),
    ),
    Fault(
        "row exchanges do not change the sign of the determinant",
        "decompositions/cofactors.py",
        "return jnp.where(swaps % 2 == 0, x, -x), e",
        "return x, e",
        ("determinants",),
    ),
    Fault(
        "gradients at matrices that are not finite are numbers",
        "_scaling.py",
        "return x * jnp.where(ok, 1, jnp.nan).astype(x.dtype)",
        "return x",
        ("contract", "methods"),
    ),
    Fault(
        "only in reverse mode they are numbers",
        "_scaling.py",
        "return x * jnp.where(ok, 1, jnp.nan).astype(x.dtype)",
        "return jnp.where(ok, x, jnp.nan)",
        ("contract",),
    ),
    Fault(
        "what is tied grows with the number of rows",
        "decompositions/thin_svd.py",
        "max(shape) ** 0.25",
        "max(shape)",
        ("subgradients",),
    ),
    Fault(
        "products have the precision that a device likes",
        "decompositions/products.py",
        "precision=jax.lax.Precision.HIGHEST",
        "precision=None",
        ("precision",),
    ),
    Fault(
        "a Krylov search starts elsewhere each time",
        "decompositions/krylov.py",
        "np.random.default_rng(seed)",
        "np.random.default_rng()",
        ("krylov",),
    ),
    Fault(
        "directions are multiplied before what makes them small",
        "spectrum_kinds.py",
        "    return scale(e, -size), *halves(power + size)",
        "    return scale(e, power), *halves(0 * power)",
        ("spectral_second_order",),
    ),
    Fault(
        "a third derivative is a number and no error",
        "_rules/norms.py",
        "    lift, a = last_derivative((lift, a))\n    dg",
        "    dg",
        ("transformations", "second_order"),
    ),
    Fault(
        "the mixed derivative in order and matrix is missed",
        "_rules/norms.py",
        "return slope, jax.tree.map(jnp.add, along, mixed)",
        "return slope, along",
        ("second_order", "transformations"),
    ),
    Fault(
        "blocks on other devices are not summed",
        "_split.py",
        "return lax.psum(x, names) if names else x",
        "return x",
        ("shard_map",),
    ),
    Fault(
        "16-bit types are computed in 16 bits",
        "_checks.py",
        "return jnp.float32 if jnp.finfo(dtype).bits < 32 else dtype",
        "return dtype",
        ("contract",),
    ),
    Fault(
        "a Krylov search ends where it began",
        "decompositions/krylov.py",
        "        more = _unfinished(theta, residuals, n, k, tol, until)",
        "        more = jnp.zeros_like(_unfinished(theta, residuals, n, k, tol, until))",
        ("krylov", "methods"),
    ),
    Fault(
        "gradients on a mesh lie as the compiler likes",
        "_layout.py",
        "    return like(a, a) if on_mesh(a) else a",
        "    return a",
        ("mesh",),
    ),
    Fault(
        "a gradient sees how what it is made of lies",
        "_layout.py",
        '_barrier_p.bind(g, open_to="BACKWARD")',
        "g",
        ("mesh",),
    ),
    Fault(
        "rows are not spread over the devices",
        "_layout.py",
        "    return _spread(a, (names, None) if a.shape[0] >= a.shape[1] else (None, names))",
        "    return a",
        ("mesh",),
    ),
]


def copied(folder: Path) -> None:
    for name in COPIED:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, folder / name)


def first_failure(folder: Path, tests: Iterable[str], what: str) -> str | None:
    """The first of these files or tests in a copy that fails, as ``file::test``."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-rf", "-p", "no:cacheprovider"]
    env = os.environ | SETTINGS | {"JAX_ENABLE_X64": "1", "PYTHONPATH": str(folder)}
    run = subprocess.run(
        [*command, *(f"tests/{test}" for test in tests)], cwd=folder, env=env, capture_output=True, text=True
    )
    failed = re.search(r"^FAILED tests/(.+?)(?: - .*)?$", run.stdout, re.MULTILINE)
    if run.returncode and not failed:  # an error of the files, and no test that saw something
        sys.exit(f"{what}: pytest ended with {run.returncode}\n{run.stdout[-2000:]}{run.stderr[-2000:]}")
    return failed[1] if failed else None


def caught(fault: Fault) -> str | None:
    """The test that sees the fault, and passes without it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        copied(folder)
        path = folder / "jaxnorms" / fault.file
        text = path.read_text()
        if text.count(fault.old) != 1:
            sys.exit(f"{fault.what}: the text stands {text.count(fault.old)} times in {fault.file}")
        path.write_text(text.replace(fault.old, fault.new))
        test = first_failure(folder, [f"test_{name}.py" for name in fault.tests], fault.what)
        path.write_text(text)
        if test and first_failure(folder, [test], "no fault"):
            sys.exit(f"{test} fails without a fault, too")
    return test


HEAD = """\
# The tests

`make test` runs them, in 32-bit and in 64-bit mode; how they are made: [CONTRIBUTING.md](../CONTRIBUTING.md).

## Do they see faults?

`make mutations` puts each of these faults into a copy of the package and runs the tests until one fails, which must
pass without the fault.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--match", default="", help="only faults whose description contains these words")
    parser.add_argument("--jobs", type=int, default=2, help="faults tried at once")
    args = parser.parse_args()
    chosen = [fault for fault in FAULTS if all(word in fault.what for word in args.match.split())]
    if not chosen:
        parser.error(f"no fault has the words {args.match!r}")
    rows, escaped = written(), []
    with ThreadPoolExecutor(args.jobs) as pool:
        for i, (fault, test) in enumerate(zip(chosen, pool.map(caught, chosen), strict=True), 1):
            print(f"[{i}/{len(chosen)}] {fault.what}: {test or 'NOT CAUGHT'}", flush=True)
            rows[fault.what] = [f"`{fault.file}`", f"`{test}`" if test else "**none**"]
            escaped += [] if test else [fault.what]
    listed = [[fault.what, *rows[fault.what]] for fault in FAULTS if fault.what in rows]
    README.write_text(f"{HEAD}\n{table(['fault', 'in', 'caught by'], listed)}\n")
    if escaped:
        sys.exit(f"not caught: {', '.join(escaped)}")
    if len(chosen) == len(FAULTS):
        files = {test.partition("::")[0] for *_, test in listed}
        numbers = [len(FAULTS), len(FAULTS), len(files)]
        write("faults", table(["faults", "caught", "test files that caught one"], [numbers]))


def written() -> dict[str, list[str]]:
    """What the table says of each fault now."""
    lines = README.read_text().splitlines() if README.exists() else []
    cells = [line.strip("| ").split(" | ") for line in lines if line.startswith("| ")]
    return {what: rest for what, *rest in cells}


if __name__ == "__main__":
    main()
