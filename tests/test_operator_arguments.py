"""What a linear operator refuses, when it is constructed and when it is used."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import pytest
from matrices import REAL

import jaxnorms as jn

W = jnp.ones((5, 3), REAL)


def matvec(w, x):
    return w @ x


@dataclass
class Unhashable:
    def __call__(self, w, x):
        return w @ x


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ((W, None, None, (5, 3), REAL), TypeError, "matvec must be a hashable function, got None"),
        ((W, matvec, 3, (5, 3), REAL), TypeError, "rmatvec must be None or a hashable function, got 3"),
        ((W, Unhashable(), None, (5, 3), REAL), TypeError, "matvec must be a hashable function, got Unhashable"),
        ((W, matvec, None, 5, REAL), ValueError, "shape must be a pair of positive integers"),
        ((W, matvec, None, (5, True), REAL), TypeError, "shape must be a pair of positive integers"),
        ((W, matvec, None, (5, 0), REAL), ValueError, r"positive integers \(m, n\), got \(5, 0\)"),
        ((W, matvec, None, (5, 3), int), TypeError, "dtype must be a floating or complex type, got int"),
    ],
)
def test_construction_refuses(given, error, message):
    with pytest.raises(error, match=message):
        jn.LinearOperator(*given)


def wrong(function=matvec, adjoint=None, shape=(5, 3)):
    return jn.LinearOperator(W, function, adjoint, shape, REAL)


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda: jn.spectral_norm(wrong(lambda w, x: x)), r"must return shape \(5,\) .* got shape \(3,\)"),
        (lambda: jn.frobenius_norm(wrong(lambda w, x: w @ x > 0)), "and dtype float.., got shape .* and dtype bool"),
        (lambda: jn.singular_values(wrong(lambda w, x: (w @ x,)), 1), r"and dtype float.., got \(ShapeDtypeStruct"),
        (lambda: jn.truncated_svd(wrong(shape=(5, 4)), 1), r"of shape \(4,\) and dtype float.. .* but raised"),
        (lambda: jn.norm_bounds(wrong(adjoint=matvec)), r"rmatvec\(params, x\) with x of shape \(5,\)"),
        (lambda: jn.norm_bounds(wrong(lambda w, x: jnp.abs(w @ x))), r"no transpose \(is it linear\?\), give rmatvec"),
        (lambda: jn.nuclear_norm(wrong()), "nuclear_norm: a LinearOperator has no entries, which this norm needs"),
        (lambda: jn.entrywise_norm(wrong(), 1), "spectral, Ky Fan and Frobenius norms"),
        (lambda: jn.KyFan(4)(wrong()), r"k must be between 1 and min\(m, n\) = 3, got 4"),
        (lambda: jn.nuclear_norm(wrong(), rank=4), r"rank must be between 1 and min\(m, n\) = 3, got 4"),
        (lambda: jn.truncated_svd(wrong(), 4), r"k must be between 1 and min\(m, n\) = 3, got 4"),
        (lambda: jn.spectral_norm(wrong(), axis=(0, 1)), "keywords are method and tol, got axis"),
        (lambda: jn.spectral_norm(wrong(), method="svd"), "method of a LinearOperator must be 'auto' or 'krylov'"),
        (
            lambda: jn.frobenius_norm(wrong(), method="krylov"),
            "method must be 'auto' for a norm of the entries",
        ),
        (lambda: jn.norm_bounds(wrong(), method="gram"), "method of a LinearOperator must be 'ritz', got 'gram'"),
        (lambda: jn.frobenius_norm(wrong(), samples=3), "samples and key go together, got samples=3 and key=None"),
        (lambda: jn.frobenius_norm(W, samples=3, key=jax.random.key(0)), "samples and key are for a LinearOperator"),
    ],
)
def test_use_refuses(use, message):
    with pytest.raises(ValueError, match=message):
        use()


@pytest.mark.parametrize("function", [jn.polar, jn.spectrum_summary, jn.norm])
def test_others_refuse_operators(function):
    with pytest.raises(TypeError, match="got LinearOperator"):
        function(wrong())
