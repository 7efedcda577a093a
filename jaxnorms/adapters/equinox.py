"""Spectral normalisation of Equinox layers. Needs Equinox: ``pip install "jaxnorms[equinox]"``.

In place of ``equinox.nn.SpectralNorm``, called as it is: for complex and zero weights too, and for convolutions by
their own norm.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxnorms import _checks
from jaxnorms.adapters._iteration import normalize, start
from jaxnorms.learning import SpectralNormState

try:
    import equinox as eqx
except ImportError as error:
    raise ImportError('jaxnorms.adapters.equinox needs Equinox: pip install "jaxnorms[equinox]"') from error


class SpectralNorm(eqx.nn.StatefulLayer):
    """``layer`` evaluated with its weight ``W`` replaced by ``W / sigma``, sigma an estimate of ``||W||_2``.

    * ``layer``: any Module with a weight ``(out, in, ...)`` of the name ``weight_name``, which is read as the matrix
      ``(out, in ...)``: ``eqx.nn.Linear``, ``eqx.nn.Conv``, your own. The stored weight is never changed.
    * ``key``: gives the start, which 15 steps of power iteration improve.
    * ``n_steps``: steps of power iteration in each call; None for the exact norm.
    * ``block``: how many vectors are iterated; more converge faster where leading singular values are close.
    * ``input_shape``: the spatial shape of the inputs of an ``eqx.nn.Conv``, for the norm of the convolution itself,
      with the layer's stride and padding (circular padding too narrow to keep the shape: an upper bound). By default
      that of the reshaped kernel.
    * ``inference``: whether calls leave the state as it is and take no step; set by ``eqx.nn.inference_mode``,
      overridden by ``inference=True`` or False in a call.

    Construct by ``eqx.nn.make_with_state``, call as ``y, state = norm(x, state)``. The state holds a
    :class:`jaxnorms.SpectralNormState`, in float32 for 16-bit weights, under ``norm.index``. The derivative includes
    that of sigma, with the singular vectors constant; a zero weight gives zeros. Stacks of layers: ``eqx.filter_vmap``.
    Raises ``ValueError`` for a layer without such a weight and a convolution whose norm is not known (dilated, grouped,
    other padding modes). Cost, formulas and source: :func:`jaxnorms.spectral_normalize`.

    >>> import equinox as eqx, jax, jax.numpy as jnp
    >>> from jaxnorms.adapters.equinox import SpectralNorm
    >>> linear = eqx.nn.Linear(2, 2, use_bias=False, key=jax.random.key(0))
    >>> linear = eqx.tree_at(lambda l: l.weight, linear, jnp.diag(jnp.array([4.0, 2.0])))
    >>> norm, state = eqx.nn.make_with_state(SpectralNorm)(linear, key=jax.random.key(1))
    >>> y, state = norm(jnp.ones(2), state)
    >>> y.round(4)
    Array([1. , 0.5], dtype=float32)
    """

    layer: Any
    weight_name: str = eqx.field(static=True)
    n_steps: int | None = eqx.field(static=True)
    input_shape: tuple[int, ...] | None = eqx.field(static=True)
    index: eqx.nn.StateIndex
    inference: bool

    def __init__(
        self,
        layer: Any,
        weight_name: str = "weight",
        *,
        key: Array,
        n_steps: int | None = 1,
        block: int = 1,
        input_shape: Sequence[int] | None = None,
        inference: bool = False,
    ) -> None:
        weight: Any = getattr(layer, weight_name, None)
        if not eqx.is_inexact_array(weight) or weight.ndim < 2:
            raise ValueError(
                f"SpectralNorm: layer must have the weight_name {weight_name!r} with shape (out, in, ...), "
                f"got {type(layer).__name__} with {weight!r}"
            )
        self.layer = layer
        self.weight_name = weight_name
        self.n_steps = n_steps
        self.input_shape = None if input_shape is None else tuple(input_shape)
        self.inference = _checks.flag(inference, "inference")
        self.index = eqx.nn.StateIndex(start(key, _in_out(weight), block=block, **self._convolution()))

    def __call__(
        self, x: Array, state: eqx.nn.State, *, key: Array | None = None, inference: bool | None = None
    ) -> tuple[Array, eqx.nn.State]:
        """What ``layer(x)`` gives with the normalised weight, and the new state; ``key`` is for the layer, if given."""
        inference = _checks.flag(self.inference if inference is None else inference, "inference")
        n_steps = 0 if inference and self.n_steps is not None else self.n_steps
        weight = getattr(self.layer, self.weight_name)
        vectors: SpectralNormState = state.get(self.index)
        y, vectors = normalize(_in_out(weight), vectors, n_steps=n_steps, **self._convolution())
        if not inference:
            state = state.set(self.index, vectors)
        normalised = jnp.moveaxis(y, (-1, -2), (0, 1))
        layer = eqx.tree_at(lambda layer: getattr(layer, self.weight_name), self.layer, normalised)
        return layer(x) if key is None else layer(x, key=key), state

    def _convolution(self) -> dict[str, Any]:
        return {} if self.input_shape is None else _convolution(self.layer, self.input_shape)


def _in_out(weight: Array) -> Array:
    """``(..., in, out)``: of a matrix the transpose, whose norm is the same."""
    return jnp.moveaxis(weight, (0, 1), (-1, -2))


def _convolution(layer: Any, input_shape: tuple[int, ...]) -> dict[str, Any]:
    """Keywords that say which convolution the layer is."""
    if not isinstance(layer, eqx.nn.Conv):
        raise ValueError(f"SpectralNorm: input_shape is for an eqx.nn.Conv, got {type(layer).__name__}")
    if set(layer.dilation) != {1}:
        raise ValueError(f"SpectralNorm: input_shape needs a layer with dilation=1, got {layer.dilation}")
    if layer.groups != 1:
        raise ValueError(f"SpectralNorm: input_shape needs a layer with groups=1, got {layer.groups}")
    if layer.padding_mode not in ("ZEROS", "CIRCULAR"):
        raise ValueError(
            "SpectralNorm: input_shape needs a layer with padding_mode 'ZEROS' or 'CIRCULAR', "
            f"got {layer.padding_mode!r}"
        )
    padding = layer.padding
    if padding == "SAME_LOWER":
        padding = tuple(jax.lax.padtype_to_pads(input_shape, layer.kernel_size, layer.stride, "SAME_LOWER"))
    if layer.padding_mode == "CIRCULAR":
        # With at most k - 1 wrapped entries the outputs are among those of the circular convolution, each once.
        if not isinstance(padding, str) and any(sum(p) >= k for p, k in zip(padding, layer.kernel_size, strict=True)):
            raise ValueError(
                f"SpectralNorm: input_shape needs a layer whose circular padding is less than its kernel, got {padding}"
            )
        padding = "circular"
    return {"input_shape": input_shape, "strides": layer.stride, "padding": padding}
