# `make demo` and `make test` need python3 and make only; everything else is installed into .venv.
PYTHON ?= python3
BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest -q -p no:cacheprovider
NOTEBOOKS := $(sort $(wildcard notebooks/*.ipynb))

.PHONY: demo test lint notebooks nightly bench clean

.venv/installed-%: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[$*]"
	touch $@

demo: .venv/installed-notebooks
	$(BIN)/python notebooks/run.py notebooks/01_regularisation.ipynb

notebooks: .venv/installed-notebooks
	$(BIN)/python notebooks/run.py $(NOTEBOOKS)

# Two processes, each on one core: 32-bit and 64-bit mode.
test: .venv/installed-test
	JAX_ENABLE_X64=0 $(PYTEST) -n 2
	JAX_ENABLE_X64=1 $(PYTEST) -n 2

lint: .venv/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

nightly: .venv/installed-test notebooks
	JAX_ENABLE_X64=0 $(PYTEST) -n 2 -m "slow or not slow"
	JAX_ENABLE_X64=1 $(PYTEST) -n 2 -m "slow or not slow"

bench: .venv/installed-benchmarks
	$(BIN)/python benchmarks/correctness.py
	$(BIN)/python benchmarks/speed.py

clean:
	rm -rf .venv build dist
