"""Matrix decompositions, and the choice between them."""

from jaxnorms.decompositions.thin_svd import matmul, singular_values, thin_svd, tie_tolerance

__all__ = ["matmul", "singular_values", "thin_svd", "tie_tolerance"]
