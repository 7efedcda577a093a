"""The suite on versions of Python and JAX: ``tests/evidence/versions.py [--only VERSION] [--mode "32 bits"] [--quick]``

An interpreter is looked for on the PATH, and among those of pyenv; a version without one is listed as skipped. The
full suite, or the quick one (``pytest -m quick``), runs in an environment of its own under ``.venv-versions``, in both
modes of precision or one; warnings of deprecation are errors there as everywhere. The rows in the page are written as
soon as a version is done, of each mode in which nothing failed, if nothing was changed meanwhile and without
``--quick``. A test that fails ends the run with status 1, after the other versions.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from page import ROOT, START, one_commit, rows_of, table, write
from suites import MODES, run


class Version(NamedTuple):
    name: str
    python: str
    packages: tuple[str, ...]
    quick: bool


SKIPPED = "skipped: no such interpreter"
HEADER = ["version", "Python", "JAX", "suite", "mode", "passed", "expected to differ", "skipped", "failed", "commit"]
MODE = HEADER.index("mode")
VERSIONS = [
    Version("current", "3.11", ("jax>=0.10,<0.11", "jaxlib>=0.10,<0.11"), quick=False),
    Version("newest", "3.13", ("jax", "jaxlib"), quick=False),
    Version("floor", "3.11", ("jax==0.8.0", "jaxlib==0.8.0"), quick=True),
]


def interpreter(version: str) -> tuple[str, dict[str, str]] | None:
    """A command that starts Python ``version``, and the environment that it needs for that."""
    command = f"python{version}"
    held = _output(["pyenv", "versions", "--bare"], {}) or ""
    choices = [{}, *({"PYENV_VERSION": name} for name in held.split() if name.startswith(f"{version}."))]
    for extra in choices:
        if _output([command, "-c", "import sys; print(*sys.version_info[:2], sep='.')"], extra) == version:
            return command, extra
    return None


def _output(command: list[str], extra: dict[str, str]) -> str | None:
    if not shutil.which(command[0]):
        return None
    ended = subprocess.run(command, env=os.environ | extra, capture_output=True, text=True)
    return None if ended.returncode else ended.stdout.strip()


def environment(version: Version) -> Path | None:
    """The interpreter of an environment with this version's packages; None without such a Python."""
    found = interpreter(version.python)
    if not found:
        return None
    command, extra = found
    folder = ROOT / ".venv-versions" / version.name
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([command, "-m", "venv", str(folder)], env=os.environ | extra, check=True)
    # Each time: the newest of yesterday is not that of today.
    install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--upgrade"]
    subprocess.run([*install, "-e", ".[test]", *version.packages], cwd=ROOT, check=True)
    return python


def tested(version: Version, modes: list[str], quick: bool) -> list[tuple[list[object], bool]]:
    """Rows of the table, and of each whether no test failed."""
    suite = "quick" if quick else "full"
    python = environment(version)
    if not python:
        return [([version.name, version.python, "", suite, SKIPPED, *[""] * 4, START], True)]
    what = "import platform, jax; print(platform.python_version(), jax.__version__, sep=',')"
    running = subprocess.run([python, "-c", what], capture_output=True, text=True, check=True).stdout.strip().split(",")
    rows = []
    for mode in modes:
        print(f"Python {running[0]}, JAX {running[1]}, {mode}: the {suite} suite runs ...", flush=True)
        start = time.perf_counter()
        report = run(["-n", "2", *(["-m", "quick and not slow"] if quick else [])], MODES[mode], python=str(python))
        counts = [report.count(kind) for kind in ("passed", "differs", "skipped", "failed")]
        counts[2] += report.count("left out")
        print(f"{counts[0]} passed, {counts[3]} failed, {(time.perf_counter() - start) / 60:.0f} min", flush=True)
        rows.append(([version.name, *running, suite, mode, *counts, START], report.good))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", choices=[version.name for version in VERSIONS], help="one of the versions")
    parser.add_argument("--mode", choices=MODES, help="one of the modes")
    parser.add_argument("--quick", action="store_true", help="the quick suite on all of them")
    args = parser.parse_args()
    if not args.quick:
        one_commit("versions")
    chosen = [version for version in VERSIONS if args.only in (None, version.name)]
    passed = True
    for version in chosen:
        rows = tested(version, [args.mode] if args.mode else list(MODES), args.quick or version.quick)
        good = [row for row, no_failure in rows if no_failure]
        passed = passed and len(good) == len(rows)
        print(f"\n{table(HEADER, [row for row, _ in rows])}\n", flush=True)
        if not args.quick:
            keep_rows(good)
    sys.exit(not passed)


def keep_rows(rows: list[list[object]]) -> None:
    """These rows in the page, beside the other versions and modes as they are; a version that is skipped here keeps the
    rows that it has."""
    before = rows_of("versions")
    found = {(row[0], row[MODE]): row for row in [*before, *([str(cell) for cell in row] for row in rows)]}
    kept = []
    for version in VERSIONS:
        ran = [found[version.name, mode] for mode in MODES if (version.name, mode) in found]
        kept += ran or [row for key, row in found.items() if key == (version.name, SKIPPED)]
    if kept != before:
        write("versions", table(HEADER, kept), dated=False)


if __name__ == "__main__":
    main()
