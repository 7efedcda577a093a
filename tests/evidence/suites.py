"""What the suites say, in tables: ``python tests/evidence/suites.py [peers] [properties] [refusals] [devices]``

Every number is counted from the report of the run made here. A test that fails ends it with status 1, and its section
of the page stays as it is.
"""

import argparse
import ast
import collections
import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from page import ROOT, table, write

# Compilation is most of the time of a test.
SETTINGS = {
    "OPENBLAS_NUM_THREADS": "1",
    "XLA_FLAGS": "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true",
}
MODES = {"32 bits": "0", "64 bits": "1"}
PROPERTIES = "tests/test_properties.py"
REFUSALS = "bad_input", "bad_values", "bad_parameters", "arguments", "operator_arguments"
COMPARED = "compared with central differences"  # an event of the property


class Case(NamedTuple):
    """One test of a report."""

    file: str
    name: str
    outcome: str  # passed, failed, differs (expected to fail, and did), left out, skipped
    recorded: dict[str, int]


class Report(NamedTuple):
    cases: list[Case]
    text: str
    status: int

    def count(self, outcome: str) -> int:
        return sum(case.outcome == outcome for case in self.cases)

    @property
    def good(self) -> bool:
        """No failure, no crash, and not nothing."""
        return self.status == 0 and not self.count("failed") and self.count("passed") > 0


def run(arguments: list[str], mode: str, *, python: str = sys.executable, cwd: Path = ROOT, **env: str) -> Report:
    """pytest's report, in one mode of precision: 0 for 32 bits, 1 for 64. Shows how far it is."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "report.xml"
        command = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={path}", *arguments]
        environment = os.environ | SETTINGS | {"JAX_ENABLE_X64": mode} | env
        lines = []
        with subprocess.Popen(
            command, cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:
            for line in process.stdout or ():
                lines.append(line)
                if re.search(r"\[ *\d+%\]$", line):
                    print(line, end="", flush=True)
        found = [_case(element) for element in ElementTree.parse(path).iter("testcase")] if path.exists() else []
    report = Report(found, "".join(lines), process.returncode)
    if not report.good:
        print(report.text[-6000:], file=sys.stderr)
    return report


def _case(element: ElementTree.Element) -> Case:
    inside = next((child for child in element if child.tag in ("failure", "error", "skipped")), None)
    if inside is None:
        outcome = "passed"
    elif inside.tag != "skipped":
        outcome = "failed"
    elif inside.get("type") == "pytest.xfail":
        outcome = "differs"
    else:
        outcome = "left out" if inside.get("message", "").startswith("left out") else "skipped"
    recorded = {item.get("name", ""): int(item.get("value", 0)) for item in element.iter("property")}
    return Case(element.get("classname", "").replace(".", "/"), element.get("name", ""), outcome, recorded)


def checked(report: Report, what: str) -> Report:
    if not report.good:
        failed = [f"{case.file}::{case.name}" for case in report.cases if case.outcome == "failed"]
        sys.exit(f"{what}: pytest ended with {report.status} after {len(report.cases)} tests; failed: {failed}")
    return report


PEERS = {"NumPy": "numpy_suite", "SciPy": "scipy_suite", "Optax": "optax_suite", "torch, samples": "torch_samples"}
KINDS = {
    "passed": "passed",
    "differs": "expected to differ",
    "left out": "left out",
    "skipped": "skipped by the peer itself",
}


def peers() -> None:
    """The peers' own tests, in double precision, and the samples of torch."""
    rows, gradients = [], 0
    for peer, name in PEERS.items():
        report = checked(run([f"tests/test_{name}.py"], "1"), peer)
        theirs = [case for case in report.cases if "BehindDifferences" not in case.file]
        counts = collections.Counter(case.outcome for case in theirs)
        if name == "torch_samples":
            samples, differ = (sum(case.recorded.get(what, 0) for case in theirs) for what in ("samples", "differ"))
            counts = {"passed": samples - differ, "differs": differ}
            gradients = sum(case.recorded.get("gradients", 0) for case in theirs)
        numbers = [counts.get(kind, 0) for kind in KINDS]
        rows.append([peer, *numbers, sum(numbers)])
        print(*rows[-1], flush=True)
    note = f"Of torch's samples {gradients} are compared by value and gradient; the others are errors here."
    write("peers", f"{table(['tests of', *KINDS.values(), 'in all'], rows)}\n\n{note}")


