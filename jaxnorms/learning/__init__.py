"""Norms of the parameters of a model: penalties, clipping, spectral normalisation, convolutions.

Pure functions of pytrees, with explicit state. A leaf is a matrix if it has two axes, and a convolution kernel, its
last two axes input and output channels, if it has more; other leaves (biases, scalars, integers, ``None``) are none of
the two. What is done with them each function says.
"""

from jaxnorms.learning.clipping import clip_by_global_norm, clip_by_norm
from jaxnorms.learning.convolution import conv_spectral_norm
from jaxnorms.learning.penalties import penalty
from jaxnorms.learning.spectral_normalization import (
    SpectralNormState,
    estimate_spectral_norm,
    init_spectral_norm,
    spectral_normalize,
)

__all__ = [
    "SpectralNormState",
    "clip_by_global_norm",
    "clip_by_norm",
    "conv_spectral_norm",
    "estimate_spectral_norm",
    "init_spectral_norm",
    "penalty",
    "spectral_normalize",
]
