"""``__all__`` is exactly the public surface, and everything in it is documented with an example."""

import inspect
import subprocess
import sys

import pytest

import jaxnorms


def test_all_is_the_public_surface():
    modules = {name for name, value in vars(jaxnorms).items() if inspect.ismodule(value)}
    public = {name for name in vars(jaxnorms) if not name.startswith("_")} - modules
    assert sorted(public) == jaxnorms.__all__


@pytest.mark.parametrize("name", jaxnorms.__all__)
def test_documented_with_an_example(name):
    documentation = inspect.getdoc(getattr(jaxnorms, name))
    assert documentation
    assert ">>> " in documentation
    assert len(documentation.splitlines()[0]) <= 120


def test_run_time_imports_are_jax_and_numpy_alone():
    """Importing the package pulls in no optional extra."""
    code = "import jax, sys; before = set(sys.modules); import jaxnorms; print(*set(sys.modules) - before)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert {name.split(".")[0] for name in loaded} - set(sys.stdlib_module_names) <= {
        "jaxnorms",
        "jax",
        "jaxlib",
        "numpy",
    }
