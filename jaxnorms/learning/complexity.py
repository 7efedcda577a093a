"""Complexities of networks, from the norms of their weights, and the margins that they normalise."""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxnorms import _checks
from jaxnorms._mesh import replicated
from jaxnorms.drop_in import vector_norm
from jaxnorms.learning.leaves import BatchAxes, ByPath, Stack, Where
from jaxnorms.learning.lipschitz import acts_on_rows, layers, sizes
from jaxnorms.learning.wide_numbers import Wide, constants, joined, narrow, product, wide
from jaxnorms.norm_objects import Entrywise, Mixed, Schatten, inf


def frobenius_product_bound(
    weights: Any, radius: ArrayLike, samples: ArrayLike, *, where: Where = None, batch_axes: BatchAxes = 0
) -> Array:
    """``radius ((2 ln(2) L)^(1/2) + 1) prod_i ||W_i||_F / samples^(1/2)`` over the L matrices of a pytree, a scalar.

    A bound of the Rademacher complexity ``E sup_f (1/n) sum_i s_i f(x_i)`` (s_i independent signs, n samples) of
    all networks ``f(x) = W_L act(... act(W_1 x))`` with one output, matrices of these Frobenius norms or less, of any
    width, an activation of single entries that is 1-Lipschitz and positively homogeneous (ReLU, leaky ReLU), and
    inputs ``||x_i||_2 <= radius``. No biases.

    ``radius >= 0`` (NaN below) and ``samples > 0`` are real numbers, which may be traced. Matrices, ``where`` and
    ``batch_axes`` are as for :func:`lipschitz_bound`. The theorem is about matrices: a convolution kernel among the
    chosen raises ``ValueError`` (the Frobenius norm of the convolution grows with its input; build the matrix, or
    choose by ``where``), as does a pytree without matrices. The product neither overflows nor vanishes on the way;
    derivatives are those of the norms. Cost: three passes. Source: Golowich, Rakhlin and Shamir 2018, Theorem 1.

    >>> import jax.numpy as jnp, jaxnorms as jn
    >>> params = {"first": jnp.eye(2), "last": jnp.ones((2, 1))}
    >>> print(f"{jn.frobenius_product_bound(params, radius=1.0, samples=400):.4f}")
    0.2665
    """
    function = "frobenius_product_bound"
    dense = _matrices(weights, Entrywise(2), where, batch_axes, function)
    count = sum(n for stack in dense for *_, n in stack.leaves)
    norms = [replicated(partial(sizes, norm=Entrywise(2)), stack.matrices) for stack in dense]
    real = joined(norms).mantissa.dtype
    size, n = (_checks.scalar(x, name, function).astype(real) for x, name in ((radius, "radius"), (samples, "samples")))
    rate = (math.sqrt(2 * math.log(2) * count) + 1) / jnp.sqrt(n)
    return narrow(product([*norms, constants(size), constants(rate)]))


def spectral_complexity(
    weights: Any,
    reference: Any = None,
    *,
    activations: ByPath[ArrayLike] = 1.0,
    where: Where = None,
    batch_axes: BatchAxes = 0,
    out_axis: int = -1,
) -> Array:
    """``prod_i c_i ||A_i||_2 (sum_i (||A_i^T - M_i^T||_{2,1} / ||A_i||_2)^(2/3))^(3/2)`` over the matrices of a pytree.

    A_i is the matrix of a layer ``x -> A_i x`` and ``||.||_{2,1}`` the sum of the 2-norms of the columns: of
    ``A_i^T`` the sum, over the outputs of the layer, of the 2-norms of their weights. With ``out_axis=-1``
    (``y = x W``) A is the transpose of W, and ``A^T = W``; with ``out_axis=-2`` (``y = W x``) A = W.

    * ``reference``: the M_i, a pytree like ``weights``, say the weights before training; None for zeros.
    * ``activations``: the Lipschitz constants c_i >= 0 (NaN below), which map 0 to 0. These, ``where`` and
      ``batch_axes`` are as for :func:`lipschitz_bound`, whose value (times the factor in parentheses) this is.

    With probability ``1 - d`` over n samples, a network of widths at most w errs on another sample with probability
    at most ``mean_i 1[margin_i <= g] + O(||X||_F R ln(w) / (g n) + (ln(1/d) / n)^(1/2))`` for every g > 0, up to
    further logarithms, R being this complexity and ``||X||_F`` the norm of all inputs, see
    :func:`normalized_margins`. The theorem is about matrices: a convolution kernel among the chosen raises
    ``ValueError`` (its reshaped matrix is not its operator), as does a pytree without matrices.

    Of matrices of any size as long as ``W - M`` and the result are representable. At ``A_i = 0`` it is continued:
    the other norms times ``||M_i^T||_{2,1}``; 0 without reference. Derivatives are those of the norms; infinite ones,
    at ``W_i = M_i`` and at ``W_i = 0``, are dropped. NaN or an infinite entry gives NaN. Cost: that of the
    spectral norms. Source: Bartlett, Foster and Telgarsky 2017, equation 1.2 and Theorem 1.1.

    >>> import jax.numpy as jnp, jaxnorms as jn
    >>> params = {"first": 2 * jnp.eye(2), "last": jnp.array([[3.0], [4.0]])}
    >>> print(f"{jn.spectral_complexity(params):.2f}")
    41.62
    """
    function = "spectral_complexity"
    rows = acts_on_rows(out_axis, function)
    dense = _matrices(weights, Schatten(inf), where, batch_axes, function)
    fixed = None if reference is None else _reference(weights, reference, function)
    by_output = Mixed(2, 1, axis=-1 if rows else -2)
    spectral, distances, factors = [], [], []
    for stack in dense:
        factors.append(constants(stack.each(activations, "activations", function)))
        beside = None if fixed is None else [fixed[i] for i, *_ in stack.leaves]
        s, t = replicated(partial(_norms, by_output=by_output), stack.matrices, beside)
        spectral.append(s)
        distances.append(t)
    return narrow(product([_complexity(joined(spectral), joined(distances)), *factors]))


