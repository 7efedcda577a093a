"""Matrices spread over the devices of a mesh: nothing of their size is gathered, and nothing changes."""

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from matrices import COMPLEX, REAL, gaussian, prescribed, tolerance

import jaxnorms as jn

inf = float("inf")
LEADING = [jn.Schatten(inf), jn.KyFan(3, 2)]
ALL_TRIPLETS = [jn.Schatten(1), jn.Schatten(4)]
ENTRIES = [jn.Entrywise(2), jn.Entrywise(1), jn.Mixed(2, 1), jn.Induced(1, 1), jn.Induced(inf, inf)]
LAYOUTS = [
    (AxisType.Auto, P("x"), False),
    (AxisType.Auto, P(None, "x"), True),
    (AxisType.Auto, P("x", "y"), False),
    (AxisType.Auto, P(None, ("x", "y")), False),
    (AxisType.Explicit, P("x"), False),
    (AxisType.Explicit, P(None, "x"), False),
    (AxisType.Explicit, P("x", "y"), True),
    (AxisType.Explicit, P(None, ("x", "y")), False),
]
KINDS = [AxisType.Auto, pytest.param(AxisType.Explicit, marks=pytest.mark.slow)]
pytestmark = pytest.mark.skipif(jax.device_count() < 8, reason="needs 8 devices")


def mesh_of(kind: AxisType) -> jax.sharding.Mesh:
    return jax.make_mesh((4, 2), ("x", "y"), axis_types=(kind, kind))


def spread(a: np.ndarray, kind: AxisType, spec: P) -> jax.Array:
    return jax.device_put(jnp.asarray(a), NamedSharding(mesh_of(kind), spec))


def moved(program) -> int:
    """The most entries that one all-gather or all-reduce of a compiled program leaves on a device."""
    shapes = re.findall(r"\w+\[([\d,]*)\]\S* all-(?:gather|reduce)", program.as_text())
    return max((math.prod(map(int, filter(None, shape.split(",")))) for shape in shapes), default=0)


def test_what_is_moved_is_seen():
    x = spread(gaussian((64, 24), REAL), AxisType.Auto, P("x", "y"))
    everywhere = NamedSharding(x.sharding.mesh, P())
    assert moved(jax.jit(lambda a: a + 1, out_shardings=everywhere).lower(x).compile()) == 64 * 24
    assert moved(jax.jit(lambda a: jnp.sum(a, axis=0), out_shardings=everywhere).lower(x).compile()) >= 12


def values_and_gradients(norms):
    def run(a):
        results = [jax.vjp(norm, a) for norm in norms]
        return tuple((value, pullback(jnp.ones_like(value))[0]) for value, pullback in results)

    return jax.jit(run)


def check(norms, a: np.ndarray, x: jax.Array, most: int, bound: float) -> None:
    program = values_and_gradients(norms).lower(x).compile()
    assert moved(program) <= most
    for norm, (value, g), (alone, h) in zip(norms, program(x), values_and_gradients(norms)(a), strict=True):
        np.testing.assert_allclose(value, alone, rtol=tolerance(REAL), err_msg=repr(norm))
        np.testing.assert_allclose(np.asarray(g), h, atol=bound, err_msg=repr(norm))
        assert g.sharding.is_equivalent_to(x.sharding, g.ndim), norm


