"""The one place where derivative rules are attached.

No derivative passes through singular vectors, eigenvectors, or the iterations that find them.
"""

from jaxnorms._rules.determinants import charpoly, cofactor, determinant
from jaxnorms._rules.eigenvalues import eigenvalues
from jaxnorms._rules.ends import constant, inner, without_derivative
from jaxnorms._rules.maps import carry, envelope
from jaxnorms._rules.normalization import divide, estimate
from jaxnorms._rules.norms import Lift, evaluate, subgradient
from jaxnorms._rules.operators import ProductLift, bilinear, evaluate_by_products, leading_by_products
from jaxnorms._rules.spectral_functions import spectral_image
from jaxnorms._rules.triplets import Search, every_triplet, leading, spectrum

__all__ = [
    "Lift",
    "ProductLift",
    "Search",
    "bilinear",
    "carry",
    "charpoly",
    "cofactor",
    "constant",
    "determinant",
    "divide",
    "eigenvalues",
    "envelope",
    "estimate",
    "evaluate",
    "evaluate_by_products",
    "every_triplet",
    "inner",
    "leading",
    "leading_by_products",
    "spectral_image",
    "spectrum",
    "subgradient",
    "without_derivative",
]
