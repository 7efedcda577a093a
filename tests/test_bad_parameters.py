"""Every parameter of every public function, norm and transformation that is no array refuses what it does not take.

``BAD`` says what that is for each name, ``"function.name"`` where one function takes something else; which functions
have the parameter their signatures say. ``EXEMPT`` lists the others, with the reason.
"""

import inspect
import re
from typing import get_args, is_typeddict

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_bad_input import CALLS, FLAGS, IDENTITY, INF, KEY, NAN, VECTORS, A, V, call, public

import jaxnorms as jn
from jaxnorms import transforms

KERNEL, TREE = np.ones((3, 3, 2, 2), np.float32), {"w": A}
STATE = jn.init_spectral_norm(KEY, A)
MATRIX = {name: {**dict.fromkeys(arrays, A), **rest} for name, (arrays, rest) in (CALLS | VECTORS).items()}
GOOD = MATRIX | {
    "Dual": {"ord": "nuc"},
    "Entrywise": {"p": 3},
    "Induced": {"p": 1, "q": 2},
    "KyFan": {"k": 2, "p": 2},
    "LinearOperator": {"params": (), "matvec": jnp.tanh, "rmatvec": None, "shape": (3, 3), "dtype": "float32"},
    "Mixed": {"p": 2, "q": 1, "axis": -1},
    "Schatten": {"p": 3},
    "UnitarilyInvariant": {"gauge": jnp.max},
    "add_norm_penalty": {"ord": "nuc"},
    "audit": {"params": TREE},
    "clip_by_global_norm": {"tree": TREE, "max_norm": 1.0},
    "clip_by_matrix_norm": {"max_norm": 1.0},
    "clip_by_norm": {"tree": TREE, "max_norm": 1.0, "ord": "nuc"},
    "compress": {"params": TREE, "budget": 9},
    "conv_spectral_norm": {"kernel": KERNEL, "input_shape": (4, 4)},
    "dual": {"ord": "nuc"},
    "equivalence_constant": {"ord": "nuc", "other": "fro", "shape": (3, 3)},
    "estimate_spectral_norm": {"w": A, "state": STATE},
    "explain": {"shape": (3, 3), "dtype": "float32", "ord": "nuc"},
    "frobenius_product_bound": {"weights": TREE, "radius": 1.0, "samples": 10},
    "lipschitz_bound": {"weights": TREE},
    "penalty": {"params": TREE, "ord": "nuc"},
    "project_params": {"radius": 1.0, "ord": "nuc"},
    "proximal_step": {"step": 1.0, "ord": "nuc"},
    "rank_allocation": {"params": TREE, "budget": 9},
    "scale_by_lmo": {"ord": "spectral"},
    "spectral_complexity": {"weights": TREE},
    "spectral_normalize": {"w": A, "state": STATE},
}
# Where another call is needed for the parameter to count.
INSTEAD = {
    "frobenius_norm.samples": {"a": IDENTITY, "key": KEY},
    "frobenius_norm.key": {"a": IDENTITY, "samples": 2},
    "squared_frobenius_norm.samples": {"a": IDENTITY, "key": KEY},
    "squared_frobenius_norm.key": {"a": IDENTITY, "samples": 2},
    "low_rank_approximation.energy": {"w": A},
    "low_rank_approximation.tol": {"w": A},
    "audit.dimension_numbers": {"params": {"kernel": KERNEL}},
    "tikhonov_solve.tol": {"a": IDENTITY, "b": V, "lam": 1.0},
    **{
        f"{name}.{of}": {**GOOD[name], "w": KERNEL, "input_shape": (4, 4)}
        for name in ("init_spectral_norm", "estimate_spectral_norm", "spectral_normalize")
        for of in ("input_shape", "strides", "padding", "dimension_numbers")
    },
}

