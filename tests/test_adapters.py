"""Layers of Flax NNX and Equinox, evaluated with weights of norm 1."""

from importlib.metadata import version

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matrices import COMPLEX, DTYPES, REAL, gaussian, prescribed, tolerance
from packaging.version import Version

import jaxnorms as jn

nnx = pytest.importorskip("flax.nnx", reason="the adapter of Flax needs it")
eqx = pytest.importorskip("equinox", reason="the adapter of Equinox needs it")
EqxNorm = pytest.importorskip("jaxnorms.adapters.equinox").SpectralNorm
adapter = pytest.importorskip("jaxnorms.adapters.nnx")
SpectralNorm, SpectralNormStat = adapter.SpectralNorm, adapter.SpectralNormStat

dtypes = pytest.mark.parametrize("dtype", [*DTYPES, np.dtype(jnp.bfloat16)], ids=str)
KEY = jax.random.key(0)
SPECTRUM = np.array([3.0, 1.5, 1.0])  # (1/2)^2 per step


def weight(dtype, seed=0):
    """``(5, 3)`` of norm 3."""
    wide = REAL if dtype == jnp.bfloat16 else dtype
    return jnp.asarray(prescribed(SPECTRUM, (5, 3), wide, seed)).astype(dtype)


def flax_linear(w, **options):
    layer = nnx.Linear(*w.shape, param_dtype=w.dtype, rngs=nnx.Rngs(0))
    layer.kernel[...] = w
    return SpectralNorm(layer, rngs=nnx.Rngs(1), **options)


def equinox_linear(w, **options):
    """Of the weight ``w^T``."""
    layer = eqx.nn.Linear(*w.shape, dtype=w.dtype, use_bias=False, key=KEY)
    layer = eqx.tree_at(lambda layer: layer.weight, layer, w.T)
    return eqx.nn.make_with_state(EqxNorm)(layer, key=KEY, **options)


def traced(function):
    """The function, and the list of its traces."""
    traces = []

    def counted(*args):
        traces.append(len(args))
        return function(*args)

    return counted, traces


def rows(dtype):
    return jnp.asarray(gaussian((4, 5), REAL, 1)).astype(dtype)


@dtypes
def test_the_output_is_that_of_the_normalised_weight(dtype):
    w, x = weight(dtype), rows(dtype)
    expected = np.asarray(x, COMPLEX) @ np.asarray(w, COMPLEX) / 3
    flax = flax_linear(w, n_steps=10)
    norm, state = equinox_linear(w, n_steps=10)
    y, _ = jax.vmap(norm, in_axes=(0, None), out_axes=(0, None))(x, state)
    rtol = tolerance(w.dtype, 4 if dtype == jnp.bfloat16 else 100)
    for found in (flax(x), y):
        assert found.dtype == dtype
        np.testing.assert_allclose(np.asarray(found, COMPLEX), expected, rtol=rtol, atol=rtol)
    np.testing.assert_array_equal(flax.layer.kernel[...], w)
    np.testing.assert_array_equal(norm.layer.weight, w.T)
    vectors = state.get(norm.index)
    assert flax.u[...].dtype == vectors.u.dtype == (jnp.float32 if dtype == jnp.bfloat16 else dtype)
    assert flax.residual[...] < tolerance(flax.u[...].dtype)


@pytest.mark.parametrize("n_steps", [1, None])
def test_exact_norms_and_blocks(n_steps):
    w, x = weight(REAL), rows(REAL)
    flax = flax_linear(w, n_steps=n_steps, block=2)
    norm, state = equinox_linear(w, n_steps=n_steps, block=2)
    for found in (flax(x), jax.vmap(norm, in_axes=(0, None), out_axes=(0, None))(x, state)[0]):
        np.testing.assert_allclose(found, x @ w / 3, atol=tolerance(REAL))
    assert flax.u.shape == (5, 2)