def properties() -> None:
    """The examples that Hypothesis ran, of every property in every mode."""
    least = int(os.environ.get("JAXNORMS_EXAMPLES", "1250"))
    arguments = [PROPERTIES, "--hypothesis-show-statistics"]

    def text(mode: str) -> str:
        return checked(run(arguments, MODES[mode], JAXNORMS_EXAMPLES=str(least)), f"properties, {mode}").text

    with ThreadPoolExecutor() as pool:
        texts = list(pool.map(text, MODES))
    found, wanted = [examples(text) for text in texts], expected(least)
    rows = [[f"`{name}`", *(each.get(name, 0) for each in found)] for name in sorted(wanted)]
    total = ["in all", *(sum(each.values()) for each in found)]
    few = {name for name, number in wanted.items() for each in found if each.get(name, 0) < number}
    few |= {name for each in found for name in each.keys() - wanted.keys()}
    if few:
        print(f"too few examples, or not known: {', '.join(sorted(few))}", file=sys.stderr)
    lines = [table(["property", *(f"examples, {mode}" for mode in MODES)], [*rows, total])]
    lines += [f"In {mode}, {line}" for mode, text in zip(MODES, texts, strict=True) for line in differences(text)]
    write("properties", "\n\n".join(lines), not few and sum(total[1:]) >= 8 * least)


def expected(least: int) -> dict[str, int]:
    """The properties that the file has, and how many examples each must pass."""
    functions = [f for f in ast.parse((ROOT / PROPERTIES).read_text()).body if isinstance(f, ast.FunctionDef)]
    marks = {f.name: [ast.unparse(mark) for mark in f.decorator_list] for f in functions}
    given = {name: each for name, each in marks.items() if any("hypothesis.given(" in mark for mark in each)}
    return {name: least // 5 if "FEWER" in each else least for name, each in given.items()}


def blocks(text: str) -> dict[str, str]:
    """What the statistics of Hypothesis say of each property."""
    return dict(re.findall(rf"^{PROPERTIES}::(\w+):\n(.*?)\n\n", text, re.DOTALL | re.MULTILINE))


def examples(text: str) -> dict[str, int]:
    """How many examples of each property passed."""
    return {name: sum(map(int, re.findall(r"(\d+) passing", block))) for name, block in blocks(text).items()}


def differences(text: str) -> list[str]:
    """Which properties were compared with central differences, and in how many of their examples."""
    lines = []
    for name, block in blocks(text).items():
        share = re.search(rf"\* *([\d.]+)%, *{COMPARED}", block)
        if share:  # of all that were drawn, the invalid ones too
            drawn = sum(map(int, re.findall(r"(\d+) (?:passing|failing|invalid)", block)))
            lines.append(f"{float(share[1]) * drawn / 100:.0f} examples of `{name}` were {COMPARED}.")
    return lines


def devices() -> None:
    """Tests of norms on several devices, by what these are; in double precision, the slow ones too."""
    files = [f"tests/test_{name}.py" for name in ("device_counts", "mesh", "shard_map", "processes")]
    report = checked(run([*files, "-m", "slow or not slow"], "1"), "devices")
    counts = collections.Counter(_devices(case) for case in report.cases if case.outcome == "passed")
    counts.pop(None, None)
    rows = sorted(counts.items())
    good = set(counts) >= {_mesh(n, kind) for n in (1, 2, 4, 8) for kind in ("automatic", "explicit")}
    good = good and set(counts) >= {f"{n} processes, as one" for n in (2, 4)}
    write("devices", table(["devices", "tests passed"], rows), good)


def _devices(case: Case) -> str | None:
    """Which devices a test was of; None if it was none of norms on them."""
    if re.search(r"refuses|arguments|what_is_moved|without_a_name", case.name):
        return None
    kind = "explicit" if "Explicit" in case.name else "automatic"
    if "processes" in case.file:
        count = "4" if re.search(r"\[4\]|of four", case.name) else "2"
        return f"{count} processes, " + ("of which one is lost" if "lost" in case.name else "as one")
    if "device_counts" in case.file:
        return _mesh(int(re.search(r"[0-9]", case.name)[0]), kind)
    return "4 devices, inside `shard_map`" if "shard_map" in case.file else _mesh(8, kind)


def _mesh(count: int, kind: str) -> str:
    return f"{count} device{'s' if count > 1 else ''}, {kind} mesh"


def refusals() -> None:
    """What is refused, or answered with NaN, by name of the test; in double precision."""
    report = checked(run([f"tests/test_{name}.py" for name in REFUSALS], "1"), "refusals")
    names = (case.name.partition("[")[0] for case in report.cases if case.outcome == "passed")
    counts = collections.Counter(name.removeprefix("test_").replace("_", " ") for name in names)
    write("refusals", table(["what is tested", "cases passed"], [*counts.items(), ("in all", counts.total())]))


TABLES = {"peers": peers, "properties": properties, "refusals": refusals, "devices": devices}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("tables", nargs="*", metavar="TABLE", help=f"of {', '.join(TABLES)}; all without a name")
    names = parser.parse_args().tables or list(TABLES)
    if not set(names) <= set(TABLES):
        parser.error(f"TABLE must be one of {', '.join(TABLES)}, got {', '.join(names)}")
    for name in names:
        TABLES[name]()


if __name__ == "__main__":
    main()
