# `make demo` and `make test` need Python >= 3.11 and make, nothing else.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
PYTEST := $(BIN)/python -m pytest -n 2

.PHONY: help env demo test slow lint check clean

help:
	@echo "make demo    train a small SAGAN on real digits and show where the pictures are"
	@echo "make test    run the test suite"
	@echo "make check   test, slow tests, linter, formatter's check, types: what CI runs"
	@echo "make clean   remove the environment and everything made"

# Made anew when what is installed changes; otherwise reused.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "gankit needs Python 3.11 or newer; try: make PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	  --constraint constraints.txt --editable '.[digits,dev]'
	@touch $@

env: $(READY)

demo: env
	$(BIN)/gankit train quickstart_digits

test: env
	$(PYTEST) -m "not slow"

slow: env
	$(BIN)/python -m pytest -m slow

lint: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy benchmarks  # by itself, as both it and examples/ have a by_hand.py

check: lint test slow

clean:
	rm -rf $(VENV) build dist .pytest_cache .hypothesis .mypy_cache .ruff_cache
