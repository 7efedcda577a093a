"""Norms of convolutions equal those of the operators, built column by column."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dense_convolution import true_norm
from matrices import COMPLEX, REAL, gaussian, needs_double, tolerance

import jaxnorms as jn


@pytest.mark.parametrize("dtype", [REAL, COMPLEX], ids=str)
@pytest.mark.parametrize(
    ("taps", "shape", "strides"),
    [
        ((3,), (8,), (1,)),
        ((3,), (8,), (2,)),
        ((5,), (4,), (2,)),
        ((3, 3), (6, 6), (1, 1)),
        ((3, 3), (6, 8), (2, 2)),
        ((2, 3), (4, 6), (2, 1)),
        ((1, 1), (4, 4), (2, 2)),
        ((7, 3), (4, 6), (1, 3)),
    ],
    ids=str,
)
def test_circular_is_exact(taps, shape, strides, dtype):
    for channels in ((1, 1), (3, 2), (2, 4)):
        kernel = gaussian((*taps, *channels), dtype)
        expected = true_norm(kernel, shape, strides, "circular")
        found = jn.conv_spectral_norm(kernel, shape, strides=strides)
        np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("strides", [(1, 1), (2, 2)], ids=str)
@pytest.mark.parametrize("padding", ["SAME", "VALID"])
def test_zero_padding_is_bounded(padding, strides):
    for seed in range(3):
        kernel = gaussian((3, 3, 2, 2), REAL, seed)
        exact = true_norm(kernel, (12, 12), strides, padding)
        assert exact <= jn.conv_spectral_norm(kernel, (12, 12), strides=strides, padding=padding) * (1 + 1e-6)


@pytest.mark.parametrize("taps", [(5,), (3, 3)], ids=str)
def test_the_supremum_between_two_samples_is_bounded(taps):
    """A wave of a frequency in the middle of the samples around it: the symbol has its supremum there, 0.15 % or 0.3 %
    above all of them."""
    phase = sum(np.pi / 16 / n * t for n, t in zip(taps, np.indices(taps), strict=True))
    kernel = np.exp(1j * phase).astype(COMPLEX)[..., None, None]
    found = jn.conv_spectral_norm(kernel, (32,) * len(taps), padding="VALID")
    assert kernel.size * (1 - tolerance(REAL)) <= found <= 1.01 * kernel.size


@needs_double
def test_the_bound_is_within_ten_percent_at_32():
    """One and two channels, where the dense operator is small enough."""
    for channels in ((1, 1), (2, 1)):
        kernel = gaussian((3, 3, *channels), REAL, 5)
        exact = true_norm(kernel, (32, 32), (1, 1), "SAME")
        assert exact <= jn.conv_spectral_norm(kernel, (32, 32), padding="SAME") <= 1.1 * exact


def test_worked_case():
    """All ones: 9, where the norm of the reshaped kernel is 3."""
    kernel = jnp.ones((3, 3, 1, 1))
    np.testing.assert_allclose(jn.conv_spectral_norm(kernel, (16, 16)), 9, rtol=tolerance(REAL))
    g = jax.grad(lambda k: jn.conv_spectral_norm(k, (16, 16)))(kernel)
    np.testing.assert_allclose(g, np.ones((3, 3, 1, 1)), atol=tolerance(REAL))


@pytest.mark.parametrize("steps", [0, 3, 6])
def test_gram_iteration_is_a_bound(steps):
    kernel = jnp.asarray(gaussian((3, 3, 6, 5), REAL))
    exact = jn.conv_spectral_norm(kernel, (8, 8))
    bound = jn.conv_spectral_norm(kernel, (8, 8), gram_steps=steps)
    assert exact * (1 - 1e-5) <= bound <= exact * 5 ** (2.0 ** -(steps + 2)) * (1 + 1e-5)
    zero = jax.value_and_grad(lambda k: jn.conv_spectral_norm(k, (8, 8), gram_steps=steps))(jnp.zeros((3, 3, 2, 2)))
    assert all(np.all(np.asarray(x) == 0) for x in zero)


def test_gradient():
    """A subgradient: ``<G, K> = ||K||`` and the inequality, and differences where the maximum is one frequency."""
    kernel, other = (jnp.asarray(gaussian((3, 3, 2, 3), REAL, seed)) for seed in (0, 1))

    def f(k):
        return jn.conv_spectral_norm(k, (6, 6), strides=2)

    value, g = jax.jit(jax.value_and_grad(f))(kernel)
    np.testing.assert_allclose(jnp.vdot(g, kernel), value, rtol=tolerance(REAL, 200))
    assert f(other) >= value + jnp.vdot(g, other - kernel) - tolerance(REAL, 200) * value
    slope = jax.jvp(f, (kernel,), (other,))[1]
    np.testing.assert_allclose(slope, jnp.vdot(g, other), rtol=tolerance(REAL, 2000))


def test_layouts_and_types():
    kernel = jnp.asarray(gaussian((3, 5, 2, 4), REAL))
    expected = jn.conv_spectral_norm(kernel, (8, 8))
    turned = jnp.transpose(kernel, (3, 2, 0, 1))
    for layout in ("OIHW", ("NCHW", "OIHW", "NCHW")):
        found = jn.conv_spectral_norm(turned, (8, 8), dimension_numbers=layout)
        np.testing.assert_allclose(found, expected, rtol=tolerance(REAL))
    big = float(jnp.finfo(REAL).max) ** 0.9
    for size in (big, 1 / big):
        np.testing.assert_allclose(
            jn.conv_spectral_norm(kernel * REAL.type(size), (8, 8)) / size, expected, rtol=tolerance(REAL)
        )
    assert jn.conv_spectral_norm(kernel.astype(jnp.bfloat16), (8, 8)).dtype == jnp.bfloat16
    assert np.isnan(jn.conv_spectral_norm(kernel.at[0].set(jnp.nan), (8, 8)))
    assert jn.conv_spectral_norm(jnp.zeros((3, 3, 2, 2)), (8, 8)) == 0


def test_what_is_refused():
    kernel = jnp.ones((3, 3, 1, 1))
    for message, args, options in (
        ("kernel must have shape", (jnp.ones((3, 3)), (4,)), {}),
        ("input_shape must be 2 positive integers", (kernel, (4,)), {}),
        ("strides must be 2 positive integers", (kernel, (4, 4)), {"strides": (1, 2, 3)}),
        ("must divide input_shape", (kernel, (5, 4)), {"strides": 2}),
        ("padding must be 'circular'", (kernel, (4, 4)), {"padding": "same"}),
        ("dimension_numbers must be a layout", (kernel, (4, 4)), {"dimension_numbers": "HWI"}),
        ("gram_steps must be None or an integer", (kernel, (4, 4)), {"gram_steps": -1}),
        ("kernel must not be empty", (jnp.ones((3, 3, 0, 1)), (4, 4)), {}),
    ):
        with pytest.raises(ValueError, match=message):
            jn.conv_spectral_norm(*args, **options)
