"""Matrix norms for JAX whose values and derivatives are right everywhere."""

from jaxnorms.approximation import BestApproximation, best_approximation
from jaxnorms.bounds import NormBounds, norm_bounds
from jaxnorms.comparison import equivalence_constant, fan_dominates, majorizes
from jaxnorms.condition_estimate import CondEstimate, condest
from jaxnorms.conditioning import cond, distance_to_singularity, nearest_singular
from jaxnorms.determinants import SignAndLog, adjugate, charpoly, charpoly_value, cofactor, det, slogdet
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
from jaxnorms.perturbation import (
    BackwardError,
    backward_error,
    bauer_fike_bound,
    digits_left,
    forward_error_bound,
    mirsky_bound,
    weyl_bound,
)
from jaxnorms.spectra import (
    SpectrumSummary,
    TruncatedSVD,
    eigvalsh,
    polar,
    singular_values,
    spectrum_summary,
    truncated_svd,
)
from jaxnorms.spectral_functions import (
    matrix_exp,
    matrix_log,
    matrix_sqrt,
    pinv,
    regularized_inverse,
    spectral_function,
    spectral_sum,
)
from jaxnorms.tikhonov import tikhonov_cond, tikhonov_solve

__all__ = [
    "BackwardError",
    "BestApproximation",
    "CondEstimate",
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
    "backward_error",
    "bauer_fike_bound",
    "best_approximation",
    "charpoly",
    "charpoly_value",
    "cofactor",
    "cond",
    "condest",
    "det",
    "digits_left",
    "distance_to_singularity",
    "dual",
    "dual_norm",
    "eigvalsh",
    "entrywise_norm",
    "equivalence_constant",
    "explain",
    "fan_dominates",
    "forward_error_bound",
    "frobenius_norm",
    "induced_norm",
    "induced_norm_bounds",
    "ky_fan_norm",
    "lmo",
    "majorizes",
    "matrix_exp",
    "matrix_log",
    "matrix_norm",
    "matrix_sqrt",
    "mirsky_bound",
    "mixed_norm",
    "moreau_envelope",
    "nearest_singular",
    "norm",
    "norm_bounds",
    "nuclear_norm",
    "pinv",
    "polar",
    "project",
    "prox",
    "regularized_inverse",
    "schatten_norm",
    "singular_values",
    "slogdet",
    "spectral_function",
    "spectral_norm",
    "spectral_sum",
    "spectrum_summary",
    "squared_frobenius_norm",
    "subgradient",
    "tikhonov_cond",
    "tikhonov_solve",
    "truncated_svd",
    "unitarily_invariant_norm",
    "vector_norm",
    "weyl_bound",
]
