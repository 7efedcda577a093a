"""The audit of a checkpoint: norms, ranks and condition of each tensor, and a bound of their composition."""

import json
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from types import TracebackType
from typing import Any, TextIO

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxnorms import _checks
from jaxnorms.checkpoints import Tensor, digest, printable
from jaxnorms.learning.audit_plot import png, replace_file
from jaxnorms.learning.blocked_spectrum import Reduced, reduced
from jaxnorms.learning.convolution_operator import kernel_order
from jaxnorms.learning.kernel_bound import kernel_bound
from jaxnorms.learning.leaves import BatchAxes, ByPath, Where, by_path, check, path_of


@dataclass(frozen=True)
class AuditRow:
    """One matrix, or one convolution kernel, ``(..., in, out)``, as the matrix of all its other axes times ``out``.

    * ``name``, ``shape``, ``dtype``: as stored. ``parameters``: its entries. ``tied_to``: the name of the first tensor
      of the same type, shape and entries, which are not all zero; None if this is the first.
    * ``spectral_norm``, ``nuclear_norm``, ``frobenius_norm``, ``max_norm`` (largest ``|a_ij|``), ``induced_1_norm`` and
      ``induced_inf_norm``: of ``x -> A x``, so the largest column sum and the largest row sum of ``|a_ij|``.
    * ``lipschitz``: the spectral norm; of a kernel a certified bound of the norm of the convolution, as
      ``conv_spectral_norm(kernel, shape, padding="SAME")``, with zero padding and stride 1, of inputs of any size. For
      3 x 3 kernels it is at most 1 % above the supremum over these, with 512 channels or 1024 at most 4 % or 16 %.
      Other strides, groups and circular padding have no larger norm.
    * ``stable_rank``, ``effective_rank``, ``cond``: as :func:`spectrum_summary`.
    * ``numerical_rank``: the number of singular values above what rounding to the stored type makes of zero: u (largest
      2-norm of a row + largest 2-norm of a column), u half its epsilon; and above ``max(m, n) eps s_1``, eps that of
      float64, in which they are computed.
    * ``energy_rank``: the least k with ``s_1^2 + ... + s_k^2 >= energy ||A||_F^2``, and ``saved_parameters``: how many
      parameters fewer the factors of that rank have, 0 if not fewer.
    * ``singular_values``: descending, float64.

    With NaN entries, or infinite ones, norms are NaN or infinite, other numbers NaN, ranks and savings None.

    >>> import jax.numpy as jnp, jaxnorms as jn
    >>> jn.audit({"w": jnp.ones((8, 4))}).rows[0].saved_parameters
    20
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    parameters: int
    kernel: bool
    spectral_norm: float
    nuclear_norm: float
    frobenius_norm: float
    max_norm: float
    induced_1_norm: float
    induced_inf_norm: float
    lipschitz: float
    stable_rank: float
    effective_rank: float
    numerical_rank: int | None
    cond: float
    energy_rank: int | None
    saved_parameters: int | None
    tied_to: str | None = None
    singular_values: np.ndarray = field(default_factory=lambda: np.zeros(0), repr=False, compare=False)


@dataclass(frozen=True)
class Audit:
    """The rows of a checkpoint, in its order, and what they amount to.

    ``energy``: of the ranks ``energy_rank``. ``left_out`` tensors, with ``left_out_parameters`` entries, have no row:
    vectors and scalars, integers, and what was not chosen.

    >>> import jax.numpy as jnp, jaxnorms as jn
    >>> w = jnp.diag(jnp.array([2.0, 1.0]))
    >>> found = jn.audit({"embedding": w, "head": w})
    >>> found.rows[1].tied_to, found.parameters, found.lipschitz_bound
    ('embedding', 4, 4.0)
    """

    rows: tuple[AuditRow, ...]
    energy: float
    left_out: int
    left_out_parameters: int

    @property
    def spectra(self) -> list[tuple[str, np.ndarray]]:
        """Names and singular values of the rows that are finite, not zero, and not tied to another."""
        kept = [row for row in self.rows if row.tied_to is None and 0 < row.spectral_norm < math.inf]
        return [(row.name, row.singular_values) for row in kept]

    @property
    def parameters(self) -> int:
        """Those of the rows; of tied tensors once."""
        return sum(row.parameters for row in self.rows if row.tied_to is None)

    @property
    def lipschitz_bound(self) -> float:
        """The product of the column ``lipschitz``, of tied tensors as often as they occur; inf if it overflows.

        A Lipschitz constant, in l_2, of the composition of these linear maps and of functions with constant 1 between
        them (ReLU, tanh, ...): of networks that are such a composition. It is *no* bound of a network with attention,
        residual connections or normalisation layers.
        """
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            return float(np.prod([row.lipschitz for row in self.rows]))

    @property
    def log10_lipschitz_bound(self) -> float:
        """Its decimal logarithm, which does not overflow."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return float(np.sum(np.log10([row.lipschitz for row in self.rows])))

    def table(self) -> str:
        """A line of text for each row, and the totals."""
        percent = f"{100 * self.energy:g}%"
        head = ("tensor", "shape", "dtype", "spectral", "as map", "nuclear", "Frobenius", "stable rank")
        lines: list[tuple[str, ...]] = [(*head, "eff. rank", "rank", "cond", f"rank {percent}", "saved", "")]
        for row in self.rows:
            norms = (row.spectral_norm, row.lipschitz, row.nuclear_norm, row.frobenius_norm)
            numbers = (*norms, row.stable_rank, row.effective_rank, row.numerical_rank, row.cond)
            numbers = (*numbers, row.energy_rank, row.saved_parameters)
            shape = "x".join(map(str, row.shape))
            note = "" if row.tied_to is None else f"tied to {printable(row.tied_to)}"
            lines.append((printable(row.name), shape, row.dtype, *map(_cell, numbers), note))
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        sides = [str.ljust] * 3 + [str.rjust] * 10 + [str.ljust]
        text = ["  ".join(side(c, w) for side, c, w in zip(sides, x, widths, strict=True)) for x in lines]
        text.insert(1, "-" * len(text[0].rstrip()))
        tied = sum(row.tied_to is not None for row in self.rows)
        return "\n".join(
            [
                *(line.rstrip() for line in text),
                "",
                f"{len(self.rows)} tensors, {tied} of them tied to another, of {self.parameters} parameters; "
                f"left out (vectors, integers, not chosen): {self.left_out} tensors of {self.left_out_parameters}.",
                f"Lipschitz bound, the product of the column 'as map': {self.lipschitz_bound:.4g}, "
                f"log10 {self.log10_lipschitz_bound:.4f}.",
                "It bounds the composition of these maps with 1-Lipschitz functions between them, not a network with "
                "attention, residual connections or normalisation.",
            ]
        )

    def to_json(self) -> str:
        """One JSON object: ``tensors``, a list of the rows without ``singular_values``, and the totals.

        Strictly JSON: NaN is null, as is a rank that there is none of; infinities are strings, ``"inf"``, ``"-inf"``.
        """
        kept = [f.name for f in fields(AuditRow) if f.name != "singular_values"]
        found = {
            "energy": self.energy,
            "parameters": self.parameters,
            "left_out": self.left_out,
            "left_out_parameters": self.left_out_parameters,
            "lipschitz_bound": _strict(self.lipschitz_bound),
            "log10_lipschitz_bound": _strict(self.log10_lipschitz_bound),
            "tensors": [{name: _strict(getattr(row, name)) for name in kept} for row in self.rows],
        }
        return json.dumps(found, indent=1, allow_nan=False)

    def plot(self, path: Any) -> None:
        """The spectra, ``s_i / s_1`` against ``i / n``, as a PNG file. Needs matplotlib (``ImportError``)."""
        replace_file(path, png(self.spectra))


