"""What the site shows of other folders: the notebooks, with their committed outputs, and the committed benchmarks."""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
HEAD = """\
# Benchmarks

Each table was written by the script of its name in `benchmarks/`, as were the figures, and is committed with it; a line
says on what. Times of jaxnorms and of its peers are taken in turn in one process, so that ratios mean something where
milliseconds do not. `MISSED` marks what fell short of what the row is held to.
"""


@event_priority(100)  # before the notebooks are looked for
def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages and pictures."""
    pictures = [*ROOT.glob("notebooks/figures/*.png"), *RESULTS.glob("*.png")]
    for path in [*ROOT.glob("notebooks/*.ipynb"), *pictures]:
        name = str(path.relative_to(ROOT))
        files.append(File(name, str(ROOT), config.site_dir, config.use_directory_urls))
    pages = [HEAD, *map(_section, sorted(RESULTS.glob("*.md")))]
    files.append(File.generated(config, "benchmarks.md", content="\n\n".join(pages)))
    return files


def _section(path: Path) -> str:
    """A page of results under a heading of its own, its pictures where they lie."""
    text = path.read_text()
    if not text.startswith("# "):
        text = f"# {path.stem.capitalize()}\n\n{text}"
    text = re.sub(r"^(#+ )", r"#\1", text, flags=re.MULTILINE)
    return re.sub(r"\]\((\w+\.png)\)", r"](benchmarks/results/\1)", text)
