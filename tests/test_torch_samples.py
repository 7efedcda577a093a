"""The inputs on which torch tests its norms and determinants: the same values and gradients here as there.

torch describes every function by an ``OpInfo``, which makes the sample inputs of all its own tests. On each
of them, in double precision, real and complex, this package returns torch's value, with its shape and type,
and torch's derivative for a fixed random cotangent. What must differ stands in ``DIFFERENCES`` with the
reason and with what holds there instead; an entry that fits no sample, or a sample that does not differ, fails.
Values are compared for all samples, gradients for the first of each function, shape, order and axes (compile time).

Conventions: of a real function torch's gradient is ``dL/dx + i dL/dy``, the conjugate of JAX's, and so is the
cotangent of a complex result. Needs torch with the modules of its own tests (and expecttest, which these import).
"""

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matrices import REAL, gaussian, tolerance

import jaxnorms as jn

if REAL.itemsize < 8:
    pytest.skip("torch's samples are taken in double precision: needs JAX_ENABLE_X64=1", allow_module_level=True)
torch = pytest.importorskip("torch")
op_db = pytest.importorskip(
    "torch.testing._internal.opinfo.definitions.linalg", reason="needs torch's own test modules, and expecttest"
).op_db

inf = float("inf")


def norm(x, ord=None, dim=None, keepdim=False):
    return jn.norm(x, ord, dim, keepdim)


def vector_norm(x, ord=2, dim=None, keepdim=False):
    return jn.vector_norm(x, ord=ord, axis=dim, keepdims=keepdim)


def matrix_norm(x, ord="fro", dim=(-2, -1), keepdim=False):
    value = jn.matrix_norm(jnp.moveaxis(x, dim, (-2, -1)), ord=ord, keepdims=keepdim)
    return jnp.moveaxis(value, (-2, -1), dim) if keepdim else value


OURS = {
    "linalg.norm": norm,
    "linalg.matrix_norm": matrix_norm,
    "linalg.vector_norm": vector_norm,
    "linalg.cond": jn.cond,
    "linalg.svdvals": jn.singular_values,
    "linalg.det": jn.det,
    "linalg.slogdet": jn.slogdet,
}
OPS = {f"{op.name}.{op.variant_test_name}".rstrip("."): op for op in op_db if op.name in OURS}


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

    @property
    def axes(self) -> tuple[int, ...]:
        dim = self.arguments.get("dim")
        every = range(self.x.ndim)
        return tuple(every if dim is None else np.take(every, np.atleast_1d(dim).astype(int)))

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
    "is out of range for an array with 0 axes",
)
BASIS_AT_ZERO = Difference(
    lambda sample: sample.x.ndim == 2 and sample.x.size > 0 and sample.ord in ("nuc", 2, -2),
    "U V^H of the zero matrix, whatever vectors the SVD returned; here the one of minimum norm, 0",
)

# Of each sample the first entry that fits.
DIFFERENCES = {
    "linalg.norm": [COUNT, LARGEST_OF_NONE, SMALLEST_OF_EMPTY],
    "linalg.norm.subgradients_at_zero": [COUNT, LARGEST_OF_NONE, SMALLEST_OF_EMPTY, BASIS_AT_ZERO],
    "linalg.vector_norm": [AXIS_OF_SCALAR, COUNT],
}


def torch_sample(op, sample) -> Sample:
    x = sample.input.detach().clone().requires_grad_()
    arguments = dict(zip(("ord", "dim", "keepdim"), sample.args, strict=False)) | sample.kwargs
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Casting complex values to real", UserWarning)  # in torch's own norm
        result = op.op(x, *sample.args, **sample.kwargs)
    result = result if isinstance(result, tuple) else (result,)
    value = tuple(y.detach().numpy() for y in result)
    cotangent = tuple(np.asarray(gaussian(y.shape, y.dtype)) for y in value)
    gradient = None
    if any(y.requires_grad for y in result):
        (gradient,) = torch.autograd.grad(result, x, [torch.from_numpy(c) for c in cotangent], allow_unused=True)
    gradient = None if gradient is None else gradient.resolve_conj().numpy()
    return Sample(x.detach().numpy(), arguments, value, cotangent, gradient)


def by_shape(op, dtype) -> dict[tuple[int, ...], list[Sample]]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        samples = [torch_sample(op, sample) for sample in op.sample_inputs("cpu", dtype)]
    return {s.x.shape: [t for t in samples if t.x.shape == s.x.shape] for s in samples}


def ours(function, samples: list[Sample]) -> list[tuple]:
    """Value and gradient, as torch defines it, of every sample, from one program for all; a gradient may be None."""

    def one(sample: Sample, x, cotangent, differentiated: bool):
        def leaves(x):
            return tuple(jax.tree.leaves(function(x, **sample.arguments)))

        if not differentiated:
            return leaves(x), None
        value, vjp = jax.vjp(leaves, x)
        return value, vjp(tuple(c.conj() for c in cotangent))[0].conj()

    kinds = [(sample.ord, sample.axes) for sample in samples]
    first = [kind not in kinds[:i] for i, kind in enumerate(kinds)]

    @jax.jit
    def every(inputs):
        return [one(sample, x, c, new) for sample, (x, c), new in zip(samples, inputs, first, strict=True)]

    return jax.device_get(every([(sample.x, sample.cotangent) for sample in samples]))


def equal(actual, expected) -> bool:
    """Same shape and type, and each entry to rounding of the largest."""
    if (actual.shape, actual.dtype) != (expected.shape, expected.dtype):
        return False
    size = np.max(np.abs(expected), where=np.isfinite(expected), initial=0)
    return np.allclose(actual, expected, rtol=0, atol=tolerance(expected.dtype) * size)


def agrees(value, gradient, sample: Sample, expected: Difference | None) -> bool:
    if len(value) != len(sample.value) or not all(map(equal, value, sample.value)):
        return False
    if gradient is None:
        return True
    same = sample.gradient is not None and equal(gradient, sample.gradient)
    if expected is None:
        return same
    return not same and gradient.shape == sample.x.shape and not gradient.any()


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize("name", OPS)
def test_equals_torch(name, dtype):
    op, table = OPS[name], DIFFERENCES.get(name, [])
    function = OURS[op.name]
    found, wrong = set(), []
    for samples in by_shape(op, getattr(torch, dtype)).values():
        fits = [next((i for i, d in enumerate(table) if d.where(sample)), None) for sample in samples]
        found |= set(fits)
        entries = [None if i is None else table[i] for i in fits]
        computed = []
        for sample, entry in zip(samples, entries, strict=True):
            if entry is None or entry.refusal is None:
                computed.append((sample, entry))
            else:
                with pytest.raises(ValueError, match=entry.refusal):
                    function(sample.x, **sample.arguments)
        for (value, gradient), (sample, entry) in zip(ours(function, [s for s, _ in computed]), computed, strict=True):
            if not agrees(value, gradient, sample, entry):
                wrong.append(f"{sample}: {value}, {gradient}; torch {sample.value}, {sample.gradient}; {entry}")
    assert not wrong, "\n".join(wrong)
    stale = [entry.reason for i, entry in enumerate(table) if i not in found]
    assert not stale, stale


def test_every_function_has_samples():
    assert {op.name for op in OPS.values()} == set(OURS)
    assert set(DIFFERENCES) <= set(OPS)
