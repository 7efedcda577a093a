"""The first steps of the long run of ``evidence/soak.py``, and that it would see what it looks for."""

import mmap

import jax
import jax.numpy as jnp
import soak


def test_nothing_is_compiled_twice_and_nothing_grows():
    found = soak.run(4 * len(soak.PENALTIES))
    assert found.good, found
    assert found.compiled[0] >= found.penalties
    assert found.met_at_zero > 1


def test_faults_are_seen(monkeypatch):
    """A program for each call, arrays and memory that are kept, and a NaN."""
    kept = []

    def anew(params, *_):
        pages = mmap.mmap(-1, 2**20)  # new ones: of what the process has freed before, an array could be made
        pages.write(bytes(2**20))
        kept.append((jnp.zeros(1), pages))
        return params, jax.jit(lambda w: jnp.sum(w) * jnp.nan)(params["first"])

    monkeypatch.setattr(soak, "step", anew)
    found = soak.run(100)
    assert found.compiled[1] > found.compiled[0]
    assert found.arrays[1] > found.arrays[0]
    assert found.not_finite == 100
    assert found.memory[1] > found.memory[0] + 10 or not soak.STATUS.exists()
    assert not found.good
