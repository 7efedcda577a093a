"""NumPy's own tests of its norms, run against this package.

``norm``, ``matrix_norm`` and ``vector_norm`` are drop-ins, so the tests that NumPy ships for the
functions of these names should pass with ours in their place. The classes and functions are
NumPy's, unedited: for the time of a test, a fixture puts our functions where theirs look for NumPy's,
with the result as a NumPy array of the same value, shape and dtype. Every test that must differ
stands in ``peer_differences``, with the error it ends in and the reason; whatever else fails is a bug.

NumPy computes integers and Python numbers in double precision and expects twelve decimals, which
JAX has only with ``JAX_ENABLE_X64=1``. Without it only ``TestNormSingle`` runs.
"""

import numpy as np
import pytest
from matrices import needs_double
from peer_differences import NUMPY
from peers import as_numpy, mark, stale

import jaxnorms as jn

numpy_tests = pytest.importorskip("numpy.linalg.tests.test_linalg", reason="this NumPy comes without its tests")


@pytest.fixture(autouse=True)
def our_norms(request, monkeypatch):
    """Ours in the place of NumPy's, and the mark of a test that is known to differ."""
    monkeypatch.setattr(numpy_tests, "norm", as_numpy(jn.norm))
    for name in ("norm", "matrix_norm", "vector_norm", "cond", "det", "slogdet"):
        monkeypatch.setattr(np.linalg, name, as_numpy(getattr(jn, name)))
    mark(request, NUMPY)


@needs_double
class TestNormDouble(numpy_tests.TestNormDouble):
    pass


class TestNormSingle(numpy_tests.TestNormSingle):
    pass


@needs_double
class TestNormInt64(numpy_tests.TestNormInt64):
    pass


@needs_double
class TestNorm_NonSystematic(numpy_tests.TestNorm_NonSystematic):
    pass


@needs_double
class TestCond(numpy_tests.TestCond):
    pass


@needs_double
class TestDet(numpy_tests.TestDet):
    pass


@needs_double
@pytest.mark.parametrize(
    "name", [name for name in dir(numpy_tests) if name.startswith(("test_matrix_norm", "test_vector_norm"))]
)
def test_function(name):
    getattr(numpy_tests, name)()


class TestBehindDifferences:
    """Our own: the parts of NumPy's tests that lie behind their first difference, and the table of differences."""

    @needs_double
    def test_vector_return_type_without_longdouble(self, monkeypatch):
        monkeypatch.setitem(np.typecodes, "AllFloat", "efdFD")
        numpy_tests.TestNormDouble().test_vector_return_type()

    def test_bad_args_without_axis_error(self, monkeypatch):
        monkeypatch.setattr(numpy_tests, "AxisError", ValueError)
        numpy_tests.TestNormSingle().test_bad_args()

    @pytest.mark.parametrize("dtype", [np.complex64, pytest.param(np.complex128, marks=needs_double)])
    def test_complex_high_ord_without_longdouble(self, dtype):
        value = np.linalg.norm(np.array([6 + 7j, -6 + 7j], dtype), ord=3)
        np.testing.assert_allclose(value, 11.615898132184, rtol=2 * np.finfo(dtype).eps + 1e-13)

    def test_every_entry_is_of_a_test(self, request):
        assert not stale(request, NUMPY)
