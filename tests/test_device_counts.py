"""Meshes of one, two, four and eight devices: the results of one, for shapes that the devices cannot share evenly too.

JAX refuses an uneven sharding of an argument or a result of a program, on every kind of mesh. On an automatic mesh a
user meets uneven shards inside a program, by a slice of an array that lies evenly or by ``with_sharding_constraint``:
both are taken, and the compiler pads. On an explicit mesh a slice, ``pad`` or ``reshard`` to such a shape raises; what
is left there is an uneven dimension that is not split, and ``jax.sharding.auto_axes``, inside of which the mesh is
automatic.
"""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from matrices import REAL, gaussian, prescribed, tolerance

import jaxnorms as jn

inf = float("inf")
MESHES = {1: ((1,), "x"), 2: ((2,), "x"), 4: ((2, 2), "xy"), 8: ((4, 2), "xy")}
# More than 128 rows and columns, for Krylov.
NORMS = [jn.Schatten(inf), jn.KyFan(3), jn.Schatten(1), jn.Schatten(4), jn.Entrywise(2), jn.Induced(1, 1)]
OF_BATCH = [jn.Schatten(1), jn.Mixed(2, 1)]
MATRIX = np.pad(prescribed(np.linspace(3, 1, 137), (264, 137), REAL), ((0, 0), (0, 7)))
BATCH = gaussian((16, 20, 12), REAL)
pytestmark = pytest.mark.skipif(jax.device_count() < 8, reason="needs 8 devices")
every_mesh = pytest.mark.parametrize(
    ("count", "kind"),
    [
        pytest.param(count, kind, id=f"{count}-{kind.name}")
        for count in MESHES
        for kind in (AxisType.Auto, AxisType.Explicit)
    ],
)


def mesh_of(count: int, kind: AxisType) -> jax.sharding.Mesh:
    shape, names = MESHES[count]
    return jax.make_mesh(shape, tuple(names), axis_types=(kind,) * len(shape), devices=jax.devices()[:count])


def with_gradients(norms, a, part):
    """Values and gradients with respect to all of ``a``, of norms of a part of it."""
    pairs = [jax.vjp(lambda a, norm=norm: norm(part(a)), a) for norm in norms]
    return [value for value, _ in pairs], [pullback(jnp.ones_like(value))[0] for value, pullback in pairs]


def results(a, batch, part=lambda a: a, some=lambda batch: batch):
    """Values, and then what lies as the matrix and as the batch do."""
    values, gradients = with_gradients(NORMS, a, part)
    of_batch, batched = with_gradients(OF_BATCH, batch, some)

    def whole(f):
        return jax.vjp(part, a)[1](f(part(a)))[0]  # zeros where the part is not

    near = [whole(lambda a: jn.prox(a, 1.5, "nuc")), whole(lambda a: jn.project(a, 2.0, "spectral"))]
    return [*values, *map(jnp.sum, of_batch)], [*gradients, *near], batched


def uneven(a, batch, sharding=None):
    def part(a):
        return a[:261, :137] if sharding is None else jax.lax.with_sharding_constraint(a[:261, :137], sharding)

    return results(a, batch, part, lambda batch: batch[:13])


@cache
def alone(run):
    return jax.jit(run)(MATRIX, BATCH)


def compare(run, expected, mesh: jax.sharding.Mesh, spec: P) -> None:
    x = jax.device_put(jnp.asarray(MATRIX), NamedSharding(mesh, spec))
    y = jax.device_put(jnp.asarray(BATCH), NamedSharding(mesh, P(mesh.axis_names)))
    there = jax.jit(run)(x, y)
    for norm, left, right in zip([*NORMS, *OF_BATCH], there[0], expected[0], strict=True):
        np.testing.assert_allclose(left, right, rtol=tolerance(REAL), err_msg=repr(norm))
    for source, left, right in ((x, there[1], expected[1]), (y, there[2], expected[2])):
        for i, (g, h) in enumerate(zip(left, right, strict=True)):
            np.testing.assert_allclose(np.asarray(g), h, atol=1e-8, err_msg=str(i))
            assert g.sharding.is_equivalent_to(source.sharding, g.ndim), (i, g.sharding)


@every_mesh
def test_even_shards(count, kind):
    mesh = mesh_of(count, kind)
    compare(results, alone(results), mesh, P(*mesh.axis_names))


@every_mesh
def test_uneven_rows_columns_and_batch(count, kind):
    """Of 264 x 144 evenly split the first 261 x 137, of 16 matrices 13."""
    mesh = mesh_of(count, kind)
    matrix, batch = P(*mesh.axis_names), P(mesh.axis_names)
    if kind == AxisType.Auto:
        run = partial(uneven, sharding=NamedSharding(mesh, matrix))
    else:
        out = tuple(NamedSharding(mesh, spec) for spec in (P(), matrix, batch))
        run = jax.sharding.auto_axes(uneven, out_sharding=out)
    compare(run, alone(uneven), mesh, matrix)


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit], ids=lambda kind: kind.name)
def test_jax_refuses_uneven_arguments(kind):
    """If this begins to fail, the test above can do without its slices."""
    mesh = mesh_of(8, kind)
    with pytest.raises(ValueError, match="divi"):
        jax.device_put(jnp.ones((261, 144), REAL), NamedSharding(mesh, P("x")))
