"""What the compiled program of a function of arrays on a mesh moves between devices.

Two sources: the text of the program names every collective once, the profile of a run says how often each was
executed. The number of steps of an iteration is known only from the second.
"""

import math
import re
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import jax

# For each byte of its result a device receives at most one, and two in an all-reduce, which is a reduce-scatter and an
# all-gather (Thakur, Rabenseifner and Gropp, 2005). The result of a reduce-scatter is one of as many parts as there are
# devices: the device receives its part of the sum from each of the others.
COST = {"all-gather": 1, "all-reduce": 2, "all-to-all": 1, "collective-permute": 1}
LINE = re.compile(
    r"^\s*(?:ROOT )?%(\S+) = (.*?) (all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter)\("
)
ARRAY = re.compile(r"(pred|[a-z]+(\d+))\[([\d,]*)\]")


class Collective(NamedTuple):
    """A collective of a program: its name and line there, its kind, and the arrays that it leaves on a device."""

    name: str
    kind: str
    shapes: tuple[tuple[int, ...], ...]
    bytes: int
    line: str

    @property
    def largest(self) -> int:
        """Entries of the largest array; the pieces of an all-to-all count as one."""
        sizes = [math.prod(shape) for shape in self.shapes]
        return sum(sizes) if self.kind == "all-to-all" else max(sizes)

    @property
    def received(self) -> int:
        """Bytes that a device receives at most."""
        cost = jax.device_count() - 1 if self.kind == "reduce-scatter" else COST[self.kind]
        return cost * self.bytes


def collectives(program: jax.stages.Compiled) -> list[Collective]:
    """The collectives of a compiled program, in the order of its text."""
    found = []
    for line in program.as_text().splitlines():
        if match := LINE.match(line):
            name, result, kind = match.groups()
            arrays = [
                (int(bits or 8) // 8, tuple(map(int, filter(None, shape.split(",")))))
                for _, bits, shape in ARRAY.findall(result)
            ]
            size = sum(width * math.prod(shape) for width, shape in arrays)
            found.append(Collective(name, kind, tuple(shape for _, shape in arrays), size, line.strip()))
    return found


def executions(program: jax.stages.Compiled, *args: Any) -> Counter[str]:
    """How often one device executes each collective of a program, by name, counted in the profile of a run."""
    names = {c.name for c in collectives(program)}
    jax.block_until_ready(program(*args))  # what is done once only is not in the profile
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            jax.block_until_ready(program(*args))
        (path,) = Path(folder).rglob("*.xplane.pb")
        planes = jax.profiler.ProfileData.from_file(str(path)).planes
        total = Counter(event.name for plane in planes for line in plane.lines for event in line.events)
    counts = {name: divmod(total[name], jax.device_count()) for name in names}
    if any(rest for _, rest in counts.values()):
        raise RuntimeError(
            "the profile has lost events: devices seem to have executed different numbers of collectives"
        )
    return Counter({name: count for name, (count, _) in counts.items()})


def traffic(program: jax.stages.Compiled, counts: Counter[str] | None = None) -> tuple[int, int]:
    """Collectives executed, and bytes that a device receives at most; without ``counts`` each is executed once."""
    found = collectives(program)
    times = [1 if counts is None else counts[c.name] for c in found]
    return sum(times), sum(n * c.received for n, c in zip(times, found, strict=True))
