"""Matrices given by their products with vectors, and these products: checked, in working precision, scaled.

Several vectors are the *rows* of an array. A product is scaled by an exact power of two that one product
with fixed vectors gives, so that neither it nor its square leaves the range of the type.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxnorms import _checks
from jaxnorms._scaling import cleared, exponent, halves, max_abs, scale
from jaxnorms.decompositions import krylov

_ENTRIES = 2**18  # of the products formed in one go, where there are as many as rows or columns

Product = Callable[[Array], Array]


@partial(
    jax.tree_util.register_dataclass,
    data_fields=("params",),
    meta_fields=("matvec", "rmatvec", "shape", "dtype"),
)
@dataclass(frozen=True, eq=False)
class LinearOperator:
    """An m x n matrix A given by its products, ``A x = matvec(params, x)``, and differentiated in ``params``.

    * ``params``: any pytree. The operator is a pytree with the same leaves: ``jax.grad`` with respect to it
      returns a ``LinearOperator`` whose ``params`` are the gradient, ``jax.vmap`` over it takes a batch of them.
    * ``matvec(params, x)``: x of shape (n,) to A x of shape (m,), both of type ``dtype``. It must be linear
      in x (not checked), and a function that ``jax.vmap`` and ``jax.jvp`` accept.
    * ``rmatvec(params, y)``: y of shape (m,) to ``A^H y``, or ``None``: then the transpose of ``matvec``.
    * ``shape = (m, n)``, ``dtype``: static. 16-bit types are computed in float32, with the 16-bit leaves of
      ``params`` converted, if the functions return float32 for them; otherwise the products keep their 16 bits.

    It is taken by ``spectral_norm``, ``ky_fan_norm``, ``frobenius_norm``, ``squared_frobenius_norm``,
    ``nuclear_norm`` with ``rank``, the norm objects of these, ``singular_values``, ``truncated_svd`` and
    ``norm_bounds``; any other norm raises ``ValueError``, since it needs the entries. Cost of k singular values: 8
    to 320 products with 4 vectors each, half of them adjoint, and k + 7 products at last; memory, k + 40 vectors
    of the smaller dimension. Where ``k + 39 > min(m, n)`` the matrix is formed instead, by min(m, n) products.

    Derivative: ``sum_i g_i Re u_i^H (dA) v_i``, where ``(dA) v`` is the derivative of ``matvec(params, v)`` in
    ``params``; never through the search. The convention at ties is that of the norm. Second derivatives raise
    ``ValueError``. Traced values that the functions close over count as parameters.

    The functions are compared by identity, so that a new function object compiles anew: define them once.
    Products run at the precision that the functions ask for. Products that are not finite give an infinite
    or NaN norm with a NaN derivative. On a mesh the search partitions as the products do.

    Raises ``ValueError`` for another shape (when constructed), for functions that return another shape or type
    than stated, and for a ``matvec`` without a transpose where there is no ``rmatvec`` (when first used);
    ``TypeError`` for functions that are not callable or not hashable, and for a shape or type that is none. Source:
    Musco and Musco 2015 (the search); Lewis 1995 (the derivative).

    >>> import jax, jax.numpy as jnp, jaxnorms as jn
    >>> def matvec(params, x):
    ...     w, b, a = params
    ...     return w @ x + b @ (a @ x)
    >>> w, b, a = jnp.diag(jnp.array([3.0, 1.0])), jnp.array([[2.0], [0.0]]), jnp.array([[1.0, 0.0]])
    >>> update = jn.LinearOperator((w, b, a), matvec, None, (2, 2), jnp.float32)
    >>> value, gradient = jax.value_and_grad(jn.spectral_norm)(update)
    >>> value, gradient.params[1].ravel()
    (Array(5., dtype=float32), Array([1., 0.], dtype=float32))
    """

    params: Any
    matvec: Callable[[Any, Array], Array]
    rmatvec: Callable[[Any, Array], Array] | None
    shape: tuple[int, int]
    dtype: Any

    def __post_init__(self):
        for name, function in (("matvec", self.matvec), ("rmatvec", self.rmatvec)):
            allowed = "a hashable function" if name == "matvec" else "None or a hashable function"
            if not (callable(function) or (function is None and name == "rmatvec")):
                raise TypeError(f"LinearOperator: {name} must be {allowed}, got {function!r}")
            try:
                hash(function)
            except TypeError as error:
                raise TypeError(f"LinearOperator: {name} must be {allowed}, got {function!r}") from error
        object.__setattr__(self, "shape", _checks.sides(self.shape, "LinearOperator: shape"))
        object.__setattr__(self, "dtype", _checks.inexact_dtype(self.dtype, "LinearOperator: dtype"))


# Products.


def checked(op: LinearOperator) -> LinearOperator:
    """The operator, whose functions return what was stated, with the traced values that they close over among
    its parameters: the rules of ``jaxnorms._rules`` would not see them."""
    _check(op)
    converted, traced = {}, {}
    for name, size in (("matvec", op.shape[1]), ("rmatvec", op.shape[0])):
        if (function := getattr(op, name)) is not None:
            converted[name], traced[name] = jax.closure_convert(function, op.params, jnp.zeros(size, op.dtype))
    if not any(traced.values()):
        return op  # the same functions: nothing compiles anew

    def explicit(name: str) -> Callable[[Any, Array], Array]:
        return lambda params, x: converted[name](params[0], x, *params[1][name])

    functions = {name: explicit(name) for name in converted}
    return replace(op, params=(op.params, traced), **functions)


def _check(op: LinearOperator) -> None:
    m, n = op.shape
    for name, function, given, wanted in (("matvec", op.matvec, n, m), ("rmatvec", op.rmatvec, m, n)):
        if function is None:
            continue
        call = f"LinearOperator: {name}(params, x) with x of shape ({given},) and dtype {op.dtype}"
        try:
            y = jax.eval_shape(function, op.params, jax.ShapeDtypeStruct((given,), op.dtype))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{call} must return shape ({wanted},), but raised: {error}") from error
        if not isinstance(y, jax.ShapeDtypeStruct) or y.shape != (wanted,) or y.dtype != op.dtype:
            came = f"shape {y.shape} and dtype {y.dtype}" if isinstance(y, jax.ShapeDtypeStruct) else repr(y)
            raise ValueError(f"{call} must return shape ({wanted},) and dtype {op.dtype}, got {came}")


def in_working_precision(op: LinearOperator) -> LinearOperator:
    """A checked operator in the precision in which it is computed."""
    narrow, wide = op.dtype, _checks.working_dtype(op.dtype)
    if wide == narrow:
        return op

    def widened(x: Any) -> Any:
        dtype = getattr(x, "dtype", None)
        is_narrow = dtype is not None and jnp.issubdtype(dtype, jnp.floating) and jnp.finfo(dtype).bits < 32
        return x.astype(wide) if is_narrow else x

    wider = replace(op, params=jax.tree.map(widened, op.params), dtype=wide)
    try:
        _check(wider)
    except ValueError:  # the functions insist on their type

        def between(function: Callable[[Any, Array], Array]) -> Callable[[Any, Array], Array]:
            return lambda params, x: function(params, x.astype(narrow)).astype(wide)

        rmatvec = op.rmatvec and between(op.rmatvec)
        return replace(op, matvec=between(op.matvec), rmatvec=rmatvec, dtype=wide)
    return wider


def forward(op: LinearOperator, rows: Array) -> Array:
    """``A x`` for each row x."""
    return jax.vmap(partial(op.matvec, op.params))(rows)


def adjoint(op: LinearOperator, rows: Array) -> Array:
    """``A^H y`` for each row y."""
    if op.rmatvec is not None:
        return jax.vmap(partial(op.rmatvec, op.params))(rows)
    x = jax.ShapeDtypeStruct((op.shape[1],), op.dtype)
    transpose = jax.linear_transpose(partial(op.matvec, op.params), x)  # of A, not yet conjugated
    try:
        return jax.vmap(lambda y: transpose(y.conj())[0].conj())(rows)
    except NotImplementedError as error:
        raise ValueError(f"LinearOperator: matvec has no transpose (is it linear?), give rmatvec: {error}") from error


class Scaled(NamedTuple):
    """Products with ``A 2^-e``, of magnitude about 1, or zeros unless A is finite (``ok``)."""

    forward: Product
    adjoint: Product
    ok: Array
    largest: Array  # entry of the product that e was read from
    e: Array

    def restored(self, x: Array) -> Array:
        """A norm of ``A 2^-e`` at the scale of A."""
        return jnp.where(self.ok, scale(x, self.e), self.largest)


def scaled(op: LinearOperator) -> Scaled:
    """The products to compute with."""
    n = op.shape[1]
    # Of length about 1: their products do not overflow where the norm does not.
    start = jnp.asarray(np.random.default_rng(0).standard_normal((krylov.BLOCK, n)) / np.sqrt(n), op.dtype)
    largest = max_abs(forward(op, start))
    ok, e = jnp.isfinite(largest), exponent(largest)
    before, after = halves(-e)

    def between(product: Callable[[LinearOperator, Array], Array]) -> Product:
        return lambda rows: cleared(ok, after(product(op, before(rows))))

    return Scaled(between(forward), between(adjoint), ok, largest, e)


def sum_over(op: LinearOperator, count: int, term: Callable[[Array], Array]) -> Array:
    """The sum of ``term(indices)`` over blocks of the indices below ``count``, and some beyond the last.

    A block is computed anew in a backward pass, which would otherwise keep the whole matrix.
    """
    size = min(count, max(krylov.BLOCK, _ENTRIES // max(op.shape)))
    once = jax.checkpoint(term, prevent_cse=False)

    def add(i: Array, total: Array) -> Array:
        return total + once(i * size + jnp.arange(size, dtype=i.dtype))

    return jax.lax.fori_loop(0, -(-count // size), add, jnp.zeros((), jnp.finfo(op.dtype).dtype))


def unit_rows(indices: Array, n: int, dtype: Any) -> Array:
    """Unit vectors; zero for an index beyond the last."""
    return (indices[:, None] == jnp.arange(n, dtype=indices.dtype)[None, :]).astype(dtype)


def squares(x: Array) -> Array:
    return jnp.sum(jnp.square(x.real) + jnp.square(x.imag))
