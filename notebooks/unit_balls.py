"""Symmetric 2 x 2 matrices as points of space: unit balls, their kinks, and the pictures of them.

The matrix [[x, z], [z, y]] is the point ((x - y) / sqrt 2, sqrt 2 z, (x + y) / sqrt 2): the Frobenius inner product of
two matrices is the scalar product of their points, and the multiples of the identity are the vertical axis.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from lab import BLUE, RED
from matplotlib.colors import to_rgb

AXES = "$(x-y)/\\sqrt{2}$", "$\\sqrt{2}\\,z$", "$(x+y)/\\sqrt{2}$"
BASIS = np.array([[[1, 0], [0, -1]], [[0, 1], [1, 0]], [[1, 0], [0, 1]]]) / np.sqrt(2)
SMOOTH, KINK = BLUE, RED


def matrices(points: Any) -> Array:
    """The symmetric matrices ``(..., 2, 2)`` of ``points`` (..., 3)."""
    return jnp.tensordot(jnp.asarray(points), BASIS, 1)


def points(a: Any) -> np.ndarray:
    """The points ``(..., 3)`` of matrices; of one that is not symmetric, that of its symmetric part."""
    return np.tensordot(np.asarray(a), BASIS, ((-2, -1), (1, 2)))


def sphere(steps: int = 72) -> np.ndarray:
    """Unit vectors ``(steps + 1, 2 steps + 1, 3)``: rows are parallels, columns are meridians."""
    theta, phi = np.linspace(0, np.pi, steps + 1)[:, None], np.linspace(0, 2 * np.pi, 2 * steps + 1)
    return np.stack([np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi), np.cos(theta) + 0 * phi], -1)


def box(steps: int = 72) -> np.ndarray:
    """Unit vectors as of :func:`sphere`, around the axis of z: the edges of the polyhedra are lines of this grid."""
    along, up, across = np.moveaxis(sphere(steps), -1, 0)
    phi = np.linspace(0, 2 * np.pi, 2 * steps + 1)
    largest = (np.abs(np.cos(phi)) + np.abs(np.sin(phi))) / np.sqrt(2)  # max(|x|, |y|) on the circle of the meridians
    directions = np.stack([along / largest, np.sqrt(2) * across, up / largest], -1)
    return directions / np.linalg.norm(directions, axis=-1, keepdims=True)


def unit_ball(norm: Callable[[Array], Array], directions: np.ndarray) -> np.ndarray:
    """The points of the unit sphere of ``norm`` in these directions."""
    values = jax.jit(jax.vmap(jax.vmap(norm)))(matrices(directions))
    return directions / np.asarray(values)[..., None]


def bend(norm: Callable[[Array], Array], directions: np.ndarray, step: float) -> np.ndarray:
    """The largest change of slope of ``norm`` over ``2 step``, of two tangents and the two between them.

    It is of the size of the step where the norm is smooth, and does not vanish with it at a kink.
    """
    a = np.cross(directions, np.array([0.48, 0.6, 0.64]))
    a /= np.linalg.norm(a, axis=-1, keepdims=True)
    b = np.cross(directions, a)
    tangents = np.stack([a, b, (a + b) / np.sqrt(2), (a - b) / np.sqrt(2)])
    nearby = jnp.asarray(directions + step * np.array([1, 0, -1])[:, None, None, None, None] * tangents)
    ahead, here, behind = jax.jit(jnp.vectorize(lambda x: norm(matrices(x)), signature="(d)->()"))(nearby)
    return np.asarray(jnp.max(ahead + behind - 2 * here, axis=0)) / step


def frame(axis: Any, title: str, reach: float) -> None:
    axis.set_title(title, fontsize=10, y=0.98)
    axis.set(xlim=(-reach, reach), ylim=(-reach, reach), zlim=(-reach, reach))
    axis.set(xticks=(-1, 0, 1), yticks=(-1, 0, 1), zticks=(-1, 0, 1))
    axis.set_xlabel(AXES[0], labelpad=-4, fontsize=9)
    axis.set_ylabel(AXES[1], labelpad=-4, fontsize=9)
    axis.set_zlabel(AXES[2], labelpad=-6, fontsize=9)
    axis.tick_params(pad=-2, labelsize=8)
    axis.set_box_aspect((1, 1, 1), zoom=1)
    axis.view_init(elev=20, azim=-58)


def draw_solid(axis: Any, surface: np.ndarray, kinks: np.ndarray) -> None:
    """The ball, lit from one side; the cells of the grid with a corner in ``kinks`` are painted as such."""
    cells = (slice(-1), slice(-1))
    down, along = surface[1:, 1:] - surface[cells], surface[1:, :-1] - surface[:-1, 1:]
    normal = np.cross(along, down)
    normal *= np.sign(np.sum(normal * surface[cells], axis=-1, keepdims=True))  # outwards
    length = np.linalg.norm(normal, axis=-1, keepdims=True)
    light = 0.75 + 0.35 * normal / np.maximum(length, 1e-30) @ np.array([-0.42, -0.45, 0.79])
    painted = kinks[cells] | kinks[1:, :-1] | kinks[:-1, 1:] | kinks[1:, 1:]
    colours = np.where(painted[..., None], to_rgb(KINK), to_rgb(SMOOTH)) * light[..., None]
    x, y, z = np.moveaxis(surface, -1, 0)
    style = {"shade": False, "antialiased": False, "linewidth": 0}
    axis.plot_surface(x, y, z, facecolors=np.clip(colours, 0, 1), rstride=1, cstride=1, **style)


def draw_glass(axis: Any, surface: np.ndarray) -> None:
    """The ball, to be looked through."""
    axis.plot_surface(*np.moveaxis(surface, -1, 0), rstride=2, cstride=2, color="0.6", alpha=0.13, linewidth=0)
