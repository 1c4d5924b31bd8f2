# Two commands for everyone: `make demo` shows tailrace at work, `make test` runs every check that needs no other system.
# They need Python 3.11 or newer and make; everything else comes into .venv, anew only when pyproject.toml changes.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV := .venv
BIN := $(VENV)/bin
# What a process of the user's shell would leak into the tests; pip's own PIP_* settings stay.
unexport PYTHONPATH PYTHONHOME VIRTUAL_ENV
# Tests start many processes: each would compile every module again where the shell forbids to keep what is compiled.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test test-systems kills simulate bench check format clean

help:
	@echo "make demo          clicks counted per product and minute, live, on the embedded log"
	@echo "make test          format, lint, types, tests: all that needs no other system"
	@echo "make test-systems  tests against a real Kafka (needs java, maven and ../shared)"
	@echo "make kills         an app killed 50 times over 500,000 clicks; SEED=n for other moments"
	@echo "make simulate      SEEDS=1000 random lives of a log and its users, with crashes; a seed is told that fails"
	@echo "make bench         rates beside their floor, latencies, memory"
	@echo "make check         format, lint and types alone"
	@echo "make format        format the code and mend what ruff can mend"

demo: $(VENV)/installed
	@$(BIN)/tailrace demo

test: check
	@echo "pytest"
	@$(BIN)/python -m pytest -n 3 --dist worksteal -rs

# pytest says 5 where no test was collected: nothing to run is not a failure.
test-systems: $(VENV)/installed-dev
	@[ -d ../shared ] || echo "test-systems: left out, as ../shared is not here: the tests against Kafka's own tools and files"
	@$(BIN)/python -m pytest -m systems --timeout=600 -rs || { code=$$?; [ $$code -eq 5 ] || exit $$code; }

# Some minutes: 50 lives of a process, and every file of the log looked at after each.
kills: $(VENV)/installed-dev
	@$(BIN)/python -m pytest -m kills --timeout=1800

SEEDS := 1000
simulate: $(VENV)/installed-dev
	@$(BIN)/python -m tailrace.tests.simulation --seeds $(SEEDS)

bench: $(VENV)/installed-dev
	@$(BIN)/python -m tailrace.tests.bench

# pyright passes silently when its settings match no file, so its count is part of the check.
check: $(VENV)/installed-dev
	@echo "ruff"; $(BIN)/ruff format --check --quiet . || { echo "run: make format" >&2; exit 1; }
	@$(BIN)/ruff check --quiet .
	@echo "mypy"; $(BIN)/mypy
	@echo "pyright"; $(BIN)/pyright -p .dev --pythonpath $(BIN)/python --stats > $(VENV)/pyright.txt || { cat $(VENV)/pyright.txt; exit 1; }
	@grep -E '^[0-9]+ errors' $(VENV)/pyright.txt
	@grep -E '^Found [1-9][0-9]* source files' $(VENV)/pyright.txt || { echo "pyright found no source files: see .dev/pyrightconfig.json" >&2; exit 1; }

format: $(VENV)/installed-dev
	@$(BIN)/ruff check --fix --quiet . || true
	@$(BIN)/ruff format .

clean:
	@rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist

# The first Python that is new enough and can make virtual environments; the one named `python3` if it will do.
$(VENV)/made:
	@for python in python3 python3.11 python3.12 python3.13 python3.14; do \
	    if $$python -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2> /dev/null; then \
	        echo "$(VENV): $$($$python --version), from $$(command -v $$python)"; \
	        rm -rf $(VENV); $$python -m venv $(VENV); touch $@; exit 0; \
	    fi; \
	done; \
	echo "tailrace needs Python 3.11 or newer with its venv module (on Debian: apt-get install python3 python3-venv);" >&2; \
	echo "python3 here is: $$(python3 --version 2> /dev/null || echo missing)" >&2; exit 1

# `.dev/tailrace` lets the root folder be imported as the package `tailrace`. Git makes this link where the file system
# has links and writes a small text file where it has not; an archive may leave it out.
.PHONY: link
link:
	@[ -L .dev/tailrace ] || { mkdir -p .dev; rm -f .dev/tailrace; ln -s .. .dev/tailrace; }

$(VENV)/installed: pyproject.toml $(VENV)/made | link
	@echo "$(VENV): installing tailrace and what it needs"
	@$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/installed-dev: pyproject.toml $(VENV)/made | link
	@echo "$(VENV): installing tailrace, what it needs and the checking tools"
	@$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $(VENV)/installed $@
