# Every target builds or updates .venv first, so a fresh clone needs nothing else.
# All paths are relative: they hold in a directory whose name has spaces.

PYTHON_IN_VENV := .venv/bin/python
READY := .venv/.ready

.PHONY: help quickstart test test-slow lint
.DELETE_ON_ERROR:

help:
	@echo 'make quickstart   the whole pipeline on a bundled corpus, into runs/quickstart/'
	@echo 'make test         the tests that take minutes on two cores'
	@echo 'make test-slow    all tests, the slow ones and (with a GPU) the GPU ones too'
	@echo 'make lint         ruff and mypy'

quickstart: $(READY)
	@$(PYTHON_IN_VENV) -m recipes quickstart

test: $(READY)
	@$(PYTHON_IN_VENV) -m pytest -n 2 --dist worksteal -m 'not slow and not gpu'

test-slow: $(READY)
	@$(PYTHON_IN_VENV) -m pytest

lint: $(READY)
	@$(PYTHON_IN_VENV) -m ruff check .
	@$(PYTHON_IN_VENV) -m ruff format --check .
	@$(PYTHON_IN_VENV) -m mypy

$(READY): pyproject.toml constraints.txt .ci/install
	@sh .ci/install $(READY)
