"""What a release brings, and whether it works: ``python tests/evidence/release.py``

Builds the wheel and the sdist from the files under version control, checks both, installs the wheel into an empty
environment, and there looks at what it needs, what it imports and how long that takes. Then the quick suite of the
sdist runs on the installed wheel, with no source of the package beside it. Needs the extra ``release``.
"""

import os
import re
import statistics
import subprocess
import sys
import tarfile
import tempfile
import venv
from pathlib import Path

from page import ROOT, table, write
from suites import MODES, checked, run

SIZE = 300  # kB
IMPORT = 100  # ms
OPTIONAL = ["chex", "equinox", "flax", "matplotlib", "optax", "safetensors", "torch"]


def output(*command: object, cwd: Path = ROOT, **env: str) -> str:
    ended = subprocess.run([*map(str, command)], cwd=cwd, env=os.environ | env, capture_output=True, text=True)
    if ended.returncode:
        sys.exit(f"{' '.join(map(str, command))} ended with {ended.returncode}\n{ended.stdout}{ended.stderr}")
    return ended.stdout


def installed(folder: Path, *packages: object) -> Path:
    """The interpreter of a new environment with these packages."""
    venv.create(folder, with_pip=True)
    add(folder / "bin" / "python", *packages)
    return folder / "bin" / "python"


def add(python: Path, *packages: object) -> None:
    output(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages)


def import_time(python: Path, cwd: Path, clock: str) -> float:
    """Milliseconds that importing jaxnorms takes after jax, the median of nine."""
    code = f"import jax; from time import {clock} as clock; t = clock(); import jaxnorms; print(clock() - t)"
    runs = [float(output(python, "-c", code, cwd=cwd, PYTHONDONTWRITEBYTECODE="")) for _ in range(10)]
    return 1e3 * statistics.median(runs[1:])


def declared() -> set[str]:
    """The packages that SECURITY.md lists."""
    return set(re.search(r"^```\n(.*?)^```", (ROOT / "SECURITY.md").read_text(), re.DOTALL | re.MULTILINE)[1].split())


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        copy, built, empty = folder / "source", folder / "dist", folder / "empty"
        output("git", "clone", "--quiet", ROOT, copy)
        empty.mkdir()
        output(sys.executable, "-m", "build", "--outdir", built, cwd=copy)
        (wheel,), (sdist,) = built.glob("*.whl"), built.glob("*.tar.gz")
        output(sys.executable, "-m", "twine", "check", "--strict", wheel, sdist)
        print(f"built and checked: {wheel.name}, {sdist.name}", flush=True)

        python = installed(folder / "environment", wheel)
        needs = output(
            python, "-c", "import importlib.metadata as m; print(*m.requires('jaxnorms'), sep='\\n')", cwd=empty
        )
        needs = [line for line in needs.splitlines() if "extra ==" not in line]
        took, wall = (import_time(python, empty, clock) for clock in ("process_time", "perf_counter"))

        with tarfile.open(sdist) as archive:
            archive.extractall(folder, filter="data")
        (source,) = folder.glob("jaxnorms-*/")
        (source / "jaxnorms").rename(folder / "set aside")
        add(python, f"jaxnorms[test] @ {wheel.as_uri()}")
        found = output(python, "-c", "import sys, jaxnorms; print(jaxnorms.__file__, *sys.modules)", cwd=source).split()
        where, extras = Path(found[0]), sorted(set(OPTIONAL) & set(found))
        if folder / "environment" not in where.parents:
            sys.exit(f"the tests would not see the wheel, but {where}")
        print("installed; the quick suite runs ...", flush=True)
        reports = [
            checked(run(["tests", "-n", "2", "-m", "quick and not slow"], number, python=str(python), cwd=source), mode)
            for mode, number in MODES.items()
        ]
        size, source_size = (path.stat().st_size / 1e3 for path in (wheel, sdist))

    passed = [
        [f"quick suite on the wheel, {mode}", f"{each.count('passed')} passed", "all"]
        for mode, each in zip(MODES, reports, strict=True)
    ]
    rows = [
        ["wheel", f"{size:.0f} kB", f"below {SIZE} kB"],
        ["sdist, with the tests", f"{source_size:.0f} kB", ""],
        ["importing it after JAX, CPU time", f"{took:.0f} ms", f"below {IMPORT} ms"],
        ["importing it after JAX, wall time", f"{wall:.0f} ms", ""],
        ["optional packages, installed, that it imports", ", ".join(extras) or "none", "none"],
        *passed,
    ]
    names = {re.match(r"[\w-]+", line)[0] for line in needs}
    listed = "\n".join(["What it needs to run:", "", "```", *sorted(needs), "```"])
    good = size < SIZE and took < IMPORT and not extras and names == declared()
    write("release", f"{table(['of the release', 'found', 'must be'], rows)}\n\n{listed}", good)


if __name__ == "__main__":
    main()
