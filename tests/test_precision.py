"""Every product of matrices asks for full precision, which a CPU gives in any case and other devices do not."""

import re

import jax
import jax.numpy as jnp
import pytest
from matrices import REAL
from norm_cases import NORMS

import jaxnorms as jn

A = jnp.ones((90, 70), REAL)  # larger than what is multiplied as sums


def products(f, a=A):
    """How many products a program has, and how many of them ask for full precision."""
    text = str(jax.make_jaxpr(f)(a))
    return len(re.findall(r"\bdot_general\[", text)), text.count("precision=(Precision.HIGHEST, Precision.HIGHEST)")


def test_a_product_of_another_precision_is_seen():
    assert products(lambda a: a @ a.T) == (1, 0)


@pytest.mark.parametrize("name", NORMS)
def test_norms(name):
    norm = NORMS[name]
    asked, full = products(lambda a: (norm(a), jax.grad(norm)(a), jax.jvp(jax.grad(norm), (a,), (a,))[1]))
    assert asked == full


@pytest.mark.parametrize(
    ("norm", "method"),
    [
        (jn.spectral_norm, "svd"),
        (jn.spectral_norm, "krylov"),
        (jn.spectral_norm, "squaring"),
        (jn.nuclear_norm, "polar"),
        (lambda a, method: jn.schatten_norm(a, 4, method=method), "gram"),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_methods(norm, method):
    asked, full = products(lambda a: jax.value_and_grad(lambda a: norm(a, method=method))(a))
    assert asked == full > 0


MAPS = {
    "polar": jn.polar,
    "prox": lambda a: jn.prox(a, 1.0, "nuc"),
    "project": lambda a: jn.project(a, 1.0, "nuc"),
    "lmo": jn.lmo,
    "det": lambda a: jn.det(a[:70]),
    "charpoly": lambda a: jn.charpoly(a[:70]),
    "cond": jn.cond,
    "pinv": jn.pinv,
    "eigvalsh": lambda a: jn.eigvalsh(a[:70]),
    "matrix_sqrt": lambda a: jn.matrix_sqrt(a[:70]),
    "spectral_function": lambda a: jn.spectral_function(jnp.tanh, a),
    "truncated_svd": lambda a: jn.truncated_svd(a, 2),
    "tikhonov_solve": lambda a: jn.tikhonov_solve(a, jnp.ones(90, REAL), 1.0),
    "factored_nuclear_norm": lambda a: jn.factored_nuclear_norm(a, a.T),
    "condest": lambda a: jn.condest(a[:70]),
}


@pytest.mark.parametrize("name", MAPS)
def test_maps(name):
    def total(a):
        return sum(jnp.sum(x.real) for x in jax.tree.leaves(MAPS[name](a)))

    asked, full = products(jax.value_and_grad(total))
    assert asked == full > 0
