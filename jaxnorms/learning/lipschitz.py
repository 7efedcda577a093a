"""Lipschitz constants of networks, bounded layer by layer, and stable ranks."""

import math
import string
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple, Unpack

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxnorms import _checks
from jaxnorms._batching import over_batch
from jaxnorms._mesh import replicated
from jaxnorms._scaling import magnitude, scale
from jaxnorms.induced_bounds import induced_norm_bounds
from jaxnorms.learning.convolution import conv_spectral_norm
from jaxnorms.learning.convolution_operator import Convolution, kernel_order
from jaxnorms.learning.leaves import BatchAxes, ByPath, Ord, Stack, Where, by_path, check, chosen, stacks
from jaxnorms.learning.wide_numbers import Wide, constants, narrow, product, wide
from jaxnorms.norm_objects import Entrywise, Induced, Mixed, Norm, Schatten, as_norm, inf
from jaxnorms.norms import frobenius_norm, spectral_norm
from jaxnorms.operators import LinearOperator
from jaxnorms.options import How, refuse_unknown


def stable_rank(
    a: ArrayLike | LinearOperator, *, axis: tuple[int, int] = (-2, -1), keepdims: bool = False, **how: Unpack[How]
) -> Array:
    """Stable rank ``(||A||_F / ||A||_2)^2`` of ``(..., m, n)`` matrices, shape (...): from 1 to the rank; 0 if A = 0.

    It does not change when A is multiplied by a number, and little where A changes little. ``axis`` and ``keepdims``
    as for the norms; ``how``, the keywords of :class:`jaxnorms.options.How`, is for the spectral norm. Of any size of
    entries; 16-bit types are computed in float32 and returned in their own; NaN or an infinite entry gives NaN.
    Derivatives follow from those of :func:`frobenius_norm` and :func:`spectral_norm`, twice; 0 at 0, where it jumps.
    Also of a :class:`LinearOperator`, as far as both norms take it: it is not scaled, so that its Frobenius norm must
    be representable. Cost: that of a spectral norm and five passes. Source: Rudelson and Vershynin 2007.

    >>> import jax.numpy as jnp, jaxnorms as jn
    >>> print(f"{jn.stable_rank(jnp.diag(jnp.array([2.0, 1.0, 1.0]))):.4f}")
    1.5000
    """
    refuse_unknown(how, "stable_rank", How)
    keepdims = _checks.flag(keepdims, "keepdims")
    if isinstance(a, LinearOperator):
        if keepdims or _checks.integers(axis, "stable_rank: axis", "two integers") != (-2, -1):
            raise ValueError("stable_rank: axis and keepdims must be their defaults for a LinearOperator")
        return _squared_ratio(frobenius_norm(a), spectral_norm(a, **how))
    x = _checks.matrix(a, "stable_rank")
    i, j = _checks.axes(axis, x.ndim, 2, "stable_rank")
    matrices = jnp.moveaxis(x, (i, j), (-2, -1)).astype(_checks.working_dtype(x.dtype))
    scaled, _ = _scaled(matrices)
    value = _squared_ratio(frobenius_norm(scaled), spectral_norm(scaled, **how)).astype(jnp.finfo(x.dtype).dtype)
    return jnp.expand_dims(value, (i, j)) if keepdims else value


def _squared_ratio(x: Array, y: Array) -> Array:
    zero = y == 0
    return jnp.square(jnp.where(zero, 0, x / jnp.where(zero, 1, y)))


class _Convolution(Convolution, total=False):
    gram_steps: int | None


