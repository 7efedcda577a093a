"""Matrix decompositions of one finite matrix. No derivative passes through them."""

from jaxnorms.decompositions.products import hermitian_part, matmul
from jaxnorms.decompositions.thin_svd import singular_values, thin_svd, tie_tolerance

__all__ = ["hermitian_part", "matmul", "singular_values", "thin_svd", "tie_tolerance"]
