"""Matrix norms for JAX whose values and derivatives are right everywhere."""

from jaxnorms.approximation import BestApproximation, best_approximation
from jaxnorms.bounds import NormBounds, norm_bounds
from jaxnorms.comparison import equivalence_constant, fan_dominates, majorizes
from jaxnorms.determinants import SignAndLog, adjugate, charpoly_value, cofactor, det, slogdet
from jaxnorms.drop_in import matrix_norm, norm, vector_norm
from jaxnorms.explanation import Explanation, explain
from jaxnorms.geometry import dual, dual_norm, lmo, moreau_envelope, project, prox, subgradient
from jaxnorms.induced_bounds import induced_norm_bounds
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
    "BestApproximation",
    "Dual",
    "Entrywise",
    "Explanation",
    "Induced",
    "KyFan",
    "LinearOperator",
    "Mixed",
    "NormBounds",
    "Schatten",
    "SignAndLog",
    "SpectrumSummary",
    "TruncatedSVD",
    "UnitarilyInvariant",
    "adjugate",
    "best_approximation",
    "charpoly_value",
    "cofactor",
    "det",
    "dual",
    "dual_norm",
    "entrywise_norm",
    "equivalence_constant",
    "explain",
    "fan_dominates",
    "frobenius_norm",
    "induced_norm",
    "induced_norm_bounds",
    "ky_fan_norm",
    "lmo",
    "majorizes",
    "matrix_norm",
    "mixed_norm",
    "moreau_envelope",
    "norm",
    "norm_bounds",
    "nuclear_norm",
    "polar",
    "project",
    "prox",
    "schatten_norm",
    "singular_values",
    "slogdet",
    "spectral_norm",
    "spectrum_summary",
    "squared_frobenius_norm",
    "subgradient",
    "truncated_svd",
    "unitarily_invariant_norm",
    "vector_norm",
]
