"""What files outside the package say of a release agrees."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def text(name: str) -> str:
    if not (ROOT / name).exists():
        pytest.skip(f"{name} is not beside these tests")
    return (ROOT / name).read_text()


@pytest.mark.parametrize(
    ("name", "pattern"), [("CITATION.cff", r"^version: (\S+)$"), ("CHANGELOG.md", r"^## \[?(\d[^\s\]]*)")]
)
def test_one_version(name, pattern):
    version = tomllib.loads(text("pyproject.toml"))["project"]["version"]
    assert re.search(pattern, text(name), re.MULTILINE)[1] == version


def test_the_dependencies_are_those_that_security_lists():
    needs = tomllib.loads(text("pyproject.toml"))["project"]["dependencies"]
    listed = re.search(r"^```\n(.*?)^```", text("SECURITY.md"), re.DOTALL | re.MULTILINE)[1].split()
    assert listed == [re.match(r"[\w-]+", line)[0] for line in needs]
