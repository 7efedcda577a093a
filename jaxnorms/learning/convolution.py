"""Spectral norms of convolutions, not of reshaped kernels."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxnorms import _checks
from jaxnorms._mesh import replicated
from jaxnorms._scaling import magnitude, scale
from jaxnorms.learning.convolution_operator import ConvolutionOperator, convolution_operator
from jaxnorms.norms import frobenius_norm, spectral_norm

# Samples per axis of a zero-padded convolution, for each entry of the kernel: the bound is then 1 % above the supremum.
_SAMPLES = 16


def conv_spectral_norm(
    kernel: ArrayLike,
    input_shape: Sequence[int],
    *,
    strides: int | Sequence[int] = 1,
    padding: Any = "circular",
    dimension_numbers: Any = None,
    gram_steps: int | None = None,
) -> Array:
    """Spectral norm of the convolution with ``kernel``, of inputs with the spatial shape ``input_shape``: a scalar.

    * ``kernel``: ``(..., in, out)``, as HWIO, with any number of spatial axes; another order of its axes by
      ``dimension_numbers``, a string such as ``"OIHW"`` or the triple that ``jax.lax.conv_general_dilated`` takes.
    * ``padding="circular"``: exact, the largest ``||K(w)||_2`` over the frequencies w of the grid, of the Fourier
      transform ``K(w)`` of the kernel, an ``in x out`` matrix. The strides must divide ``input_shape``.
    * ``"SAME"``, ``"VALID"`` or pairs of widths, of zeros: a certified upper bound, whatever the widths:
      the supremum over all frequencies, from N samples per axis and the degree d of the kernel,
      ``max_N ||K||_2 / prod_i cos(pi d_i / N_i)^(1/2)``. It exceeds the norm by a few percent for inputs that are ten
      times as long as the kernel, by more for smaller ones.
    * ``strides``: an integer or one for each spatial axis. The kernel is then cut into phases, which are input
      channels of a convolution of stride 1.
    * ``gram_steps=t``: in place of ``||K(w)||_2`` its upper bound ``||(K^H K)^(2^t)||_F^(2^-(t+1))``, by t + 1 products
      for each frequency: at most ``r^(2^-(t+2))`` times it for r channels, 3 % for t = 5 and r = 64. For every step
      of a training.

    Differentiable twice in the kernel; where several frequencies attain the maximum, one subgradient of them. Real or
    complex, any floating type; range-safe. Raises ``ValueError`` for shapes that do not fit, an unknown padding or
    layout. Cost: a Fourier transform, and the norms of as many matrices ``(in * strides) x out`` as there are
    frequencies, half of them for real kernels. Source: Sedghi, Gupta and Long 2019; Araujo et al. 2021
    (zero padding); Delattre et al. 2023 (``gram_steps``).

    >>> import jax.numpy as jnp, jaxnorms as jn
    >>> jn.conv_spectral_norm(jnp.ones((3, 3, 1, 1)), (16, 16)).round(4)
    Array(9., dtype=float32)
    """
    given = _checks.as_inexact(kernel, "kernel")
    convolution = convolution_operator(
        given,
        "conv_spectral_norm",
        input_shape=input_shape,
        strides=strides,
        padding=padding,
        dimension_numbers=dimension_numbers,
    )
    if gram_steps is not None:
        gram_steps = _checks.integer(gram_steps, "conv_spectral_norm: gram_steps", "None or an integer >= 0", least=0)
    return replicated(partial(_norm, convolution=convolution, gram_steps=gram_steps), given)


def _norm(kernel: Array, convolution: ConvolutionOperator, gram_steps: int | None) -> Array:
    x, shape, steps = convolution.hwio(kernel), convolution.shape, convolution.strides
    circular, dims = convolution.padding == "circular", len(convolution.shape)
    dtype = x.dtype
    x = x.astype(_checks.working_dtype(dtype))
    ok, _, e = magnitude(x)
    phases = _phases(jnp.where(ok, scale(x, -e), 0), steps)
    if circular:
        grid = tuple(n // s for n, s in zip(shape, steps, strict=True))
    else:
        grid = tuple(_SAMPLES * k for k in phases.shape[:dims])
    matrices = _transform(_wrapped(phases, grid), dims)
    sizes = spectral_norm(matrices) if gram_steps is None else _by_gram(matrices, gram_steps)
    value = scale(jnp.max(sizes), e)
    if not circular:
        degrees = (math.pi * (k - 1) / n for k, n in zip(phases.shape[:dims], grid, strict=True))
        value = value / math.sqrt(math.prod(map(math.cos, degrees)))
    return jnp.where(ok, value, frobenius_norm(jnp.where(ok, 0, x.reshape(-1, 1)))).astype(jnp.finfo(dtype).dtype)


def _phases(kernel: Array, strides: tuple[int, ...]) -> Array:
    """``(spatial / strides, strides * in, out)``: the kernel of stride 1 for an input with its phases as channels."""
    dims = len(strides)
    kernel = jnp.pad(kernel, [(0, -k % s) for k, s in zip(kernel.shape, strides, strict=False)] + [(0, 0)] * 2)
    split = [n for k, s in zip(kernel.shape, strides, strict=False) for n in (k // s, s)]
    kernel = kernel.reshape(*split, *kernel.shape[dims:])
    order = [*range(0, 2 * dims, 2), *range(1, 2 * dims, 2), 2 * dims, 2 * dims + 1]
    kernel = jnp.transpose(kernel, order)
    return kernel.reshape(*kernel.shape[:dims], -1, kernel.shape[-1])


def _wrapped(kernel: Array, grid: tuple[int, ...]) -> Array:
    """The kernel on a periodic grid, around which it may be wrapped several times."""
    for axis, n in enumerate(grid):
        k = kernel.shape[axis]
        widths = [(0, 0)] * kernel.ndim
        widths[axis] = (0, -k % n)
        kernel = jnp.pad(kernel, widths)
        turns = (*kernel.shape[:axis], kernel.shape[axis] // n, n, *kernel.shape[axis + 1 :])
        kernel = jnp.sum(kernel.reshape(turns), axis=axis)
    return kernel


def _transform(kernel: Array, dims: int) -> Array:
    """The matrices of all frequencies; of a real kernel those of one of each conjugate pair."""
    axes = tuple(range(dims))
    out = jnp.fft.fftn(kernel, axes=axes) if jnp.iscomplexobj(kernel) else jnp.fft.rfftn(kernel, axes=axes)
    return out.reshape(-1, *out.shape[dims:])


def _by_gram(a: Array, steps: int) -> Array:
    """``||(a^H a)^(2^steps)||_F^(2^-(steps+1))``, with powers scaled to size 1."""
    gram = jnp.matmul(jnp.swapaxes(a, -1, -2).conj(), a, precision="highest")
    if a.shape[-1] > a.shape[-2]:
        gram = jnp.matmul(a, jnp.swapaxes(a, -1, -2).conj(), precision="highest")
    size = frobenius_norm(gram)
    zero = size == 0
    total = jnp.log(jnp.where(zero, 1, size))
    for i in range(steps):
        gram = gram / jnp.where(zero, 1, size)[..., None, None].astype(gram.dtype)
        gram = jnp.matmul(gram, gram, precision="highest")
        size = frobenius_norm(gram)
        total += jnp.log(jnp.where(zero, 1, size)) / 2 ** (i + 1)
    return jnp.where(zero, 0, jnp.exp(total / 2))
