"""Spectral normalisation of Flax NNX layers. Needs Flax: ``pip install "jaxnorms[flax]"``.

In place of ``flax.nnx.SpectralNorm``, whose calls overwrite the kernel that the optimiser trains, with
``update_stats`` and ``use_running_average`` meaning the same.
"""

import math
import re
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jax import Array

from jaxnorms import _checks
from jaxnorms.adapters._iteration import normalize, start
from jaxnorms.learning import SpectralNormState

try:
    from flax import nnx
except ImportError as error:
    raise ImportError('jaxnorms.adapters.nnx needs Flax: pip install "jaxnorms[flax]"') from error


class SpectralNormStat(nnx.Variable):
    """Variables of the power iteration, no parameters: the type by which ``nnx.split`` and filters find them.

    >>> from flax import nnx
    >>> from jaxnorms.adapters.nnx import SpectralNorm, SpectralNormStat
    >>> layer = SpectralNorm(nnx.Linear(3, 2, rngs=nnx.Rngs(0)), rngs=nnx.Rngs(1))
    >>> list(nnx.state(layer, SpectralNormStat))
    ['residual', 'u', 'v']
    """


class SpectralNorm(nnx.Module):
    """``layer`` evaluated with its kernel ``W`` replaced by ``W / sigma``, sigma an estimate of ``||W||_2``.

    * ``layer``: any Module with a kernel ``(..., in, out)``, read as the matrix ``(... in, out)``: ``nnx.Linear``,
      ``nnx.Conv``, ``nnx.Embed`` with ``parameter="embedding"``, your own. ``nnx.LinearGeneral`` and ``nnx.Einsum`` by
      the matrix of their linear map, if there is one: no batch axes. The stored kernel is never changed.
    * ``rngs``: its ``params`` stream gives the start, which 15 steps of power iteration improve.
    * ``n_steps``: steps of power iteration in each call that updates; None for the exact norm.
    * ``block``: how many vectors are iterated; more converge faster where leading singular values are close.
    * ``input_shape``: the spatial shape of the inputs of an ``nnx.Conv``, for the norm of the convolution itself,
      with the layer's strides and padding. By default that of the reshaped kernel.
    * ``use_running_average``: whether calls leave the estimate as it is and take no step; set by ``train()``,
      ``eval()`` and ``nnx.view``, overridden by ``update_stats=True`` or False in a call.

    The singular vectors ``u`` (m, block) and ``v`` (n, block) and the ``residual`` of the estimate are Variables of
    type :class:`SpectralNormStat`, in float32 for 16-bit kernels. The derivative includes that of sigma, with u and v
    constant; a zero kernel gives zeros. Stacks of layers: construct and call under ``nnx.vmap`` and ``nnx.scan``.
    Raises ``ValueError`` for a layer without such a parameter and a convolution whose norm is not known (dilated,
    grouped, masked, other paddings). Cost, formulas and source: :func:`jaxnorms.spectral_normalize`.

    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> from jaxnorms.adapters.nnx import SpectralNorm
    >>> layer = SpectralNorm(nnx.Linear(2, 2, rngs=nnx.Rngs(0)), rngs=nnx.Rngs(1))
    >>> layer.layer.kernel[...] = jnp.diag(jnp.array([4.0, 2.0]))
    >>> for _ in range(20):
    ...     y = layer(jnp.ones(2))
    >>> y.round(4), layer.layer.kernel[0, 0]
    (Array([1. , 0.5], dtype=float32), Array(4., dtype=float32))
    """

    def __init__(
        self,
        layer: Any,
        *,
        rngs: nnx.Rngs,
        n_steps: int | None = 1,
        block: int = 1,
        input_shape: Sequence[int] | None = None,
        parameter: str = "kernel",
        use_running_average: bool = False,
    ) -> None:
        self.layer = layer
        self.n_steps = n_steps
        self.input_shape = None if input_shape is None else tuple(input_shape)
        self.parameter = parameter
        self.use_running_average = _checks.flag(use_running_average, "use_running_average")
        variable = getattr(layer, parameter, None)
        if not isinstance(variable, nnx.Variable) or variable[...].ndim < 2:
            raise ValueError(
                f"SpectralNorm: layer must have the parameter {parameter!r} with shape (..., in, out), "
                f"got {type(layer).__name__} with {variable!r}"
            )
        state = start(rngs.params(), self._matrix(variable[...]), block=block, **self._convolution())
        self.u = SpectralNormStat(state.u)
        self.v = SpectralNormStat(state.v)
        self.residual = SpectralNormStat(state.residual)

    def __call__(self, *args: Any, update_stats: bool | None = None, **kwargs: Any) -> Any:
        """What ``layer(*args, **kwargs)`` gives with the normalised kernel."""
        update = not self.use_running_average if update_stats is None else _checks.flag(update_stats, "update_stats")
        n_steps = self.n_steps if update or self.n_steps is None else 0
        variable = getattr(self.layer, self.parameter)
        state = SpectralNormState(self.u[...], self.v[...], self.residual[...])
        kernel = variable[...]
        y, state = normalize(self._matrix(kernel), state, n_steps=n_steps, **self._convolution())
        if update:
            self.u[...], self.v[...], self.residual[...] = state
        layer = nnx.clone(self.layer, variables=False)  # shares all other Variables, which are updated as ever
        setattr(layer, self.parameter, variable.replace(self._kernel(y, kernel)))
        return layer(*args, **kwargs)

    def set_view(self, use_running_average: bool | None = None) -> None:
        """For ``nnx.view(model, use_running_average=...)``."""
        if use_running_average is not None:
            self.use_running_average = _checks.flag(use_running_average, "use_running_average")

    def _matrix(self, kernel: Array) -> Array:
        """The kernel, or the matrix of a linear map that sums over other axes than all but the last."""
        axes = _contracted(self.layer)
        if axes is None:
            return kernel
        x = jnp.moveaxis(kernel, axes, range(len(axes)))
        return x.reshape(math.prod(x.shape[: len(axes)]), -1)

    def _kernel(self, matrix: Array, like: Array) -> Array:
        axes = _contracted(self.layer)
        if axes is None:
            return matrix
        first = range(len(axes))
        return jnp.moveaxis(matrix.reshape(jnp.moveaxis(like, axes, first).shape), first, axes)

    def _convolution(self) -> dict[str, Any]:
        return {} if self.input_shape is None else _convolution(self.layer, self.input_shape)


