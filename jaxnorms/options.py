"""Keywords shared by all matrix norms."""

from dataclasses import dataclass
from typing import Any, TypedDict

from jax.sharding import PartitionSpec
from jax.typing import DTypeLike

from jaxnorms import _checks
from jaxnorms._split import Names, count

Side = str | tuple[str, ...] | None
AxisName = str | tuple[Side, Side] | PartitionSpec | None

WHOLE: tuple[Names, Names] = ((), ())
METHODS = ("auto", "svd", "krylov", "polar", "gram", "squaring")


class How(TypedDict, total=False):
    """How a matrix norm is computed.

    * ``method="auto"``: the fastest that keeps the contract, chosen from shape, dtype and platform
      (see :func:`jaxnorms.explain`); ``"svd"`` is the reference. A method that does not serve the norm
      raises ``ValueError`` and lists those that do.
    * ``tol=None``: error allowed in the subgradient by an iterative method: ``"krylov"``, where the default is
      ``eps**(2/3)``, and ``"polar"``, where it is rounding, and the error that of its singular values.
    * ``compute_dtype=None``: type of the products of ``"polar"``, such as ``jnp.bfloat16``, accumulated
      in float32; it makes ``"auto"`` take that method. The result is as accurate as that type, or as ``tol``, and
      not checked. ``ValueError`` for a norm or a method that has no such products.
    """

    method: str
    tol: float | None
    compute_dtype: DTypeLike | None


class Options(How, total=False):
    """Keywords of every matrix norm: those of :class:`How` and

    * ``axis=(-2, -1)``: the two matrix axes; the others are batch.
    * ``keepdims=False``: keep them with size 1.
    * ``diagonal=False``: read ``a``, of shape ``(..., n)``, as the diagonal of an n x n matrix.
    * ``axis_name=None``: inside ``jax.shard_map``, where ``a`` is this device's block, the mesh axes over
      which rows and columns of the whole matrix are split: ``(rows, columns)``, each None, a name or a tuple of
      names, or a ``PartitionSpec`` of the two; ``"x"`` is short for ``("x", None)``. The result is then the norm
      of the whole matrix, the same on all these devices, and the gradient this device's block of its gradient
      (with ``check_vma=True``, the default of ``shard_map``; else as ``jax.lax.psum`` is differentiated). Without
      it, it is the norm of the block. For norms of singular values ``method`` is ``"auto"``, ``"svd"`` or
      ``"krylov"``.
    """

    axis: tuple[int, int]
    keepdims: bool
    diagonal: bool
    axis_name: AxisName


@dataclass(frozen=True)
class Request:
    """How a norm shall be computed; ``rank`` promises that no more singular values are nonzero, ``axis_name``
    are the mesh axes over which rows and columns are split."""

    method: str = "auto"
    tol: float | None = None
    compute_dtype: Any = None
    rank: int | None = None
    axis_name: tuple[Names, Names] = WHOLE


AUTO = Request()


def refuse_unknown(options: Any, function: str, allowed: type = Options) -> None:
    """Raise ``TypeError`` for a keyword that is not among ``allowed``."""
    for name in options:
        if name not in allowed.__annotations__:
            known = ", ".join(allowed.__annotations__)
            raise TypeError(f"{function}: unexpected keyword {name!r}; it takes {known}")


def place(options: Options | How) -> tuple[Any, bool, bool]:
    """The part of ``options`` that says where the matrices are: axis, still to be checked, keepdims and diagonal."""
    keepdims, diagonal = (_checks.flag(options.get(name, False), name) for name in ("keepdims", "diagonal"))
    return options.get("axis", (-2, -1)), keepdims, diagonal


def request(options: Options | How, rank: int | None = None) -> Request:
    """The checked part of ``options`` that says how to compute."""
    method = _checks.choice(options.get("method", "auto"), "method", METHODS)
    tol = _checks.tolerance(options.get("tol"))
    compute_dtype, axis_name = options.get("compute_dtype"), options.get("axis_name")
    if compute_dtype is not None:
        compute_dtype = _checks.wide_dtype(compute_dtype, "compute_dtype")
    *_, diagonal = place(options)
    if axis_name is not None and diagonal:
        raise ValueError(f"axis_name must be None with diagonal=True, got {axis_name!r}")
    return Request(method, tol, compute_dtype, rank, _mesh_axes(axis_name))


def _mesh_axes(axis_name: AxisName) -> tuple[Names, Names]:
    """The names over which rows, and those over which columns are split."""
    sides = tuple(axis_name) if isinstance(axis_name, tuple | PartitionSpec) else (axis_name, None)
    if len(sides) != 2:
        raise ValueError(f"axis_name must be one name or a pair (rows, columns), got {axis_name!r}")
    rows, columns = (() if side is None else side if isinstance(side, tuple) else (side,) for side in sides)
    for name in rows + columns:
        if not isinstance(name, str):
            raise TypeError(f"axis_name must be made of names of mesh axes, tuples of them and None, got {axis_name!r}")
        if (rows + columns).count(name) > 1:
            raise ValueError(f"axis_name must name every mesh axis once, got {axis_name!r}")
        try:
            count((name,))
        except NameError:
            message = f"axis_name must name mesh axes of the jax.shard_map around it, got {axis_name!r}"
            raise ValueError(message) from None
    return rows, columns
