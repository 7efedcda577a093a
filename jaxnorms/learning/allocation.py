"""One budget of parameters shared among the matrices of a model: the ranks of least total error.

Every matrix i has options j, of cost c_ij parameters and squared error f_ij: a multiple-choice knapsack. With a price
lam per parameter, ``L(lam) = sum_i min_j (f_ij + lam c_ij) - lam B`` is a lower bound of the optimum for every
``lam >= 0``. The best price is that of the segment of the convex hulls of the options at which, in the order of
efficiency, the budget ends. What an option is above the minimum, its reduced cost ``r_ij >= 0``, adds up: the total
error of a solution is ``L + sum_i r_ij + lam (B - cost)``. So options and partial solutions that have reached what the
best known solution is above L are dropped, and what is left is enumerated.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jax.core import Tracer

from jaxnorms import _checks
from jaxnorms.learning.leaves import BatchAxes, Stack, Where, chosen, stacks
from jaxnorms.spectra import singular_values

# Partial solutions that are looked at in one go: about 10 ms.
_CANDIDATES = 2**17


class RankAllocation(NamedTuple):
    """``ranks``: of each path, None for a matrix that is kept dense; ``parameters``: of all these matrices then;
    ``error``: the Frobenius norm of all errors together; ``lower_bound`` of the least possible one, equal to
    ``error`` where that is proven to be it.

    >>> import jax.numpy as jnp, jaxnorms as jn
    >>> jn.rank_allocation({"w": jnp.diag(jnp.array([4.0, 3.0, 0.0, 0.0]))}, 8)
    RankAllocation(ranks={'w': 1}, parameters=8, error=3.0, lower_bound=3.0)
    """

    ranks: dict[str, int | None]
    parameters: int
    error: float
    lower_bound: float


def rank_allocation(params: Any, budget: int, *, where: Where = None, batch_axes: BatchAxes = 0) -> RankAllocation:
    """The ranks k_i of the matrices of a pytree with the least total error that fit into ``budget`` parameters.

    ``min sum_i sum_{j > k_i} s_j(W_i)^2  subject to  sum_i cost_i <= budget``, where factors of rank k of an m x n
    matrix cost ``k (m + n)``, and the matrix itself, without an error, ``m n``.

    * Matrices, kernels ``(..., in, out)`` as matrices of all other axes times ``out``, ``where`` and ``batch_axes``
      are as for :func:`penalty`. All matrices of a leaf with batch axes have one rank. An array that is a leaf twice is
      two matrices here: choose one of them by ``where``.
    * ``budget``: an integer >= 0, the parameters of all these matrices together; 0 leaves all at rank 0.

    In general the problem is NP-hard. The solution is optimal, to the rounding of float64, and ``lower_bound`` is then
    ``error``, unless too many partial solutions remain that might be; in this case the most promising are followed,
    and ``lower_bound`` is a certified one. A function of values, outside of ``jit``: traced leaves raise
    ``TypeError``, as does a budget that is no integer; a negative one, or a NaN or infinite entry, ``ValueError``.
    Cost: the singular values, and up to a few seconds for hundreds of large matrices.
    Source: Sinha and Zoltners 1979 (the bound); Pisinger 1995 (the enumeration).

    >>> import jax.numpy as jnp, jaxnorms as jn
    >>> params = {"a": jnp.diag(jnp.array([9.0, 5.0, 1.0, 1.0])), "b": jnp.diag(jnp.array([6.0, 0.0, 0.0]))}
    >>> jn.rank_allocation(params, 15).ranks, jn.rank_allocation(params, 22).ranks
    ({'a': 1, 'b': 1}, {'a': None, 'b': 1})
    """
    return allocate(params, budget, where, batch_axes, "rank_allocation")[0]


def allocate(
    params: Any, budget: int, where: Where, batch_axes: BatchAxes, function: str
) -> tuple[RankAllocation, list[Stack]]:
    """The allocation, and the matrices that it is of."""
    limit = _checked(budget, function)
    if any(isinstance(leaf, Tracer) for *_, leaf in chosen(params, "fro", where, batch_axes, function, False)):
        raise TypeError(
            f"{function}: ranks depend on the values of the leaves, which are traced here; call it outside jit"
        )
    groups = stacks(params, "fro", where, batch_axes, function)
    spectra = sorted(
        ((i, path, shape, s) for group in groups for i, path, shape, s in _spectra(group, function)),
        key=lambda leaf: leaf[0],
    )
    largest = max((float(np.max(s, initial=0)) for *_, s in spectra), default=0.0)
    layers = [_layer(s / (largest or 1.0), *shape) for _, _, shape, s in spectra]
    picked, lower = _solve(layers, limit)
    ranks = {path: layer.rank(j) for (_, path, *_), layer, j in zip(spectra, layers, picked, strict=True)}
    if len(ranks) < len(layers):
        raise ValueError(
            f"{function}: the paths of the matrices must be distinct, got {[path for _, path, *_ in spectra]}"
        )
    error = largest * math.sqrt(_total(layers, picked))
    return RankAllocation(
        ranks=ranks,
        parameters=sum(int(layer.costs[j]) for layer, j in zip(layers, picked, strict=True)),
        error=error,
        lower_bound=error if lower is None else min(error, largest * math.sqrt(max(lower, 0.0))),
    ), groups


def _checked(budget: Any, function: str) -> int:
    return _checks.integer(budget, f"{function}: budget", "an integer >= 0", least=0)


def _spectra(stack: Stack, function: str) -> list[tuple[int, str, tuple[int, int], np.ndarray]]:
    """Of each leaf: number, path, (m, n) and the ``(count, min(m, n))`` singular values."""
    x, (m, n) = stack.matrices, stack.matrices.shape[-2:]
    s = np.asarray(singular_values(x.astype(_checks.working_dtype(x.dtype))), np.float64)
    ends = np.cumsum([count for *_, count in stack.leaves])
    s = s.reshape(ends[-1], min(m, n))
    out = [(i, path, (m, n), part) for (i, path, _), part in zip(stack.leaves, np.split(s, ends[:-1]), strict=True)]
    for _, path, _, part in out:
        if not np.all(np.isfinite(part)):
            raise ValueError(
                f"{function}: {path!r} must be finite, and its singular values in range; its largest is {np.max(part)}"
            )
    return out


@dataclass(frozen=True)
class _Layer:
    """The options of a leaf that no other one beats: ranks 0, 1, ..., and dense as the last one if it is among them.
    Costs ascend, squared errors descend; ``hull`` are the corners of their convex hull."""

    costs: np.ndarray
    errors: np.ndarray
    dense: bool
    hull: np.ndarray

    def rank(self, j: int) -> int | None:
        return None if self.dense and j == len(self.costs) - 1 else j


def _layer(s: np.ndarray, m: int, n: int) -> _Layer:
    count = s.shape[0]
    squares = np.sort(np.sum(np.square(s), axis=0))
    tails = np.append(np.cumsum(squares)[::-1], 0.0)  # the smallest first
    size = -(-m * n // (m + n)) if count * m * n else 0  # ranks of which the factors are smaller than the matrix
    size = min(size, int(np.argmin(tails)) + 1)  # from the first error of 0 on
    costs, errors = count * (m + n) * np.arange(size, dtype=np.int64), tails[:size]
    dense = not size or bool(errors[-1] > 0)
    if dense:
        costs, errors = np.append(costs, count * m * n), np.append(errors, 0.0)
    hull = np.arange(len(costs))
    if dense and size:
        # The errors of the ranks are convex: the hull leaves them where the line to the last option is lowest.
        end = int(np.argmin(errors[:-1] / (costs[-1] - costs[:-1])))
        hull = np.append(hull[: end + 1], hull[-1])
    return _Layer(costs, errors, dense, hull)


def _total(layers: list[_Layer], picked: Sequence[int]) -> float:
    return math.fsum(float(layer.errors[j]) for layer, j in zip(layers, picked, strict=True))


def _solve(layers: list[_Layer], budget: int) -> tuple[list[int], float | None]:
    """The option of each layer, and a lower bound of the least total error; None where it is proven to be theirs."""
    if not layers:
        return [], None
    weights = [np.diff(layer.costs[layer.hull]) for layer in layers]
    # Descending but for rounding.
    gains = [np.minimum.accumulate(-np.diff(a.errors[a.hull]) / w) for a, w in zip(layers, weights, strict=True)]
    owner, gain = np.repeat(np.arange(len(layers)), [len(w) for w in weights]), np.concatenate(gains)
    order = np.argsort(-gain, kind="stable")
    spent = np.cumsum(np.concatenate(weights)[order])
    fit = int(np.searchsorted(spent, budget, side="right"))
    taken = np.bincount(owner[order[:fit]], minlength=len(layers))
    base = [int(layer.hull[t]) for layer, t in zip(layers, taken, strict=True)]
    if fit == len(order):
        return base, None
    price, slack = float(gain[order[fit]]), budget - (int(spent[fit - 1]) if fit else 0)
    changes, best, missed = _improvement(_alternatives(layers, base, price, price * slack), price, slack)
    picked = base.copy()
    for i, j in changes:
        picked[i] = j
    return picked, None if missed >= best else _total(layers, base) - price * slack + missed


class _Alternatives(NamedTuple):
    """Options of one layer, that of the dual solution the first: numbers, added costs, reduced costs."""

    layer: int
    options: np.ndarray
    costs: np.ndarray
    reduced: np.ndarray

    def below(self, most: float) -> "_Alternatives":
        keep = self.reduced < most
        return _Alternatives(self.layer, self.options[keep], self.costs[keep], self.reduced[keep])


def _alternatives(layers: list[_Layer], base: list[int], price: float, gap: float) -> list[_Alternatives]:
    """Of the layers that have some whose reduced cost is below the gap, those with the nearest ones first."""
    found = []
    for i, (layer, j) in enumerate(zip(layers, base, strict=True)):
        costs = layer.costs - layer.costs[j]
        reduced = np.maximum(layer.errors - layer.errors[j] + price * costs, 0.0)
        others = np.flatnonzero((reduced < gap) & (costs != 0))
        if others.size:
            options = np.append(j, others)
            found.append(_Alternatives(i, options, costs[options], reduced[options]))
    return sorted(found, key=lambda a: np.min(a.reduced[1:]))


def _improvement(layers: list[_Alternatives], price: float, slack: int) -> tuple[list[tuple[int, int]], float, float]:
    """The changes (layer, option) of the best solution, what it is above the dual bound, and what those that were
    not followed are at least.

    Partial solutions, of the layers so far with the others unchanged, are pairs of an added cost and a sum of
    reduced costs; the cost may exceed the slack, as long as later layers can make up for it.
    """
    best, missed, winner = price * slack, math.inf, None
    # What a parameter too many or too few costs at least in the layers after each.
    too_many, too_few = [2 * best], [price]
    for layer in reversed(layers):
        less, more = layer.costs < 0, layer.costs > 0
        too_many.append(float(np.min(layer.reduced[less] / -layer.costs[less], initial=too_many[-1])))
        too_few.append(float(np.min(layer.reduced[more] / layer.costs[more], initial=too_few[-1])))
    costs, sums, bounds = np.zeros(1, np.int64), np.zeros(1), np.zeros(1)
    trail: list[tuple[int, np.ndarray, np.ndarray]] = []
    for layer, many, few in zip(layers, too_many[-2::-1], too_few[-2::-1], strict=True):
        now = layer.below(best)
        width = len(now.options)
        if width < 2:
            continue
        parents, room = np.arange(len(costs)), max(1, _CANDIDATES // width)
        if len(costs) > room:
            parents = np.argpartition(bounds, room)
            missed, parents = min(missed, float(np.min(bounds[parents[room:]]))), parents[:room]
        next_costs = (costs[parents, None] + now.costs[None, :]).ravel()
        next_sums = (sums[parents, None] + now.reduced[None, :]).ravel()
        excess = next_costs - slack
        totals = np.where(excess <= 0, next_sums - price * excess, math.inf)
        first = int(np.argmin(totals))
        if totals[first] < best:
            best, winner = float(totals[first]), (len(trail), parents[first // width], now, first % width)
        bounds = next_sums + np.where(excess > 0, many * excess, -few * excess)
        alive = np.flatnonzero(bounds < best)
        if not alive.size:
            break
        alive = alive[_undominated(next_costs[alive], next_sums[alive] - price * next_costs[alive])]
        costs, sums, bounds = next_costs[alive], next_sums[alive], bounds[alive]
        trail.append((now.layer, parents[alive // width], now.options[alive % width]))
    if winner is None:
        return [], best, missed
    depth, state, last, option = winner
    changes = [(last.layer, int(last.options[option]))]
    for i, before, options in reversed(trail[:depth]):
        changes.append((i, int(options[state])))
        state = before[state]
    return changes, best, missed


def _undominated(costs: np.ndarray, errors: np.ndarray) -> np.ndarray:
    """Places of the pairs that have no other one with a cost and an error that are no larger."""
    order = np.lexsort((errors, costs))
    least = np.minimum.accumulate(errors[order])
    return order[np.append(True, errors[order][1:] < least[:-1])]
