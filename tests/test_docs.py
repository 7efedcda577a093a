"""The site: every public name stands in exactly one page of the reference, and its examples run."""

import re
from collections import Counter
from pathlib import Path

import jax
import pytest

import jaxnorms

DOCS = Path(__file__).parent.parent / "docs"
PAGES = sorted(path for path in DOCS.glob("*.md") if "```python" in path.read_text())


def test_every_public_name_has_one_place_in_the_reference():
    pages = "\n".join(path.read_text() for path in DOCS.glob("reference/*.md"))
    found = Counter(re.findall(r"^::: jaxnorms\.(\w+)$", pages, re.MULTILINE))
    assert found == Counter(jaxnorms.__all__)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_examples_run(page):
    """As a user has them: with JAX's own promotion."""
    names = {}
    for block in re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
        with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
            exec(compile(block, str(page), "exec"), names)
