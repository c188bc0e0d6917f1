# `make demo` and `make test` need nothing but Python 3.11 or newer, and make.
PYTHON ?= python3
BIN := .venv/bin

export FLWR_TELEMETRY_ENABLED ?= 0
# The app runs in this environment; without this, Flower builds one of its own for every run.
export FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION = 1
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: demo devices-demo test faults lint install clean

demo: install
	flwr run . local --stream \
		--federation-config "num-supernodes=8 client-resources-num-cpus=1 init-args-num-cpus=4"

test: install
	$(BIN)/python -m pytest

# A server and three devices on this machine, by the commands of docs/devices.md.
devices-demo: install
	OMP_NUM_THREADS=1 $(BIN)/python -m simulations.rehearsal

# Attacks and faults, on real processes: a line for each.
faults: install
	$(BIN)/python -m pytest -m fault

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

install: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable ".[test]" --constraint constraints.txt
	touch $@

clean:
	rm -rf .venv runs
