# `make demo` and `make test` need python3 and make only; everything else is installed into .venv.
PYTHON ?= python3
BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest -q -p no:cacheprovider
NOTEBOOKS := $(sort $(wildcard notebooks/*.ipynb))
QUICKEST := notebooks/07_complex_spectra.ipynb notebooks/11_subgradients.ipynb

.PHONY: demo test test-versions test-newest test-peers mutations evidence lint notebooks notebooks-quickest docs nightly
.PHONY: bench clean

.venv/installed-%: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[$*]"
	touch $@

demo: .venv/installed-notebooks
	$(BIN)/python notebooks/run.py notebooks/01_regularisation.ipynb

notebooks: .venv/installed-notebooks
	$(BIN)/python notebooks/run.py $(NOTEBOOKS)

notebooks-quickest: .venv/installed-notebooks
	$(BIN)/python notebooks/run.py $(QUICKEST)

# 32-bit and 64-bit mode, on two cores each. Compilation is most of the time, so it does not optimise
# here, which also shows whether anything relies on it; `make nightly` runs what users run. On the 8 devices
# of the tests, which share two cores, LAPACK's own threads would only wait for each other.
test test-peers: export OPENBLAS_NUM_THREADS = 1
test test-peers: export XLA_FLAGS = --xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true
test: .venv/installed-test
	JAX_ENABLE_X64=0 $(PYTEST) -n 2
	JAX_ENABLE_X64=1 $(PYTEST) -n 2

# The suite on other versions of Python and JAX, with the interpreters that are there.
test-versions: .venv/installed-test
	$(BIN)/python tests/evidence/versions.py

test-newest: .venv/installed-test
	$(BIN)/python tests/evidence/versions.py --only newest --quick

# The samples that torch has for its own functions; those of NumPy, SciPy and Optax are part of `make test`.
test-peers: .venv/installed-test .venv/installed-peers
	JAX_ENABLE_X64=1 $(PYTEST) tests/test_torch_samples.py

# Deliberate faults, and the test that catches each.
mutations: .venv/installed-test
	$(BIN)/python tests/evidence/mutations.py

# All of docs/evidence.md.
evidence: test-versions mutations .venv/installed-peers .venv/installed-release
	$(BIN)/python tests/evidence/suites.py
	$(BIN)/python tests/evidence/soak.py
	$(BIN)/python tests/evidence/release.py

lint: .venv/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

# The site, in build/site; warnings are errors.
docs: export NO_MKDOCS_2_WARNING = 1
docs: .venv/installed-docs
	$(BIN)/mkdocs build --strict --quiet

nightly: evidence notebooks
	JAX_ENABLE_X64=0 $(PYTEST) -n 2 -m "slow or not slow"
	JAX_ENABLE_X64=1 $(PYTEST) -n 2 -m "slow or not slow"

# The threads of a peer would go on spinning, on the cores of whatever is timed next.
bench: export OMP_WAIT_POLICY = PASSIVE
bench: export KMP_BLOCKTIME = 0
bench: .venv/installed-benchmarks
	$(BIN)/python benchmarks/correctness.py --update README.md
	$(BIN)/python benchmarks/geometry_oracles.py
	$(BIN)/python benchmarks/speed.py
	$(BIN)/python benchmarks/scale.py
	$(BIN)/python benchmarks/mesh.py
	$(BIN)/python benchmarks/geometry.py
	$(BIN)/python benchmarks/training.py
	$(BIN)/python benchmarks/factored.py
	OPENBLAS_NUM_THREADS=1 $(BIN)/python benchmarks/audit.py
	OPENBLAS_NUM_THREADS=1 $(BIN)/python benchmarks/digits.py

clean:
	rm -rf .venv .venv-versions build dist
