"""Convolutions as linear operators: their arguments, checked, and their products with images."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypedDict

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxnorms import _checks


class Convolution(TypedDict, total=False):
    """Which convolution a kernel makes.

    * ``input_shape``: the spatial shape of its input, without batch and channels.
    * ``strides=1``: an integer or one for each spatial axis.
    * ``padding="circular"``, ``"SAME"``, ``"VALID"`` or pairs of widths: the last three with zeros, as
      ``jax.lax.conv_general_dilated``. For circular padding the strides must divide ``input_shape``.
    * ``dimension_numbers=None``: the order of the kernel's axes, a string such as ``"OIHW"`` or the triple that
      ``jax.lax.conv_general_dilated`` takes; None is ``(..., in, out)``, as HWIO.
    """

    input_shape: Sequence[int]
    strides: int | Sequence[int]
    padding: Any
    dimension_numbers: Any


@dataclass(frozen=True)
class ConvolutionOperator:
    """The linear map that the convolution with a kernel of a known layout is, of inputs of a known shape."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    padding: str | tuple[tuple[int, int], ...]
    order: tuple[int, ...]

    def hwio(self, kernel: Array) -> Array:
        """``(..., in, out)``."""
        return jnp.transpose(kernel, self.order)

    def size(self, kernel: Array) -> tuple[int, int]:
        """How many entries an output and an input have."""
        n = math.prod(self.shape) * kernel.shape[self.order[-2]]
        shapes = (jax.ShapeDtypeStruct(shape, kernel.dtype) for shape in (kernel.shape, (n, 1)))
        return jax.eval_shape(self.forward, *shapes).size, n

    def forward(self, kernel: Array, x: Array) -> Array:
        """The outputs ``(m, k)`` of inputs ``(n, k)``: images, channels last, as columns."""
        kernel, dims = self.hwio(kernel), len(self.shape)
        images = x.T.reshape(-1, *self.shape, kernel.shape[-2])
        padding = self.padding
        if padding == "circular":
            widths = [((k - 1) // 2, k // 2) for k in kernel.shape[:dims]]
            images, padding = jnp.pad(images, [(0, 0), *widths, (0, 0)], mode="wrap"), "VALID"
        last = (0, dims + 1, *range(1, dims + 1))
        layouts = jax.lax.ConvDimensionNumbers(last, (dims + 1, dims, *range(dims)), last)
        out = jax.lax.conv_general_dilated(
            images, kernel, self.strides, padding, dimension_numbers=layouts, precision=jax.lax.Precision.HIGHEST
        )
        return out.reshape(len(out), -1).T

    def adjoint(self, kernel: Array, y: Array) -> Array:
        """The images ``(n, k)`` to which the adjoint takes ``(m, k)``."""
        x = jax.ShapeDtypeStruct((self.size(kernel)[1], y.shape[1]), y.dtype)
        return jax.linear_transpose(partial(self.forward, kernel), x)(y.conj())[0].conj()


def convolution_operator(
    kernel: Array,
    function: str,
    *,
    input_shape: Sequence[int],
    strides: int | Sequence[int] = 1,
    padding: Any = "circular",
    dimension_numbers: Any = None,
) -> ConvolutionOperator:
    """The operator of these arguments of ``function``, with their defaults."""
    order = kernel_order(kernel, dimension_numbers, function)
    dims = kernel.ndim - 2
    shape = _numbers(input_shape, "input_shape", dims, function)
    several = isinstance(strides, Sequence | np.ndarray)
    steps = _numbers(strides if several else (strides,) * dims, "strides", dims, function)
    if 0 in kernel.shape:
        raise ValueError(f"{function}: kernel must not be empty, got shape {kernel.shape}")
    padding = _padding(padding, dims, function)
    if padding == "circular" and any(n % s for n, s in zip(shape, steps, strict=True)):
        raise ValueError(f"{function}: strides {steps} must divide input_shape {shape} for circular padding")
    return ConvolutionOperator(shape, steps, padding, order)


def kernel_order(kernel: Array, dimension_numbers: Any, function: str) -> tuple[int, ...]:
    """The axes of a kernel in the order ``(..., in, out)``."""
    if kernel.ndim < 3:
        raise ValueError(f"{function}: kernel must have shape (..., in, out), got shape {kernel.shape}")
    if dimension_numbers is None:
        return tuple(range(kernel.ndim))
    layout = dimension_numbers
    if isinstance(layout, tuple | list) and len(layout) == 3:
        layout = layout[1]
    if not isinstance(layout, str) or len(layout) != kernel.ndim or layout.count("I") != 1 or layout.count("O") != 1:
        kind = ValueError if isinstance(layout, str | tuple | list) else TypeError
        raise kind(
            f"{function}: dimension_numbers must be a layout of the kernel such as 'HWIO', with one letter for "
            f"each of its {kernel.ndim} axes, or three layouts, got {dimension_numbers!r}"
        )
    spatial = (i for i, letter in enumerate(layout) if letter not in "IO")
    return (*spatial, layout.index("I"), layout.index("O"))


def _numbers(given: Any, name: str, dims: int, function: str) -> tuple[int, ...]:
    numbers = _checks.integers(given, f"{function}: {name}", "integers")
    if len(numbers) != dims or min(numbers, default=1) < 1:
        raise ValueError(
            f"{function}: {name} must be {dims} positive integers, one for each spatial axis, got {given!r}"
        )
    return numbers


def _padding(padding: Any, dims: int, function: str) -> Any:
    name, allowed = f"{function}: padding", f"'circular', 'SAME', 'VALID' or {dims} pairs of widths"
    if isinstance(padding, str):
        if padding in ("circular", "SAME", "VALID"):
            return padding
    elif not isinstance(padding, Sequence):
        raise TypeError(f"{name} must be {allowed}, got {padding!r}")
    else:
        widths = tuple(_checks.integers(pair, name, allowed) for pair in padding)
        if len(widths) == dims and all(len(pair) == 2 for pair in widths):
            return widths
    raise ValueError(f"{name} must be {allowed}, got {padding!r}")
