"""SciPy's own tests of its norms, determinants and singular values, run against this package.

The classes and functions are SciPy's, unedited: for the time of a test, a fixture puts ours where they look for
SciPy's. ``norm``, ``det``, ``svdvals`` and ``scipy.sparse.linalg.norm`` differ from ours in keywords and types alone:
SciPy takes determinants in double precision, and sparse matrices are given dense. ``svds`` is ``truncated_svd``, of
arrays and of a ``LinearOperator``, in ascending order; the smallest values are the last ones of all. ``onenormest``
is ``induced_norm(a, 1)``, exact, with the column at which it is attained from the gradient.

Every test that must differ stands in ``DIFFERENCES``, with the errors it ends in and the reason; whatever else fails
is a bug. What is not about a function of ours stands in ``LEFT_OUT``. The summary of pytest counts them as passed,
xfailed and skipped. SciPy expects double precision throughout: the file needs ``JAX_ENABLE_X64=1``.
"""

import functools
import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnorms as jn

scipy = pytest.importorskip("scipy")
if not jax.config.jax_enable_x64:
    pytest.skip("SciPy expects double precision: needs JAX_ENABLE_X64=1", allow_module_level=True)


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


def as_numpy(function):
    """``function`` of dense arrays with its result as a NumPy array or scalar, without SciPy's keywords."""

    @functools.wraps(function)
    def call(a, *args, check_finite=True, overwrite_a=False, **kwargs):
        return np.asarray(function(dense(a), *args, **kwargs))[()]

    return call


def det(a, **kwargs):
    x = np.asarray(a)
    return as_numpy(jn.det)(x.astype(np.result_type(x, np.float64)) if x.dtype.kind in "biufc" else x, **kwargs)


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


UNMET = (AssertionError, pytest.fail.Exception)  # another message, or no error
MESSAGE = "the same type of error with a message of our own"
NO_LONGDOUBLE = "JAX has no longdouble: such an array is a TypeError"

# Test id -> (the errors it ends in, why); without its parameters, for all of them.
DIFFERENCES = {
    "TestVectorNorms::test_types": (TypeError, NO_LONGDOUBLE),
    "TestDet::test_incompatible_dtype_input": (UNMET, MESSAGE),
    "TestDet::test_empty_edge_cases": (UNMET, MESSAGE),
    "TestDet::test_overwrite_a": (UNMET, "no array is ever overwritten"),
    "TestDet::test_simple_check_finite": (UNMET, "an infinite entry gives NaN: values are not known within jit"),
    "TestSparseNorm::test_matrix_norm": (UNMET, "order -2, which SciPy has not for sparse matrices, is computed"),
    "TestSparseNorm::test_norm_exceptions": (ValueError, "a list is a sequence of axes: not a TypeError"),
    "TestSvds::test_svds_input_validation_A[args0]": (UNMET, MESSAGE),
    "TestSvds::test_svds_input_validation_A[args1]": (TypeError, "an array of objects is a TypeError"),
    "TestSvds::test_svds_input_validation_A[args2]": (UNMET, MESSAGE),
    "TestSvds::test_svds_input_validation_A[args3]": (UNMET, "more than two axes are a batch of matrices"),
    "TestSvds::test_svds_input_validation_k_1[1.5]": (TypeError, "a k that is no integer is a TypeError"),
    "TestSvds::test_svds_input_validation_k_1[1]": (TypeError, "a k that is no integer is a TypeError"),
    "TestSvds::test_svds_input_validation_k_2": (UNMET, MESSAGE),
    "TestSvds::test_svds_input_validation_tol_1": (UNMET, MESSAGE),
    "TestSvds::test_svds_input_validation_tol_2": (UNMET, MESSAGE),
    "TestSvds::test_svds_parameter_tol": (ValueError, "a tol of 1 is refused: it would accept any vectors"),
    "TestSvds::test_svd_rng": (UNMET, "such small arrays take one SVD: the key has no part in it"),
    "TestSvds::test_svd_rng_3": (UNMET, "such small arrays take one SVD: the key has no part in it"),
    "TestOnenormest::test_onenormest_table_5_t_1": (UNMET, "the norm itself, 20 times what SciPy estimates here"),
}
DIFFERENCES |= {f"TestSvds::test_svds_input_validation_k_1[{k}]": (UNMET, MESSAGE) for k in (-1, 0, 4, 5)}

# Name of a test, or how it begins -> why it is not run.
LEFT_OUT = {
    "test_large_vector": "takes 16 GB",
    "test_svds_input_validation_which": "truncated_svd has no such argument",
    "test_svds_input_validation_v0": "truncated_svd has no such argument",
    "test_svds_input_validation_maxiter": "truncated_svd has no such argument",
    "test_svds_input_validation_return": "truncated_svd has no such argument",
    "test_svd_v0": "truncated_svd has no such argument",
    "test_svd_maxiter": "truncated_svd has no such argument",
    "test_onenormest_table_3": "counts the products of SciPy's algorithm, through a private function",
    "test_onenormest_table_4": "counts the products of SciPy's algorithm, through a private function",
    "test_onenormest_table_6": "counts the products of SciPy's algorithm, through a private function",
    "test_onenormest_linear_operator": "of SciPy's algorithm, through a private function",
}


@pytest.fixture(autouse=True)
def our_functions(request, monkeypatch):
    """Ours in the place of SciPy's, and the mark of a test that is known to differ."""
    for module, name, function in [
        (basic, "norm", as_numpy(jn.norm)),
        (basic, "det", det),
        (decomp, "svdvals", as_numpy(jn.singular_values)),
        (sparse_norms, "spnorm", as_numpy(jn.norm)),
        (svds_tests, "svds", svds),
        (scipy.sparse.linalg, "onenormest", onenormest),
    ]:
        monkeypatch.setattr(module, name, function)
    test = request.node.nodeid.partition("::")[2]
    for beginning, reason in LEFT_OUT.items():
        if test.rpartition("::")[2].startswith(beginning):
            pytest.skip(reason)
    for known in (test, test.partition("[")[0]):
        if known in DIFFERENCES:
            errors, reason = DIFFERENCES[known]
            request.applymarker(pytest.mark.xfail(raises=errors, reason=reason, strict=True))


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


# The part of a test in DIFFERENCES that lies behind the first difference.


def test_types_without_longdouble(monkeypatch):
    monkeypatch.setitem(np.typecodes, "AllFloat", "efdFD")
    monkeypatch.setitem(np.typecodes, "Complex", "FD")
    basic.TestVectorNorms().test_types()