# A value, or one that is traced, and the error.
TRACED = object()
WRONG = [(bad, TypeError) for bad in ("1", [1.0], object(), TRACED)]
NONE, TRUTH = [(None, TypeError)], [(True, TypeError)]
NO_INTEGER = [*WRONG, *TRUTH, (1.5, TypeError)]
NO_NUMBER = [*WRONG, *TRUTH, (1j, TypeError)]
NO_ARRAY = [*NONE, ("1", TypeError), (object(), TypeError)]
NO_REAL_ARRAY = [("1", TypeError), *NONE, *TRUTH, (1j, TypeError), (object(), TypeError), (V, ValueError)]
NO_NORM = [("word", ValueError), (1j, TypeError), (object(), TypeError), (TRACED, TypeError)]
NO_ORDER = [*NO_NUMBER, (0.5, ValueError), (NAN, ValueError), (10**400, ValueError)]
NO_FUNCTION = [(3, TypeError), ("a", TypeError), *NONE]
NO_WORD = [(3, TypeError), *NONE, (["a"], TypeError), ("word", ValueError), (TRACED, TypeError)]
NO_KEY = [("1", TypeError), (1, TypeError), (object(), TypeError)]
NO_SHAPE = [("33", TypeError), ((True, 3), TypeError), ((3.0, 3), TypeError), (object(), TypeError), ((3,), ValueError)]
NO_AXES = [
    *(("rows", TypeError), (1.5, TypeError), ((True, False), TypeError), (object(), TypeError), (TRACED, TypeError)),
    *(((0, 2), ValueError), ((-3, 0), ValueError), ((1, -1), ValueError), ((), ValueError)),
]
ONE_OR_TWO = [(0, ValueError), (-3, ValueError)]
OF_TREES = "clip_by_norm", "penalty", "lipschitz_bound", *transforms.__all__  # of which a leaf may have no norm
BAD = {
    "activations": NO_REAL_ARRAY,
    "axis": NO_AXES,
    "vector_norm.axis": NO_AXES[:-1],
    "Mixed.axis": [*NO_INTEGER, *NONE, *ONE_OR_TWO],
    "axis_name": [
        *((bad, TypeError) for bad in (3, True, object(), ["x"], (1, "x"), TRACED)),
        *((bad, ValueError) for bad in ("x", ("x",), ("x", "x"), ("x", None, None))),
    ],
    "batch_axes": [*NO_INTEGER, *NONE, (-1, ValueError)],
    "block": [*NO_INTEGER, *NONE, (0, ValueError), (4, ValueError)],
    "budget": [*NO_INTEGER, *NONE, (-1, ValueError)],
    "by": NO_WORD,
    "complexity": NO_REAL_ARRAY,
    "compute_dtype": [(bad, TypeError) for bad in ("foo", 3, int, complex, "float128", "float8_e4m3fn", TRACED)],
    "convolutions": [(3, TypeError), ("a", TypeError)],
    "df": [(3, TypeError), ("a", TypeError)],
    "dimension_numbers": [(3, TypeError), ("HWI", ValueError), (object(), TypeError)],
    "dtype": [(bad, TypeError) for bad in ("foo", 3, int, None, "float128", TRACED)],
    "energy": [*NO_NUMBER, (1.5, ValueError), (-1, ValueError), (NAN, ValueError)],
    "f": NO_FUNCTION,
    "gauge": NO_FUNCTION,
    "gram_steps": [*NO_INTEGER, (-1, ValueError)],
    "input_shape": [*NO_SHAPE, *NONE, ((0, 4), ValueError)],
    **dict.fromkeys(("b", "db", "kernel", "w", "x"), NO_ARRAY),
    "factored_operator.w": NO_ARRAY[1:],
    "inverse": [(3, ValueError), (A, ValueError)],
    "k": [*NO_INTEGER, *NONE, (0, ValueError), (-1, ValueError), (4, ValueError)],
    "KyFan.k": [*NO_INTEGER, *NONE, (0, ValueError)],
    "best_approximation.k": [*NO_INTEGER, *NONE, (-1, ValueError), (4, ValueError)],
    "singular_values.k": [*NO_INTEGER, (0, ValueError), (4, ValueError)],
    "key": NO_KEY,
    "labels": [("1", TypeError), *NONE, (V, TypeError), (0, ValueError)],
    "lam": NO_REAL_ARRAY,
    "matvec": NO_FUNCTION,
    "max_norm": NO_REAL_ARRAY,
    "method": NO_WORD,
    "momentum": [*NO_REAL_ARRAY, (-0.5, ValueError), (1.0, ValueError), (NAN, ValueError)],
    "n_steps": [*NO_INTEGER, (-1, ValueError)],
    "ord": [*NO_NORM, *NONE, (3, TypeError)],
    **{key: [*NO_NORM, (3, ValueError), (NAN, ValueError)] for key in ("norm.ord", "matrix_norm.ord")},
    "vector_norm.ord": [*NO_NORM, ("fro", ValueError), (NAN, ValueError)],
    **{f"{name}.ord": [*NO_NORM, (3, TypeError)] for name in OF_TREES},
    "other": [*NO_NORM, *NONE, (3, TypeError)],
    "out_axis": [*NO_INTEGER, *NONE, *ONE_OR_TWO],
    "p": [*NO_ORDER, *NONE],
    **{key: [x for x in [*NO_ORDER, *NONE] if x[0] is not TRACED] for key in ("schatten_norm.p", "entrywise_norm.p")},
    **{key: [*NO_ORDER[1:], ("1", ValueError)] for key in ("cond.p", "digits_left.p", "forward_error_bound.p")},
    "padding": [(3, TypeError), *NONE, ("word", ValueError), ((1, 1), ValueError), ([("1", 1)] * 2, TypeError)],
    "q": [*NO_ORDER, *NONE],
    **dict.fromkeys(("induced_norm.q", "induced_norm_bounds.q"), NO_ORDER),
    "radius": NO_REAL_ARRAY,
    "rank": [*NO_INTEGER, (0, ValueError), (-1, ValueError), (4, ValueError)],
    "low_rank_approximation.rank": [*NO_INTEGER, (-1, ValueError), (4, ValueError)],
    "rmatvec": [(3, TypeError), ("a", TypeError)],
    "rtol": [*NO_NUMBER, (-1, ValueError), (NAN, ValueError)],
    "samples": [*NO_INTEGER, (0, ValueError)],
    "frobenius_product_bound.samples": NO_REAL_ARRAY,
    "shape": [*NO_SHAPE, *NONE],
    "state": [(3, TypeError), *NONE],
    "step": NO_REAL_ARRAY,
    "strides": [*NO_INTEGER, *NONE, (0, ValueError), ((1, 1, 1), ValueError)],
    "tol": [*NO_NUMBER, (-1, ValueError), (NAN, ValueError), (1.0, ValueError)],
    "low_rank_approximation.tol": [*NO_NUMBER, (-1, ValueError), (NAN, ValueError)],
    "weight": NO_REAL_ARRAY,
    "where": [(3, TypeError), (object(), TypeError), ("(", ValueError)],
}
# What transformations refuse when they are made, before the first update.
AT_ONCE = "batch_axes", "by", "momentum", "ord", "where"
# Pytrees: test_learning_contract.py, test_network_bounds.py and test_audit.py refuse for them.
EXEMPT = "params, reference, tree, weights"


