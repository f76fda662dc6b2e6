# Everything a person does with this tree. `make` alone lists it.
#
# All of it lives in .venv (and .venv-asan): nothing is installed for the whole machine but Debian
# packages that are missing, and those by scripts/system-packages, which says so.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
VENV ?= .venv
CONFIG ?= conf/lb.toml
PYTEST_ARGS ?=
PYTEST_PROCESSES ?= 4
COMPARE_ARGS ?=
LOAD_ARGS ?= all
SOAK_ARGS ?=

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# Tests start lbcore a thousand times: what it imports need not be compiled each time.
CACHED := env -u PYTHONDONTWRITEBYTECODE
COMPILED := setup.py $(wildcard lbcore/*.pyx lbcore/*.pxd lbcore/includes/*.pxd)

.PHONY: wheel help run build profile test lint test-faults test-asan fuzz compare load soak dist dist-check docs docs-serve clean

help:            ## this list
	@grep -hE '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' \
	  | expand -t 20
	@echo
	@echo '  CONFIG=FILE        another configuration for run (now: $(CONFIG))'
	@echo '  PYTEST_ARGS=...    for test and test-asan, such as PYTEST_ARGS="-k timers -x"'
	@echo '  PYTEST_PROCESSES=0 the tests in one process, as debuggers want it (now: $(PYTEST_PROCESSES))'
	@echo '  COMPARE_ARGS=...   for compare, such as COMPARE_ARGS=--quick'
	@echo '  LOAD_ARGS=...      for load (now: $(LOAD_ARGS)), such as LOAD_ARGS="churn --seconds 60"'
	@echo '  SOAK_ARGS=...      for soak, such as SOAK_ARGS="--minutes 60"'
	@echo '  PYTHON=python3.12  the Python that .venv is made from'

run: $(VENV)/.built $(VENV)/.apps  ## build, and run lbcore on CONFIG until Ctrl-C
	@exec $(BIN)/lbcore -c $(CONFIG)

build: $(VENV)/.built  ## compile in the tree and install the command into .venv

profile: $(VENV)/.installed  ## compile with what perf needs, until the next make run, build or test
	@LBCORE_PROFILE=1 $(BIN)/python setup.py --quiet build_ext --inplace
	@rm -f $(VENV)/.built

test: $(VENV)/.built $(VENV)/.dev  ## build and pass the tests
	@scripts/system-packages test
	@$(CACHED) $(BIN)/python -m pytest -n $(PYTEST_PROCESSES) --dist loadfile $(PYTEST_ARGS)

lint: $(VENV)/.built $(VENV)/.dev  ## types, style and the direction of imports
	$(BIN)/ruff check .
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/cython-lint lbcore loadtests
	$(BIN)/mypy
	$(BIN)/mypy -p loadtests
	$(BIN)/lint-imports --no-cache

test-faults: $(VENV)/.built $(VENV)/.dev  ## the injected faults again, with full counts (some 12 minutes)
	@LBCORE_FULL_FAULTS=1 $(BIN)/python -m pytest tests/faults $(PYTEST_ARGS)

test-asan:       ## the tests on compiled code with AddressSanitizer and UBSan
	@PYTHON=$(PYTHON) scripts/test-asan $(PYTEST_ARGS)

fuzz: $(VENV)/.base  ## FUZZ_SECONDS=60 of coverage-guided fuzzing of the HTTP/1.1 parser
	@$(PIP) 'cython>=3.1,<4' 'atheris>=2.3'
	@scripts/fuzz run

compare: $(VENV)/.built $(VENV)/.load  ## measure lbcore, HAProxy, nginx and Envoy side by side
	@scripts/system-packages compare
	@$(BIN)/python -m loadtests.compare $(COMPARE_ARGS)

load: $(VENV)/.built $(VENV)/.load  ## Locust scenarios, each with limits it must hold
	@$(BIN)/python -m loadtests.scenarios $(LOAD_ARGS)

soak: $(VENV)/.built $(VENV)/.dev  ## ten minutes of everything at once: memory must stay flat
	@$(BIN)/python -m loadtests.soak $(SOAK_ARGS)

dist: $(VENV)/.dev  ## sdist and wheel, in dist/
	@rm -rf dist
	@$(BIN)/python -m build --quiet --outdir dist .
	@ls -l dist

dist-check: $(VENV)/.built $(VENV)/.dev  ## build sdist and wheel, install the wheel where nothing compiles
	@$(BIN)/python -m pytest -m dist tests/dist $(PYTEST_ARGS)

wheel: $(VENV)/.dev  ## a wheel with the libraries it needs, in dist/, installed into nothing and tried
	@rm -rf build/wheel build/try dist/lbcore-*-manylinux*.whl
	@$(BIN)/python -m build --quiet --wheel --outdir build/wheel .
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/auditwheel repair --wheel-dir dist build/wheel/*.whl
	@$(PYTHON) -m venv build/try
	@build/try/bin/pip install --quiet --only-binary :all: dist/lbcore-*-manylinux*.whl
	@build/try/bin/python scripts/try-wheel
	@ls -l dist

docs: $(VENV)/.built $(VENV)/.docs  ## write the generated pages again, and the site into build/site
	@$(BIN)/python -m lbcore.config.reference > docs/reference.md.new
	@mv docs/reference.md.new docs/reference.md
	@$(BIN)/python scripts/examples-page > docs/examples.md.new
	@mv docs/examples.md.new docs/examples.md
	@$(BIN)/zensical build --clean --strict

docs-serve: $(VENV)/.docs  ## show the site at http://127.0.0.1:8000/ while one writes
	@$(BIN)/zensical serve --dev-addr 127.0.0.1:8000

clean:           ## remove what was built, and both environments
	rm -rf build dist *.egg-info .cache .venv .venv-asan .pytest_cache .mypy_cache .ruff_cache .hypothesis
	rm -f lbcore/*.so lbcore/*.c

# ---- stamps: each is made once, and again when what it was made from changes -------------------

$(VENV)/.base: pyproject.toml
	@PYTHON=$(PYTHON) scripts/system-packages build
	@echo 'lbcore: setting up $(VENV) ...'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) 'setuptools>=77' 'cython>=3.1,<4'
	@touch $@

# The command and what it needs. The compiled modules come from the next stamp, which knows what
# has changed; pip would compile everything each time.
$(VENV)/.installed: $(VENV)/.base pyproject.toml lbcore/__init__.py
	@LBCORE_SKIP_BUILD=1 $(PIP) --no-build-isolation --editable .
	@touch $@

$(VENV)/.built: $(VENV)/.installed $(COMPILED)
	@echo 'lbcore: compiling ...'
	@$(BIN)/python setup.py --quiet build_ext --inplace
	@touch $@

$(VENV)/.apps: $(VENV)/.installed
	@echo 'lbcore: installing application servers ...'
	@LBCORE_SKIP_BUILD=1 $(PIP) --no-build-isolation --editable '.[apps]'
	@touch $@

# Tests and linters look at all there is, so what builds the site and what measures comes with them:
# at once, because pip takes its time for each.
$(VENV)/.dev: $(VENV)/.installed
	@echo 'lbcore: installing what tests and linters need ...'
	@LBCORE_SKIP_BUILD=1 $(PIP) --no-build-isolation --editable '.[dev,docs,load]'
	@touch $(VENV)/.docs $(VENV)/.load $@

$(VENV)/.docs: $(VENV)/.installed
	@echo 'lbcore: installing what builds the site ...'
	@LBCORE_SKIP_BUILD=1 $(PIP) --no-build-isolation --editable '.[docs]'
	@touch $@

$(VENV)/.load: $(VENV)/.installed
	@echo 'lbcore: installing what measuring needs ...'
	@LBCORE_SKIP_BUILD=1 $(PIP) --no-build-isolation --editable '.[load]'
	@touch $@
