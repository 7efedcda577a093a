"""The page ``docs/evidence.md``, of which each script here writes the section between the markers of its name."""

import sys
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "evidence.md"


def table(header: Iterable[object], rows: Iterable[Iterable[object]]) -> str:
    """A Markdown table, its numbers to the right."""
    rows = [list(row) for row in rows]
    first, *rest = map(str, header)
    lines = [[first, *rest], ["---", *("---:" if numeric(rows, i) else "---" for i in range(1, len(rest) + 1))], *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def numeric(rows: list[list[object]], column: int) -> bool:
    return all(isinstance(row[column], int | float) or str(row[column]).isdigit() for row in rows)


def parts(section: str) -> tuple[str, str, str]:
    """The page before the section, the section, and the page after it, the markers left where they are."""
    before, opening, rest = PAGE.read_text().partition(f"<!-- {section} -->\n")
    inside, closing, after = rest.partition(f"<!-- end of {section} -->")
    if not (opening and closing):
        sys.exit(f"{PAGE} has no section between the markers of {section!r}")
    return before + opening, inside, closing + after


def rows_of(section: str) -> list[list[str]]:
    """The table that the section has now, without its header; none if it has no table."""
    lines = [line for line in parts(section)[1].splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def write(section: str, text: str, good: bool = True) -> None:
    """Prints the section, and puts it into the page unless the run failed; then the program ends with status 1."""
    print(f"\n{text}\n", flush=True)
    if not good:
        sys.exit(f"{section}: not as it must be, and not written")
    before, _, after = parts(section)
    PAGE.write_text(f"{before}\n{text}\n\n{after}")
