"""What the layers of both libraries share, compiled once for each shape where a layer is called outside of ``jit``."""

from functools import partial
from typing import Any

import jax
from jax import Array

from jaxnorms.learning import SpectralNormState, estimate_spectral_norm, init_spectral_norm, spectral_normalize

# As many as PyTorch and Equinox take: a layer may be evaluated before it is trained.
_FIRST_STEPS = 15

_CONVOLUTION = ("input_shape", "strides", "padding")


@partial(jax.jit, static_argnames=("block", *_CONVOLUTION))
def start(key: Array, w: Array, *, block: int, **convolution: Any) -> SpectralNormState:
    """A state some steps of power iteration away from a random one."""
    state = init_spectral_norm(key, w, block=block, **convolution)
    return estimate_spectral_norm(w, state, n_steps=_FIRST_STEPS, **convolution)[1]


@partial(jax.jit, static_argnames=("n_steps", *_CONVOLUTION))
def normalize(
    w: Array, state: SpectralNormState, *, n_steps: int | None, **convolution: Any
) -> tuple[Array, SpectralNormState]:
    """:func:`jaxnorms.spectral_normalize`."""
    return spectral_normalize(w, state, n_steps=n_steps, **convolution)
