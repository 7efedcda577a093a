"""What is expected to differ, in NumPy's, SciPy's and Optax's own tests and in torch's samples, and why.

Whatever else fails in their suites is a bug, and so is an entry here that differs no longer or fits no test.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from peers import X64, Expected

inf = float("inf")

UNMET = (AssertionError, pytest.fail.Exception)  # another message, or no error
MESSAGE = "the same type of error with a message of our own"
NO_LONGDOUBLE = "JAX has no longdouble: such an array is a TypeError"
NO_AXIS_ERROR = "an axis out of range is a ValueError, as in jnp.linalg.norm, not NumPy's subclass AxisError"
NO_LINALG_ERROR = "an empty matrix is a ValueError, not NumPy's subclass LinAlgError"
NO_DOUBLE = "without x64, float64 is held, computed and returned as float32"

NUMPY = Expected(
    differences={
        "TestNormDouble::test_bad_args": (ValueError, NO_AXIS_ERROR),
        "TestNormSingle::test_bad_args": (ValueError, NO_AXIS_ERROR),
        "TestNormInt64::test_bad_args": (ValueError, NO_AXIS_ERROR),
        "TestNormDouble::test_vector_return_type": (TypeError, NO_LONGDOUBLE),
        "TestNormSingle::test_vector_return_type": (TypeError, NO_LONGDOUBLE) if X64 else (AssertionError, NO_DOUBLE),
        "TestNormInt64::test_vector_return_type": (TypeError, NO_LONGDOUBLE),
        "TestCond::test_empty_sq_cases": (AssertionError, NO_LINALG_ERROR),
        "TestCond::test_generalized_empty_sq_cases": (AssertionError, NO_LINALG_ERROR),
        "TestNorm_NonSystematic::test_longdouble_norm": (TypeError, NO_LONGDOUBLE),
        "TestNorm_NonSystematic::test_complex_high_ord": (TypeError, NO_LONGDOUBLE),
    }
    | ({} if X64 else {"TestNormSingle::test_matrix_return_type": (AssertionError, NO_DOUBLE)}),
    left_out={},
    within_rounding={
        # LAPACK and Jacobi each have some rounding of their own; in double precision the test passes.
        "TestNormSingle::test_axis": "1.5e-6, a fifth of eps s_1, in the smallest singular value of singular matrices",
    },
)

SCIPY = Expected(
    differences={
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
        "TestSvds::test_svds_input_validation_k_1[-1]": (UNMET, MESSAGE),
        "TestSvds::test_svds_input_validation_k_1[0]": (UNMET, MESSAGE),
        "TestSvds::test_svds_input_validation_k_1[4]": (UNMET, MESSAGE),
        "TestSvds::test_svds_input_validation_k_1[5]": (UNMET, MESSAGE),
        "TestSvds::test_svds_input_validation_k_1[1.5]": (TypeError, "a k that is no integer is a TypeError"),
        "TestSvds::test_svds_input_validation_k_1[1]": (TypeError, "a k that is no integer is a TypeError"),
        "TestSvds::test_svds_input_validation_k_2": (UNMET, MESSAGE),
        "TestSvds::test_svds_input_validation_tol_1": (UNMET, MESSAGE),
        "TestSvds::test_svds_input_validation_tol_2": (UNMET, MESSAGE),
        "TestSvds::test_svds_parameter_tol": (ValueError, "a tol of 1 is refused: it would accept any vectors"),
        "TestSvds::test_svd_rng": (UNMET, "such small arrays take one SVD: the key has no part in it"),
        "TestSvds::test_svd_rng_3": (UNMET, "such small arrays take one SVD: the key has no part in it"),
        "TestOnenormest::test_onenormest_table_5_t_1": (UNMET, "the norm itself, 20 times what SciPy estimates here"),
    },
    left_out={
        "TestVectorNorms::test_large_vector": "takes 16 GB",
        "TestSvds::test_svds_input_validation_which": "truncated_svd has no such argument",
        "TestSvds::test_svds_input_validation_v0": "truncated_svd has no such argument",
        "TestSvds::test_svds_input_validation_maxiter": "truncated_svd has no such argument",
        "TestSvds::test_svds_input_validation_return": "truncated_svd has no such argument",
        "TestSvds::test_svd_v0": "truncated_svd has no such argument",
        "TestSvds::test_svd_maxiter": "truncated_svd has no such argument",
        "TestOnenormest::test_onenormest_table_3": "counts the products of SciPy's algorithm, by a private function",
        "TestOnenormest::test_onenormest_table_4": "counts the products of SciPy's algorithm, by a private function",
        "TestOnenormest::test_onenormest_table_6": "counts the products of SciPy's algorithm, by a private function",
        "TestOnenormest::test_onenormest_linear_operator": "of SciPy's algorithm, by a private function",
    },
    within_rounding={},
)

NOT_BOUNDED = "the set is not the ball of a norm: not bounded"
NOT_SYMMETRIC = "the set is not the ball of a norm: not symmetric"
SURFACE = "the set is not the ball of a norm, but its surface"

OPTAX = Expected(
    differences={},
    left_out={
        "TestProjections::test_projection_non_negative": NOT_BOUNDED,
        "TestProjections::test_projection_vector": NOT_BOUNDED,
        "TestProjections::test_projection_hyperplane": NOT_BOUNDED,
        "TestProjections::test_projection_halfspace": NOT_BOUNDED,
        "TestProjections::test_projection_box": NOT_SYMMETRIC,
        "TestProjections::test_projection_hypercube": NOT_SYMMETRIC,
        "TestProjections::test_projection_simplex": NOT_SYMMETRIC,
        "TestProjections::test_projection_l1_sphere": SURFACE,
        "TestProjections::test_projection_l2_sphere": SURFACE,
    },
    within_rounding={}
    if X64
    else {"TestClipping::test_clip_by_block_rms": "5e-8 of float32 numbers about 1, less than half a last place"},
)


class Sample(NamedTuple):
    """An input with what torch makes of it; ``gradient`` is None where torch's result does not depend on it."""

    x: np.ndarray
    arguments: dict[str, Any]
    value: tuple[np.ndarray, ...]
    cotangent: tuple[np.ndarray, ...]
    gradient: np.ndarray | None

    @property
    def ord(self) -> Any:
        return self.arguments.get("ord")

    def __str__(self) -> str:
        return f"{self.x.dtype}{list(self.x.shape)} {self.arguments}"