def _matrices(weights: Any, ord: Any, where: Where, batch_axes: BatchAxes, function: str) -> list[Stack]:
    dense, kernels = layers(weights, ord, where, batch_axes, function)
    if kernels:
        path, shape = kernels[0].path, jnp.shape(kernels[0].leaf)
        raise ValueError(
            f"{function}: weights must be matrices, got the convolution kernel {path!r} of shape {shape}; "
            "choose others by where, or say which axes are batch by batch_axes"
        )
    if not dense:
        raise ValueError(f"{function}: weights must hold a matrix that is chosen, got none")
    return dense


def _reference(weights: Any, reference: Any, function: str) -> list[Any]:
    """The leaves of the reference, which has the structure and the shapes of the weights."""
    leaves, structure = jax.tree.flatten(weights)
    others, other = jax.tree.flatten(reference)
    if structure != other:
        raise ValueError(f"{function}: reference must have the structure of weights, {structure}, got {other}")
    for x, y in zip(leaves, others, strict=True):
        if jnp.shape(x) != jnp.shape(y):
            raise ValueError(
                f"{function}: reference must have the shapes of weights, got {jnp.shape(y)} for {jnp.shape(x)}"
            )
    return others


def _norms(matrices: Array, beside: list[Any] | None, by_output: Mixed) -> tuple[Wide, Wide]:
    """Of each matrix the spectral norm, and the L_{2,1} norm of its distance from the one beside it."""
    x = matrices.astype(_checks.working_dtype(matrices.dtype))
    if beside is None:
        return sizes(x, Schatten(inf)), sizes(x, by_output)
    others = jnp.concatenate([jnp.asarray(y).reshape(-1, *x.shape[-2:]) for y in beside]).reshape(x.shape)
    return sizes(x, Schatten(inf)), sizes(x - others.astype(x.dtype), by_output)


@jax.jit
def _complexity(s: Wide, t: Wide) -> Wide:
    """``prod_i s_i (sum_i (t_i / s_i)^(2/3))^(3/2)``, as a vector of one entry or several whose product it is."""
    # R^(2/3) = sum_i (t_i prod_{j != i} s_j)^(2/3): where one s_i is 0 that term is left, where several are, none. With
    # 1 in the place of zeros it is the same formula.
    zero = s.mantissa == 0
    zeros = jnp.sum(zero)
    others = Wide(jnp.where(zero, 0.5, s.mantissa), jnp.where(zero, 1, s.exponent))
    ratio = wide(t.mantissa / (2 * others.mantissa), t.exponent - others.exponent + 1)
    kept = ((zeros == 0) | (zero & (zeros == 1))) & (ratio.mantissa != 0)
    largest = jnp.max(jnp.where(kept, ratio.exponent, jnp.iinfo(jnp.int32).min))
    largest = jnp.where(jnp.any(kept), largest, 0)
    below = jnp.where(kept, ratio.exponent - largest, 0).astype(s.mantissa.dtype)
    terms = jnp.where(kept, jnp.where(kept, ratio.mantissa, 1) ** (2 / 3) * jnp.exp2(below * (2 / 3)), 0)
    total = jnp.sum(terms)
    root = jnp.sqrt(jnp.where(total == 0, 1, total))
    return joined([others, wide((total * root)[None], largest[None])])