def lipschitz_bound(
    weights: Any,
    ord: Ord = "spectral",
    *,
    activations: ByPath[ArrayLike] = 1.0,
    where: Where = None,
    batch_axes: BatchAxes = 0,
    out_axis: int = -1,
    convolutions: ByPath[Mapping[str, Any] | None] | None = None,
) -> Array:
    """``prod_i c_i ||W_i||`` over the layers of a pytree: a bound of the Lipschitz constant of their composition
    ``x -> act_L(... act_1(x W_1 + b_1) ... W_L + b_L)``, in the norm of ``ord``; a scalar.

    **It is a bound for the composition of the chosen layers, and for nothing else.** Biases do not matter. Layers that
    are no matrices or kernels (normalisation, attention, embeddings shared by two layers) are not counted, nor how the
    layers are connected: of a residual block ``x + f(x)`` the constant is at most ``1 +`` that of the branch f, of
    branches that are added at most the sum of theirs, so bound each branch by a call (``where``) and combine them.

    * Layers are the floating or complex leaves with two axes, beyond ``batch_axes`` leading ones: dense,
      ``y = x W`` with ``out_axis=-1`` (W is in x out: Flax, Haiku), or ``y = W x`` with ``out_axis=-2`` (out x in:
      Equinox, PyTorch). Those with more are convolution kernels. Matrices stacked along ``batch_axes`` are layers one
      after another. ``where``, ``batch_axes`` and mappings by path are as for :func:`penalty`.
    * ``ord``: ``'spectral'``, the least for l_2; ``'fro'``, larger (the Frobenius product), for three passes;
      or ``Induced(p, q)``, of the map from inputs to outputs: ``max ||y||_q`` over ``||x||_p <= 1``, for ``y = x W``
      thus ``Induced(p, q)`` of the transpose of W. ``Induced(inf, inf)`` is the largest sum ``|w|`` over
      the inputs of one output, ``Induced(1, 1)`` over the outputs of one input. Pairs without an exact formula take
      ``induced_norm_bounds(...).upper``. A mapping from patterns to norms may chain them, ``Induced(inf, 2)`` and then
      ``'spectral'``; that the norm between two layers is the same is left to you. Others: ``ValueError``.
    * ``activations``: the Lipschitz constant >= 0 (NaN below) of what follows each layer, which may be traced, or
      a mapping by path. 1 for ReLU, leaky ReLU, ELU, tanh, softplus, GroupSort, sorting, absolute values, max pooling
      without overlaps; 1/4 for the logistic sigmoid, 1.09984 SiLU, 1.129 GELU (both forms), 1.0885 Mish, 1.7581 SELU.
      Functions of single entries, GroupSort and pooling have the same constant in every l_p norm.
    * ``convolutions``: of kernels ``(..., in, out)``, or ``(out, in, ...)`` with ``out_axis=-2``; another order by
      their ``dimension_numbers``. None: for ``'spectral'`` the supremum over all frequencies
      (1 % above it for each spatial axis at most), which bounds zero and circular padding of inputs of every size,
      any stride, dilation and grouping. A mapping with the keywords of :func:`conv_spectral_norm` gives that norm,
      with ``input_shape`` (whose default padding is circular: exact, for that size alone), or without
      ``input_shape`` the supremum with these strides, layout or ``gram_steps``; or a mapping from patterns to such
      mappings. ``'fro'``: ``N^(1/2) ||K||_F`` of a kernel with N spatial entries. ``Induced(inf, inf)``: the sum
      ``|k|`` over space and inputs, the largest of the outputs; ``Induced(1, 1)``: over space and outputs, of the
      inputs: attained in the interior for stride 1, bounds always. Others: ``ValueError``.

    The product neither overflows nor vanishes on the way. In the widest type of the norms, 32 bits at least; 1 in
    float32 if no layer is chosen; NaN for NaN. Right as far as the norms are: of large matrices ``'spectral'`` is
    by a Krylov method, accurate but from below. Derivatives are those of the norms, 0 at a zero matrix. Cost: that of
    the norms, equal shapes together. Source: Szegedy et al. 2014; Anil, Lucas and Grosse 2019 (other norms); Araujo
    et al. 2021.

    >>> import jax.numpy as jnp, jaxnorms as jn
    >>> params = {"first": {"kernel": jnp.diag(jnp.array([3.0, 4.0]))}, "last": {"kernel": jnp.ones((2, 2))}}
    >>> jn.lipschitz_bound(params)
    Array(8., dtype=float32)
    >>> jn.lipschitz_bound(params, jn.Induced(jnp.inf, jnp.inf), activations={"first": 0.25, "last": 1.0})
    Array(2., dtype=float32)
    """
    function = "lipschitz_bound"
    refuse_norms(ord, function)
    transposed = acts_on_rows(out_axis, function)
    options_of = _options(convolutions, function)
    dense, kernels = layers(weights, ord, where, batch_axes, function)
    factors = []
    for stack in dense:
        factors.append(replicated(partial(sizes, norm=stack.norm, transposed=transposed), stack.matrices))
        factors.append(constants(stack.each(activations, "activations", function)))
    constant_of = by_path(activations, "activations", function)
    for kernel in kernels:
        options = options_of(kernel.path) or {}
        if not transposed and "dimension_numbers" not in options:
            spatial = jnp.ndim(kernel.leaf) - kernel.batch - 2
            options = {**options, "dimension_numbers": "OI" + string.digits[:spatial]}
        size = replicated(partial(_kernel_sizes, kernel=kernel, options=options), jnp.asarray(kernel.leaf))
        constant = constant_of(kernel.path)
        if constant is None and isinstance(activations, Mapping):
            raise ValueError(f"{function}: activations must have a pattern for the path {kernel.path!r}")
        constant = _checks.scalar(constant, "activations", function).astype(size.mantissa.dtype)
        factors += [size, constants(jnp.broadcast_to(constant, size.mantissa.shape))]
    return narrow(product(factors))


# The layers.


class Kernel(NamedTuple):
    """A leaf of convolution kernels, with ``batch`` axes before those of one."""

    norm: Norm
    path: str
    batch: int
    leaf: Any


def layers(
    weights: Any, ord: Ord, where: Where, batch_axes: BatchAxes, function: str
) -> tuple[list[Stack], list[Kernel]]:
    """The chosen matrices, stacked, and the chosen kernels."""
    selected, _, batch_of = check(ord, where, batch_axes, function)

    def with_axes(fits: Callable[[int], bool]) -> Where:
        return lambda path, leaf: fits(jnp.ndim(leaf) - (batch_of(path) or 0)) and selected(path, leaf)

    dense = stacks(weights, ord, with_axes(lambda axes: axes == 2), batch_axes, function)
    kernels = chosen(weights, ord, with_axes(lambda axes: axes > 2), batch_axes, function, columns=False)
    return dense, [Kernel(norm, path, batch, leaf) for _, path, norm, batch, leaf in kernels]