def audit(
    params: Any,
    *,
    where: Where = None,
    batch_axes: BatchAxes = 0,
    energy: float = 0.99,
    dimension_numbers: ByPath[Any] = None,
    progress: bool = False,
) -> Audit:
    """Norms, ranks and condition of every matrix and convolution kernel of a pytree, and a Lipschitz bound of all.

    * Audited are the floating or complex arrays with two axes, as matrices, and with more, as kernels
      ``(..., in, out)``; another order of their axes by ``dimension_numbers``, as in :func:`conv_spectral_norm`, or by
      a mapping from patterns to such, of which the first one found in the path ``"layers/0/kernel"`` is taken.
    * ``where``: a regular expression found in the path, or ``where(path, leaf) -> bool``: which of them, stacks whole.
    * ``batch_axes``: how many leading axes count matrices or kernels, each with a row of its own, such as
      ``"layers/kernel[2]"``; or a mapping from patterns to such numbers, as in :func:`penalty`.
    * ``energy``: the share, above 0, at most 1, of ``||A||_F^2`` that ``energy_rank`` keeps.
    * ``progress``: a bar on standard error.

    Returns an :class:`Audit`: ``rows`` (each an :class:`AuditRow`, where the columns are defined), ``table()``,
    ``to_json()``, ``plot(path)``, totals. ``python -m jaxnorms audit FILE ...`` does the same for ``.safetensors`` and
    ``.npz`` files, without more than one tensor of them in memory.

    On the host, in float64 whatever JAX's mode: singular values to a small multiple of ``eps ||A||_2`` of float64, of
    what is stored. Range-safe. Arrays come to the host one at a time. Not differentiable: traced arrays raise
    ``TypeError``; an energy out of range or a wrong layout, ``ValueError``.

    Cost: an orthogonal factorisation of each matrix, once of tied ones; of kernels also of many ``(in, out)``. Memory,
    one array at a time: for 2 to 3 min(m, n)^2 doubles, so that a square float32 matrix takes about four times what it
    takes stored; for a kernel that of its reshaped matrix, and some copies of it in double precision less the first of
    its axes.

    >>> import jax.numpy as jnp, jaxnorms as jn
    >>> found = jn.audit({"kernel": jnp.diag(jnp.array([3.0, 2.0, 0.0])), "bias": jnp.ones(3)})
    >>> row = found.rows[0]
    >>> row.name, row.nuclear_norm, row.numerical_rank, row.cond
    ('kernel', 5.0, 2, inf)
    >>> found.lipschitz_bound, found.left_out
    (3.0, 1)
    """
    layout_of, progress = by_path(dimension_numbers, "dimension_numbers", "audit"), _checks.flag(progress, "progress")
    found = []
    for keys, leaf in jax.tree_util.tree_leaves_with_path(params):
        if isinstance(leaf, Tracer):
            raise TypeError(f"audit: params must hold concrete arrays, got the traced {leaf} at {path_of(keys)!r}")
        if isinstance(leaf, jax.Array | np.ndarray):
            found.append((Tensor(path_of(keys), leaf.shape, leaf.dtype, partial(_on_host, leaf)), leaf))
    return audit_tensors(found, where, batch_axes, energy, lambda tensor, axes: layout_of(tensor.name), progress)