def _contracted(layer: Any) -> tuple[int, ...] | None:
    """The axes of the kernel that meet the input."""
    if isinstance(layer, nnx.LinearGeneral):
        if layer.batch_axis:
            raise ValueError(f"SpectralNorm: layer must have no batch_axis, got {dict(layer.batch_axis)}")
        return tuple(range(len(layer.in_features)))
    if isinstance(layer, nnx.Einsum):
        x, w, y = re.split(",|->", layer.einsum_str)
        if any((axis in x) == (axis in y) for axis in w):
            raise ValueError(
                "SpectralNorm: layer must have an einsum_str with each axis of the kernel in either the input or the "
                f"output, got {layer.einsum_str!r}"
            )
        return tuple(i for i, axis in enumerate(w) if axis in x)
    return None


def _convolution(layer: Any, input_shape: tuple[int, ...]) -> dict[str, Any]:
    """Keywords that say which convolution the layer is."""
    if not isinstance(layer, nnx.Conv):
        raise ValueError(f"SpectralNorm: input_shape is for an nnx.Conv, got {type(layer).__name__}")
    dims = len(layer.kernel_size)
    for name in ("input_dilation", "kernel_dilation", "feature_group_count"):
        if set(_each(getattr(layer, name), dims)) != {1}:
            raise ValueError(f"SpectralNorm: input_shape needs a layer with {name}=1, got {getattr(layer, name)}")
    if layer.mask is not None:
        raise ValueError("SpectralNorm: input_shape needs a layer without mask")
    padding = layer.padding
    if isinstance(padding, str):
        if padding not in ("CIRCULAR", "SAME", "VALID"):
            raise ValueError(
                "SpectralNorm: input_shape needs a layer with padding 'CIRCULAR', 'SAME', 'VALID' or widths, "
                f"got {padding!r}"
            )
        padding = "circular" if padding == "CIRCULAR" else padding
    else:
        padding = tuple(_each(widths, 2) for widths in _each(padding, dims))
    return {"input_shape": input_shape, "strides": _each(layer.strides, dims), "padding": padding}


def _each(given: int | Sequence[Any] | None, count: int) -> tuple[Any, ...]:
    """One for each, as the layers read integers and None."""
    return (1 if given is None else given,) * count if given is None or isinstance(given, int) else tuple(given)