@pytest.mark.parametrize(
    ("kind", "spec"),
    [(kind, spec) if quick else pytest.param(kind, spec, marks=pytest.mark.slow) for kind, spec, quick in LAYOUTS],
    ids=str,
)
def test_no_matrix_is_gathered(kind, spec):
    """Krylov gathers blocks of vectors; all triplets need one exchange of rows, and get back to a shard."""
    a = prescribed(np.linspace(3, 1, 160), (256, 160), REAL)
    x = spread(a, kind, spec)
    check(LEADING, a, x, 256 * 12, 1e-4)
    check(ENTRIES, a, x, 256, tolerance(REAL))  # norms of rows or columns
    # Replicas over a mesh axis along which the matrix is not spread are gathered shards.
    shard = math.prod(x.sharding.shard_shape(x.shape))
    check(ALL_TRIPLETS, a, x, max(shard, 160 * 160), 1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_uneven_wide_complex_and_deficient(kind):
    a = prescribed(np.where(np.arange(140) < 70, np.linspace(3, 1, 140), 0), (140, 268), COMPLEX)
    check([jn.Schatten(inf), jn.Schatten(1), jn.Schatten(3)], a, spread(a, kind, P(None, "x")), 140 * 140, 1e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "shape", [(16, 5, 4), (16, 24, 16), pytest.param((8, 200, 150), marks=pytest.mark.slow)], ids=str
)
def test_batches_stay_where_they_are(kind, shape):
    a = gaussian(shape, REAL)
    norms = [jn.Schatten(inf), jn.Schatten(1), jn.Entrywise(2)]
    check(norms, a, spread(a, kind, P("x")), 1, 1e-4)


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
def test_gradients_outside_jit_lie_as_the_matrix(kind):
    a = gaussian((16, 12), REAL)
    x = spread(a, kind, P("x", "y"))
    for norm in (jn.frobenius_norm, jn.nuclear_norm):
        h = jax.grad(norm)(a)
        with jax.set_mesh(x.sharding.mesh):  # without it, JAX differentiates nothing on an explicit mesh
            g = jax.grad(norm)(x)
        np.testing.assert_allclose(np.asarray(g), h, atol=1e-5)
        assert g.sharding.is_equivalent_to(x.sharding, 2)


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
def test_vectors_and_diagonals(kind):
    d, mesh = gaussian((2, 16), REAL), mesh_of(kind)
    for a, spec, axis in ((d[0], P("x"), None), (d, P(None, "x"), -1)):
        x = jax.device_put(jnp.asarray(a), NamedSharding(mesh, spec))
        value = jax.jit(lambda x, axis=axis: jn.vector_norm(x, axis=axis))(x)
        np.testing.assert_allclose(value, np.linalg.norm(a, axis=axis), rtol=tolerance(REAL))
        largest = jax.jit(lambda x: jn.spectral_norm(x, diagonal=True))(x)
        np.testing.assert_allclose(largest, np.max(np.abs(a), axis=-1), rtol=tolerance(REAL))


@pytest.mark.parametrize("kind", KINDS)
def test_second_derivatives(kind):
    a, e = gaussian((2, 192, 136), REAL)
    x, d = (spread(y, kind, P("x", "y")) for y in (a, e))
    run = jax.jit(lambda a, e: [jax.jvp(jax.grad(norm), (a,), (e,))[1] for norm in (jn.Schatten(1), jn.Schatten(4))])
    program = run.lower(x, d).compile()
    assert moved(program) <= 136 * 136
    for there, here in zip(program(x, d), run(a, e), strict=True):
        np.testing.assert_allclose(np.asarray(there), here, atol=1e-4 * np.abs(here).max())


@pytest.mark.parametrize("kind", KINDS)
def test_maps_of_matrices(kind):
    """Results lie as their input does, and take what the norm of all singular values takes. Rows can be shared by 4
    devices and not by all 8."""
    a = prescribed(np.linspace(3, 1, 200), (300, 200), REAL)
    x = spread(a, kind, P("x", "y"))

    def run(a):
        projected = jn.prox(a, 5.0, "nuc"), jn.project(a, 3.0, "spectral"), jn.lmo(a, 1.0, "spectral")
        return *projected, jn.polar(a)[0], jn.best_approximation(a, 3).matrix, jax.grad(jn.nuclear_norm)(a), jn.pinv(a)

    program = jax.jit(run).lower(x).compile()
    assert moved(program) <= 200 * 200
    *found, inverse = zip(program(x), jax.jit(run)(a), strict=True)
    for there, here in found:
        np.testing.assert_allclose(np.asarray(there), here, atol=1e-4)
        assert there.sharding.is_equivalent_to(x.sharding, 2)
    np.testing.assert_allclose(*map(np.asarray, inverse), atol=1e-4)
    assert kind == AxisType.Auto or inverse[0].sharding.spec == P("y", "x")


@pytest.mark.parametrize("kind", KINDS)
def test_reverse_mode_through_images_and_gradients(kind):
    """Of prox, projection, polar factor and gradient, which take sharding constraints inside."""
    a = prescribed(np.linspace(3, 1, 40), (48, 40), REAL)
    x = spread(a, kind, P("x", "y"))

    def run(a):
        images = [lambda v: jn.prox(v, 1.5, "nuc"), lambda v: jn.project(v, 2.0, "spectral"), lambda v: jn.polar(v)[0]]
        images += [jax.grad(jn.Schatten(1)), jax.grad(jn.Schatten(4))]
        return [jax.vjp(image, a)[1](a + 1)[0] for image in images]

    for there, here in zip(jax.jit(run)(x), jax.jit(run)(a), strict=True):
        np.testing.assert_allclose(np.asarray(there), here, atol=1e-4)
        assert there.sharding.is_equivalent_to(x.sharding, 2)


def test_matrices_of_one_shape_that_lie_differently():
    """What JAX traces once for all of them knows of no layout."""
    # Well conditioned, largest singular values apart: otherwise single precision leaves the gradients few digits.
    a, b, c = (prescribed(np.linspace(2, 1, 32), (32, 32), REAL, seed) for seed in range(3))
    weights = [spread(w, AxisType.Auto, spec) for w, spec in ((a, P("x", "y")), (b, P("y", "x")), (c, P(None, "x")))]
    functions = [
        jax.grad(lambda weights: sum(jn.nuclear_norm(w) for w in weights)),
        jax.grad(lambda weights: sum(jnp.sum(jn.prox(w, 1.0, "spectral") ** 2) for w in weights)),
        jax.grad(lambda weights: jn.penalty(weights, ord="fro")),
        jax.grad(lambda weights: jn.factored_nuclear_norm(weights[0], weights[1]) + jn.cond(weights[2])),
        jax.grad(lambda weights: sum(map(jax.jit(jn.nuclear_norm), weights))),
        jax.grad(lambda weights: sum(map(jax.checkpoint(jn.frobenius_norm), weights))),
        jax.grad(lambda weights: jn.lipschitz_bound(weights) + sum(map(jn.stable_rank, weights))),
        jax.grad(lambda weights: sum(map(jn.frobenius_norm, jn.clip_by_norm(weights, 1.0, ord="nuc")))),
        lambda weights: [jn.prox(w, 1.0, "nuc") for w in weights],
        lambda weights: [jn.subgradient(w, "fro") for w in weights],
    ]
    for f in functions:
        for w, there, here in zip(weights, jax.jit(f)(weights), jax.jit(f)([a, b, c]), strict=True):
            np.testing.assert_allclose(np.asarray(there), here, atol=1e-4)
            assert there.sharding.is_equivalent_to(w.sharding, 2)


def test_the_text_of_a_program_is_always_the_same():
    """It is the key of compiled programs that are kept, and several processes of one program have to agree on it."""
    x, y = (spread(gaussian((16, 16), REAL), AxisType.Auto, spec) for spec in (P("x"), P(None, "y")))

    def text():
        return jax.jit(jax.grad(lambda a, b: jn.nuclear_norm(a) + jn.nuclear_norm(b))).lower(x, y).as_text()

    first = text()
    assert "propagation_barrier" in first
    jax.clear_caches()
    assert text() == first


def test_spectral_functions():
    a = prescribed(2.0 ** -np.arange(150), (200, 150), REAL)
    x = spread(a, AxisType.Auto, P("x"))

    def run(a):
        svd = jn.truncated_svd(a, 3)
        return svd.s, svd.error_bound, jn.singular_values(a)[:40], jn.polar(a[:, :9] + a[:, 9:18])[1], jn.norm_bounds(a)

    for there, here in zip(jax.tree.leaves(jax.jit(run)(x)), jax.tree.leaves(jax.jit(run)(a)), strict=True):
        np.testing.assert_allclose(np.asarray(there), here, rtol=1e-4, atol=tolerance(REAL))


@pytest.mark.parametrize("spec", [P("x", None), P(None, "x")], ids=["FSDP", "tensor parallel"])
@jax.numpy_dtype_promotion("standard")  # optax adds integers to floats
def test_a_training_step_compiles_once(spec):
    """Parameters and the state of the optimiser stay spread as they were, from step to step."""
    mesh = mesh_of(AxisType.Auto)
    w = spread(gaussian((128, 96), REAL), AxisType.Auto, spec)
    inputs = jax.device_put(jnp.asarray(gaussian((8, 128), REAL)), NamedSharding(mesh, P("y" if spec[0] else None)))
    adam = optax.adam(1e-2)

    @jax.jit
    def step(w, state):
        def loss(w):
            return jnp.mean(jnp.square(inputs @ w)) + 1e-3 * jn.nuclear_norm(w) + 1e-3 * jn.spectral_norm(w)

        value, g = jax.value_and_grad(loss)(w)
        updates, state = adam.update(g, state, w)
        return value, optax.apply_updates(w, updates), state

    everywhere, losses = NamedSharding(mesh, P()), []
    state = jax.tree.map(lambda x: x if x.ndim else jax.device_put(x, everywhere), adam.init(w))
    for _ in range(3):
        value, w, state = step(w, state)
        losses.append(float(value))
    assert losses[2] < losses[0]
    assert step._cache_size() == 1
    for x in (w, state[0].mu, state[0].nu):
        assert x.sharding.is_equivalent_to(NamedSharding(mesh, spec), 2)