def audit_tensors(
    tensors: Sequence[tuple[Tensor, Any]],
    where: Where,
    batch_axes: BatchAxes,
    energy: float,
    layout_of: Callable[[Tensor, int], Any],
    progress: bool,
) -> Audit:
    """The audit of tensors that are read one at a time, and of what ``where`` is shown of each.

    ``layout_of(tensor, axes)``: of a tensor whose kernels have so many axes.
    """
    selected, _, batch_of = check(None, where, batch_axes, "audit")
    energy = _checks.real(energy, "audit: energy", "a number above 0 and at most 1")
    if not 0 < energy <= 1:
        raise ValueError(f"audit: energy must be a number above 0 and at most 1, got {energy}")
    chosen, left_out = [], []
    for tensor, shown in tensors:
        batch = batch_of(tensor.name) or 0
        fits = len(tensor.shape) >= batch + 2 and (tensor.dtype is None or jnp.issubdtype(tensor.dtype, jnp.inexact))
        if not (fits and selected(tensor.name, shown)):
            left_out.append(tensor)
            continue
        # Before the first of them is read: no layout, or an unsupported type, is no reason to wait for.
        if tensor.dtype is None:
            tensor.read()
        chosen.append((tensor, batch, _order(tensor, batch, layout_of)))
    first: dict[Any, AuditRow] = {}
    rows = []
    with _Bar(sum(math.prod(x.shape[:batch]) for x, batch, _ in chosen), sys.stderr if progress else None) as bar:
        for tensor, batch, order in chosen:
            rows += _rows(tensor, batch, order, energy, first, bar)
    entries = sum(math.prod(tensor.shape) for tensor in left_out)
    return Audit(tuple(rows), energy, len(left_out), entries)


def _on_host(leaf: Any) -> np.ndarray:
    """An array, without its keeping a copy of it."""
    if isinstance(leaf, jax.Array) and leaf.is_fully_replicated:
        leaf = leaf.addressable_data(0)
    return np.asarray(leaf)


def _order(tensor: Tensor, batch: int, layout_of: Callable[[Tensor, int], Any]) -> tuple[int, ...]:
    axes = len(tensor.shape) - batch
    if axes == 2:
        return (0, 1)
    kernel = jax.ShapeDtypeStruct(tensor.shape[batch:], np.float32)
    return kernel_order(kernel, layout_of(tensor, axes), f"audit: {printable(tensor.name)}")  # pyright: ignore


def _rows(
    tensor: Tensor, batch: int, order: tuple[int, ...], energy: float, first: dict[Any, AuditRow], bar: "_Bar"
) -> list[AuditRow]:
    """Of all matrices or kernels of a stack, which is read once."""
    parts = [tensor]
    if batch:
        whole = tensor.read()
        names = ((i, tensor.name + "".join(f"[{j}]" for j in i)) for i in np.ndindex(whole.shape[:batch]))
        parts = [Tensor(name, whole.shape[batch:], whole.dtype, partial(whole.__getitem__, i)) for i, name in names]
    found = []
    for part in parts:
        bar.show(part.name)
        found.append(_row(part, order, energy, first))
    return found


