"""What holds for every function of a training step: scales, types, bad input, ways of tracing, derivatives, meshes."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from jax.test_util import check_grads
from matrices import DTYPES, REAL, gaussian, needs_double, prescribed, tolerance

import jaxnorms as jn
from jaxnorms import transforms

inf = float("inf")
STATE = jn.init_spectral_norm(jax.random.key(0), jnp.ones((6, 4), REAL))
LAYER = {"input_shape": (6,), "padding": "SAME"}
IMAGES = jn.init_spectral_norm(jax.random.key(0), jnp.ones((3, 2, 4), REAL), **LAYER)


def kernel(a):
    return a if a.ndim == 3 else a.reshape(3, 2, 4)


def updated(move, a):
    return move.update(a, move.init(a), a)[0]


def normalised(a, state=STATE, n_steps=1):
    return jn.spectral_normalize(a, state, n_steps=n_steps)[0]


def normalised_kernel(a, state=IMAGES):
    y, _ = jn.spectral_normalize(kernel(a), state, n_steps=3, **LAYER)
    return y.reshape(a.shape)


# f(c a, c t) = c^degree f(a, t); of a 6 x 4 matrix a and a number t.
FUNCTIONS = {
    "penalty": (1, lambda a, t: jn.penalty({"w": a}, "nuc", 0.5)),
    "penalty of a kernel": (1, lambda a, t: jn.penalty({"w": kernel(a)}, jn.KyFan(2))),
    "clipping of the tree": (1, lambda a, t: jn.clip_by_global_norm({"w": a}, t)["w"]),
    "clipping by scaling": (1, lambda a, t: jn.clip_by_norm(a, t, "spectral")),
    "clipping by projection": (1, lambda a, t: jn.clip_by_norm(a, t, "nuc", by="projection")),
    "estimate": (1, lambda a, t: jn.estimate_spectral_norm(a, STATE, n_steps=3)[0]),
    "normalisation": (0, lambda a, t: normalised(a)),
    "normalisation, several steps": (0, lambda a, t: normalised(a, n_steps=6)),
    "normalisation, exact": (0, lambda a, t: normalised(a, n_steps=None)),
    "normalisation of a convolution": (0, lambda a, t: normalised_kernel(a)),
    "convolution": (1, lambda a, t: jn.conv_spectral_norm(kernel(a), (6,))),
    "convolution, zeros": (1, lambda a, t: jn.conv_spectral_norm(kernel(a), (6,), padding="SAME", gram_steps=4)),
    "oracle": (0, lambda a, t: updated(transforms.scale_by_lmo("spectral"), a)),
    "oracle of the columns": (0, lambda a, t: updated(transforms.scale_by_lmo(jn.Mixed(2, inf)), a)),
    "added penalty": (1, lambda a, t: updated(transforms.add_norm_penalty("nuc", t), a)),
    "proximal step": (1, lambda a, t: updated(transforms.proximal_step(t, "nuc"), a)),
    "projected step": (1, lambda a, t: updated(transforms.project_params(t, "spectral"), a)),
}
every = pytest.mark.parametrize("name", FUNCTIONS)
in_double = pytest.mark.skipif(REAL.itemsize < 8, reason="what precision does not touch runs once")
in_single = pytest.mark.skipif(REAL.itemsize > 4, reason="double precision has the range, and the digits")
# Subgradients and projections onto corners: their derivatives are the business of the functions they come from.
SMOOTH = [name for name in FUNCTIONS if "oracle" not in name]


def matrix(seed=0):
    return jnp.asarray(prescribed(np.array([3.0, 2.0, 1.0, 0.5]), (6, 4), REAL, seed))


@in_single
@every
def test_of_every_size(name):
    """Homogeneous to rounding, from 1e-27 to 1e27, by one program."""
    degree, f = FUNCTIONS[name]
    run, t = jax.jit(f), REAL.type(1.5)
    plain = np.asarray(run(matrix(), t))
    assert np.all(np.isfinite(plain))
    assert np.any(plain != 0)
    for power in (-90, 90):
        c = REAL.type(2.0**power)
        found = np.asarray(run(matrix() * c, t * c)) / (c if degree else 1)
        np.testing.assert_allclose(found, plain, rtol=tolerance(REAL), atol=tolerance(REAL))
    assert run._cache_size() == 1


@in_single
@every
def test_of_half_precision(name):
    _, f = FUNCTIONS[name]
    a, t = matrix().astype(jnp.bfloat16), REAL.type(1.5)
    found, wide = f(a, t), f(a.astype(REAL), t)
    assert found.dtype == jnp.bfloat16 or found.ndim == 0
    np.testing.assert_allclose(found.astype(REAL), wide, atol=0.05)


@in_double
@every
def test_of_bad_and_zero_matrices(name):
    """One bad matrix of a batch is NaN, or has an infinite norm, alone; zeros have finite values and derivatives."""
    _, f = FUNCTIONS[name]
    t, batch = REAL.type(1.5), jnp.stack([matrix(), matrix(1), matrix(2), 0 * matrix()])
    batch = batch.at[0, 0, 0].set(jnp.nan).at[1, 0, 0].set(inf)

    def total(a):
        return jnp.sum(f(a, t))

    found, slopes = jax.jit(jax.vmap(lambda a: (f(a, t), jax.grad(total)(a))))(batch)
    assert np.all(np.isnan(found[0]))
    assert not np.any(np.isfinite(found[1]))
    assert np.all(np.isfinite(found[2:]))
    assert np.all(np.isfinite(slopes[2:]))
    np.testing.assert_allclose(found[2], f(batch[2], t), rtol=tolerance(REAL), atol=tolerance(REAL))


@in_double
@every
def test_every_way_of_tracing(name):
    _, f = FUNCTIONS[name]
    batch, t = jnp.stack([matrix(seed) for seed in range(3)]), REAL.type(1.5)

    def of_one(a):
        return f(a, t)

    def ways(batch):
        _, scanned = jax.lax.scan(lambda carry, a: (carry, jax.checkpoint(of_one)(a)), 0, batch)
        return jax.vmap(of_one)(batch), jax.lax.map(of_one, batch), scanned, jax.linearize(of_one, batch[0])[0][None]

    expected = np.stack([of_one(a) for a in batch])
    for found in jax.jit(ways)(batch):
        np.testing.assert_allclose(found, expected[: len(found)], rtol=tolerance(REAL, 500), atol=tolerance(REAL, 500))


@needs_double
@pytest.mark.parametrize("name", SMOOTH)
def test_derivatives(name):
    """Both modes against differences; of estimates once converged, where u and v do not matter to first order."""
    a, t = matrix(), REAL.type(1.5)
    _, state = jn.estimate_spectral_norm(a, STATE, n_steps=60)
    _, images = jn.estimate_spectral_norm(kernel(a), IMAGES, n_steps=400, **LAYER)
    converged = {
        "estimate": lambda a, t: jn.estimate_spectral_norm(a, state)[0],
        "normalisation": lambda a, t: normalised(a, state),
        "normalisation, several steps": lambda a, t: normalised(a, state, n_steps=6),
        "normalisation of a convolution": lambda a, t: normalised_kernel(a, images),
    }
    f = converged.get(name, FUNCTIONS[name][1])
    check_grads(jax.jit(lambda a: f(a, t)), (a,), order=1, modes=["fwd", "rev"], atol=1e-5, rtol=1e-5)


@needs_double
@pytest.mark.parametrize("n_steps", [0, 1, 6])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_second_derivatives_of_normalisation(dtype, n_steps):
    """Those of ``W / Re <u, W v>`` with constant u and v, in every order of the modes."""
    a, e, d, c = (jnp.asarray(gaussian((6, 4), dtype, seed)) for seed in range(4))
    state = jn.init_spectral_norm(jax.random.key(0), a)
    _, (u, v, _) = jn.estimate_spectral_norm(a, state, n_steps=n_steps)

    def ours(a):
        y, _ = jn.spectral_normalize(a, state, n_steps=n_steps)
        return jnp.sum((c.conj() * y).real) * jn.estimate_spectral_norm(a, state, n_steps=n_steps)[0] ** 3

    def exact(a):
        sigma = jnp.sum((u.conj() * (a @ v)).real)
        return jnp.sum((c.conj() * a).real) * sigma**2

    def paired(f):
        return lambda a: jnp.sum((e.conj() * f(a)).real)

    def along(f):
        return lambda a: jax.jvp(f, (a,), (e,))[1]

    def second(f):
        slope = jax.grad(f)
        modes = jax.grad(along(f)), jax.grad(paired(slope)), along(along(f)), jax.jvp(slope, (a,), (d,))[1]
        return modes[0](a), modes[1](a), modes[2](a), modes[3]

    for found, expected in zip(jax.jit(second, static_argnums=0)(ours), second(exact), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-9)


@in_double
@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
@every
def test_on_a_mesh(name, kind):
    _, f = FUNCTIONS[name]
    mesh = jax.make_mesh((2,), ("x",), axis_types=(kind,))
    a, t, spec = jnp.asarray(gaussian((6, 4), REAL)), REAL.type(1.5), P("x")
    if "convolution" in name or "kernel" in name:
        a, spec = kernel(a), P(None, "x")
    spread = jax.device_put(a, NamedSharding(mesh, spec))
    run = jax.jit(f)
    found = run(spread, t)
    np.testing.assert_allclose(np.asarray(found), run(a, t), rtol=tolerance(REAL, 200), atol=tolerance(REAL, 200))
    if found.ndim:
        assert found.sharding.is_equivalent_to(spread.sharding, a.ndim)


@in_double
@pytest.mark.parametrize("spec", [P(None, None, "x"), P(None, None, None, "x")], ids=str)
def test_kernels_on_an_explicit_mesh(spec):
    mesh = jax.make_mesh((2,), ("x",), axis_types=(AxisType.Explicit,))
    a = jnp.asarray(gaussian((3, 3, 2, 4), REAL))
    spread, moved = jax.device_put(a, NamedSharding(mesh, spec)), transforms.scale_by_lmo("spectral")

    @jax.jit
    def run(a):
        state = jn.init_spectral_norm(jax.random.key(0), a, input_shape=(5, 5))
        y, state = jn.spectral_normalize(a, state, input_shape=(5, 5))
        return jax.grad(lambda a: jn.penalty(a, "nuc"))(a), updated(moved, a), y, jn.conv_spectral_norm(a, (5, 5))

    for x, y in zip(run(spread), run(a), strict=True):
        np.testing.assert_allclose(np.asarray(x), y, atol=tolerance(REAL, 500))
        assert x.ndim == 0 or x.sharding.is_equivalent_to(spread.sharding, 4)


def test_a_training_step_compiles_once():
    """Penalty, normalisation, clipping, oracle and projection in one step, as numbers change from step to step."""
    move = optax.chain(
        transforms.clip_by_matrix_norm(1.0),
        transforms.scale_by_lmo("spectral"),
        optax.scale(-0.1),
        transforms.project_params(2.0, "spectral"),
    )
    w, x = matrix(), jnp.asarray(gaussian((5, 6), REAL))

    @jax.jit
    def step(w, vectors, state, weight):
        def loss(w):
            y, new = jn.spectral_normalize(w, vectors)
            return jnp.sum(jnp.square(x @ y)) + jn.penalty(w, "nuc", weight), new

        g, vectors = jax.grad(loss, has_aux=True)(w)
        updates, state = move.update(g, state, w)
        return optax.apply_updates(w, updates), vectors, state

    vectors, state = STATE, move.init(w)
    for i in range(5):
        w, vectors, state = step(w, vectors, state, REAL.type(0.1 * (i + 1)))
    assert step._cache_size() == 1
    assert float(jn.spectral_norm(w)) <= 2 * (1 + tolerance(REAL))
