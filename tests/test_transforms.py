"""Gradient transformations by matrix norms, beside their definitions and inside training steps."""

import math
import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from matrices import COMPLEX, DTYPES, REAL, gaussian, prescribed, tolerance

import jaxnorms as jn
from jaxnorms import transforms

inf = float("inf")
dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=str)
# From the smallest to the largest size at which entries in float32 are still normal numbers.
SIZES = [1e-30, 1e-12, 1.0, 1e19, 1e30]


def gradients(dtype=REAL, size=1.0):
    def leaf(*shape, seed=0):
        return jnp.asarray(gaussian(shape, dtype, seed=seed) * REAL.type(size))

    return {
        "dense": [{"kernel": leaf(6, 4, seed=i), "bias": leaf(4, seed=i)} for i in range(2)],
        "conv": {"kernel": leaf(3, 3, 2, 5)},
        "embed": leaf(7, 3),
        "nothing": None,
    }


def orthogonal(a):
    u, _, vh = np.linalg.svd(np.asarray(a, np.complex128 if np.iscomplexobj(a) else np.float64), full_matrices=False)
    return u @ vh


def unit(a):
    return a / np.linalg.norm(a)


@dtypes
def test_the_oracle_at_every_scale(dtype):
    """Muon for kernels, sign descent for the embedding, biases by their normalised gradient; whatever the size."""
    ord = {"embed": jn.Entrywise(inf), "": "spectral"}
    move = transforms.scale_by_lmo(ord)

    @jax.jit
    def first(g):
        return move.update(g, move.init(g))[0]

    for size in SIZES:
        g = gradients(dtype, size)
        found, plain = first(g), jax.tree.map(lambda x, size=size: np.asarray(x) / size, g)
        for i in range(2):
            np.testing.assert_allclose(found["dense"][i]["kernel"], orthogonal(plain["dense"][i]["kernel"]), atol=1e-4)
            np.testing.assert_allclose(found["dense"][i]["bias"], unit(plain["dense"][i]["bias"]), atol=1e-5)
        kernel = orthogonal(plain["conv"]["kernel"].reshape(18, 5)).reshape(3, 3, 2, 5)
        np.testing.assert_allclose(found["conv"]["kernel"], kernel, atol=1e-4)
        np.testing.assert_allclose(found["embed"], plain["embed"] / np.abs(plain["embed"]), atol=1e-5)
    assert first._cache_size() == 1


@pytest.mark.parametrize("nesterov", [True, False])
def test_momentum(nesterov):
    move = transforms.scale_by_lmo("fro", momentum=0.9, nesterov=nesterov, radius={"a": 2.0, "b": 0.5})
    tree = {"a": jnp.zeros((4, 3), jnp.bfloat16), "b": jnp.zeros((2, 3, 5), REAL)}
    state, m = move.init(tree), {"a": np.zeros((4, 3)), "b": np.zeros((2, 3, 5))}
    assert state.momentum["a"].dtype == jnp.float32
    step = jax.jit(move.update)
    for seed in range(4):
        g = {k: jnp.asarray(gaussian(x.shape, REAL, seed)).astype(x.dtype) for k, x in tree.items()}
        updates, state = step(g, state)
        for k, radius in (("a", 2.0), ("b", 0.5)):
            x = np.asarray(g[k].astype(REAL), np.float64)
            m[k] = 0.9 * m[k] + 0.1 * x
            d = 0.9 * m[k] + 0.1 * x if nesterov else m[k]
            assert updates[k].dtype == tree[k].dtype
            np.testing.assert_allclose(updates[k].astype(REAL), radius * unit(d), atol=1e-2 if k == "a" else 1e-5)
    assert step._cache_size() == 1


