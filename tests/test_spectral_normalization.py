"""Spectral normalisation, of matrices and of convolutions, against dense operators."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dense_convolution import dense, true_norm
from matrices import COMPLEX, DTYPES, REAL, gaussian, prescribed, tolerance

import jaxnorms as jn

dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=str)
BIG = float(jnp.finfo(REAL).max) ** 0.9


@dtypes
def test_spectral_normalisation(dtype):
    w = jnp.asarray(prescribed(np.array([3.0, 1.0, 0.5]), (6, 3), dtype))
    state = jn.init_spectral_norm(jax.random.key(0), w)
    sigma, state = jax.jit(partial(jn.estimate_spectral_norm, n_steps=40))(w, state)
    np.testing.assert_allclose(sigma, 3, rtol=tolerance(REAL))
    assert state.residual < tolerance(REAL)
    normalised, _ = jn.spectral_normalize(w, state)
    np.testing.assert_allclose(jnp.linalg.svd(normalised)[1][0], 1, rtol=tolerance(REAL))
    # Converged, its derivative is that of w / ||w||.
    e = jnp.asarray(gaussian(w.shape, dtype, 1))
    warm = jax.jvp(lambda w: jn.spectral_normalize(w, state)[0], (w,), (e,))[1]
    exact = jax.jvp(lambda w: w / jn.spectral_norm(w).astype(dtype), (w,), (e,))[1]
    np.testing.assert_allclose(warm, exact, atol=tolerance(REAL, 500))
    np.testing.assert_allclose(jn.spectral_normalize(w, state, n_steps=None)[0], w / 3, atol=tolerance(REAL))
    for size in (BIG, 1 / BIG):
        np.testing.assert_allclose(jn.spectral_normalize(w * size, state)[0], normalised, atol=tolerance(REAL))


@dtypes
@pytest.mark.parametrize("n_steps", [1, 2])
def test_the_estimate_is_that_of_the_vectors(n_steps, dtype):
    """``sigma = u^H W v`` from the first step on, whose derivative is ``u v^H``."""
    w = jnp.asarray(gaussian((7, 5), dtype))
    start = jn.init_spectral_norm(jax.random.key(0), w, block=3)
    (sigma, state), g = jax.value_and_grad(
        lambda w: jn.estimate_spectral_norm(w, start, n_steps=n_steps), has_aux=True
    )(w)
    u, v = (np.asarray(x)[:, 0] for x in (state.u, state.v))
    np.testing.assert_allclose(u.conj() @ np.asarray(w) @ v, sigma, rtol=tolerance(REAL))
    np.testing.assert_allclose(g, np.outer(u.conj(), v), atol=tolerance(REAL))


def test_a_block_converges_where_one_vector_does_not():
    w = jnp.asarray(prescribed(np.array([1.0, 0.999, 0.998, 0.2, 0.1]), (8, 5), REAL))
    errors = []
    for block in (1, 3):
        state = jn.init_spectral_norm(jax.random.key(1), w, block=block)
        _, state = jn.estimate_spectral_norm(w, state, n_steps=3)
        errors.append(float(state.residual))
    assert errors[1] < 1e-5 < errors[0]


@pytest.mark.parametrize("n_steps", [0, 1, 3, None])
def test_normalisation_of_what_has_no_norm(n_steps):
    w = jnp.asarray(gaussian((4, 3), REAL))
    state = jn.init_spectral_norm(jax.random.key(0), w)
    normalised, kept = jn.spectral_normalize(jnp.zeros_like(w), state, n_steps=n_steps)
    np.testing.assert_array_equal(normalised, 0)
    assert all(np.all(np.isfinite(x)) for x in (kept.u, kept.v))
    bad, kept = jn.spectral_normalize(w.at[0, 0].set(jnp.nan), state, n_steps=n_steps)
    assert np.all(np.isnan(bad))
    np.testing.assert_array_equal(kept.u, state.u)
    half, _ = jn.spectral_normalize(w.astype(jnp.bfloat16), state, n_steps=n_steps)
    assert half.dtype == jnp.bfloat16


def test_normalisation_through_training():
    """Warm from step to step, the norm stays 1, and nothing compiles anew."""
    x, y = (jnp.asarray(gaussian((64, n), REAL, n)) for n in (6, 4))
    w = jnp.asarray(gaussian((6, 4), REAL))
    state = jn.init_spectral_norm(jax.random.key(0), w)

    @jax.jit
    def step(w, state):
        def loss(w):
            normalised, new = jn.spectral_normalize(w, state)
            return jnp.mean((x @ normalised - y) ** 2), new

        g, state = jax.grad(loss, has_aux=True)(w)
        return w - REAL.type(0.05) * g, state

    for _ in range(200):
        w, state = step(w, state)
    sizes = jn.spectral_norm(jn.spectral_normalize(w, state)[0])
    np.testing.assert_allclose(sizes, 1, atol=1e-3)
    assert step._cache_size() == 1


# Convolutions.


@pytest.mark.parametrize(
    ("taps", "layer", "dtype", "layout"),
    [
        ((3,), {"input_shape": (8,)}, REAL, None),
        ((4,), {"input_shape": (8,), "strides": 2, "padding": "circular"}, COMPLEX, "OIH"),
        ((3,), {"input_shape": (9,), "strides": 2, "padding": "SAME"}, REAL, None),
        ((3, 3), {"input_shape": (4, 5), "padding": "SAME"}, COMPLEX, None),
        ((3, 3), {"input_shape": (6, 6), "strides": 2, "padding": "SAME"}, REAL, "OIHW"),
        ((3, 2), {"input_shape": (5, 5), "padding": "VALID"}, COMPLEX, "OIHW"),
        ((3, 3), {"input_shape": (5, 6), "strides": (2, 1), "padding": [(2, 0), (1, 3)]}, REAL, None),
        ((3, 5), {"input_shape": (4, 4), "strides": (1, 2)}, REAL, ("NCHW", "OIHW", "NCHW")),
    ],
    ids=str,
)
def test_of_a_convolution_is_that_of_the_dense_operator(taps, layer, dtype, layout):
    """Values and, converged, derivatives ``u^H conv(e_i, v)``, against the SVD of the operator."""
    kernel = gaussian((*taps, 3, 2), dtype, len(taps))
    u, s, vh = np.linalg.svd(dense(kernel, **layer))
    units = np.eye(kernel.size).reshape(-1, *kernel.shape)
    gradient = np.array([u[:, 0].conj() @ dense(unit, **layer) @ vh[0].conj() for unit in units])
    axes = range(kernel.ndim) if layout is None else (kernel.ndim - 1, kernel.ndim - 2, *range(len(taps)))
    w = jnp.asarray(np.transpose(kernel, axes))
    state = jn.init_spectral_norm(jax.random.key(0), w, block=4, dimension_numbers=layout, **layer)

    @jax.jit
    def everything(w, state):
        def f(w):
            return jn.estimate_spectral_norm(w, state, n_steps=150, dimension_numbers=layout, **layer)

        (value, new), g = jax.value_and_grad(f, has_aux=True)(w)
        return value, new, g, jn.spectral_normalize(w, new, n_steps=0, dimension_numbers=layout, **layer)[0]

    value, state, g, normalised = everything(w, state)
    np.testing.assert_allclose(value, s[0], rtol=tolerance(REAL))
    assert state.residual < max(tolerance(REAL), 1e-6)
    np.testing.assert_allclose(normalised, w / s[0].astype(dtype), atol=tolerance(REAL))
    expected = np.transpose(gradient.reshape(kernel.shape), axes)
    np.testing.assert_allclose(g, expected if dtype == COMPLEX else expected.real, atol=max(tolerance(REAL, 200), 1e-6))


LAYER = {"input_shape": (6, 6), "padding": "SAME"}


@pytest.mark.parametrize("n_steps", [1, None])
def test_of_extreme_kernels(n_steps):
    kernel = jnp.asarray(gaussian((3, 3, 2, 3), REAL))
    state = jn.init_spectral_norm(jax.random.key(0), kernel, **LAYER)
    both = jax.jit(lambda w: jn.spectral_normalize(w, state, n_steps=n_steps, **LAYER))
    normalised, _ = both(kernel)
    assert true_norm(normalised, **LAYER) <= (1 + tolerance(REAL) if n_steps is None else 2)
    for size in (BIG, 1 / BIG):
        np.testing.assert_allclose(both(kernel * REAL.type(size))[0], normalised, atol=tolerance(REAL))
    for bad in (0 * kernel, kernel.at[0, 0, 0, 0].set(jnp.nan), kernel.at[0, 0, 0, 0].set(-jnp.inf)):
        image, kept = both(bad)
        np.testing.assert_array_equal(image, 0 if jnp.all(bad == 0) else jnp.nan)
        np.testing.assert_array_equal(kept.u, state.u)
        np.testing.assert_array_equal(kept.v, state.v)
    half = kernel.astype(jnp.bfloat16)
    image, kept = jn.spectral_normalize(half, state, n_steps=n_steps, **LAYER)
    assert (image.dtype, kept.u.dtype) == (jnp.bfloat16, REAL)
    np.testing.assert_allclose(image.astype(REAL), both(half.astype(REAL))[0], rtol=2**-7)


def test_circular_normalisation_is_exact():
    kernel = jnp.asarray(gaussian((3, 3, 2, 3), REAL))
    state = jn.init_spectral_norm(jax.random.key(0), kernel, input_shape=(6, 6))
    exact, same = jn.spectral_normalize(kernel, state, n_steps=None, input_shape=(6, 6))
    np.testing.assert_allclose(true_norm(exact, (6, 6)), 1, rtol=tolerance(REAL))
    assert same is state


def test_of_a_stack_of_convolutions():
    """vmap over layers, scan over steps, checkpoint: the same as each layer by itself."""
    stack = jnp.asarray(gaussian((3, 3, 3, 2, 2), REAL))
    states = jax.vmap(lambda key, w: jn.init_spectral_norm(key, w, **LAYER))(
        jax.random.split(jax.random.key(0), 3), stack
    )

    def f(w, state):
        def step(state, _):
            sigma, state = jn.estimate_spectral_norm(w, state, **LAYER)
            return state, sigma

        return jax.lax.scan(jax.checkpoint(step), state, length=5)[1][-1]

    both = jax.jit(jax.vmap(jax.value_and_grad(f)))(stack, states)
    alone = jax.jit(jax.value_and_grad(partial(jn.estimate_spectral_norm, **LAYER), has_aux=True))
    for i in range(3):
        state = jax.tree.map(lambda x, i=i: x[i], states)
        for _ in range(5):
            (sigma, state), g = alone(stack[i], state)
        for x, y in zip(both, (sigma, g), strict=True):
            np.testing.assert_allclose(x[i], y, atol=tolerance(REAL, 200))


def test_zeros_keep_the_directions():
    """A layer that starts at zero is not caught in a unit vector that the next weights do not see."""
    w = jnp.diag(jnp.asarray([1, 3], REAL))
    state = jn.init_spectral_norm(jax.random.key(0), w)
    _, state = jn.estimate_spectral_norm(0 * w, state)
    np.testing.assert_allclose(jn.estimate_spectral_norm(w, state, n_steps=20)[0], 3, rtol=tolerance(REAL))


def test_what_is_refused():
    w, kernel = jnp.ones((3, 2)), jnp.ones((3, 3, 2, 2))
    state = jn.init_spectral_norm(jax.random.key(0), w)
    with pytest.raises(ValueError, match="state must have u and v of shapes"):
        jn.spectral_normalize(jnp.ones((4, 2)), state)
    with pytest.raises(TypeError, match="state must be a SpectralNormState"):
        jn.estimate_spectral_norm(w, (1, 2, 3))
    with pytest.raises(ValueError, match="n_steps must be None or an integer"):
        jn.estimate_spectral_norm(w, state, n_steps=-1)
    with pytest.raises(ValueError, match="block must be between 1 and"):
        jn.init_spectral_norm(jax.random.key(0), w, block=3)
    with pytest.raises(ValueError, match="w must have shape"):
        jn.init_spectral_norm(jax.random.key(0), jnp.ones(3))
    for message, x, options in (
        ("padding needs input_shape", kernel, {"padding": "SAME"}),
        ("strides needs input_shape", kernel, {"strides": 2}),
        ("kernel must have shape", w, {"input_shape": (4,)}),
        ("input_shape must be 2 positive integers", kernel, {"input_shape": (4,)}),
        ("must divide input_shape", kernel, {"input_shape": (4, 4), "strides": 3}),
        ("padding must be 'circular'", kernel, {"input_shape": (4, 4), "padding": "same"}),
        ("is too small for the kernel", kernel, {"input_shape": (2, 2), "padding": "VALID"}),
        ("dimension_numbers must be a layout", kernel, {"dimension_numbers": "HWI"}),
    ):
        with pytest.raises(ValueError, match=message):
            jn.init_spectral_norm(jax.random.key(0), x, **options)
    with pytest.raises(TypeError, match="unexpected keyword 'stride'; it takes input_shape"):
        jn.spectral_normalize(kernel, state, stride=2)
    with pytest.raises(ValueError, match="state must have u and v of shapes"):
        jn.spectral_normalize(kernel, jn.init_spectral_norm(jax.random.key(0), kernel), input_shape=(4, 4))


@dtypes
def test_a_kernel_that_turned_round_keeps_a_positive_norm(dtype):
    """Without a step, too, as after loading other weights at evaluation."""
    w = jnp.asarray(gaussian((4, 3), dtype))
    _, state = jn.estimate_spectral_norm(w, jn.init_spectral_norm(jax.random.key(0), w), n_steps=60)
    for factor in (-1, -3, 1 / 4, *([1j, 1 - 1j] if np.iscomplexobj(w) else [])):
        x = w * w.dtype.type(factor)
        sigma, _ = jn.estimate_spectral_norm(x, state, n_steps=0)
        np.testing.assert_allclose(sigma, abs(factor) * jn.spectral_norm(w), rtol=1e-4)
        g = jax.grad(lambda x: jn.estimate_spectral_norm(x, state, n_steps=0)[0])(x)
        np.testing.assert_allclose(g, jax.grad(jn.spectral_norm)(x), atol=1e-4)
        found, _ = jn.spectral_normalize(x, state, n_steps=0)
        np.testing.assert_allclose(found, np.asarray(w) * np.sign(factor) / float(jn.spectral_norm(w)), atol=1e-4)


def test_a_start_from_zeros_or_nan_is_random():
    w = jnp.diag(jnp.asarray([1, 3], REAL))
    for start in (0 * w, w * jnp.nan):
        state = jn.init_spectral_norm(jax.random.key(0), start)
        sigma, state = jn.estimate_spectral_norm(w, state, n_steps=20)
        np.testing.assert_allclose(sigma, 3, rtol=tolerance(REAL))
    unseen = state._replace(v=jnp.asarray([[1], [0]], REAL))
    sigma, state = jn.estimate_spectral_norm(jnp.diag(jnp.asarray([0, 2], REAL)), unseen)
    assert sigma == 0
    assert state.residual == jnp.inf
