"""Matrix norms for JAX whose values and derivatives are right everywhere."""

from jaxnorms.drop_in import matrix_norm, norm, vector_norm
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
from jaxnorms.spectra import singular_values

__all__ = [
    "Dual",
    "Entrywise",
    "Induced",
    "KyFan",
    "Mixed",
    "Schatten",
    "UnitarilyInvariant",
    "entrywise_norm",
    "frobenius_norm",
    "induced_norm",
    "ky_fan_norm",
    "matrix_norm",
    "mixed_norm",
    "norm",
    "nuclear_norm",
    "schatten_norm",
    "singular_values",
    "spectral_norm",
    "squared_frobenius_norm",
    "unitarily_invariant_norm",
    "vector_norm",
]
