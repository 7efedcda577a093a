"""Scikit-learn's handwritten digits and a relu network that reads them."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from sklearn.datasets import load_digits

Params = list[dict[str, Array]]
CLASSES = 10


class Sample(NamedTuple):
    """Images ``(count, 64)`` with pixels in [0, 1], and their digits ``(count,)``."""

    x: Array
    y: Array

    def take(self, rows: Any) -> "Sample":
        """These rows of both."""
        return Sample(self.x[rows], self.y[rows])


def load(*sizes: int, seed: int = 0) -> list[Sample]:
    """Disjoint parts of ``sizes`` of the 1797 images, in a random order, and the part that is left."""
    data = load_digits()
    order = np.random.default_rng(seed).permutation(len(data.target))
    images, labels = data.data[order] / 16, data.target[order]
    ends = np.cumsum(sizes)
    parts = zip(np.split(images, ends), np.split(labels, ends), strict=True)
    return [Sample(jnp.asarray(x, jnp.float32), jnp.asarray(y)) for x, y in parts]


def network(key: Array, widths: tuple[int, ...]) -> Params:
    """The start of a network of these widths, input and output among them: Gaussian, of variance 2 / inputs."""
    return [
        {"w": jax.random.normal(k, (m, n)) * jnp.sqrt(2 / m), "b": jnp.zeros(n)}
        for k, m, n in zip(jax.random.split(key, len(widths) - 1), widths[:-1], widths[1:], strict=True)
    ]


def logits(params: Params, x: Array) -> Array:
    """The output ``(count, classes)`` of the network: ``relu(x W + b)`` by layers, the last one without relu."""
    for layer in params[:-1]:
        x = jax.nn.relu(x @ layer["w"] + layer["b"])
    return x @ params[-1]["w"] + params[-1]["b"]


def cross_entropy(params: Params, sample: Sample) -> Array:
    """The mean loss."""
    found = jax.nn.log_softmax(logits(params, sample.x))
    return -jnp.mean(jnp.take_along_axis(found, sample.y[:, None], axis=1))


def accuracy(params: Params, sample: Sample) -> Array:
    """The share of images read correctly."""
    return jnp.mean(jnp.argmax(logits(params, sample.x), axis=1) == sample.y)
