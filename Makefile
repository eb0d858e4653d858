# The commands to remember. Each one sets up what it needs; `make help` lists them.
SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Two processes share the tests, each with one thread: a test that converts holds about 2 GB.
WORKERS ?= 2
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(WORKERS)
# The newest release of larq-compute-engine has wheels for Python 3.10 to 3.12.
PYTHON ?= $(firstword $(foreach name,python3.11 python3.12 python3.10 python3,$(shell $(name) -c 'import sys; (3, 10) <= sys.version_info[:2] <= (3, 12) and print("$(name)")' 2>/dev/null)))

.DEFAULT_GOAL := help
.PHONY: help setup native demo test test-slow test-board check format bench digits-table models clean

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## make .venv with everything in it (about 4 GB)

$(READY): pyproject.toml
	@test -n "$(PYTHON)" || { echo "no Python 3.10, 3.11 or 3.12 found; install one, or say: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --editable ".[all]" --group dev
	@touch $@

# pip has built it; this is for sources that changed since. Without a compiler it says what it lacks.
NATIVE := bibench_deploy/targets/native
$(NATIVE)/libbibench_native.so: $(READY) $(NATIVE)/build.py $(wildcard $(NATIVE)/kernels/*)
	-$(BIN)/python -m bibench_deploy.targets.native

native: $(NATIVE)/libbibench_native.so ## build the library of the target native from its sources

demo: $(READY) native ## train, export, prove, lint, profile, report on real images; writes demo/
	$(BIN)/bibench demo

test: $(READY) native ## all tests that finish in minutes
	$(PYTEST) --dist loadfile

test-slow: $(READY) native ## the long tests: whole demo, large networks, bare installs, the report in Chromium
	$(PYTEST) --dist loadgroup -m slow

test-board: $(READY) ## an emulated aarch64 board over ssh (root, about five minutes)
	$(BIN)/python -m pytest -m board tests/board

check: $(READY) ## format, lint, types, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY) ## rewrite the sources as the formatter wants them
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(READY) ## measure the promises on speed and memory; prints figures, never fails
	$(BIN)/python -m benchmarks

digits-table: $(READY) ## train every algorithm on digits, three seeds; writes docs/digits-accuracy.md (about an hour)
	$(BIN)/python -m benchmarks.digits_table

models: $(READY) ## train the small checkpoints that models/ ships
	$(BIN)/python models/train_models.py

clean: ## remove the environment, the demo and caches; runs, exports and results stay
	rm -rf $(VENV) demo .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
