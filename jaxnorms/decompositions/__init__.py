"""Matrix decompositions of one finite matrix. No derivative passes through them."""

from jaxnorms.decompositions.products import matmul
from jaxnorms.decompositions.thin_svd import singular_values, thin_svd, tie_tolerance

__all__ = ["matmul", "singular_values", "thin_svd", "tie_tolerance"]
