# `make demo` and `make test` do all the set-up. PYTHON chooses the interpreter (3.10 to 3.13).
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
# Two, as the promised times are for two cores; WORKERS= runs the tests one after the other.
WORKERS ?= --numprocesses=2

.DEFAULT_GOAL := help
.PHONY: help demo test lint unit bench clean

help:
	@echo "make demo   install, then compress, prove, publish and serve the example"
	@echo "make test   install, then all checks and tests"
	@echo "make lint   install, then only the checks"
	@echo "make unit   install, then only the tests that start no server and no compiler"
	@echo "make bench  install, then the benchmarks (needs torch; see benchmarks/README.md)"
	@echo "make clean  remove what the other targets made here"

demo: $(VENV)/.demo
	$(BIN)/python examples/fashion/demo.py

test: lint
	$(BIN)/python -m pytest $(WORKERS)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@if $(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then \
	    echo $(BIN)/mypy; $(BIN)/mypy; \
	else \
	    echo "mypy is left out: numpy's type stubs, complete since 2.4, need Python 3.11"; \
	fi
	$(BIN)/lint-imports

unit: $(VENV)/.dev
	$(BIN)/python -m pytest $(WORKERS) -m "not server and not rtx"

bench: $(VENV)/.dev
	$(BIN)/python -m pip install --quiet --requirement benchmarks/requirements.txt
	$(BIN)/python benchmarks/compress.py
	$(BIN)/python benchmarks/serve.py

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	rm -rf examples/fashion/runs
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamps hold the installation: made again only when pyproject.toml changes.
$(VENV)/.demo: pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[triton,rtx]'
	@touch $@

$(VENV)/.dev: pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@ $(VENV)/.demo
