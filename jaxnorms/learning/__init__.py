"""Norms of the parameters of a model: penalties, clipping, spectral normalisation, convolutions.

Pure functions of pytrees, with explicit state. A leaf is a matrix if it has two axes, and a convolution kernel, its
last two axes input and output channels, if it has more; other leaves (biases, scalars, integers, ``None``) are none of
the two. What is done with them each function says.
"""

from jaxnorms.learning.allocation import RankAllocation, rank_allocation
from jaxnorms.learning.attention import AttentionRankProfile, attention_logit_bound, attention_rank_profile
from jaxnorms.learning.auditing import Audit, AuditRow, audit
from jaxnorms.learning.clipping import clip_by_global_norm, clip_by_norm
from jaxnorms.learning.complexity import frobenius_product_bound, margins, normalized_margins, spectral_complexity
from jaxnorms.learning.compression import LowRankApproximation, LowRankFactors, compress, low_rank_approximation
from jaxnorms.learning.convolution import conv_spectral_norm
from jaxnorms.learning.factored import (
    balanced_factors,
    factored_frobenius_norm,
    factored_ky_fan_norm,
    factored_norm,
    factored_nuclear_bound,
    factored_nuclear_norm,
    factored_operator,
    factored_schatten_norm,
    factored_singular_values,
    factored_spectral_norm,
    latent_attention_factors,
)
from jaxnorms.learning.lipschitz import lipschitz_bound, stable_rank
from jaxnorms.learning.penalties import penalty
from jaxnorms.learning.spectral_normalization import (
    SpectralNormState,
    estimate_spectral_norm,
    init_spectral_norm,
    spectral_normalize,
)

__all__ = [
    "AttentionRankProfile",
    "Audit",
    "AuditRow",
    "LowRankApproximation",
    "LowRankFactors",
    "RankAllocation",
    "SpectralNormState",
    "attention_logit_bound",
    "attention_rank_profile",
    "audit",
    "balanced_factors",
    "clip_by_global_norm",
    "clip_by_norm",
    "compress",
    "conv_spectral_norm",
    "estimate_spectral_norm",
    "factored_frobenius_norm",
    "factored_ky_fan_norm",
    "factored_norm",
    "factored_nuclear_bound",
    "factored_nuclear_norm",
    "factored_operator",
    "factored_schatten_norm",
    "factored_singular_values",
    "factored_spectral_norm",
    "frobenius_product_bound",
    "init_spectral_norm",
    "latent_attention_factors",
    "lipschitz_bound",
    "low_rank_approximation",
    "margins",
    "normalized_margins",
    "penalty",
    "rank_allocation",
    "spectral_complexity",
    "spectral_normalize",
    "stable_rank",
]