def test_a_zero_weight_gives_zeros_and_a_finite_gradient():
    w, x = jnp.zeros((5, 3), REAL), rows(REAL)
    flax = flax_linear(w)

    def loss(model, x):
        y = model(x)
        return jnp.sum(y * y + y), y

    grads, y = nnx.grad(loss, argnums=nnx.DiffState(0, nnx.Param), has_aux=True)(flax, x)
    np.testing.assert_array_equal(y, 0)
    assert np.all(np.isfinite(grads["layer"]["kernel"][...]))
    norm, state = equinox_linear(w)

    def loss_of(norm, state):
        y, _ = norm(x[0], state)
        return jnp.sum(y * y + y), y

    grads, y = eqx.filter_grad(loss_of, has_aux=True)(norm, state)
    np.testing.assert_array_equal(y, 0)
    assert np.all(np.isfinite(grads.layer.weight))


def targets(x):
    return jnp.sin(x @ jnp.asarray(gaussian((5, 3), REAL, 2)))


def test_flax_training_reaches_norm_one_in_one_program():
    model, x = flax_linear(weight(REAL)), rows(REAL)
    start = model.layer.kernel[...]

    def step(model, x, y):
        def loss(model):
            return jnp.mean((model(x) - y) ** 2)

        value, grads = nnx.value_and_grad(loss, argnums=nnx.DiffState(0, nnx.Param))(model)
        params = nnx.state(model, nnx.Param)
        nnx.update(model, jax.tree.map(lambda p, g: p - REAL.type(0.1) * g, params, grads))
        return value

    counted, traces = traced(step)
    step = nnx.jit(counted)
    losses = [step(model, x, targets(x)) for _ in range(100)]
    assert len(traces) == 1
    assert losses[-1] < losses[0]
    kernel = model.layer.kernel[...]
    assert jnp.max(jnp.abs(kernel - start)) > 1e-3
    model.layer.bias[...] = jnp.zeros(3)
    model.eval()
    normalised = nnx.jit(lambda model: model(jnp.eye(5)))(model)
    np.testing.assert_allclose(jn.spectral_norm(normalised), 1, atol=1e-3)
    np.testing.assert_allclose(normalised * jn.spectral_norm(kernel), kernel, atol=1e-2)


def test_equinox_training_reaches_norm_one_in_one_program():
    (model, state), x = equinox_linear(weight(REAL)), rows(REAL)
    start = model.layer.weight

    def step(model, state, x, y):
        def loss(model, state):
            out, state = jax.vmap(model, in_axes=(0, None), out_axes=(0, None))(x, state)
            return jnp.mean((out - y) ** 2), state

        (value, state), grads = eqx.filter_value_and_grad(loss, has_aux=True)(model, state)
        return eqx.apply_updates(model, jax.tree.map(lambda g: -REAL.type(0.1) * g, grads)), state, value

    counted, traces = traced(step)
    step = eqx.filter_jit(counted)
    losses = []
    for _ in range(100):
        model, state, value = step(model, state, x, targets(x))
        losses.append(value)
    assert len(traces) == 1
    assert losses[-1] < losses[0]
    assert jnp.max(jnp.abs(model.layer.weight - start)) > 1e-3
    evaluated = eqx.nn.inference_mode(model)
    normalised, _ = jax.vmap(evaluated, in_axes=(0, None), out_axes=(0, None))(jnp.eye(5), state)
    np.testing.assert_allclose(jn.spectral_norm(normalised), 1, atol=1e-3)


def test_flax_evaluation_leaves_the_state():
    model, x = flax_linear(weight(REAL)), rows(REAL)
    model.layer.kernel[...] = weight(REAL, 1)
    before = nnx.to_pure_dict(nnx.state(model, SpectralNormStat))

    def unchanged():
        after = nnx.to_pure_dict(nnx.state(model, SpectralNormStat))
        return all(bool(jnp.all(after[k] == before[k])) for k in before)

    y = model(x, update_stats=False)
    model.eval()
    np.testing.assert_array_equal(model(x), y)
    # Nothing is written, so other transformations than those of NNX may call it.
    np.testing.assert_allclose(jax.vmap(lambda x: model(x))(x), y, atol=tolerance(REAL))
    assert unchanged()
    model.train()
    model(x)
    assert not unchanged()


