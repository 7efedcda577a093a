"""Spectral normalisation of the discriminator of a GAN and of the critic of a WGAN, through their training."""

import jax
import jax.numpy as jnp
import numpy as np
from dense_convolution import true_norm
from matrices import REAL, gaussian

import jaxnorms as jn

# The layers of a critic of 8 x 8 images with one bright spot, and how they are normalised.
CONVOLUTION = {"input_shape": (8, 8), "padding": "SAME"}
CRITIC = {"conv1": CONVOLUTION, "conv2": CONVOLUTION, "dense": {}}
BLOCKS = {"conv1": 8, "conv2": 8, "dense": 2}
STEPS = 4


def real_images(key, count):
    centre = jax.random.uniform(key, (count, 2, 1), REAL, 2, 6)
    rows = jnp.exp(-jnp.square(jnp.arange(8, dtype=REAL)[None, None] - centre) / 2)
    return (2 * rows[:, 0, :, None] * rows[:, 1, None, :] - 1)[..., None]


def critic(weights, x):
    """1-Lipschitz but for the weights: activations, half the sums of 2 x 2 squares, the mean of 4 features times 2."""
    for name in ("conv1", "conv2"):
        y = jax.lax.conv_general_dilated(x, weights[name], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        x = jax.nn.leaky_relu(y, 0.1)
    x = jnp.sum(x.reshape(-1, 4, 2, 4, 2, 4), axis=(2, 4)) / 2
    return jnp.sum(x.reshape(len(x), -1) @ weights["dense"], axis=1) / 2


def generator(weights, z):
    hidden = jax.nn.relu(z @ weights["in"])
    return jnp.tanh(hidden @ weights["out"]).reshape(-1, 8, 8, 1)


def normalised(params, states):
    pairs = {name: jn.spectral_normalize(params[name], states[name], n_steps=STEPS, **CRITIC[name]) for name in params}
    return {name: pair[0] for name, pair in pairs.items()}, {name: pair[1] for name, pair in pairs.items()}


def norms(weights):
    return {
        name: true_norm(np.asarray(w), **CRITIC[name]) if w.ndim > 2 else np.linalg.norm(w, 2)
        for name, w in weights.items()
    }


def adam(params, slopes, memory, rate):
    """One step with decays 0.5 and 0.999; ``memory``: means of slopes, of squares, and the number of the step."""
    mean, square, count = memory
    mean = jax.tree.map(lambda m, g: 0.5 * m + 0.5 * g, mean, slopes)
    square = jax.tree.map(lambda s, g: 0.999 * s + 0.001 * g * g, square, slopes)
    left = 1 - jnp.power(REAL.type(0.5), count), 1 - jnp.power(REAL.type(0.999), count)

    def moved(p, m, s):
        return p - rate * (m / left[0]) / (jnp.sqrt(s / left[1]) + 1e-8)

    return jax.tree.map(moved, params, mean, square), (mean, square, count + 1)


def trained(loss, rate, chunks):
    """The normalised weights in use after each 50 steps of adversarial training, by one program."""
    shapes = {"conv1": (3, 3, 1, 4), "conv2": (3, 3, 4, 4), "dense": (64, 4)}
    params = {name: jnp.asarray(gaussian(shape, REAL, 1) / 9) for name, shape in shapes.items()}
    makers = {"in": jnp.asarray(gaussian((4, 16), REAL) / 2), "out": jnp.asarray(gaussian((16, 64), REAL) / 4)}
    keys = jax.random.split(jax.random.key(0), chunks + 1)
    starts = zip(params, jax.random.split(keys[0], 3), strict=True)
    states = {
        name: jn.init_spectral_norm(key, params[name], block=BLOCKS[name], **CRITIC[name]) for name, key in starts
    }

    def step(carry, key):
        params, makers, states, memory = carry
        data, noise = jax.random.split(key)
        real, z = real_images(data, 8), jax.random.normal(noise, (8, 4), REAL)

        def objective(params):
            weights, new = normalised(params, states)
            return loss(critic(weights, real), critic(weights, generator(makers, z))), (weights, new)

        slope, (weights, new) = jax.grad(objective, has_aux=True)(params)
        back = jax.grad(lambda makers: -jnp.mean(critic(weights, generator(makers, z))))(makers)
        (params, makers), memory = adam((params, makers), (slope, back), memory, rate)
        return (params, makers, new, memory), weights

    # One program for hundreds of steps is worth optimising, which the suite else does without.
    fast = {"xla_backend_optimization_level": 3, "xla_llvm_disable_expensive_passes": False}
    run = jax.jit(lambda carry, key: jax.lax.scan(step, carry, jax.random.split(key, 50)), compiler_options=fast)
    zeros = jax.tree.map(jnp.zeros_like, (params, makers))
    carry, used = (params, makers, states, (zeros, zeros, jnp.ones((), REAL))), []
    for key in keys[1:]:
        carry, weights = run(carry, key)
        used.append(jax.tree.map(lambda w: w[-1], weights))
    assert run._cache_size() == 1
    return used


def test_gan_discriminator_has_norm_one():
    """500 steps of the hinge loss: every layer of norm 1 to 1e-3, from the 50th step on."""

    def hinge(real, made):
        return jnp.mean(jax.nn.relu(1 - real)) + jnp.mean(jax.nn.relu(1 + made))

    for weights in trained(hinge, 2e-4, 10):
        for name, size in norms(weights).items():
            assert abs(size - 1) <= 1e-3, name


def test_wgan_critic_is_below_its_lipschitz_bound():
    """200 steps: no gradient and no secant exceeds the product of the norms, and some come near."""
    slopes = jax.jit(jax.vmap(jax.grad(lambda x, weights: critic(weights, x[None])[0]), in_axes=(0, None)))
    key = jax.random.key(1)
    points = jnp.concatenate([real_images(key, 64), jax.random.normal(key, (64, 8, 8, 1), REAL)])
    near = points + REAL.type(0.01) * jax.random.normal(jax.random.key(2), points.shape, REAL)
    for weights in trained(lambda real, made: jnp.mean(made) - jnp.mean(real), 2e-4, 4):
        lengths = np.linalg.norm(np.asarray(slopes(points, weights)).reshape(128, -1), axis=1)
        values = np.asarray(critic(weights, jnp.concatenate([points, near])))
        secants = [abs(values[128:] - values[:128]) / np.linalg.norm((near - points).reshape(128, -1), axis=1)]
        pairs = np.linalg.norm((points[:, None] - points[None]).reshape(128, 128, -1), axis=2) + np.eye(128)
        secants.append(np.max(abs(values[:128, None] - values[:128]) / pairs, axis=1))
        measured = max(np.max(lengths), *map(np.max, secants))
        assert 0.05 < measured <= (1 + 1e-3) ** 3
