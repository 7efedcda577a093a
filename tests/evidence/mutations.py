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

from faults import FAULTS, Fault
from page import README, ROOT, table, write
from suites import SETTINGS

COPIED = "jaxnorms", "tests", "conftest.py", "pyproject.toml", "notebooks/phonons.py"


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
