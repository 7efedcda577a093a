"""The inputs on which torch tests its norms and determinants: the same values and gradients here as there.

torch describes every function by an ``OpInfo``, which makes the sample inputs of all its own tests. On each
of them, in double precision, real and complex, this package returns torch's value, with its shape and type,
and torch's derivative for a fixed random cotangent. What must differ stands in ``peer_differences`` with the
reason and with what holds there instead; an entry that fits no sample, or a sample that does not differ, fails.

Conventions: of a real function torch's gradient is ``dL/dx + i dL/dy``, the conjugate of JAX's, and so is the
cotangent of a complex result. Needs torch with the modules of its own tests (and expecttest, which these import).
"""

import collections
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matrices import NEEDS_DOUBLE, gaussian, tolerance
from peer_differences import TORCH, Difference, Sample
from peers import X64

import jaxnorms as jn

if not X64:
    pytest.skip(NEEDS_DOUBLE, allow_module_level=True)
torch = pytest.importorskip("torch")
op_db = pytest.importorskip(
    "torch.testing._internal.opinfo.definitions.linalg", reason="needs torch's own test modules, and expecttest"
).op_db


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
    """Value and gradient, as torch defines it, of every sample, from one program for all."""

    def one(sample: Sample, x, cotangent):
        value, vjp = jax.vjp(lambda x: tuple(jax.tree.leaves(function(x, **sample.arguments))), x)
        return value, vjp(tuple(c.conj() for c in cotangent))[0].conj()

    @jax.jit
    def every(inputs):
        return [one(sample, x, c) for sample, (x, c) in zip(samples, inputs, strict=True)]

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
    same = sample.gradient is not None and equal(gradient, sample.gradient)
    if expected is None:
        return same
    return not same and gradient.shape == sample.x.shape and not gradient.any()


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize("name", OPS)
def test_equals_torch(name, dtype, record_property):
    op, table = OPS[name], TORCH.get(name, [])
    function = OURS[op.name]
    found, wrong, gradients = collections.Counter(), [], 0
    for samples in by_shape(op, getattr(torch, dtype)).values():
        fits = [next((i for i, d in enumerate(table) if d.where(sample)), None) for sample in samples]
        found.update(fits)
        entries = [None if i is None else table[i] for i in fits]
        computed = []
        for sample, entry in zip(samples, entries, strict=True):
            if entry is None or entry.refusal is None:
                computed.append((sample, entry))
            else:
                with pytest.raises(ValueError, match=entry.refusal):
                    function(sample.x, **sample.arguments)
        gradients += len(computed)
        for (value, gradient), (sample, entry) in zip(ours(function, [s for s, _ in computed]), computed, strict=True):
            if not agrees(value, gradient, sample, entry):
                wrong.append(f"{sample}: {value}, {gradient}; torch {sample.value}, {sample.gradient}; {entry}")
    assert not wrong, "\n".join(wrong)
    stale = [entry.reason for i, entry in enumerate(table) if i not in found]
    assert not stale, stale
    record_property("samples", found.total())
    record_property("differ", found.total() - found[None])
    record_property("gradients", gradients)


def test_every_function_has_samples():
    assert {op.name for op in OPS.values()} == set(OURS)
    assert set(TORCH) <= set(OPS)
