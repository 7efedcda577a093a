"""SciPy's own tests of its norms, determinants and singular values, run against this package.

The classes and functions are SciPy's, unedited: for the time of a test, a fixture puts ours where they look for
SciPy's. ``norm``, ``det``, ``svdvals`` and ``scipy.sparse.linalg.norm`` differ from ours in keywords and types alone:
SciPy takes determinants in double precision, and sparse matrices are given dense. ``svds`` is ``truncated_svd``, of
arrays and of a ``LinearOperator``, in ascending order; the smallest values are the last ones of all. ``onenormest``
is ``induced_norm(a, 1)``, exact, with the column at which it is attained from the gradient.

Every test that must differ stands in ``peer_differences``, with the errors it ends in and the reason, and so does what
is not about a function of ours; whatever else fails is a bug. The summary of pytest counts them as passed, xfailed and
skipped: what we leave out says "left out", what SciPy itself skips has a reason of its own. SciPy expects double
precision throughout: the file needs ``JAX_ENABLE_X64=1``.
"""

import functools
import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matrices import NEEDS_DOUBLE
from peer_differences import SCIPY
from peers import X64, as_numpy, mark, stale

import jaxnorms as jn

scipy = pytest.importorskip("scipy")
if not X64:
    pytest.skip(NEEDS_DOUBLE, allow_module_level=True)


def shipped(name):
    """A test module of SciPy, whose marks are its own: this suite takes no others than those in its settings."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pytest.mark, "_config", None)
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError:
            pytest.skip(f"this SciPy comes without {name}", allow_module_level=True)


basic = shipped("scipy.linalg.tests.test_basic")
decomp = shipped("scipy.linalg.tests.test_decomp")
sparse_norms = shipped("scipy.sparse.linalg.tests.test_norm")
svds_tests = shipped("scipy.sparse.linalg._eigen.tests.test_svds")
onenormest_tests = shipped("scipy.sparse.linalg.tests.test_onenormest")

# Functions of the test modules, replaced.


def dense(a):
    return a.toarray() if scipy.sparse.issparse(a) else a


def of_dense(function):
    """``function`` of dense arrays with its result as a NumPy array or scalar, without SciPy's keywords."""

    @functools.wraps(function)
    def call(a, *args, check_finite=True, overwrite_a=False, **kwargs):
        return as_numpy(function)(dense(a), *args, **kwargs)

    return call


def det(a, **kwargs):
    x = np.asarray(a)
    return of_dense(jn.det)(x.astype(np.result_type(x, np.float64)) if x.dtype.kind in "biufc" else x, **kwargs)


def product(a, x):
    return a @ x


def adjoint_product(a, x):
    return a.conj().T @ x


@functools.partial(jax.jit, static_argnames=("k", "tol"))
def triplets_by_products(a, k, key, tol):
    return jn.truncated_svd(jn.LinearOperator(a, product, adjoint_product, a.shape, a.dtype), k, key=key, tol=tol)[:3]


def svds(A, k=6, *, which="LM", tol=0, rng=None, return_singular_vectors=True, by_products=False, **_without_effect):
    a = dense(A)
    if isinstance(a, scipy.sparse.linalg.LinearOperator):
        a = dense(a.A) if hasattr(a, "A") else a @ np.eye(a.shape[1])
        by_products = True
    size = k if which == "LM" else min(a.shape)
    seed = rng.integers(2**32) if isinstance(rng, np.random.Generator) else rng
    key = None if seed is None else jax.random.key(seed)
    tol = None if tol == 0 else tol
    svd = triplets_by_products(a, size, key, tol) if by_products else jn.truncated_svd(a, size, key=key, tol=tol)[:3]
    u, s, vh = map(np.asarray, svd)
    u, s, vh = u[:, ::-1][:, :k], s[::-1][:k], vh[::-1][:k]
    if return_singular_vectors is True:
        return u, s, vh
    if not return_singular_vectors:
        return s
    return u if return_singular_vectors == "u" else None, s, vh if return_singular_vectors == "vh" else None


def onenormest(A, t=2, itmax=5, compute_v=False, compute_w=False):
    a = dense(A)
    value, slope = jax.value_and_grad(jn.induced_norm)(jnp.asarray(a), 1)
    v = np.asarray(jnp.any(slope != 0, axis=0).astype(a.dtype))
    extra = (v,) * compute_v + (a @ v,) * compute_w
    return (float(value), *extra) if extra else float(value)


@pytest.fixture(autouse=True)
def our_functions(request, monkeypatch):
    """Ours in the place of SciPy's, and the mark of a test that is known to differ."""
    for module, name, function in [
        (basic, "norm", of_dense(jn.norm)),
        (basic, "det", det),
        (decomp, "svdvals", of_dense(jn.singular_values)),
        (sparse_norms, "spnorm", of_dense(jn.norm)),
        (svds_tests, "svds", svds),
        (scipy.sparse.linalg, "onenormest", onenormest),
    ]:
        monkeypatch.setattr(module, name, function)
    mark(request, SCIPY)


class TestVectorNorms(basic.TestVectorNorms):
    pass


class TestMatrixNorms(basic.TestMatrixNorms):
    pass


class TestDet(basic.TestDet):
    pass


class TestSVDVals(decomp.TestSVDVals):
    pass


class TestSparseNorm(sparse_norms.TestNorm):
    pass


class TestSparseVsNumpyNorm(sparse_norms.TestVsNumpyNorm):
    pass


def test_sparray_norm():
    sparse_norms.test_sparray_norm()


@pytest.mark.parametrize("tcode", np.typecodes["All"])
def test_det_of_dtype(tcode):
    basic.TestDTypes().test_det(tcode)


class TestSvds(svds_tests.SVDSCommonTests):
    def setup_method(self, method):
        """Of SciPy's solvers the one for all triplets: the tests expect the most of it, but skip a zero matrix."""
        self.solver = None if method.__name__ == "test_zero_matrix" else "propack"


class TestSvdsOfOperator:
    solver = "propack"
    test_svd_rng = svds_tests.SVDSCommonTests.test_svd_rng
    test_svd_rng_2 = svds_tests.SVDSCommonTests.test_svd_rng_2
    test_svd_rng_3 = svds_tests.SVDSCommonTests.test_svd_rng_3

    @pytest.fixture(autouse=True)
    def by_products(self, our_functions, monkeypatch):
        monkeypatch.setattr(svds_tests, "svds", functools.partial(svds, by_products=True))


class TestOnenormest(onenormest_tests.TestOnenormest):
    pass


class TestBehindDifferences:
    """Our own: the part of a test of SciPy that lies behind its first difference, and the table of differences."""

    def test_types_without_longdouble(self, monkeypatch):
        monkeypatch.setitem(np.typecodes, "AllFloat", "efdFD")
        monkeypatch.setitem(np.typecodes, "Complex", "FD")
        basic.TestVectorNorms().test_types()

    def test_every_entry_is_of_a_test(self, request):
        assert not stale(request, SCIPY)