@pytest.mark.skipif(Version(version("flax")) < Version("0.12.4"), reason="views begin with Flax 0.12.4")
def test_flax_views_evaluate():
    model, x = flax_linear(weight(REAL)), rows(REAL)
    view = nnx.view(model, use_running_average=True)
    np.testing.assert_array_equal(view(x), model(x, update_stats=False))
    assert (view.use_running_average, model.use_running_average) == (True, False)


def test_equinox_evaluation_leaves_the_state():
    norm, state = equinox_linear(weight(REAL))
    norm, x = eqx.tree_at(lambda norm: norm.layer.weight, norm, weight(REAL, 1).T), rows(REAL)[0]
    before = state.get(norm.index)
    y, same = norm(x, state, inference=True)
    again, same = eqx.nn.inference_mode(norm)(x, same)
    np.testing.assert_array_equal(y, again)
    np.testing.assert_array_equal(same.get(norm.index).v, before.v)
    _, new = norm(x, same, key=KEY)
    assert np.any(new.get(norm.index).v != before.v)


def test_flax_state_splits_and_merges():
    model, x = flax_linear(weight(REAL)), rows(REAL)
    model(x)
    graph, params, stats = nnx.split(model, nnx.Param, SpectralNormStat)
    assert sorted(nnx.to_pure_dict(stats)) == ["residual", "u", "v"]
    assert sorted(nnx.to_pure_dict(params)["layer"]) == ["bias", "kernel"]
    model.eval()
    np.testing.assert_array_equal(nnx.merge(graph, params, stats)(x, update_stats=False), model(x))
    other = flax_linear(weight(REAL, 1))
    assert np.any(other(x) != model(x))
    nnx.update(other, nnx.state(model))
    np.testing.assert_array_equal(other(x, update_stats=False), model(x))


def test_equinox_state_is_serialised(tmp_path):
    model = equinox_linear(weight(REAL))
    x = rows(REAL)[0]
    _, state = model[0](x, model[1])
    eqx.tree_serialise_leaves(tmp_path / "model.eqx", (model[0], state))
    norm, state_read = eqx.tree_deserialise_leaves(tmp_path / "model.eqx", equinox_linear(weight(REAL, 1)))
    np.testing.assert_array_equal(norm(x, state_read)[0], model[0](x, state)[0])


def test_flax_stacks_of_layers():
    x = rows(REAL)[:, :3]

    @nnx.split_rngs(splits=4)
    @nnx.vmap
    def stack(rngs):
        return SpectralNorm(nnx.Linear(3, 3, use_bias=False, param_dtype=REAL, rngs=rngs), rngs=rngs, n_steps=30)

    @nnx.jit
    @nnx.scan(in_axes=(0, nnx.Carry), out_axes=nnx.Carry)
    def forward(layer, x):
        return layer(x)

    layers = stack(nnx.Rngs(0))
    layers.residual[...] = jnp.full(4, jnp.inf, REAL)
    y = forward(layers, x)
    for w in layers.layer.kernel[...]:
        x = x @ w / jn.spectral_norm(w)
    np.testing.assert_allclose(y, x, atol=1e-4)
    assert np.all(layers.residual[...] < 1e-3)


def test_equinox_in_a_sequence():
    w = weight(REAL)

    def model():
        layer = eqx.tree_at(lambda layer: layer.weight, eqx.nn.Linear(5, 3, key=KEY), w.T)
        return eqx.nn.Sequential([EqxNorm(layer, key=KEY), eqx.nn.Lambda(jnp.tanh)])

    norm, state = eqx.nn.make_with_state(model)()
    x = rows(REAL)[0]
    y, _ = norm(x, state)
    np.testing.assert_allclose(y, jnp.tanh(x @ w / 3 + norm.layers[0].layer.bias), atol=1e-5)


