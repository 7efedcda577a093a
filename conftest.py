"""Settings of the whole suite. JAX_ENABLE_X64 chooses the working precision: run it with 0 and 1."""

import itertools

import jax
import pytest

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_num_cpu_devices", 8)

# The doctests and the site print float32 results, the soak is in 32 bits; what precision does not touch runs in double
# precision alone.
ONCE = (
    "adapters",
    "adversarial_training",
    "arguments",
    "audit",
    "bad_input",
    "bad_values",
    "charpoly",
    "checkpoints",
    "comparison",
    "convolution",
    "device_counts",
    "eigenvalues",
    "evidence",
    "inequalities",
    "notebooks",
    "operator_arguments",
    "operators",
    "perturbation",
    "phonons",
    "processes",
    "projection_oracles",
    "scipy_suite",
    "shard_map",
    "tikhonov",
    "torch_samples",
    "transformations",
    "user_gauge",
)
# The least that another version of Python or JAX must pass (``-m quick``): what touches most of JAX in little time.
QUICK = (
    "test_adapters.py",
    "test_contract.py",
    "test_learning.py",
    "test_mesh.py",
    "test_norm_objects.py",
    "test_operators.py",
    "test_public_api.py",
    "test_shard_map.py",
    "test_subgradients.py",
    "test_transforms.py",
)
SINGLE = ["jaxnorms/*", "tests/test_docs.py", "tests/test_soak.py"]
collect_ignore_glob = SINGLE if jax.config.jax_enable_x64 else [f"tests/test_{name}.py" for name in ONCE]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.name in QUICK:
            item.add_marker(pytest.mark.quick)


_tests = itertools.count(1)


@pytest.fixture(autouse=True)
def _few_programs():
    """Every compiled program holds about ten memory maps, of which a process may have 65530: the suite has more."""
    yield
    if next(_tests) % 64 == 0:
        jax.clear_caches()