def test_what_has_no_norm_is_passed_through():
    move = transforms.scale_by_lmo({"kernel": "fro"}, where=lambda path, leaf: "dense" in path)
    g = gradients()
    state = move.init(g)
    updates, _ = move.update(g, state)
    assert updates["embed"] is g["embed"]
    assert updates["conv"]["kernel"] is g["conv"]["kernel"]
    assert isinstance(state.momentum["embed"], optax.MaskedNode)
    np.testing.assert_allclose(updates["dense"][1]["kernel"], unit(g["dense"][1]["kernel"]), rtol=tolerance(REAL))
    bad = {"a": jnp.full((2, 2), jnp.nan), "b": jnp.ones((2, 2)), "c": jnp.zeros((2, 2))}
    every = transforms.scale_by_lmo("fro")
    found, _ = every.update(bad, every.init(bad))
    assert np.all(np.isnan(found["a"]))
    np.testing.assert_allclose(found["b"], 0.5, rtol=tolerance(REAL))
    np.testing.assert_array_equal(found["c"], 0)


def test_batches_and_radii_by_shape():
    """Layers stacked for a scan are matrices of their own; the radius of Muon grows with the shape."""
    g = {"layers": jnp.asarray(gaussian((3, 4, 6), REAL)), "biases": jnp.asarray(gaussian((3, 6), REAL))}
    move = transforms.scale_by_lmo("spectral", radius=lambda m, n: max(1, n / m) ** 0.5, batch_axes=1, momentum=0.0)
    found, _ = jax.jit(lambda g: move.update(g, move.init(g)))(g)
    for i in range(3):
        expected = math.sqrt(6 / 4) * orthogonal(g["layers"][i])
        np.testing.assert_allclose(found["layers"][i], expected, atol=1e-4)
        np.testing.assert_allclose(found["biases"][i], unit(g["biases"][i]), atol=1e-5)


@pytest.mark.parametrize("how", [{}, {"tol": 1e-2}, {"compute_dtype": jnp.bfloat16, "tol": 1e-2}], ids=str)
def test_the_direction_of_muon(how):
    """A cosine of 0.98 with Muon's direction on ordinary gradients, and the exact one where Muon has none."""
    low = gaussian((96, 20), REAL) @ gaussian((20, 64), REAL, 1) / 4 + gaussian((96, 64), REAL, 2)
    muon = optax.contrib.scale_by_muon()
    ours = transforms.scale_by_lmo("spectral", **how)

    @jax.jit
    def both(g):
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            theirs = muon.update(g, muon.init(g))[0]
        return ours.update(g, ours.init(g))[0], theirs

    def cosine(x, y):
        return float(np.sum(unit(np.asarray(x, np.float64)) * unit(np.asarray(y, np.float64))))

    for a in (
        gaussian((96, 64), REAL),
        low,
        gaussian((96, 64), REAL, 3) @ np.diag(np.linspace(0.2, 1, 64).astype(REAL)),
    ):
        mine, theirs = both(jnp.asarray(a))
        assert cosine(mine, theirs) >= 0.98
        assert cosine(mine, orthogonal(a)) >= (0.9999 if how else 1 - 1e-6)
        for size in (1e-12, 1e19):
            mine, _ = both(jnp.asarray(a * REAL.type(size)))
            assert cosine(mine, orthogonal(a)) >= (0.9999 if how else 1 - 1e-6)


@dtypes
def test_a_penalty_is_its_term_of_the_loss(dtype):
    params, weight = gradients(dtype), {"conv": 2.0, "kernel": 0.5}
    more = transforms.add_norm_penalty({"kernel": "nuc"}, weight)
    zeros = jax.tree.map(jnp.zeros_like, params)

    @jax.jit
    def both(p):
        g = jax.grad(lambda p: jn.penalty(p, {"kernel": "nuc"}, weight))(p)
        return more.update(zeros, more.init(p), p)[0], jax.tree.map(jnp.conj, g)

    jax.tree.map(partial(np.testing.assert_allclose, atol=tolerance(REAL, 200)), *both(params))


