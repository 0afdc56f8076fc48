# A fresh machine needs Python 3.11 or newer and make; everything else goes into $(VENV).
#   make demo [DATA=folder] [MINUTES=n]   the whole pipeline; DATA is a folder in nnU-Net v2 raw or MSD layout
#   make test                             the test suite
SHELL := /bin/bash
VENV ?= .venv
MINUTES ?=
DATA ?=
PYTEST_ARGS ?=
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
TORCH := $(shell grep -i '^torch==' constraints.txt)
WORKERS := -n logical --maxprocesses 8

.PHONY: env demo test slow lint ci clean
.DEFAULT_GOAL := test

env: $(STAMP)

# torch first and by its exact version, so that no other package's range chooses one.
$(STAMP): setup.cfg pyproject.toml constraints.txt
	@python=; for candidate in $(PYTHON) python3 python3.11 python3.12 python3.13 python3.14; do \
	  if $$candidate -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then python=$$candidate; break; fi; done; \
	if [ -z "$$python" ]; then echo "autoseg needs Python 3.11 or newer; install it, or name it: make PYTHON=/path/to/python3" >&2; exit 1; fi; \
	if ! [ -x $(BIN)/python ]; then echo "making $(VENV) with $$($$python --version)"; $$python -m venv $(VENV); fi
	$(BIN)/python -m pip install -qq "$(TORCH)" -c constraints.txt
	$(BIN)/python -m pip install -qq -e '.[classification,cpu,demo,dev,explain,sign]' -c constraints.txt
	@touch $@

demo: $(STAMP)
	@PATH="$(abspath $(BIN)):$$PATH" DATA="$(DATA)" MINUTES="$(MINUTES)" bash demo/run.sh

test: $(STAMP)
	$(BIN)/python -m pytest $(WORKERS) $(PYTEST_ARGS)

# Exit status 5 means that no test carries these markers.
slow: $(STAMP)
	$(BIN)/python -m pytest -m "(slow or peer) and not gpu" $(PYTEST_ARGS) || [ $$? -eq 5 ]

lint: $(STAMP)
	@status=0; $(BIN)/ruff check . || status=1; $(BIN)/mypy || status=1; exit $$status

ci:
	bash .ci/run

clean:
	rm -rf $(VENV) build dist autoseg.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .ci/logs
	find autoseg demo tests -name __pycache__ -type d -prune -exec rm -rf {} +