def _row(tensor: Tensor, order: tuple[int, ...], energy: float, first: dict[Any, AuditRow]) -> AuditRow:
    a = tensor.read()
    dtype, entries = a.dtype.name, digest(a)
    key = (dtype, tensor.shape, order, entries)
    if entries is not None and key in first:
        return replace(first[key], name=tensor.name, tied_to=first[key].name)
    a = a.transpose(order)
    kernel, shape = a.ndim > 2, (math.prod(a.shape[:-1]), a.shape[-1])
    parts = reduced(a.reshape(shape))
    regular = 0 < parts.entry < math.inf
    bound = kernel_bound(a, parts.exponent) if kernel and regular else None
    del a  # before LAPACK has a copy of the triangle
    s = parts.singular_values()
    row = AuditRow(
        name=tensor.name,
        shape=tensor.shape,
        dtype=dtype,
        parameters=math.prod(tensor.shape),
        kernel=kernel,
        **{name: float(_scaled(x, parts.exponent)) for name, x in _norms(parts, s, bound).items()},
        **(_of_spectrum(s, parts.rounding, shape, energy) if regular else _without_spectrum(parts.entry, shape)),
        singular_values=_scaled(s, parts.exponent),
    )
    if entries is not None:
        first[key] = row
    return row


def _scaled(x: Any, exponent: int) -> Any:
    with np.errstate(over="ignore", under="ignore"):
        return np.ldexp(x, exponent)


def _norms(parts: Reduced, s: np.ndarray, bound: float | None) -> dict[str, Any]:
    """What scales with the matrix; ``bound`` is that of the convolution, if the matrix is a kernel's."""
    top = s[0] if s.size else 0.0
    return {
        "spectral_norm": top,
        "nuclear_norm": np.sum(s),
        "frobenius_norm": np.linalg.norm(s),
        "max_norm": parts.entry,
        "induced_1_norm": parts.column_sum,
        "induced_inf_norm": parts.row_sum,
        "lipschitz": top if bound is None else bound,
    }


def _of_spectrum(s: np.ndarray, rounding: float, shape: tuple[int, int], energy: float) -> dict[str, Any]:
    """What does not scale, of singular values that are finite and not all zero."""
    eps = np.finfo(float).eps
    t = s / s[0]
    p, squares = t / np.sum(t), np.cumsum(t**2)
    # Sums of squares that reach the share but for rounding do reach it.
    rank = int(np.searchsorted(squares, energy * (1 - 4 * len(s) * eps) * squares[-1])) + 1
    return {
        "stable_rank": float(squares[-1]),
        "effective_rank": math.exp(-np.sum(p * np.log(np.where(p > 0, p, 1)))),
        "numerical_rank": int(np.sum(s > max(rounding, max(shape) * eps * s[0]))),
        "cond": float(s[0] / s[-1]) if s[-1] > 0 else math.inf,
        "energy_rank": rank,
        "saved_parameters": max(0, math.prod(shape) - rank * sum(shape)),
    }


def _without_spectrum(entry: float, shape: tuple[int, int]) -> dict[str, Any]:
    """The same of a matrix that is zero or empty, or whose largest entry is NaN or infinite."""
    zero = entry == 0
    number, rank = (0.0, 0) if zero else (math.nan, None)
    return {
        "stable_rank": number,
        "effective_rank": number,
        "numerical_rank": rank,
        "cond": math.inf if zero else math.nan,
        "energy_rank": rank,
        "saved_parameters": math.prod(shape) if zero else None,
    }


def _cell(x: float | int | None) -> str:
    return "-" if x is None else str(x) if isinstance(x, int) else f"{x:.4g}"


def _strict(x: Any) -> Any:
    return (None if math.isnan(x) else str(x)) if isinstance(x, float) and not math.isfinite(x) else x


class _Bar:
    """How many of the tensors are done, and the name of the next, on one line that is erased at the end."""

    def __init__(self, count: int, stream: TextIO | None) -> None:
        self.count, self.stream, self.done = count, stream, 0

    def __enter__(self) -> "_Bar":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._write("")

    def show(self, name: str) -> None:
        full = 20 * self.done // self.count
        self._write(f"[{'#' * full:20}] {self.done}/{self.count} {printable(name)[-40:]}")
        self.done += 1

    def _write(self, text: str) -> None:
        if self.stream is not None:
            self.stream.write("\r\x1b[K" + text)
            self.stream.flush()
