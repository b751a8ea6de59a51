# make demo   the main job, on a toy Kinetics            make test      the tests (under 12 minutes on 2 cores)
# make lint   ruff        make types  mypy               make test-all  the slow ones too
# make dev    an environment to work in, with pre-commit hooks
# make pictures BUILD=...   the audit page of a build as PNG files, with its size and times

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP_FLAGS ?= --quiet --disable-pip-version-check
PYTEST_FLAGS ?=

# Two processes that each start two OpenMP threads fight over two cores: one thread each is faster.
export OMP_NUM_THREADS ?= 1

.PHONY: demo test test-all lint types dev pictures clean

demo: $(VENV)/.installed
	$(BIN)/k710 demo demo-out

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n 2 --dist loadgroup -m "not slow" $(PYTEST_FLAGS)

test-all: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n 2 --dist loadgroup $(PYTEST_FLAGS)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed-dev
	$(BIN)/mypy

dev: $(VENV)/.installed-dev
	$(BIN)/pre-commit install

BUILD ?= k710-data

pictures: $(VENV)/.installed-dev
	$(BIN)/python bench/pages.py $(BUILD) --pictures pictures

clean:
	rm -rf $(VENV) build dist *.egg-info demo-out

# The package is installed editable: what runs is the checkout.
$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "k710 needs Python 3.11 or newer; name one: make PYTHON=python3.12 ...")'
	@echo "installing into $(VENV): a minute, or several the first time"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install $(PIP_FLAGS) --constraint constraints.txt --editable .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@echo "installing the tools for tests into $(VENV)"
	@$(BIN)/python -m pip install $(PIP_FLAGS) --constraint constraints.txt --editable '.[dev]'
	@touch $@
