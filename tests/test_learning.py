"""Penalties and clipping of the leaves of a pytree."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matrices import COMPLEX, DTYPES, REAL, gaussian, tolerance

import jaxnorms as jn

dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=str)
BIG = float(jnp.finfo(REAL).max) ** 0.9


def model(dtype=REAL):
    def leaf(*shape):
        return jnp.asarray(gaussian(shape, dtype, seed=len(shape) + shape[-1]))

    return {
        "dense": [{"kernel": leaf(5, 4), "bias": leaf(4)}, {"kernel": leaf(5, 4), "bias": leaf(4)}],
        "conv": {"kernel": leaf(3, 3, 2, 4)},
        "steps": jnp.asarray(3),
        "nothing": None,
    }


@dtypes
def test_penalty_is_the_sum_of_norms(dtype):
    params = model(dtype)
    matrices = [params["dense"][0]["kernel"], params["dense"][1]["kernel"], params["conv"]["kernel"].reshape(18, 4)]
    floating = {k: v for k, v in params.items() if k != "steps"}
    weights = {"conv": 2.0, "dense/0": 3.0, "dense": 0.5}

    @jax.jit
    def both(p):
        return [
            jax.value_and_grad(f)(p)
            for f in (
                lambda p: jn.penalty(p | {"steps": params["steps"]}, "nuc", 0.3),
                lambda p: jn.penalty(p, {"conv": jn.KyFan(2), "kernel": "spectral"}, weights),
                lambda p: jn.penalty(p, "fro", where=lambda path, leaf: leaf.ndim == 4),
                lambda p: jn.penalty(p, "fro", where="dense/1"),
            )
        ]

    expected = [
        0.3 * sum(map(jn.nuclear_norm, matrices)),
        3 * jn.spectral_norm(matrices[0]) + jn.spectral_norm(matrices[1]) / 2 + 2 * jn.ky_fan_norm(matrices[2], 2),
        jn.frobenius_norm(matrices[2]),
        jn.frobenius_norm(matrices[1]),
    ]
    found = both(floating)
    for (value, _), e in zip(found, expected, strict=True):
        np.testing.assert_allclose(value, e, rtol=tolerance(REAL))
    g = found[0][1]
    np.testing.assert_array_equal(g["dense"][0]["bias"], 0)
    kernel = jax.grad(lambda a: 0.3 * jn.nuclear_norm(a.reshape(18, 4)))(params["conv"]["kernel"])
    np.testing.assert_allclose(g["conv"]["kernel"], kernel, atol=tolerance(REAL, 200))


def test_penalty_of_a_stack_and_its_weight():
    stack = {"layers": jnp.asarray(gaussian((6, 5, 4), REAL))}
    total = jn.penalty(stack, "nuc", batch_axes=1)
    np.testing.assert_allclose(total, jnp.sum(jn.nuclear_norm(stack["layers"])), rtol=tolerance(REAL))
    slope = jax.grad(lambda t: jn.penalty(stack, "nuc", t, batch_axes=1))(REAL.type(2))
    np.testing.assert_allclose(slope, total, rtol=tolerance(REAL))
    assert jn.penalty({"b": jnp.ones(3)}, "nuc") == 0
    zeros = jax.grad(lambda p: jn.penalty(p, "nuc"))({"w": jnp.zeros((3, 3)), "v": jnp.ones((2, 2), jnp.bfloat16)})
    np.testing.assert_array_equal(zeros["w"], 0)
    assert zeros["v"].dtype == jnp.bfloat16


def test_penalty_in_half_precision_and_of_nothing():
    """Wider than its leaves; norms of empty matrices are 0; stacked layers beside single ones."""
    total = jn.penalty({"w": jnp.full((300, 300), 1000, jnp.float16)}, "fro")
    np.testing.assert_allclose(total, 3e5, rtol=1e-6)
    empty = {"a": jnp.zeros((3, 0)), "b": jnp.zeros((0, 3)), "c": jnp.zeros(0)}
    assert jn.penalty(empty, "spectral") == 0
    assert jn.penalty({"a": jnp.zeros((0, 3, 4))}, "spectral", batch_axes=1) == 0
    mixed = {"layers": jnp.asarray(gaussian((3, 4, 6), REAL)), "embed": jnp.asarray(gaussian((7, 3), REAL))}
    expected = jnp.sum(jn.nuclear_norm(mixed["layers"])) + jn.nuclear_norm(mixed["embed"])
    np.testing.assert_allclose(jn.penalty(mixed, "nuc", batch_axes={"layers": 1}), expected, rtol=tolerance(REAL))


def test_penalty_takes_one_call_for_each_shape():
    """Twenty layers of one shape decompose in one batch, and a new weight does not compile anew."""
    params = [jnp.asarray(gaussian((9, 9), REAL, seed)) for seed in range(20)]
    program = jax.make_jaxpr(lambda p, t: jn.penalty(p, jn.Schatten(3), t))(params, REAL.type(1))
    assert [equation.params.get("name") for equation in program.eqns].count("_batched") == 1
    f = jax.jit(lambda p, t: jn.penalty(p, "fro", t))
    for t in (0.1, 0.2, 0.3):
        f(params, REAL.type(t))
    assert f._cache_size() == 1


@dtypes
@pytest.mark.parametrize("size", [BIG, 1.0, 1 / BIG], ids=["huge", "one", "tiny"])
def test_clipping_by_the_global_norm(size, dtype):
    tree = {"a": jnp.asarray(gaussian((3, 2), dtype) * REAL.type(size)), "b": [jnp.zeros(2, dtype), None], "n": 3}
    flat = np.asarray(tree["a"]).astype(np.complex128) / size
    wanted = flat / np.linalg.norm(flat)
    for most in (0.5 * size, 1.0):
        clipped = jax.jit(partial(jn.clip_by_global_norm, max_norm=REAL.type(most)))({k: tree[k] for k in "ab"})
        norm = np.linalg.norm(flat) * size
        if norm > most:
            np.testing.assert_allclose(np.asarray(clipped["a"]) / most, wanted, rtol=tolerance(REAL, 20))
        else:
            np.testing.assert_array_equal(clipped["a"], tree["a"])
        np.testing.assert_array_equal(clipped["b"][0], 0)
    assert jn.clip_by_global_norm(tree, 1.0)["n"] == 3


def test_clipping_worked_cases():
    g = jn.clip_by_global_norm({"w": jnp.asarray([3, 4], REAL) * REAL.type(BIG / 10)}, 1.0)
    np.testing.assert_allclose(g["w"], [0.6, 0.8], rtol=tolerance(REAL))
    zeros = {"w": jnp.zeros((2, 2)), "h": jnp.ones(3, jnp.bfloat16)}
    out = jn.clip_by_global_norm(zeros, 1e-3)
    np.testing.assert_array_equal(out["w"], 0)
    assert out["h"].dtype == jnp.bfloat16
    slope = jax.grad(lambda w: jnp.sum(jn.clip_by_global_norm(w, 1.0)))(jnp.zeros(3))
    np.testing.assert_array_equal(slope, 1)
    bad = jn.clip_by_global_norm({"a": jnp.ones(2), "b": jnp.asarray([jnp.nan])}, 1.0)
    assert np.all(np.isnan(bad["a"]))
    assert np.all(np.isnan(jn.clip_by_global_norm(jnp.ones(2), -1.0)))
    assert np.all(np.isnan(jn.clip_by_global_norm(jnp.asarray([jnp.inf, 1.0]), 1.0)))
    assert jn.clip_by_global_norm({"n": 3}, 1.0) == {"n": 3}


@dtypes
@pytest.mark.parametrize("ord", ["spectral", "nuc", jn.KyFan(2), jn.Entrywise(1)], ids=str)
def test_clipping_each_matrix(ord, dtype):
    a = np.stack([gaussian((4, 3), dtype), 0.01 * gaussian((4, 3), dtype), 0 * gaussian((4, 3), dtype)])
    tree = {"w": jnp.asarray(a), "b": 100 * jnp.ones(3)}
    norm = jn.dual(jn.dual(ord))

    @jax.jit
    def both(tree):
        return [jn.clip_by_norm(tree, 0.5, ord, by=by, batch_axes=1) for by in ("scaling", "projection")]

    for clipped in both(tree):
        sizes = np.asarray(norm(clipped["w"]))
        np.testing.assert_allclose(sizes[0], 0.5, rtol=tolerance(REAL, 500))
        np.testing.assert_allclose(clipped["w"][1:], a[1:], atol=tolerance(REAL))
        np.testing.assert_array_equal(clipped["b"], 100)
    scaled = np.asarray(both(tree)[0]["w"][0])
    np.testing.assert_allclose(scaled * np.asarray(norm(a[0])), 0.5 * a[0], rtol=tolerance(REAL, 200))
    for size in (BIG, BIG**-0.8):  # at 1 / BIG the smallest entries are flushed to zero
        (huge,) = jax.tree.leaves(jn.clip_by_norm([jnp.asarray(a[0] * REAL.type(size))], 0.1 * size, ord))
        np.testing.assert_allclose(norm(np.asarray(huge) / REAL.type(size)), 0.1, rtol=tolerance(REAL, 500))


def test_what_is_refused():
    w = jnp.ones((3, 2))
    with pytest.raises(ValueError, match="weight must have a pattern for the path 'w'"):
        jn.penalty({"w": w}, "nuc", {"b": 1.0})
    with pytest.raises(ValueError, match="must be a norm object or one of"):
        jn.penalty({"w": w}, "nuclear")
    with pytest.raises(TypeError, match="did you mean"):
        jn.penalty({"w": w}, 1)
    with pytest.raises(ValueError, match="ord must hold regular expressions"):
        jn.penalty({"w": w}, {"(": "nuc"})
    with pytest.raises(TypeError, match="where must be None"):
        jn.penalty({"w": w}, "nuc", where=3)
    with pytest.raises(ValueError, match="batch_axes must be an integer >= 0"):
        jn.penalty({"w": w}, "nuc", batch_axes=-1)
    with pytest.raises(TypeError, match="weight must be real"):
        jn.penalty({"w": w}, "nuc", 1j)
    with pytest.raises(ValueError, match="max_norm must be a number"):
        jn.clip_by_global_norm(w, jnp.ones(2))
    with pytest.raises(TypeError, match="max_norm must be real"):
        jn.clip_by_norm(w, COMPLEX.type(1), "nuc")
    with pytest.raises(ValueError, match="by must be one of 'scaling', 'projection'"):
        jn.clip_by_norm(w, 1.0, "nuc", by="rescaling")
