"""The singular values of a stored matrix in double precision on the host, without a copy of it in that precision."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np

# A block is so many rows, or more of narrow matrices, up to so many entries; reflectors are applied a panel at a time.
_ROWS, _ENTRIES, _PANEL = 256, 2**16, 64
# Matrices up to this ratio of rows to columns are decomposed as they are.
_NEARLY_SQUARE = 1.25


@dataclass(frozen=True)
class Reduced:
    """Of a matrix ``A = 2^exponent B`` whose largest entry, real or imaginary part, is between 1/2 and 1 in B.

    ``triangle`` has the singular values of B; it is ``(1, 1)``, NaN or infinite, where an entry of A is.
    ``entry``, ``column_sum`` and ``row_sum`` are the largest entry, l_1 norm of a column and of a row of B, and
    ``rounding`` a bound of the spectral norm of the errors that its entries have from having been stored.
    """

    triangle: np.ndarray
    exponent: int
    entry: float
    column_sum: float
    row_sum: float
    rounding: float

    def singular_values(self) -> np.ndarray:
        """Of B, descending; NaN or infinite, and one alone, where an entry is."""
        if not np.isfinite(self.entry):
            return np.full(1, self.entry)
        if self.entry == 0:  # of what is empty LAPACK is not asked
            return np.zeros(min(self.triangle.shape))
        return np.linalg.svd(self.triangle, compute_uv=False)


def reduced(a: np.ndarray) -> Reduced:
    """The triangle of ``(m, n)`` in any real or complex floating type of at most 8 bytes a part.

    ``R <- qr([R; block of rows])`` over the blocks of a tall matrix, of the transpose of a wide one, ends in a triangle
    with the same singular values up to an error of order ``eps ||A||_2``, as Householder's transformations have.
    With k = min(m, n): 2.5 m n k flops and a decomposition of a k x k matrix; memory for 2 to 3 k^2 doubles.

    ``rounding``: an error of at most u = eps/2 relative in each entry, independent of each other, has a spectral norm
    below u times (largest 2-norm of a row + largest 2-norm of a column), by the bound of Bandeira and van Handel (2016)
    for random matrices of independent entries with that profile of variances.
    """
    tall = a if a.shape[0] >= a.shape[1] else a.T
    if not a.size:
        return Reduced(np.zeros((0, 0)), 0, 0.0, 0.0, 0.0, 0.0)
    largest = _largest_part(tall)
    if not largest < math.inf or largest == 0:
        size = 1 if largest else tall.shape[1]
        return Reduced(np.full((size, size), largest), 0, largest, largest, largest, 0.0)
    exponent = math.frexp(largest)[1]
    k = tall.shape[1]
    sums, squares = np.zeros(k), np.zeros(k)
    entry = across = across_squares = 0.0
    direct = len(tall) <= _NEARLY_SQUARE * k
    kind = np.complex128 if np.issubdtype(a.dtype, np.complexfloating) else np.float64
    whole = np.zeros(tall.shape if direct else (k, k), kind)
    start = 0
    for block in _blocks(tall):
        scaled = scaled_to_double(block, exponent)
        sizes = np.abs(scaled)
        entry, across = max(entry, sizes.max()), max(across, sizes.sum(axis=1).max())
        sums += sizes.sum(axis=0)
        np.square(sizes, out=sizes)
        across_squares = max(across_squares, sizes.sum(axis=1).max())
        squares += sizes.sum(axis=0)
        if direct:
            whole[start : start + len(scaled)] = scaled
            start += len(scaled)
        else:
            _absorb(whole, scaled)
    columns, rows = (float(sums.max()), across) if tall is a else (across, float(sums.max()))
    return Reduced(
        triangle=whole,
        exponent=exponent,
        entry=float(entry),
        column_sum=float(columns),
        row_sum=float(rows),
        rounding=_rounding(a, exponent, math.sqrt(squares.max()) + math.sqrt(across_squares)),
    )


def _blocks(tall: np.ndarray) -> Iterator[np.ndarray]:
    m, n = tall.shape
    size = max(_ROWS, _ENTRIES // n)
    for i in range(0, m, size):
        yield tall[i : i + size]


def _absorb(triangle: np.ndarray, block: np.ndarray) -> None:
    """In place the triangle of ``[triangle; block]``; the block is overwritten.

    The reflectors of a panel, ``Q = I - V T V^H`` with ``T^-1 = diag(1 / tau) + striu(V^H V)``, are applied at once.
    """
    n = len(triangle)
    for start in range(0, n, _PANEL):
        end = min(start + _PANEL, n)
        panel = np.concatenate([triangle[start:end, start:end], block[:, start:end]])
        raw, tau = np.linalg.qr(panel, mode="raw")
        triangle[start:end, start:end] = np.triu(raw.T[: end - start])
        v = np.tril(raw.T, -1)
        np.fill_diagonal(v, 1)
        idle = tau == 0
        v[:, idle] = 0
        inverse = np.triu(v.conj().T @ v, 1)
        np.fill_diagonal(inverse, 1 / np.where(idle, 1, tau))
        upper, lower = triangle[start:end, end:], block[:, end:]
        above, below = v[: end - start], v[end - start :]
        products = np.linalg.solve(inverse.conj().T, above.conj().T @ upper + below.conj().T @ lower)
        upper -= above @ products
        lower -= below @ products


def scaled_to_double(block: np.ndarray, exponent: int) -> np.ndarray:
    """``2^-exponent block`` in double precision; exact but for what falls below the subnormal numbers."""
    complex_ = np.issubdtype(block.dtype, np.complexfloating)
    out = np.array(block, dtype=np.complex128 if complex_ else np.float64, order="C")
    parts = out.view(np.float64)
    np.ldexp(parts, -exponent, out=parts)
    return out


def _largest_part(tall: np.ndarray) -> float:
    """The largest absolute value of a real or imaginary part: NaN if there is one, else inf if there is one."""
    largest = 0.0
    for block in _blocks(tall):
        parts = [np.real(block), np.imag(block)] if np.issubdtype(block.dtype, np.complexfloating) else [block]
        for part in parts:
            size = float(np.abs(part.astype(np.float64)).max())
            if math.isnan(size):
                return size
            largest = max(largest, size)
    return largest


def _rounding(a: np.ndarray, exponent: int, sizes: float) -> float:
    """Relative to normal numbers; by half of the least number to the others, as those of float16 often are."""
    kind = jnp.finfo(a.dtype.newbyteorder("="))
    least = math.ldexp(float(kind.smallest_subnormal), -exponent - 1) * sum(map(math.sqrt, a.shape))
    return float(kind.eps) / 2 * sizes + least