def parameters(function):
    """The names that a function takes, those of its shared keywords among them."""
    found = []
    for p in inspect.signature(function).parameters.values():
        shared = [kind for kind in get_args(p.annotation) if is_typeddict(kind)]
        found += [name for kind in shared for name in kind.__annotations__] or [p.name]
    return found


NORMS = ("Dual", "Entrywise", "Induced", "KyFan", "LinearOperator", "Mixed", "Schatten", "UnitarilyInvariant")
NAMES = [name for name in (*jn.__all__, *transforms.__all__) if name in NORMS or not inspect.isclass(public(name))]
ARRAYS = {name: arrays for name, (arrays, _) in (CALLS | VECTORS).items()}
TABLE = {
    f"{name}.{of}": BAD.get(f"{name}.{of}", BAD.get(of))
    for name in NAMES
    for of in parameters(public(name))
    if of not in ARRAYS.get(name, ()) and of not in FLAGS.get(name, ())
}


def given(case, bad):
    name, of = case.split(".")
    found = call(name, INSTEAD.get(case, GOOD[name]), {of: bad})
    if name not in transforms.__all__ or of in AT_ONCE:
        return found
    return found.update(TREE, found.init(TREE), TREE)[0]


@pytest.mark.parametrize("case", [case for case, bad in TABLE.items() if bad is not None])
def test_refused(case):
    of, missed = case.split(".")[1], []
    for bad, kind in TABLE[case]:
        try:
            if bad is TRACED:
                jax.jit(lambda t: given(case, t))(1)
            else:
                given(case, bad)
        except Exception as error:
            message = str(error)
            if type(error) is kind and re.search(rf"\b{of} (of Mixed )?(must|is for)\b", message):
                continue
            missed.append((bad, type(error).__name__, message[:200]))
        else:
            missed.append((bad, "taken"))
    assert not missed


# Numbers that may be traced, so that one out of range is no error.
NAN_BELOW = {
    "clip_by_global_norm.max_norm": -1.0,
    "clip_by_matrix_norm.max_norm": -1.0,
    "clip_by_norm.max_norm": -1.0,
    "frobenius_product_bound.radius": -1.0,
    "lipschitz_bound.activations": -1.0,
    "lmo.radius": -1.0,
    "moreau_envelope.step": 0.0,
    "normalized_margins.complexity": -1.0,
    "project.radius": -1.0,
    "project_params.radius": -1.0,
    "prox.step": -1.0,
    "proximal_step.step": -1.0,
    "regularized_inverse.lam": -1.0,
    "scale_by_lmo.radius": -1.0,
    "spectral_complexity.activations": -1.0,
    "tikhonov_cond.lam": -INF,
    "tikhonov_solve.lam": -1.0,
}


@pytest.mark.parametrize("case", NAN_BELOW)
def test_numbers_out_of_range_give_nan(case):
    bad = NAN_BELOW[case]
    for value in (bad, np.float32(bad), NAN):
        assert all(jnp.all(jnp.isnan(x)) for x in jax.tree.leaves(given(case, value)))
    assert all(jnp.all(jnp.isnan(x)) for x in jax.tree.leaves(jax.jit(lambda t: given(case, t))(bad)))


def test_every_parameter_is_in_the_table():
    exempt = {of.strip() for of in EXEMPT.split(",")}
    without = {case.split(".")[1] for case, bad in TABLE.items() if bad is None}
    assert without == exempt
    assert GOOD.keys() == set(NAMES)
    assert {name.split(".")[-1] for name in BAD} <= {case.split(".")[1] for case in TABLE}
    assert {name for name in BAD if "." in name} <= TABLE.keys()
    assert INSTEAD.keys() | NAN_BELOW.keys() <= TABLE.keys()
