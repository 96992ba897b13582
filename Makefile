# Every target builds or updates .venv first, so a fresh clone needs nothing else.
# All paths are relative: they hold in a directory whose name has spaces.

VENV := .venv
PYTHON_IN_VENV := $(VENV)/bin/python

.PHONY: help quickstart docs test test-slow lint
.DELETE_ON_ERROR:

help:
	@echo 'make quickstart   the whole pipeline on a bundled corpus, into runs/quickstart/'
	@echo 'make docs         the documentation as a site, into build/docs/'
	@echo 'make test         the tests that take minutes on two cores'
	@echo 'make test-slow    all tests, the slow ones and (with a GPU) the GPU ones too'
	@echo 'make lint         ruff and mypy'

quickstart: $(VENV)/.ready-demo
	@$(PYTHON_IN_VENV) -m recipes quickstart

docs: $(VENV)/.ready-docs
	@NO_MKDOCS_2_WARNING=1 $(PYTHON_IN_VENV) -m mkdocs build --quiet --strict
	@echo 'build/docs/index.html'

test: $(VENV)/.ready-test
	@$(PYTHON_IN_VENV) -m pytest -n 2 --dist worksteal -m 'not slow and not gpu'

test-slow: $(VENV)/.ready-test
	@$(PYTHON_IN_VENV) -m pytest

lint: $(VENV)/.ready-test
	@$(PYTHON_IN_VENV) -m ruff check .
	@$(PYTHON_IN_VENV) -m ruff format --check .
	@$(PYTHON_IN_VENV) -m mypy

$(VENV)/.ready-%: pyproject.toml constraints.txt .ci/install
	@sh .ci/install $(VENV) $*