def test_steps_that_end_on_the_ball_or_at_the_prox():
    """The parameters after the update are the prox or the projection, and exactly the update's for other leaves."""
    params = {"w": jnp.asarray(gaussian((5, 4), REAL)), "b": jnp.ones(4, REAL), "k": jnp.asarray(3), "none": None}
    half = {"w": jnp.asarray(gaussian((5, 4), REAL)).astype(jnp.bfloat16), "b": jnp.ones(4, jnp.bfloat16)}
    updates = {"w": 0.3 * jnp.asarray(gaussian((5, 4), REAL, 1)), "b": 0.1 * jnp.ones(4, REAL), "k": jnp.asarray(1)}
    updates["none"] = None
    cases = [
        (transforms.proximal_step(0.7, "nuc"), lambda a: jn.prox(a, 0.7, "nuc")),
        (transforms.project_params({"w": 0.4}, jn.Entrywise(1)), lambda a: jn.project(a, 0.4, jn.Entrywise(1))),
    ]
    for move, image in cases:
        found, _ = jax.jit(move.update)(updates, move.init(params), params)
        end = optax.apply_updates(params, found)
        np.testing.assert_allclose(end["w"], image(params["w"] + updates["w"]), atol=tolerance(REAL))
        np.testing.assert_array_equal(found["b"], updates["b"])
        assert found["k"] == 1
        small = jax.tree.map(lambda x: (x / 4).astype(jnp.bfloat16), half)
        found, _ = move.update(small, move.init(half), half)
        assert found["w"].dtype == jnp.bfloat16
        exact = image(half["w"].astype(jnp.float32) + small["w"].astype(jnp.float32))
        np.testing.assert_allclose((half["w"] + found["w"]).astype(jnp.float32), exact, atol=2e-2)


def test_proximal_gradient_descent_finds_zeros():
    """Singular values that a nuclear penalty suppresses become exact zeros, and the iterates stop at the optimum."""
    target = jnp.asarray(prescribed(np.array([3.0, 1.0, 0.2, 0.1]), (6, 4), REAL))
    descent = optax.chain(optax.sgd(0.5), transforms.proximal_step(0.25, "nuc"))

    @jax.jit
    def step(w, state):
        updates, state = descent.update(w - target, state, w)
        return optax.apply_updates(w, updates), state

    w = jnp.zeros_like(target)
    state = descent.init(w)
    for _ in range(60):
        w, state = step(w, state)
    np.testing.assert_allclose(w, jn.prox(target, 0.5, "nuc"), atol=1e-5)
    assert np.linalg.matrix_rank(np.asarray(w), tol=1e-5) == 2
    assert step._cache_size() == 1


def test_small_weights_of_half_precision_and_missing_updates():
    params = {"w": jnp.ones((4, 4), jnp.float16), "frozen": jnp.ones((2, 2)), "s": 1.0}
    updates = {"w": jnp.zeros((4, 4), jnp.float32), "frozen": None, "s": 1.0}
    for move in (
        transforms.add_norm_penalty("fro", 1e-8),
        transforms.proximal_step(1e-8, "fro"),
        transforms.project_params(4 - 1e-3, "fro"),
    ):
        found, _ = move.update(updates, move.init(params), params)
        assert found["frozen"] is None
        assert found["s"] == 1
    added = transforms.add_norm_penalty("fro", 1e-8)
    found, _ = added.update(updates, added.init(params), params)
    np.testing.assert_allclose(found["w"], 2.5e-9, rtol=1e-5)
    scalars = {"s": 2.0, "w": jnp.ones((2, 2))}
    every = transforms.scale_by_lmo("fro")
    assert every.update(scalars, every.init(scalars))[0]["s"] == 1
    backwards = transforms.scale_by_lmo("fro", momentum=jnp.asarray(2.0))
    assert np.all(np.isnan(backwards.update(scalars, backwards.init(scalars))[0]["w"]))


