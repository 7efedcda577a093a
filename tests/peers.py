"""What the suites of the peers' own tests share: ours in their place, and the marks of what is expected to differ."""

import functools
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

X64 = jnp.result_type(float).itemsize == 8

Errors = type[BaseException] | tuple[type[BaseException], ...]


class Expected(NamedTuple):
    """What a peer's tests show with our functions besides passing; the id of a test is that within its module."""

    # Id, without its parameters for all of them -> the errors in which the test ends, and why.
    differences: Mapping[str, tuple[Errors, str]]
    # How ids begin -> why these tests are not run.
    left_out: Mapping[str, str]
    # Id of a test that asks for less than rounding, and so passes or not -> what it asks for.
    within_rounding: Mapping[str, str]


def as_numpy(function):
    """``function`` with every array of its result as a NumPy array or scalar."""

    @functools.wraps(function)
    def call(*args, **kwargs):
        return jax.tree.map(lambda x: np.asarray(x)[()], function(*args, **kwargs))

    return call


def id_of(item: pytest.Item) -> str:
    return item.nodeid.partition("::")[2]


def ids_below(collector) -> Iterator[str]:
    """The ids of all tests of a module or class, whichever of them this run has selected."""
    for node in collector.collect():
        if isinstance(node, pytest.Item):
            yield id_of(node)
        else:
            yield from ids_below(node)


def mark(request: pytest.FixtureRequest, expected: Expected) -> None:
    """Skips the test if it is left out, and marks it if it differs: then it fails unless it ends in these errors."""
    test = id_of(request.node)
    for beginning, reason in expected.left_out.items():
        if test.startswith(beginning):
            pytest.skip(f"left out: {reason}")
    for known in (test, test.partition("[")[0]):
        if known in expected.differences:
            errors, reason = expected.differences[known]
            request.applymarker(pytest.mark.xfail(raises=errors, reason=reason, strict=True))
        if known in expected.within_rounding:
            reason = f"within rounding: {expected.within_rounding[known]}"
            request.applymarker(pytest.mark.xfail(raises=AssertionError, reason=reason, strict=False))


def stale(request: pytest.FixtureRequest, expected: Expected) -> list[str]:
    """The entries that fit no test of the module, or only tests that are left out."""
    tests = list(ids_below(request.node.getparent(pytest.Module)))
    run = [test for test in tests if not test.startswith(tuple(expected.left_out))]
    known = {name for test in run for name in (test, test.partition("[")[0])}
    unknown = [test for test in (*expected.differences, *expected.within_rounding) if test not in known]
    return unknown + [start for start in expected.left_out if not any(test.startswith(start) for test in tests)]
