"""Every public function refuses every wrong kind of thing, in every argument that is an array, with one clear error.

``CALLS`` holds a good call of each public function that takes arrays; a test puts bad things in the place of each array
in turn. ``PARAMETERS`` does the same for what is static, or a number; ``test_bad_values.py`` for NaN, infinite and
subnormal numbers. What has no row is listed in ``ELSEWHERE``, with the tests that refuse for it.
"""

import inspect
import re
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnorms as jn
from jaxnorms import transforms
from jaxnorms.options import Options

A = np.array([[2.0, 0.5, 0.0], [0.0, 1.0, 0.25], [0.125, 0.0, 3.0]], np.float32)
S = A @ A.T  # positive definite
V = np.ones(3, np.float32)
KEY = jax.random.key(0)
IDENTITY = jn.LinearOperator((), lambda params, x: x, None, (3, 3), jnp.float32)
INF, NAN = float("inf"), float("nan")

# Good calls, as the function, its arrays by name, and the rest; vectors and numbers stand in the rest, or in VECTORS.
CALLS = {
    "adjugate": (["a"], {}),
    "attention_logit_bound": (["q", "k"], {}),
    "attention_rank_profile": (["q", "k"], {}),
    "backward_error": (["a"], {"x": V, "b": V}),
    "balanced_factors": (["b", "a"], {}),
    "bauer_fike_bound": (["a", "e"], {}),
    "best_approximation": (["a"], {"k": 1}),
    "charpoly": (["a"], {}),
    "charpoly_value": (["a"], {"x": 1.0}),
    "cofactor": (["a"], {}),
    "cond": (["a"], {}),
    "condest": (["a"], {}),
    "det": (["a"], {}),
    "digits_left": (["a"], {}),
    "distance_to_singularity": (["a"], {}),
    "dual_norm": (["a"], {"ord": "nuc"}),
    "eigvalsh": (["a"], {}),
    "entrywise_norm": (["a"], {"p": 3}),
    "factored_frobenius_norm": (["b", "a"], {}),
    "factored_ky_fan_norm": (["b", "a"], {"k": 1}),
    "factored_norm": (["b", "a"], {"ord": "nuc"}),
    "factored_nuclear_bound": (["b", "a"], {}),
    "factored_nuclear_norm": (["b", "a"], {}),
    "factored_operator": (["b", "a"], {}),
    "factored_schatten_norm": (["b", "a"], {"p": 3}),
    "factored_singular_values": (["b", "a"], {}),
    "factored_spectral_norm": (["b", "a"], {}),
    "fan_dominates": (["a", "b"], {}),
    "forward_error_bound": (["a", "da"], {"b": V, "db": V}),
    "frobenius_norm": (["a"], {}),
    "induced_norm": (["a"], {"p": 1}),
    "induced_norm_bounds": (["a"], {"p": 2, "q": 1}),
    "init_spectral_norm": (["w"], {"key": KEY}),
    "ky_fan_norm": (["a"], {"k": 2}),
    "latent_attention_factors": (["down", "up_key", "up_value"], {}),
    "lmo": (["a"], {}),
    "low_rank_approximation": (["w"], {"rank": 1}),
    "matrix_exp": (["a"], {}),
    "matrix_log": (["a"], {}),
    "matrix_norm": (["x"], {}),
    "matrix_sqrt": (["a"], {}),
    "mirsky_bound": (["e"], {}),
    "mixed_norm": (["a"], {"p": 2, "q": 1}),
    "moreau_envelope": (["a"], {"step": 1.0, "ord": "nuc"}),
    "nearest_singular": (["a"], {}),
    "norm": (["x"], {}),
    "norm_bounds": (["a"], {}),
    "nuclear_norm": (["a"], {}),
    "pinv": (["a"], {}),
    "polar": (["a"], {}),
    "project": (["a"], {"radius": 1.0, "ord": "nuc"}),
    "prox": (["a"], {"step": 1.0, "ord": "nuc"}),
    "regularized_inverse": (["a"], {"lam": 1.0}),
    "schatten_norm": (["a"], {"p": 3}),
    "singular_values": (["a"], {}),
    "slogdet": (["a"], {}),
    "spectral_function": (["a"], {"f": jnp.tanh}),
    "spectral_norm": (["a"], {}),
    "spectral_sum": (["a"], {"f": jnp.tanh}),
    "spectrum_summary": (["a"], {}),
    "squared_frobenius_norm": (["a"], {}),
    "stable_rank": (["a"], {}),
    "subgradient": (["a"], {"ord": "nuc"}),
    "tikhonov_cond": (["a"], {"lam": 1.0}),
    "tikhonov_solve": (["a"], {"b": V, "lam": 1.0}),
    "truncated_svd": (["a"], {"k": 1}),
    "unitarily_invariant_norm": (["a"], {"gauge": jnp.max}),
    "weyl_bound": (["e"], {}),
}
# Vectors, of any length: no shape of these is wrong, but a scalar.
VECTORS = {
    "majorizes": (["x", "y"], {}),
    "margins": (["logits"], {"labels": np.array([0, 1, 2])}),
    "vector_norm": (["x"], {}),
    "normalized_margins": (["logits", "inputs"], {"labels": np.array([0, 1, 2]), "complexity": 1.0}),
}
ELSEWHERE = {
    "audit, clip_by_global_norm, clip_by_norm, compress, frobenius_product_bound, lipschitz_bound, penalty,"
    " rank_allocation, spectral_complexity": "trees: test_learning_contract.py, test_network_bounds.py, test_audit.py",
    "conv_spectral_norm, estimate_spectral_norm, spectral_normalize": "kernels: test_convolution.py and others",
    "dual, equivalence_constant, explain": "no arrays: test_norm_objects.py, test_comparison.py, test_methods.py",
}
NOT_ARRAYS = {
    "string": "matrix",
    "none": None,
    "object": object(),
    "set": {1.0, 2.0},
    "strings": [["a", "b"], ["c", "d"]],
    "objects": np.array([[None, 1.0], [2.0, 3.0]], dtype=object),
    "ragged": [[1.0, 2.0], [3.0]],
    "dates": np.array([["2020-01-01"]], dtype="datetime64[D]"),
    "keys": jax.random.split(KEY, (3, 3)),
    "function": jnp.sum,
}
NOT_MATRICES = {"scalar": np.float32(1), "vector": V}


