"""The page ``docs/evidence.md``, of which each script here writes the section between the markers of its name.

A section tells of one commit: it is written if the files were those of the commit when the script began, and still are.
"""

import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "evidence.md"
README = ROOT / "tests" / "README.md"


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
    return cells(parts(section)[1])


def cells(text: str) -> list[list[str]]:
    """Of the table in a text."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def tree() -> str:
    """The commit, with a mark if files other than those written here differ from it."""

    def git(*command: str) -> str:
        return subprocess.run(["git", *command], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()

    if not ((ROOT / ".git").exists() and shutil.which("git")):  # the tests of an sdist import this, too
        return "no commit"
    written = [f":!{path.relative_to(ROOT)}" for path in (PAGE, README)]
    commit, changed = git("rev-parse", "--short", "HEAD"), git("status", "--porcelain", "--", ".", *written)
    return f"{commit} and changes" if changed else commit


def one_commit(section: str) -> None:
    """Ends the program unless the files are those of the commit of the beginning."""
    if " " in START or tree() != START:
        sys.exit(f"{section}: not written: begun on {START}, now {tree()}; that must be one commit")


def write(section: str, text: str, good: bool = True, *, dated: bool = True) -> None:
    """Prints the section, and puts it into the page, with the commit if ``dated``; unless the run failed or was not of
    one commit: then the program ends with status 1."""
    print(f"\n{text}\n", flush=True)
    if not good:
        sys.exit(f"{section}: not as it must be, and not written")
    one_commit(section)
    before, _, after = parts(section)
    PAGE.write_text(f"{before}\n{text}\n\n{f'Of commit {START}.' if dated else ''}".rstrip() + f"\n\n{after}")


START = tree()
