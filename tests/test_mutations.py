"""The deliberate faults of ``evidence/mutations.py`` still fit the package."""

import pytest
from faults import FAULTS
from page import ROOT

PACKAGE = ROOT / "jaxnorms"


@pytest.mark.skipif(not PACKAGE.exists(), reason="the package is not beside these tests")
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.what)
def test_the_text_of_a_fault_stands_once(fault):
    assert (PACKAGE / fault.file).read_text().count(fault.old) == 1
