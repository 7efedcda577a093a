"""Optax's own tests of clipping, of projections onto balls and of norms of trees, run against this package.

The test classes are Optax's, unedited: for the time of a test, a fixture puts ours where they look for Optax's.
``clip_by_global_norm`` is the same function; the other clippings are this one of single leaves or examples, or the
projection onto a ball, and a ball of trees is that of all entries as one column. Optax's tests are written for JAX's
own rules of promotion, which hold here.

What must differ stands in ``peer_differences``, with the errors it ends in and the reason, and so does what is not
about a function of ours; whatever else fails is a bug. The summary of pytest counts them as passed, xfailed, skipped.
"""

import re
from math import inf

import jax
import jax.numpy as jnp
import pytest
from jax.flatten_util import ravel_pytree
from peer_differences import OPTAX
from peers import mark, stale

import jaxnorms as jn

optax = pytest.importorskip("optax")
REASON = "this Optax comes without its tests, or what they import is not there"
clipping_tests = pytest.importorskip("optax.transforms._clipping_test", reason=REASON, exc_type=ImportError)
projection_tests = pytest.importorskip("optax.projections._projections_test", reason=REASON, exc_type=ImportError)
muon_tests = pytest.importorskip("optax.contrib._muon_test", reason=REASON, exc_type=ImportError)
tree_tests = pytest.importorskip("optax.tree_utils._tree_math_test", reason=REASON, exc_type=ImportError)

# The functions that are replaced.


def tree_norm(tree, ord=2):
    return jn.vector_norm(ravel_pytree(tree)[0], ord=inf if ord in ("inf", "infinity") else ord)


def ball(p):
    """The projection of a tree onto an l_p ball."""

    def project(tree, scale=1.0):
        entries, restored = ravel_pytree(tree)
        return restored(jn.project(entries[:, None], scale, jn.Entrywise(p))[:, 0])

    return project


def stateless(clip):
    """The gradient transformation whose update is ``clip(updates, bound)``."""
    return lambda bound: optax.stateless(lambda updates, _: clip(updates, bound))


def by_leaf(clip):
    return lambda updates, bound: jax.tree.map(lambda x: clip(x, bound), updates)


def clip_by_rms(x, bound):
    return jn.clip_by_global_norm(x, bound * x.size**0.5)


def unitwise_norm(x, axis=None):
    if axis is None:
        if x.ndim > 5:
            raise ValueError("an array of this rank has no units")
        axis = (None, None, 0, 0, (0, 1, 2), (0, 1, 2, 3))[x.ndim]
    return jnp.broadcast_to(jn.vector_norm(x, axis=axis, keepdims=True), x.shape)


def per_example_global_norm_clip(grads, l2_norm_clip):
    grads = jax.tree.map(lambda x: x.astype(jnp.result_type(float)), grads)
    clipped = jax.vmap(lambda g: jn.clip_by_global_norm(g, l2_norm_clip))(grads)
    changed = [jnp.any(x != y, range(1, x.ndim)) for x, y in zip(grads, clipped, strict=True)]
    return [x.sum(0) for x in clipped], jnp.sum(jnp.any(jnp.stack(changed), 0))


def per_example_layer_norm_clip(grads, global_l2_norm_clip, uniform=True):
    total = sum(x[0].size for x in grads)
    shares = [1 / len(grads) if uniform else x[0].size / total for x in grads]
    results = [
        per_example_global_norm_clip([x], global_l2_norm_clip * share**0.5)
        for x, share in zip(grads, shares, strict=True)
    ]
    return [x for (x,), _ in results], [count for _, count in results]


def orthogonalize(x, *_args, **_kwargs):
    return jn.polar(x)[0]


@pytest.fixture(autouse=True)
def our_functions(request, monkeypatch):
    """Ours in the place of Optax's, and the mark of a test that is known to differ."""
    clipping, projections = clipping_tests._clipping, projection_tests.proj
    monkeypatch.setattr(clipping, "clip_by_global_norm", stateless(jn.clip_by_global_norm))
    monkeypatch.setattr(clipping, "clip", stateless(by_leaf(ball(inf))))
    monkeypatch.setattr(clipping, "clip_by_block_rms", stateless(by_leaf(clip_by_rms)))
    monkeypatch.setattr(clipping, "unitwise_norm", unitwise_norm)
    monkeypatch.setattr(clipping, "per_example_global_norm_clip", per_example_global_norm_clip)
    monkeypatch.setattr(clipping, "per_example_layer_norm_clip", per_example_layer_norm_clip)
    for p, name in ((1, "l1"), (2, "l2"), (inf, "linf")):
        monkeypatch.setattr(projections, f"projection_{name}_ball", ball(p))
    monkeypatch.setattr(muon_tests._muon, "orthogonalize_via_newton_schulz", orthogonalize)
    monkeypatch.setattr(optax.tree, "norm", tree_norm)
    monkeypatch.setattr(tree_tests.tu, "tree_norm", tree_norm)
    mark(request, OPTAX)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


class TestClipping(clipping_tests.ClippingTest):
    pass


class TestProjections(projection_tests.ProjectionsTest):
    pass


def about(cases, names):
    """The test class ``cases`` of Optax with these tests alone: the others are of other functions."""
    others = [name for name in dir(cases) if name.startswith("test") and not re.match(names, name)]
    return type(cases.__name__, (cases,), dict.fromkeys(others))


class TestTrees(about(tree_tests.TreeUtilsTest, "test_tree_l(1|2|inf)_norm")):
    pass


class TestMuon(about(muon_tests.MuonTest, "test_(newton_schulz|orthogonality|muon_orthogonalization_modes)")):
    pass


class TestBehindDifferences:
    """Our own: no test of Optax has a part behind a difference, but the table is ours."""

    def test_every_entry_is_of_a_test(self, request):
        assert not stale(request, OPTAX)
