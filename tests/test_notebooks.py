"""The committed notebooks: each says its question and finding first, ran to its end, and can be found."""

import json
import re
from pathlib import Path

import pytest

provenance = pytest.importorskip("provenance", reason="the notebooks are not beside these tests")

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted(ROOT.glob("notebooks/*.ipynb"))
LARGEST = 1_000_000  # bytes; each is a page of the site


def source(cell):
    return "".join(cell["source"])


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_answers_its_question(path):
    text = path.read_text()
    notebook = json.loads(text)
    cells = notebook["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    first = source(cells[0])
    assert re.match(r"# .+\n\n\*\*Question\.\*\* .+\n\n\*\*Finding\.\*\* .*\d", first), "title, question and finding"
    assert "\nassert " in "\n" + source(code[-1]), "the finding is not asserted in the last cell"
    assert len(text) <= LARGEST

    assert notebook["metadata"]["executed"] == provenance.code_hash(cells), "the outputs are those of other code"
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1)), "not run from its start"
    outputs = [output for cell in code for output in cell["outputs"]]
    assert {output["output_type"] for output in outputs} <= {"stream", "display_data", "execute_result"}
    assert all(output.get("name") != "stderr" for output in outputs)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_in_the_gallery_and_on_the_site(path):
    name = f"notebooks/{path.name}"
    readme = (ROOT / "README.md").read_text()
    thumbnails = re.findall(rf'<a href="{name}"><img src="([^"]+)"', readme)
    assert len(thumbnails) == 1
    assert (ROOT / thumbnails[0]).exists()
    assert f": {name}\n" in (ROOT / "mkdocs.yml").read_text()
    saved = set(re.findall(rf'"({path.stem}_\w+)\\"', path.read_text()))
    assert saved <= {picture.stem for picture in ROOT.glob("notebooks/figures/*.png")}
