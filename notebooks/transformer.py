"""A transformer of attention alone, and associative recall, a task that it needs two layers for."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

Params = dict[str, Any]


class Shape(NamedTuple):
    """Of a transformer on sequences of ``pairs`` keys with values, and the same pairs in another order."""

    pairs: int = 6
    symbols: int = 12
    width: int = 32
    heads: int = 4
    layers: int = 2

    @property
    def head(self) -> int:
        """Width of a head."""
        return self.width // self.heads

    @property
    def length(self) -> int:
        """Tokens of a sequence."""
        return 4 * self.pairs


def recall(key: Array, count: int, shape: Shape) -> Array:
    """Sequences ``(count, length)``: keys, all different, each with a value, and all pairs again, shuffled.

    Tokens below ``symbols`` are keys, those from there to ``2 symbols`` are values.
    """

    def one(key: Array) -> Array:
        first, second, third = jax.random.split(key, 3)
        keys = jax.random.permutation(first, shape.symbols)[: shape.pairs]
        values = shape.symbols + jax.random.randint(second, (shape.pairs,), 0, shape.symbols)
        pairs = jnp.stack([keys, values], axis=1)
        return jnp.concatenate([pairs, jax.random.permutation(third, pairs)]).ravel()

    return jax.vmap(one)(jax.random.split(key, count))


def start(key: Array, shape: Shape) -> Params:
    """Random parameters; ``q``, ``k``, ``v`` are ``(layers, heads, width, head)``, ``o`` is ``(..., head, width)``."""
    keys = iter(jax.random.split(key, 7))
    wide = (shape.layers, shape.heads, shape.width, shape.head)
    weights = {name: jax.random.normal(next(keys), wide) / shape.width**0.5 for name in "qkv"}
    narrow = jax.random.normal(next(keys), (*wide[:2], shape.head, shape.width)) / shape.width**0.5
    return weights | {
        "o": narrow,
        "tokens": jax.random.normal(next(keys), (2 * shape.symbols, shape.width)) * 0.5,
        "places": jax.random.normal(next(keys), (shape.length, shape.width)) * 0.5,
        "read": jax.random.normal(next(keys), (shape.width, 2 * shape.symbols)) / shape.width**0.5,
    }


def unit(x: Array) -> Array:
    """Tokens of length ``sqrt(width)``: what a normalisation without gains feeds to the layers."""
    return x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + 1e-6)


def apply(params: Params, tokens: Array, scale: float) -> tuple[Array, Array, Array]:
    """Of one sequence the predictions ``(length, 2 symbols)``, attention logits ``(layers, heads, length, length)``
    and normalised inputs ``(layers, length, width)`` of the layers; logits are ``q k / scale``."""
    x = params["tokens"][tokens] + params["places"]
    n = len(tokens)
    past = jnp.tril(jnp.ones((n, n), bool))
    seen, inputs = [], []
    for q, k, v, o in zip(*(params[name] for name in "qkvo"), strict=True):
        h = unit(x)
        logits = (h @ q) @ jnp.swapaxes(h @ k, -1, -2) / scale
        weights = jax.nn.softmax(jnp.where(past, logits, -jnp.inf))
        x = x + jnp.sum(weights @ (h @ v) @ o, axis=0)
        seen.append(jnp.where(past, logits, 0))
        inputs.append(h)
    return unit(x) @ params["read"], jnp.stack(seen), jnp.stack(inputs)


def answers(params: Params, tokens: Array, shape: Shape) -> tuple[Array, Array, Array, Array]:
    """Of sequences ``(count, length)`` the mean loss and accuracy at the repeated keys, logits and inputs."""
    found, logits, inputs = jax.vmap(lambda row: apply(params, row, shape.head**0.5))(tokens)
    asked = slice(2 * shape.pairs, None, 2)
    wanted, found = tokens[:, 2 * shape.pairs + 1 :: 2], jax.nn.log_softmax(found[:, asked])
    loss = -jnp.mean(jnp.take_along_axis(found, wanted[..., None], axis=-1))
    return loss, jnp.mean(jnp.argmax(found, axis=-1) == wanted), logits, inputs