def test_flax_layers_with_other_kernels():
    """The norm is that of the linear map, whose matrix is that of its values on the unit vectors."""
    rngs = nnx.Rngs(0)
    layers = [
        (nnx.LinearGeneral((2, 3), (2, 2), axis=(-2, -1), use_bias=False, param_dtype=REAL, rngs=rngs), (2, 3)),
        (nnx.Einsum("nta,bac->ntbc", (2, 6, 2), param_dtype=REAL, rngs=rngs), (1, 6)),
    ]
    for layer, shape in layers:
        size = int(np.prod(shape))
        norm = SpectralNorm(layer, rngs=rngs, n_steps=None)
        map_of = norm(jnp.eye(size).reshape(size, *shape)).reshape(size, -1)
        np.testing.assert_allclose(jn.spectral_norm(map_of), 1, rtol=1e-5)
    embed = SpectralNorm(nnx.Embed(6, 4, param_dtype=REAL, rngs=rngs), parameter="embedding", n_steps=None, rngs=rngs)
    np.testing.assert_allclose(jn.spectral_norm(embed(jnp.arange(6))), 1, rtol=1e-5)


@pytest.mark.parametrize(
    ("padding", "size", "strides"),
    [("CIRCULAR", 3, 2), ("SAME", 4, None), ([(3, 0)], 3, (1,))],
    ids=str,
)
def test_flax_convolutions(padding, size, strides):
    rngs = nnx.Rngs(0)
    layer = nnx.Conv(2, 3, size, strides=strides, padding=padding, use_bias=False, param_dtype=REAL, rngs=rngs)
    norm = SpectralNorm(layer, rngs=rngs, input_shape=[8], n_steps=300, block=2)
    outputs = norm(jnp.eye(16, dtype=REAL).reshape(16, 8, 2)).reshape(16, -1)
    np.testing.assert_allclose(jn.spectral_norm(outputs), 1, rtol=1e-4)


@pytest.mark.parametrize(
    ("padding", "mode", "size", "stride"),
    [
        (1, "CIRCULAR", 3, 1),
        ([(3, 0)], "ZEROS", 3, 2),
        ("SAME_LOWER", "ZEROS", 4, 1),
    ],
    ids=str,
)
def test_equinox_convolutions(padding, mode, size, stride):
    layer = eqx.nn.Conv1d(2, 3, size, stride, padding, padding_mode=mode, use_bias=False, key=KEY)
    make = eqx.nn.make_with_state(EqxNorm)
    norm, state = make(layer, key=KEY, input_shape=[8], n_steps=300, block=2)
    inputs = jnp.eye(16).reshape(16, 2, 8)
    outputs, _ = jax.vmap(norm, in_axes=(0, None), out_axes=(0, None))(inputs, state)
    np.testing.assert_allclose(jn.spectral_norm(outputs.reshape(16, -1)), 1, rtol=1e-4)


def test_kernels_without_an_input_shape_are_matrices():
    conv = nnx.Conv(2, 3, (3, 3), padding="REFLECT", rngs=nnx.Rngs(0))
    norm = SpectralNorm(conv, rngs=nnx.Rngs(0), n_steps=None)
    x = jnp.asarray(gaussian((2, 5, 5, 2), np.dtype(np.float32)))
    sigma = jn.spectral_norm(conv.kernel[...].reshape(18, 3))
    np.testing.assert_allclose(norm(x), conv(x) / sigma, atol=1e-5)
    other = eqx.nn.Conv2d(2, 3, 3, use_bias=False, dtype=jnp.float32, key=KEY)
    other = eqx.tree_at(lambda layer: layer.weight, other, jnp.transpose(conv.kernel[...], (3, 2, 0, 1)))
    norm, state = eqx.nn.make_with_state(EqxNorm)(other, key=KEY, n_steps=None)
    x = jnp.moveaxis(x, -1, 1)[0]
    np.testing.assert_allclose(norm(x, state)[0], other(x) / sigma, atol=1e-5)


