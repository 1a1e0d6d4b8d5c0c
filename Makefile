# make demo   install, train on bundled handwritten digits, write the report
# make test   install, run the tests
#
# PYTHON=python3.12   the interpreter that .venv is made with (3.10 or newer)
# TORCH=cpu           take torch from PyTorch's own index of CPU builds (small; PyPI's Linux build brings CUDA)
# JOBS=2              test processes; each uses one torch thread

PYTHON ?= python3
TORCH ?=
JOBS ?= 2

VERSION := $(shell sed -n 's/^version = "\([0-9]*\.[0-9]*\).*/\1/p' pyproject.toml)

DEMO_OUT := runs/demo
DEMO := compare --data digits --out $(DEMO_OUT)

VENV := .venv
BIN := $(VENV)/bin
INDEX := $(if $(filter cpu,$(TORCH)),--extra-index-url https://download.pytorch.org/whl/cpu)
QUIET := $(if $(MAKE_TERMOUT),,-q)
PIP := $(BIN)/python -m pip install --disable-pip-version-check --no-compile $(QUIET) $(INDEX) -c constraints.txt
# The build tools come first and are pinned too; with build isolation pip would fetch the newest.
INSTALL = $(PIP) hatchling editables && $(PIP) --no-build-isolation

# Packages are installed uncompiled, which halves the time; the first import compiles, and must keep, what is really used.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help venv demo test test-portable test-oldest test-latest durations lint format types contracts docs docs-version tutorials examples bench dist-check gpu-check wheel clean

help:  ## list these commands
	@awk -F ':.*## ' '/^[a-z -]+:.*## /{printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# --- installation: one stamp per set of packages, so a second run installs nothing ---------------------------------

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 10) or sys.exit("scoresde needs Python 3.10 or newer, got " + sys.version.split()[0] + "; try make PYTHON=python3.12 ...")'
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "$(PYTHON) cannot make a virtual environment; install its venv module (Debian: apt install python3-venv)"; exit 1; }

$(VENV)/.run: $(BIN)/python pyproject.toml constraints.txt
	@echo "installing scoresde into $(VENV); most of the wait is torch ..."
	@$(INSTALL) -e .
	@touch $@

$(VENV)/.test: $(BIN)/python pyproject.toml constraints.txt
	@echo "installing scoresde and its test tools into $(VENV) ..."
	@$(INSTALL) -e '.[test]'
	@touch $@ $(VENV)/.run

$(VENV)/.dev: $(BIN)/python pyproject.toml constraints.txt
	@echo "installing scoresde and its development tools into $(VENV) ..."
	@$(INSTALL) -e '.[dev]'
	@touch $@ $(VENV)/.run $(VENV)/.test

$(VENV)/.bench: $(BIN)/python pyproject.toml constraints.txt
	@echo "installing scoresde and the samplers that it races against into $(VENV) ..."
	@$(INSTALL) -e '.[test,benchmark]'
	@touch $@ $(VENV)/.run $(VENV)/.test

venv: $(VENV)/.dev  ## make .venv with everything a contributor needs

# --- what a user runs ------------------------------------------------------------------------------------------------

demo: $(VENV)/.run  ## train on handwritten digits, sample with several methods, write a report
	$(BIN)/scoresde $(DEMO)
	@echo "The report is $(CURDIR)/$(DEMO_OUT)/index.html"

test: $(VENV)/.test  ## run the tests
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal $(ARGS)

test-portable: $(VENV)/.test  ## the numeric tests with the instructions that every x86-64 processor has
	ATEN_CPU_CAPABILITY=default $(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m portable $(ARGS)

durations: $(VENV)/.test  ## run the tests and store how long each file takes, for their order
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal --store-durations $(ARGS)

# uv resolves each direct dependency to the lowest version that pyproject.toml admits, or to the newest. What old and new
# releases of other packages announce for their own future is no failure here.
test-oldest: RESOLUTION := lowest-direct
test-latest: RESOLUTION := highest
test-oldest:  ## run the tests with the lowest versions that pyproject.toml admits, in .venv-oldest
test-latest:  ## run the tests with the newest versions that pyproject.toml admits, in .venv-latest
test-oldest test-latest:
	$(PYTHON) -m venv .venv-$(@:test-%=%)
	.venv-$(@:test-%=%)/bin/python -m pip install --disable-pip-version-check -q uv
	.venv-$(@:test-%=%)/bin/uv pip install -q --python .venv-$(@:test-%=%)/bin/python --resolution $(RESOLUTION) $(INDEX) -e '.[test]'
	.venv-$(@:test-%=%)/bin/python -m pytest -n $(JOBS) --dist worksteal -W ignore::DeprecationWarning $(ARGS)

# --- what CI runs besides --------------------------------------------------------------------------------------------

lint: $(VENV)/.dev  ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.dev  ## ruff: apply automatic fixes and the format
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

types: $(VENV)/.dev  ## pyright
	$(BIN)/pyright

contracts: $(VENV)/.dev  ## who may import whom
	$(BIN)/lint-imports --no-cache

docs: $(VENV)/.dev tutorials examples  ## build the documentation into site/, check its links, and its pages in a browser if there is one
	SCORESDE_DOCS=complete NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	$(BIN)/python -m pytest -q -n $(JOBS) -rs tests/site

docs-version: $(VENV)/.dev tutorials examples  ## build the documentation of VERSION into site-versions/, beside those of other versions
	SITE_VERSION=$(VERSION) SCORESDE_DOCS=complete NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet --site-dir site-versions/$(VERSION)

# Both keep what they made in build/docs, for the pages; a second run repeats only what changed.
tutorials: $(VENV)/.dev  ## run every tutorial; SCORESDE_EFFORT=10 trains ten times as long
	$(BIN)/python docs/_hooks/notebooks.py --jobs $(JOBS) $(ARGS)

examples: $(VENV)/.run  ## run every example with small settings
	$(BIN)/python docs/_hooks/example_pictures.py --jobs $(JOBS) $(ARGS)

bench: $(VENV)/.bench  ## the benchmarks, one process
	@set -e; for file in $(sort $(wildcard tests/benchmarks/*.py)); do echo "$$file"; OMP_NUM_THREADS=1 $(BIN)/python $$file $(ARGS); done

dist-check: $(VENV)/.test  ## build sdist and wheel, install them into an empty environment, run the README there
	$(BIN)/python tests/dist_check.py $(if $(INDEX),--index="$(INDEX)") --python $(PYTHON) $(ARGS)

gpu-check: $(VENV)/.test  ## on a CUDA machine: what only a GPU can show, in under ten minutes (never run on one yet)
	$(BIN)/python tests/gpu_check.py $(ARGS)

wheel: $(VENV)/.run  ## build dist/scoresde-*.whl
	$(BIN)/python -m pip wheel --disable-pip-version-check -q --no-deps -w dist .

clean:  ## remove .venv and what the commands above wrote; other runs stay
	rm -rf $(VENV) .venv-oldest .venv-latest build dist site site-versions $(DEMO_OUT) runs/examples runs/fashion-mnist/quick runs/benchmarks .pytest_cache .ruff_cache .import_linter_cache
	find scoresde tests examples docs -name __pycache__ -type d -prune -exec rm -rf {} +
	@rmdir runs/fashion-mnist runs 2>/dev/null || true