def public(name):
    """A function or class of the package, or of its transformations for optax."""
    return getattr(jn, name, None) or getattr(transforms, name)


def call(name, arrays, rest):
    function = public(name)
    bound = {**arrays, **rest}
    signature = inspect.signature(function).parameters
    positional = [bound.pop(k) for k, p in signature.items() if p.kind is p.POSITIONAL_ONLY and k in bound]
    return function(*positional, **bound)


def refused(name, bad, of, kind):
    arrays, rest = EVERY[name]
    with pytest.raises(kind) as error:
        call(name, {**dict.fromkeys(arrays, A), of: bad}, rest)
    message = str(error.value)
    assert re.search(rf"\b{of} must\b", message), message
    assert len(message) < 400, "more than one clear sentence"


EVERY = {**CALLS, **VECTORS}


@pytest.mark.parametrize("name", EVERY)
def test_what_is_no_array_is_refused(name):
    for of in EVERY[name][0]:
        for kind, bad in NOT_ARRAYS.items():
            refused(name, bad, of, (TypeError, ValueError) if kind == "ragged" else TypeError)


@pytest.mark.parametrize("name", sorted(CALLS.keys() - {"norm"}))
def test_what_is_no_matrix_is_refused(name):
    for of in CALLS[name][0]:
        for bad in NOT_MATRICES.values():
            refused(name, bad, of, ValueError)


A_KEY, A_TYPE = "key must be one key", "compute_dtype must be a real floating type of 16 bits"
PARAMETERS = {
    "key number": (lambda: jn.truncated_svd(A, 1, key=3), A_KEY),
    "key string": (lambda: jn.truncated_svd(A, 1, key="a"), A_KEY),
    "keys": (lambda: jn.init_spectral_norm(jax.random.split(KEY), A), A_KEY),
    "no key": (lambda: jn.init_spectral_norm(None, A), A_KEY),
    "key of an operator": (lambda: jn.frobenius_norm(IDENTITY, samples=4, key=1), A_KEY),
    "dtype name": (lambda: jn.spectral_norm(A, compute_dtype="foo"), A_TYPE),
    "dtype number": (lambda: jn.polar(A, compute_dtype=3), A_TYPE),
    "dtype of 8 bits": (lambda: jn.polar(A, compute_dtype="float8_e4m3fn"), A_TYPE),
    "dtype beyond JAX": (lambda: jn.polar(A, compute_dtype="float128"), A_TYPE),
    "dtype integer": (lambda: jn.lmo(A, compute_dtype="int32"), A_TYPE),
    "labels string": (lambda: jn.margins(A, "a"), "labels must be an integer array, got str"),
    "labels real": (lambda: jn.margins(A, V), "labels must be an integer array, got dtype float32"),
}


@pytest.mark.parametrize("case", PARAMETERS)
def test_parameters_of_the_wrong_kind_are_refused(case):
    function, message = PARAMETERS[case]
    with pytest.raises(TypeError, match=message):
        function()


def flags(function):
    """The keywords of a function that are truth values."""
    signature = inspect.signature(function).parameters.values()
    shared = {name for name, kind in Options.__annotations__.items() if kind is bool}
    taken = shared if any(Options in get_args(p.annotation) for p in signature) else set()
    return taken | {p.name for p in signature if isinstance(p.default, bool)}


