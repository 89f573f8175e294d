# What a person runs. Python 3.11 or newer and make are all it takes; everything else is set up in .venv.
#
#   make demo                       raw text to a trained GPT, in a few minutes
#   make demo WEB=crawl/ BOOKS=texts/ WIKI=dump.xml.bz2    the same with your own files
#   make test                       the test suite, but for the tests that take minutes
#   make test-all                   all of it

PYTHON ?= python3
WORKSPACE ?= workspace
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-all lint format bench lock clean

help:
	@sed -n 's/^#   /  /p' Makefile
	@echo "  make lint, format, bench, lock, clean"

setup: $(READY)

# The lock names every package and its version; the stamp makes a second call do nothing.
$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "gptmill needs Python 3.11 or newer: make PYTHON=python3.11 ..." >&2; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "setting up $(VENV) (once; a few minutes)"
	@$(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check -r requirements.lock
	@$(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check --no-deps --editable .
	@touch $(READY)

demo: $(READY)
	@$(BIN)/python -m workflows.demo --workspace "$(WORKSPACE)" $(if $(WEB),--web "$(WEB)") $(if $(BOOKS),--books "$(BOOKS)") $(if $(WIKI),--wiki "$(WIKI)")

# Two processes share the files of tests; half of the time a test waits for processes of its own to start.
PYTEST := $(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

test: $(READY)
	@$(PYTEST) -m "not slow"

test-all: $(READY)
	@$(PYTEST)

lint: $(READY)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: $(READY)
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

# Each file of benchmarks/ is a question, asked of us and of a peer in one run.
bench: $(READY)
	@for file in benchmarks/[a-z]*.py; do echo "== $$file"; $(BIN)/python -m benchmarks.$$(basename $$file .py) || exit 1; done

# Write the lock anew from pyproject.toml, in an environment of its own.
lock:
	@rm -rf .venv-lock && $(PYTHON) -m venv .venv-lock
	@.venv-lock/bin/python -m pip install --quiet --quiet --disable-pip-version-check torch==2.13.0
	@.venv-lock/bin/python -m pip install --quiet --quiet --disable-pip-version-check ".[eval,serve,dev]"
	@{ echo "# Every package of gptmill[eval,serve,dev], pinned. Made by: make lock"; \
	   .venv-lock/bin/python -m pip freeze --exclude gptmill | sed -E 's/^torch[ =@].*/torch==2.13.0/'; } > requirements.lock
	@rm -rf .venv-lock build *.egg-info

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