def test_other_variables_of_a_layer_are_updated():
    class Counted(nnx.Linear):
        def __init__(self):
            super().__init__(5, 3, param_dtype=REAL, rngs=nnx.Rngs(0))
            self.calls = nnx.Variable(jnp.zeros((), int))

        def __call__(self, x):
            self.calls[...] += 1
            return super().__call__(x)

    model = SpectralNorm(Counted(), rngs=nnx.Rngs(0))
    nnx.jit(lambda model, x: model(x))(model, rows(REAL))
    assert model.layer.calls[...] == 1


@pytest.mark.parametrize(
    ("layer", "options", "message"),
    [
        (lambda r: nnx.LayerNorm(3, rngs=r), {}, "parameter 'kernel'"),
        (lambda r: nnx.Linear(3, 3, rngs=r), {"parameter": "bias"}, "parameter 'bias'"),
        (lambda r: nnx.Linear(3, 3, rngs=r), {"block": 4}, "block"),
        (lambda r: nnx.Linear(3, 3, rngs=r), {"input_shape": (8,)}, "nnx.Conv, got Linear"),
        (lambda r: nnx.LinearGeneral(3, 3, batch_axis={0: 2}, rngs=r), {}, "batch_axis"),
        (lambda r: nnx.Einsum("hta,hab->htb", (2, 3, 3), rngs=r), {}, "einsum_str"),
        (lambda r: nnx.Conv(2, 2, 3, padding="CAUSAL", rngs=r), {"input_shape": (8,)}, "padding"),
        (lambda r: nnx.Conv(2, 2, 3, padding="REFLECT", rngs=r), {"input_shape": (8,)}, "padding"),
        (lambda r: nnx.Conv(2, 2, 3, kernel_dilation=2, rngs=r), {"input_shape": (8,)}, "kernel_dilation"),
        (lambda r: nnx.Conv(2, 2, 3, input_dilation=2, rngs=r), {"input_shape": (8,)}, "input_dilation"),
        (lambda r: nnx.Conv(2, 2, 3, feature_group_count=2, rngs=r), {"input_shape": (8,)}, "feature_group_count"),
        (lambda r: nnx.Conv(2, 2, 3, mask=jnp.ones((3, 2, 2)), rngs=r), {"input_shape": (8,)}, "mask"),
    ],
)
def test_flax_errors(layer, options, message):
    with pytest.raises(ValueError, match=message):
        SpectralNorm(layer(nnx.Rngs(0)), rngs=nnx.Rngs(0), **options)


@pytest.mark.parametrize(
    ("layer", "options", "message"),
    [
        (lambda: eqx.nn.LayerNorm(3), {}, "weight_name 'weight'"),
        (lambda: eqx.nn.Linear(3, 3, key=KEY), {"weight_name": "in_features"}, "weight_name 'in_features'"),
        (lambda: eqx.nn.Linear(3, 3, key=KEY), {"input_shape": (8,)}, "eqx.nn.Conv, got Linear"),
        (lambda: eqx.nn.Conv1d(2, 2, 3, dilation=2, key=KEY), {"input_shape": (8,)}, "dilation"),
        (lambda: eqx.nn.Conv1d(2, 2, 3, groups=2, key=KEY), {"input_shape": (8,)}, "groups"),
        (lambda: eqx.nn.Conv1d(2, 2, 3, padding_mode="REFLECT", key=KEY), {"input_shape": (8,)}, "padding_mode"),
        (
            lambda: eqx.nn.Conv1d(2, 2, 3, padding=2, padding_mode="CIRCULAR", key=KEY),
            {"input_shape": (8,)},
            "circular padding",
        ),
    ],
)
def test_equinox_errors(layer, options, message):
    with pytest.raises(ValueError, match=message):
        EqxNorm(layer(), key=KEY, **options)
