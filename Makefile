# Works on Debian and Ubuntu with Python 3.10 or newer, git and make. PYTHON=python3.12 chooses another.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
ARGS   ?=

# Set but empty, HOME would mean the root folder to pip; unset, it is looked up in the user database.
ifeq ($(strip $(HOME)),)
unexport HOME
endif
# Everything else of the environment (indexes, certificates, proxies) reaches pip as it is.
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# setuptools calls the table of extension modules in pyproject.toml experimental, at each editable install.
PIP := PYTHONWARNINGS='ignore:`[tool.' $(BIN)/python -m pip --no-input install --quiet

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help venv layer demo test test-long conformance lint format bench clean system-sandbox system-compiler system-test

help:  ## Show this text
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

venv: $(VENV)/.test  ## Make .venv with everything that the other targets need

demo: $(VENV)/.shelf system-sandbox  ## Publish requests and pandas to a folder, import them where neither is installed
	@docs/demo/demo.sh $(BIN)/python

layer: $(VENV)/.layer  ## Make the Lambda layer for each Python that is here; ARGS='--python 3.12 --arch arm64' for one
	@$(BIN)/python -m lambda_layer build --available $(ARGS)

test: lint system-test  ## Lint, types, layers, and the tests (a sample of minutes); ARGS='-k name' goes to pytest
	@$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile $(ARGS)

test-long: $(VENV)/.test system-test  ## All tests: other interpreters, aarch64, more examples, killed publishers
	@tests/support/system_packages.sh aarch64
	@$(BIN)/python -m pytest -m '' $(ARGS)

conformance: $(VENV)/.test system-test  ## Compare the corpus from a shelf and from pip; writes docs/conformance.md (two hours)
	@$(BIN)/python -m tests.conformance $(ARGS)

lint: $(VENV)/.test  ## ruff, mypy, import contracts
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/lint-imports --no-logo

format: $(VENV)/.test  ## Let ruff sort imports and lay out the code
	@$(BIN)/ruff check --quiet --fix-only . && $(BIN)/ruff format --quiet .

bench: $(VENV)/.bench system-test  ## Cold and warm starts side by side; writes docs/benchmarks.md (an hour; QUICK=1: minutes)
	@tests/support/system_packages.sh bench
	@$(BIN)/python -m tests.bench $(if $(QUICK),--quick) $(ARGS)
	@$(BIN)/python -m tests.bench.report

clean:  ## Remove what was made: .venv, .demo, build output, caches of tools
	@rm -rf $(VENV) .demo .conformance .bench build dist *.egg-info cloudimport/*.so .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	@find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +

# Each stamp is made anew when the dependencies change.
$(VENV)/.python: tests/support/make_venv.sh
	@tests/support/make_venv.sh "$(PYTHON)" $(VENV)
	@touch $@

$(VENV)/.shelf: pyproject.toml $(VENV)/.python
	@echo "installing the curator's dependencies into $(VENV)"
	@$(PIP) --editable '.[shelf]'
	@touch $@

$(VENV)/.layer: pyproject.toml $(VENV)/.shelf
	@echo "installing the layer's compiler into $(VENV)"
	@$(PIP) --editable '.[shelf,layer]'
	@touch $@

$(VENV)/.test: pyproject.toml cloudimport/_native.c $(VENV)/.python | system-compiler
	@echo "installing the dependencies of tests and linters into $(VENV)"
	@$(PIP) --editable '.[shelf,test,lint]'
	@touch $(VENV)/.shelf $@

$(VENV)/.bench: $(VENV)/.test
	@echo "installing the dependencies of the benchmarks into $(VENV)"
	@$(PIP) --editable '.[shelf,test,lint,bench]'
	@touch $@

system-sandbox:
	@tests/support/system_packages.sh sandbox

system-compiler: $(VENV)/.python
	@tests/support/system_packages.sh compiler $(BIN)/python

system-test:
	@tests/support/system_packages.sh sandbox radosgw browser