class Difference(NamedTuple):
    where: Callable[[Sample], bool]
    reason: str
    # What ours does instead: the words of a ValueError, or, if None, a derivative of exactly 0 beside the same value.
    refusal: str | None = None


def largest_of_none(sample: Sample) -> bool:
    """Whether the norm of a matrix is the largest of no columns, rows or singular values."""
    many = {1: sample.x.shape[1:], inf: sample.x.shape[:1], 2: sample.x.shape}
    return sample.x.ndim == 2 and 0 in many.get(sample.ord, ())


def negative_order_of_empty(sample: Sample) -> bool:
    return sample.x.ndim == 2 and sample.x.size == 0 and sample.ord in (-1, -2, -inf)


COUNT = Difference(lambda sample: sample.ord == 0, "a count of nonzeros: constant in torch, derivative 0 here")
LARGEST_OF_NONE = Difference(largest_of_none, "the norm 0 of an empty matrix: constant in torch, derivative 0 here")
SMALLEST_OF_EMPTY = Difference(
    negative_order_of_empty, "torch gives the sums of no entries, 0; undefined here", "not defined for an empty array"
)
AXIS_OF_SCALAR = Difference(
    lambda sample: sample.x.ndim == 0 and sample.arguments.get("dim") in (0, -1),
    "to torch a number has an axis, to NumPy and JAX not",
    "must name axes of an array with 0 axes",
)
BASIS_AT_ZERO = Difference(
    lambda sample: sample.x.ndim == 2 and sample.x.size > 0 and sample.ord in ("nuc", 2, -2),
    "U V^H of the zero matrix, whatever vectors the SVD returned; here the one of minimum norm, 0",
)

# Of each sample the first entry that fits.
TORCH = {
    "linalg.norm": [COUNT, LARGEST_OF_NONE, SMALLEST_OF_EMPTY],
    "linalg.norm.subgradients_at_zero": [COUNT, LARGEST_OF_NONE, SMALLEST_OF_EMPTY, BASIS_AT_ZERO],
    "linalg.vector_norm": [AXIS_OF_SCALAR, COUNT],
}
