"""The peers of jaxnorms: value and gradient of one norm each, or leading singular values.

A peer that is not installed is a named gap: ``None`` in its place.
"""

import importlib
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Run = Callable[[], Any]


def installed(name: str) -> Any:
    """The module, or None."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def version(name: str) -> str:
    """Name and version of a peer, or that it is missing."""
    module = installed(name)
    return f"{name} not installed" if module is None else f"{name} {getattr(module, '__version__', '?')}"


def first(f: Callable[[jax.Array], jax.Array]) -> Callable:
    """Value and gradient of the sum of ``f`` over the batch."""
    return jax.value_and_grad(lambda x: jnp.sum(f(x)))


def jnp_norm(ord: str | int) -> Callable:
    """Value and gradient by ``jnp.linalg.norm``."""
    return first(partial(jnp.linalg.norm, ord=ord, axis=(-2, -1)))


def torch_norm(ord: str | int, x: np.ndarray) -> Run | None:
    """Value and gradient by ``torch.linalg.matrix_norm``, on an accelerator if torch sees one."""
    torch = installed("torch")
    if torch is None:
        return None
    device = "cuda" if torch.cuda.is_available() and jax.default_backend() == "gpu" else "cpu"
    a = torch.from_numpy(np.array(x)).to(device).requires_grad_(True)

    def run() -> Any:
        a.grad = None
        value = torch.linalg.matrix_norm(a, ord=ord).sum()
        value.backward()
        if device == "cuda":
            torch.cuda.synchronize()
        return value

    return run


def scipy_svds(x: np.ndarray, k: int) -> Callable[[], np.ndarray] | None:
    """``scipy.sparse.linalg.svds``, by ARPACK, to the working precision."""
    scipy = installed("scipy.sparse.linalg")
    if scipy is None:
        return None
    return lambda: np.sort(scipy.svds(x, k=k, random_state=0)[1])[::-1]


def sklearn_randomized(x: np.ndarray, k: int, n_iter: int) -> Callable[[], np.ndarray] | None:
    """``sklearn.utils.extmath.randomized_svd`` with so many power iterations."""
    extmath = installed("sklearn.utils.extmath")
    if extmath is None:
        return None
    return lambda: extmath.randomized_svd(x, k, n_iter=n_iter, random_state=0)[1]


def matfree_partial(x: jax.Array, k: int, steps: int) -> Callable[[], np.ndarray] | None:
    """``matfree.eig.svd_partial`` of so many Golub-Kahan steps, fully reorthogonalised."""
    decomp, eig = installed("matfree.decomp"), installed("matfree.eig")
    if decomp is None or eig is None:
        return None
    svd = eig.svd_partial(decomp.bidiag(steps, reortho="full"))
    start = jax.random.normal(jax.random.key(0), (x.shape[1],), x.dtype)
    program = jax.jit(lambda a, v: svd(lambda y: a @ y, v)[1])
    return lambda: np.sort(np.asarray(program(x, start)))[::-1][:k]


def optax_power_iteration(x: jax.Array, steps: int) -> Run | None:
    """``optax.power_iteration`` of the Gram matrix, as a value of the spectral norm without a gradient."""
    optax = installed("optax")
    if optax is None:
        return None
    run = jax.jit(lambda a: jnp.sqrt(optax.power_iteration(a.T @ a, num_iters=steps, error_tolerance=1e-6)[0]))
    return lambda: run(x)


def optax_newton_schulz(x: jax.Array, more: int = 0) -> Run | None:
    """Muon's five Newton-Schulz steps, and some of the kind that converges."""
    muon = installed("optax.contrib._muon")
    if muon is None:
        return None
    steps = jnp.array([(3.4445, -4.7750, 2.0315)] * 5 + [(15 / 8, -10 / 8, 3 / 8)] * more)
    run = jax.jit(lambda a: muon.orthogonalize_via_newton_schulz(a, steps))
    return lambda: run(x)