def margins(logits: ArrayLike, labels: ArrayLike) -> Array:
    """``f(x)_y - max_{j != y} f(x)_j``: positive where the class is right. ``logits`` (..., k), ``labels`` (...).

    Labels are integers from 0 to k - 1 (others give NaN), and k >= 2. Real logits of any floating type; NaN gives NaN.
    The derivative is shared equally by classes that tie. Raises ``ValueError`` for shapes that do not fit.
    Cost: two passes.

    >>> import jax.numpy as jnp, jaxnorms as jn
    >>> jn.margins(jnp.array([[2.0, 0.5, 1.0], [0.0, 3.0, 1.0]]), jnp.array([0, 2]))
    Array([ 1., -2.], dtype=float32)
    """
    return _margins(logits, labels, "margins")


def _margins(logits: ArrayLike, labels: ArrayLike, function: str) -> Array:
    x, y = _checks.as_inexact(logits, "logits"), _checks.as_integers(labels, "labels")
    if jnp.iscomplexobj(x):
        raise TypeError(f"{function}: logits must be real, got dtype {x.dtype}")
    if x.ndim < 1 or x.shape[-1] < 2:
        raise ValueError(f"{function}: logits must have shape (..., k) with k >= 2 classes, got shape {x.shape}")
    if y.shape != x.shape[:-1]:
        raise ValueError(f"{function}: labels must have shape {x.shape[:-1]}, got shape {y.shape}")
    return _lead(x, y)


@jax.jit
def _lead(logits: Array, labels: Array) -> Array:
    x = logits.astype(_checks.working_dtype(logits.dtype))
    right = jax.nn.one_hot(labels, x.shape[-1], dtype=bool)
    own, other = jnp.sum(jnp.where(right, x, 0), -1), jnp.max(jnp.where(right, -jnp.inf, x), -1)
    return jnp.where(jnp.any(right, -1), own - other, jnp.nan).astype(logits.dtype)


def normalized_margins(logits: ArrayLike, labels: ArrayLike, inputs: ArrayLike, complexity: ArrayLike) -> Array:
    """``margins(logits, labels) / (complexity ||X||_F / n)``, shape (n,): the margins that can be compared between
    networks and data, whose distribution Bartlett, Foster and Telgarsky plot.

    ``logits`` (n, k), ``labels`` (n,), ``inputs`` (n, ...), ``||X||_F`` the 2-norm of all of them, each as the network
    was given it; ``complexity`` a real number >= 0 (NaN below), that of :func:`spectral_complexity`. Nothing overflows
    or vanishes on the way. Where the divisor is 0, as the margins of such a network, a margin of 0 stays 0 and
    others are infinite. Differentiable in all. Raises as :func:`margins`. Cost: a few passes. Source: Bartlett, Foster
    and Telgarsky 2017, section 1 and Figure 2.

    >>> import jax.numpy as jnp, jaxnorms as jn
    >>> logits, labels = jnp.array([[2.0, 0.5], [0.0, 3.0]]), jnp.array([0, 1])
    >>> jn.normalized_margins(logits, labels, inputs=jnp.array([[3.0], [4.0]]), complexity=2.0)
    Array([0.3, 0.6], dtype=float32)
    """
    function = "normalized_margins"
    gap, x = _margins(logits, labels, function), _checks.as_inexact(inputs, "inputs")
    if gap.ndim != 1:
        raise ValueError(f"{function}: logits must have shape (n, k), got shape {jnp.shape(logits)}")
    if x.ndim < 1 or len(x) != len(gap):
        raise ValueError(f"{function}: inputs must have shape ({len(gap)}, ...), got shape {x.shape}")
    size = _checks.scalar(complexity, "complexity", function)
    return _over(gap, vector_norm(x.reshape(-1).astype(_checks.working_dtype(x.dtype))), size)


@jax.jit
def _over(gap: Array, norm: Array, complexity: Array) -> Array:
    """``gap / (complexity norm / n)``."""
    dtype, real, n = gap.dtype, _checks.working_dtype(gap.dtype), max(len(gap), 1)
    parts = [constants(number.astype(real)) for number in (norm, complexity)]
    divisor, lead = product([*parts, wide(jnp.full(1, 1 / n, real))]), wide(gap.astype(real))
    zero = divisor.mantissa == 0
    found = narrow(wide(lead.mantissa / jnp.where(zero, 1, divisor.mantissa), lead.exponent - divisor.exponent))
    above, below = zero & (lead.mantissa > 0), zero & (lead.mantissa < 0)
    return jnp.where(above, jnp.inf, jnp.where(below, -jnp.inf, found)).astype(dtype)