# Functions that have one, where CALLS has no call.
OTHERS = {
    "audit": lambda **rest: jn.audit({"w": A}, **rest),
    "majorizes": lambda **rest: jn.majorizes(V, V, **rest),
    "vector_norm": lambda **rest: jn.vector_norm(V, **rest),
}
FLAGS = {
    name: found
    for name in (*jn.__all__, *transforms.__all__)
    if not inspect.isclass(public(name)) and (found := flags(public(name)))
}


@pytest.mark.parametrize("name", FLAGS)
def test_numbers_and_words_are_no_truth_values(name):
    arrays, rest = CALLS.get(name, ([], {}))
    function = OTHERS.get(name, lambda **flags: call(name, dict.fromkeys(arrays, A), {**rest, **flags}))
    for flag in FLAGS[name]:
        refused_as_flag(flag, lambda bad, flag=flag: function(**{flag: bad}))


def refused_as_flag(flag, function):
    for bad in (1, 0.0, None, "no", np.array([True, False])):
        with pytest.raises(TypeError, match=f"\\b{flag} must be True or False, got "):
            function(bad)
    with pytest.raises(TypeError, match=f"\\b{flag} must be True or False, got "):
        jax.jit(function)(True)


def test_flags_of_equinox_layers():
    eqx = pytest.importorskip("equinox")
    SpectralNorm = pytest.importorskip("jaxnorms.adapters.equinox").SpectralNorm
    layer = eqx.nn.Linear(3, 2, key=KEY)
    norm, state = eqx.nn.make_with_state(SpectralNorm)(layer, key=KEY)
    refused_as_flag("inference", lambda bad: SpectralNorm(layer, key=KEY, inference=_something(bad)))
    refused_as_flag("inference", lambda bad: norm(jnp.ones(3), state, inference=_something(bad)))


def test_flags_of_nnx_layers():
    nnx = pytest.importorskip("flax.nnx")
    SpectralNorm = pytest.importorskip("jaxnorms.adapters.nnx").SpectralNorm
    layer = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
    norm = SpectralNorm(layer, rngs=nnx.Rngs(1))
    calls = {
        "use_running_average": lambda bad: SpectralNorm(layer, rngs=nnx.Rngs(1), use_running_average=bad),
        "update_stats": lambda bad: norm(jnp.ones(3), update_stats=_something(bad)),
    }
    for flag, function in calls.items():
        refused_as_flag(flag, function)
    refused_as_flag("use_running_average", lambda bad: norm.set_view(use_running_average=_something(bad)))


def _something(x):
    """``x``, with another wrong thing for None, which is allowed there."""
    return "none" if x is None else x


SHAPED = {
    "LinearOperator": lambda shape: jn.LinearOperator((), lambda params, x: x, None, shape, jnp.float32),
    "equivalence_constant": lambda shape: jn.equivalence_constant("nuc", "fro", shape),
    "explain": lambda shape: jn.explain(shape, "float32", "nuc"),
}
NO_SHAPES = {
    "none": (None, TypeError),
    "word": ("33", TypeError),
    "reals": ((3.0, 3.0), TypeError),
    "truth values": ((True, 3), TypeError),
    "array of reals": (np.ones(2), TypeError),
    "number": (3, ValueError),
    "one side": ((3,), ValueError),
    "negative": ((3, -1), ValueError),
}


@pytest.mark.parametrize("name", SHAPED)
def test_what_is_no_shape_is_refused(name):
    for bad, kind in NO_SHAPES.values():
        with pytest.raises(kind, match="shape must be "):
            SHAPED[name](bad)
    with pytest.raises(TypeError, match="shape must be "):
        jax.eval_shape(lambda n: SHAPED[name]((n, 3)), 3)


@pytest.mark.parametrize("name", sorted(SHAPED.keys() - {"explain"}))
def test_what_is_no_shape_of_one_matrix_is_refused(name):
    for bad in ((0, 3), (3, 0), (2, 3, 4)):
        with pytest.raises(ValueError, match="shape must be a pair of positive integers"):
            SHAPED[name](bad)


@pytest.mark.parametrize("bad", ["float33", None, 3, "int32", KEY.dtype, "float128"], ids=str)
def test_what_is_no_floating_type_is_refused(bad):
    with pytest.raises(TypeError, match="explain: dtype must be a floating or complex type, got "):
        jn.explain((3, 3), bad, "nuc")
    with pytest.raises(TypeError, match="LinearOperator: dtype must be a floating or complex type, got "):
        jn.LinearOperator((), lambda params, x: x, None, (3, 3), bad)


def test_keys_of_both_kinds_are_taken():
    for key in (jax.random.key(1), jax.random.PRNGKey(1), jax.random.key(1, impl="rbg")):
        assert jn.truncated_svd(A, 1, key=key).s.shape == (1,)


def test_every_public_function_is_in_the_table():
    functions = {name for name in jn.__all__ if not inspect.isclass(getattr(jn, name))}
    elsewhere = {name.strip() for names in ELSEWHERE for name in names.split(",")}
    assert functions == EVERY.keys() | elsewhere
    assert not EVERY.keys() & elsewhere