def refuse_norms(ord: Ord, function: str) -> None:
    """Raise ``ValueError`` for norms that do not bound a Lipschitz constant."""
    for choice in ord.values() if isinstance(ord, Mapping) else [ord]:
        if choice is None:
            continue
        norm = as_norm(choice)
        if not isinstance(norm, Induced) and norm not in (Schatten(inf), Entrywise(2)):
            raise ValueError(f"{function}: ord must be 'spectral', 'fro' or an Induced(p, q), got {choice!r}")


def acts_on_rows(out_axis: Any, function: str) -> bool:
    """Whether the map is ``x -> x W``."""
    allowed = "-1 (y = x W) or -2 (y = W x)"
    if _checks.integer(out_axis, f"{function}: out_axis", allowed) not in (-1, -2):
        raise ValueError(f"{function}: out_axis must be {allowed}, got {out_axis!r}")
    return out_axis == -1


def _options(convolutions: Any, function: str) -> Callable[[str], Mapping[str, Any] | None]:
    """The options of the kernels of a path."""
    if convolutions is None:
        return lambda path: None
    if not isinstance(convolutions, Mapping):
        raise TypeError(f"{function}: convolutions must be None or a mapping, got {convolutions!r}")
    by_pattern = any(isinstance(value, Mapping) for value in convolutions.values())
    for options in convolutions.values() if by_pattern else [convolutions]:
        if options is not None:
            if not isinstance(options, Mapping):
                raise TypeError(f"{function}: convolutions must map patterns to mappings, got {options!r}")
            refuse_unknown(options, f"{function}: convolutions", _Convolution)
    return by_path(convolutions, "convolutions", function) if by_pattern else lambda path: convolutions


@partial(jax.jit, static_argnames=("norm", "transposed"))
def sizes(matrices: Array, norm: Norm, transposed: bool = False) -> Wide:
    """The norms of ``(m, n)`` or ``(count, m, n)`` matrices, a vector."""
    x = matrices.astype(_checks.working_dtype(matrices.dtype))
    scaled, e = _scaled(jnp.swapaxes(x, -1, -2) if transposed else x)
    value = induced_norm_bounds(scaled, norm.p, norm.q).upper if isinstance(norm, Induced) else norm(scaled)
    return wide(value.reshape(-1), e.reshape(-1))


def _scaled(x: Array) -> tuple[Array, Array]:
    """Matrices ``x 2^-e`` of entries of about 1, as they are if not finite; and e of each."""
    e = over_batch(_exponent, x)
    return scale(x, -e[..., None, None]), e


def _exponent(a: Array) -> Array:
    return magnitude(a)[2]


def _kernel_sizes(x: Array, kernel: Kernel, options: Mapping[str, Any]) -> Wide:
    """The norms of the convolutions with the kernels of one leaf, a vector."""
    count = math.prod(x.shape[: kernel.batch])
    x = x.astype(_checks.working_dtype(x.dtype)).reshape(count, *x.shape[kernel.batch :])
    if not x.size:
        return wide(jnp.zeros(count, x.real.dtype))
    e = jax.vmap(_exponent)(x)
    return wide(jax.vmap(lambda one, k: _kernel_size(scale(one, -k), kernel, options))(x, e), e)


def _kernel_size(x: Array, kernel: Kernel, options: Mapping[str, Any]) -> Array:
    norm, dims = kernel.norm, x.ndim - 2
    x = jnp.transpose(x, kernel_order(x, options.get("dimension_numbers"), "lipschitz_bound"))
    if norm == Schatten(inf):
        rest = {name: value for name, value in options.items() if name != "dimension_numbers"}
        if "input_shape" not in rest:  # the supremum is that of zero padding, whatever the shape
            zeros = rest.get("padding", "SAME")
            rest |= {"input_shape": (1,) * dims, "padding": "SAME" if zeros == "circular" else zeros}
        return conv_spectral_norm(x, **rest)
    if norm == Entrywise(2):
        # ||K(w)||_2^2 <= ||K(w)||_F^2 = sum_io |sum_t k_tio exp(-i<w, t>)|^2 <= N sum_tio |k_tio|^2 (Cauchy, Schwarz)
        return math.sqrt(math.prod(x.shape[:dims])) * frobenius_norm(x.reshape(-1, 1))
    if norm == Induced(inf, inf):  # rows of the operator: k_tio over t and i, where none of them meets the border
        return Mixed(1, inf)(x.reshape(-1, x.shape[-1]))
    if norm == Induced(1, 1):  # and columns: over t and o
        return Mixed(1, inf, axis=-2)(jnp.moveaxis(x, -2, 0).reshape(x.shape[-2], -1))
    raise ValueError(
        "lipschitz_bound: ord must be 'spectral', 'fro', Induced(1, 1) or Induced(inf, inf) for the convolution kernel "
        f"{kernel.path!r}, got {norm!r}"
    )