def test_schedules_and_injected_numbers():
    g = {"w": 8 * jnp.eye(2)}
    falling = transforms.clip_by_matrix_norm(lambda count: 4.0 / (1.0 + count.astype(REAL)), "spectral")
    state, sizes = falling.init(g), []
    for _ in range(3):
        updates, state = falling.update(g, state)
        sizes.append(float(updates["w"][0, 0]))
    np.testing.assert_allclose(sizes, [4, 2, 4 / 3], rtol=tolerance(REAL))
    by_path = transforms.clip_by_matrix_norm({"w": lambda count: 3.0, "v": 1.0}, "spectral")
    np.testing.assert_allclose(by_path.update(g, by_path.init(g))[0]["w"], 3 * jnp.eye(2), rtol=tolerance(REAL))
    with jax.numpy_dtype_promotion("standard"):  # optax adds integers to floats
        clip = optax.inject_hyperparams(transforms.clip_by_matrix_norm, static_args=("ord", "batch_axes"))
        injected = clip(2.0, ord=jn.Schatten(1))
        updates, _ = injected.update(g, injected.init(g))
    np.testing.assert_allclose(updates["w"], jnp.eye(2), rtol=tolerance(REAL))


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
def test_sharded_matrices_stay_where_they_are(kind):
    mesh = jax.make_mesh((4, 2), ("x", "y"), axis_types=(kind, kind))
    tree = {"a": gaussian((256, 160), REAL), "b": gaussian((200, 160), REAL, 1), "c": gaussian((160, 200), REAL, 2)}
    specs = {"a": P("x", "y"), "b": P("x"), "c": P(None, "y")}
    spread = {k: jax.device_put(jnp.asarray(x), NamedSharding(mesh, specs[k])) for k, x in tree.items()}
    move = optax.chain(
        transforms.clip_by_matrix_norm(5.0, "nuc"),
        transforms.scale_by_lmo("spectral"),
        transforms.project_params(0.5, "spectral"),
    )

    @jax.jit
    def run(g):
        return move.update(g, move.init(g), g)[0]

    program = run.lower(spread).compile()
    gathered = re.findall(r"\w+\[([\d,]*)\]\S* all-gather", program.as_text())
    assert max((math.prod(map(int, filter(None, x.split(",")))) for x in gathered), default=0) <= 160 * 160
    for k, x in program(spread).items():
        np.testing.assert_allclose(np.asarray(x), run(tree)[k], atol=1e-4)
        assert x.sharding.is_equivalent_to(spread[k].sharding, 2)


def test_what_is_refused():
    w = {"w": jnp.ones((3, 2))}
    with pytest.raises(ValueError, match="momentum must be at least 0 and below 1"):
        transforms.scale_by_lmo(momentum=1.0)
    with pytest.raises(TypeError, match="did you mean"):
        transforms.scale_by_lmo(1)
    with pytest.raises(ValueError, match="must be a norm object or one of"):
        transforms.project_params(1.0, "speectral")
    with pytest.raises(ValueError, match="by must be one of 'scaling', 'projection'"):
        transforms.clip_by_matrix_norm(1.0, by="rescaling")
    with pytest.raises(TypeError, match="batch_axes must be an integer"):
        transforms.add_norm_penalty("nuc", batch_axes=1.5)
    for move, kind, message, params in (
        (transforms.proximal_step(0.1, "nuc"), ValueError, "proximal_step: params must be given", None),
        (transforms.project_params({"v": 1.0}, "nuc"), ValueError, "radius must have a pattern for the path 'w'", w),
        (transforms.add_norm_penalty("nuc", COMPLEX.type(1)), TypeError, "weight must be real", w),
        (transforms.scale_by_lmo(tol=2.0), ValueError, "tol must be None or a number between 0 and 1", w),
    ):
        state = move.init(w)
        with pytest.raises(kind, match=message):
            move.update(w, state, params)
