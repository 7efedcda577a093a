"""Matrix norms for JAX whose values and derivatives are right everywhere."""

from jaxnorms.bounds import NormBounds, norm_bounds
from jaxnorms.drop_in import matrix_norm, norm, vector_norm
from jaxnorms.explanation import Explanation, explain
from jaxnorms.norm_objects import Dual, Entrywise, Induced, KyFan, Mixed, Schatten, UnitarilyInvariant
from jaxnorms.norms import (
    entrywise_norm,
    frobenius_norm,
    induced_norm,
    ky_fan_norm,
    mixed_norm,
    nuclear_norm,
    schatten_norm,
    spectral_norm,
    squared_frobenius_norm,
    unitarily_invariant_norm,
)
from jaxnorms.operators import LinearOperator
from jaxnorms.spectra import SpectrumSummary, TruncatedSVD, polar, singular_values, spectrum_summary, truncated_svd

__all__ = [
    "Dual",
    "Entrywise",
    "Explanation",
    "Induced",
    "KyFan",
    "LinearOperator",
    "Mixed",
    "NormBounds",
    "Schatten",
    "SpectrumSummary",
    "TruncatedSVD",
    "UnitarilyInvariant",
    "entrywise_norm",
    "explain",
    "frobenius_norm",
    "induced_norm",
    "ky_fan_norm",
    "matrix_norm",
    "mixed_norm",
    "norm",
    "norm_bounds",
    "nuclear_norm",
    "polar",
    "schatten_norm",
    "singular_values",
    "spectral_norm",
    "spectrum_summary",
    "squared_frobenius_norm",
    "truncated_svd",
    "unitarily_invariant_norm",
    "vector_norm",
]
