# Everything a checkout needs. `make` alone lists the targets.
#
# PYTHON           the interpreter that makes .venv (3.11 or newer)
# TORCH_INDEX_URL  a package index to take torch from, where the default index's build is not the one you want; remembered

PYTHON ?= python3

VENV := .venv
BIN := $(VENV)/bin
QUIETLY := --disable-pip-version-check --quiet
PIP := $(BIN)/python -m pip $(QUIETLY)
INSTALLED := $(VENV)/.installed

# Naming another index for torch than the one it came from replaces torch.
TORCH_INDEX := $(VENV)/.torch-index
TORCH_INDEX_IN_USE := $(shell cat $(TORCH_INDEX) 2>/dev/null)
TORCH_INDEX_URL ?= $(TORCH_INDEX_IN_USE)
ifneq ($(TORCH_INDEX_URL),$(TORCH_INDEX_IN_USE))
.PHONY: $(INSTALLED)
REPLACE_TORCH := --force-reinstall
endif
TORCH_SOURCE := $(if $(TORCH_INDEX_URL),--no-deps --index-url "$(TORCH_INDEX_URL)")

.DEFAULT_GOAL := help
.PHONY: help install quickstart test test-slow bench lint format lock wheel clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' Makefile | while IFS='|' read -r name text; do \
		printf '  make %-12s %s\n' "$$name" "$$text"; done

install: $(INSTALLED) ## make .venv with the netsuke command and pinned versions of all it needs
	@echo "ready: $(BIN)/netsuke --help"

quickstart: $(INSTALLED) ## install, then carve a student out of a real 6-layer BERT and show how good it is
	@$(BIN)/netsuke run quickstart

test: lint ## install, then run the formatter check, linter, type checker, import rules and fast tests
	@echo "pytest"
	@$(BIN)/python -m pytest -m "not slow"

test-slow: $(INSTALLED) ## the tests that take minutes: whole runs, killed drivers, many workers
	@$(BIN)/python -m pytest -m slow --timeout=1800

bench: $(INSTALLED) ## measure what the project claims: overhead, throughput, query time
	@missed=""; for name in candidates component_latency lanas latency prefix proposals relatives results resume search solve paths training; do \
		echo "bench_$$name"; $(BIN)/python -m tests.benchmarks.bench_$$name || missed="$$missed bench_$$name"; echo; \
	done; [ -z "$$missed" ] || { echo "missed its target:$$missed" >&2; exit 1; }

lint: $(INSTALLED) ## formatter check, linter, type checker, import rules
	@echo "ruff format --check"
	@$(BIN)/python -m ruff format --check --quiet . || { echo "run: make format" >&2; exit 1; }
	@echo "ruff check"
	@$(BIN)/python -m ruff check --quiet .
	@echo "mypy"
	@$(BIN)/python -m mypy
	@echo "lint-imports"
	@$(BIN)/lint-imports --no-logo

format: $(INSTALLED) ## format the code and fix what the linter can fix
	@$(BIN)/python -m ruff format .
	@$(BIN)/python -m ruff check --fix .

wheel: $(INSTALLED) ## build the wheel into dist/
	@rm -rf build
	@$(BIN)/python -m build --wheel --no-isolation .

lock: ## resolve pyproject.toml anew (torch stays as pinned) and write the versions to constraints.txt
	@rm -rf build/lock
	@"$(PYTHON)" -m venv build/lock
	@build/lock/bin/python -m pip $(QUIETLY) install "$$(grep '^torch==' constraints.txt)" $(TORCH_SOURCE)
	@build/lock/bin/python -m pip $(QUIETLY) install "$$(grep '^torch==' constraints.txt)" --editable ".[dev]"
	@build/lock/bin/python -m pip freeze --all --exclude pip --exclude-editable > build/lock/frozen.txt
	@sed -n '/^#/p' constraints.txt > build/lock/constraints.txt
	@sed -e '/^nvidia-/d' -e '/^cuda-/d' -e '/^triton=/d' -e 's/+.*//' build/lock/frozen.txt >> build/lock/constraints.txt
	@mv build/lock/constraints.txt constraints.txt
	@rm -rf build/lock
	@echo "constraints.txt written; now: make test"

clean: ## remove caches and build outputs; .venv and runs stay
	@rm -rf build dist ./*.egg-info .pytest_cache .hypothesis .mypy_cache .ruff_cache .import_linter_cache
	@find spaces trainers orchestrator cluster tests -type d -name __pycache__ -prune -exec rm -rf {} +

# pip is the last thing that venv puts there, so an interrupted venv is made again.
$(BIN)/pip:
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "error: netsuke needs Python 3.11 or newer, $(PYTHON) is $$("$(PYTHON)" --version 2>&1 | tail -n 1);" \
			"name another: make install PYTHON=python3.12" >&2; exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "error: $(PYTHON) cannot make virtual environments;" \
			"on Debian or Ubuntu install the package python3-venv, then run make again" >&2; exit 1; }
	@"$(PYTHON)" -m venv "$(VENV)"

# torch goes first: from its own index where one is named, and then nothing later replaces it.
$(INSTALLED): pyproject.toml constraints.txt | $(BIN)/pip
	@echo "installing pinned versions into $(VENV); the first time takes some minutes"
	@$(PIP) install --constraint constraints.txt torch $(REPLACE_TORCH) $(TORCH_SOURCE)
	@$(PIP) install --constraint constraints.txt setuptools
	@$(PIP) install --constraint constraints.txt --no-build-isolation --editable ".[dev]"
	@echo "$(TORCH_INDEX_URL)" > $(TORCH_INDEX)
	@touch $@
