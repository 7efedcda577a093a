"""The page of evidence: every section was written by a run, of every version and in both modes."""

import re
import sys

import page
import pytest
import versions
from suites import Case, Report

if not page.PAGE.exists():
    pytest.skip("the page is not beside these tests", allow_module_level=True)

SECTIONS = re.findall(r"^<!-- (?!end of )(.+) -->$", page.PAGE.read_text(), re.MULTILINE)


@pytest.fixture
def written(monkeypatch):
    """The tables that the script writes, as rows."""
    tables = []
    monkeypatch.setattr(versions, "one_commit", lambda _: None)
    monkeypatch.setattr(versions, "write", lambda _, text, **__: tables.append(page.cells(text)))
    return tables


@pytest.mark.parametrize("section", SECTIONS)
def test_every_section_has_a_table(section):
    assert page.rows_of(section)


@pytest.mark.parametrize("section", [section for section in SECTIONS if section != "versions"])
def test_every_section_names_its_commit(section):
    assert re.search(r"^Of commit [0-9a-f]{7,}\.$", page.parts(section)[1], re.MULTILINE)


def test_a_version_without_its_interpreter_is_listed(monkeypatch, capsys, written):
    monkeypatch.setattr(versions, "interpreter", lambda _: None)
    monkeypatch.setattr("sys.argv", ["versions.py"])
    with pytest.raises(SystemExit) as ended:
        versions.main()
    assert not ended.value.code
    assert [line.split(" | ")[4] for line in capsys.readouterr().out.splitlines() if "no such" in line] == [
        versions.SKIPPED
    ] * len(versions.VERSIONS)
    assert not written, "rows that stand are replaced"


def test_a_mode_in_which_a_test_fails_leaves_the_other(monkeypatch, capsys, written):
    first, *_ = versions.VERSIONS
    reports = {
        "0": Report([Case("f", "g", "passed", {})] * 7, "", 0),
        "1": Report([Case("f", "g", "failed", {})], "", 1),
    }
    monkeypatch.setattr(versions, "environment", lambda _: sys.executable)
    monkeypatch.setattr(versions, "run", lambda _, mode, **__: reports[mode])
    monkeypatch.setattr("sys.argv", ["versions.py", "--only", first.name])
    with pytest.raises(SystemExit) as ended:
        versions.main()
    assert ended.value.code
    assert " | 64 bits | 0 | 0 | 0 | 1 | " in capsys.readouterr().out
    (rows,), before = written, page.rows_of("versions")
    assert rows[1:] == before[1:]
    assert rows[0][4:9] == ["32 bits", "7", "0", "0", "0"]


def test_every_item_has_a_section():
    assert {"peers", "properties", "refusals", "faults", "versions", "devices", "soak", "release"} == set(SECTIONS)


def test_every_version_ran_in_both_modes():
    rows = page.rows_of("versions")
    assert sorted((row[0], row[4]) for row in rows) == [
        (version, mode) for version in ("current", "floor", "newest") for mode in ("32 bits", "64 bits")
    ]
    assert all(row[8] == "0" for row in rows), "a version on which a test fails"
