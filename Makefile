# Two commands matter: `make run` and `make test`. Each makes .venv first if it is missing or older than its pins.

.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# The first interpreter that runs and is new enough; `make PYTHON=/path/to/python` overrides.
PYTHON ?= $(shell for p in python3.11 python3 python3.12 python3.13; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)

WORKERS ?= 2
ARGS ?=

.PHONY: help venv run test lint format docs lock clean

help: ## list the targets
	@grep -hE '^[a-z]+:.*## ' Makefile | sed -E 's/^([a-z]+):.*## /\1\t/' | while IFS=$$'\t' read -r name what; do \
		printf '  make %-8s %s\n' "$$name" "$$what"; done

venv: $(STAMP) ## make or refresh .venv from requirements.lock

# The stamp is written last, so an install that was interrupted is taken up again. It is also the cheap check: pip
# finds what is already there and installs only what differs.
$(STAMP): requirements.lock
	@if [ -z "$(PYTHON)" ]; then echo "make: no Python 3.11 or newer found; name one with make PYTHON=/path/to/python" >&2; exit 2; fi
	@rm -f $@
	@if ! $(BIN)/python -m pip --version >/dev/null 2>&1; then \
		echo "==> creating $(VENV) with $$($(PYTHON) --version)"; \
		$(PYTHON) -m venv --clear $(VENV) || { echo "make: could not make $(VENV); on Debian, install python3-venv" >&2; exit 2; }; \
	fi
	@echo "==> installing $$(grep -c == requirements.lock) packages from requirements.lock (one to three minutes the first time)"
	@$(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check -r requirements.lock
	@echo "==> installing shoestring, editable"
	@$(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check --no-build-isolation --no-deps -e .
	@touch $@
	@echo "==> $(VENV) is ready"

run: $(STAMP) ## the quickstart: corpus to compressed model in minutes, with its ledger
	$(BIN)/shoestring run recipes/quickstart.yaml $(ARGS)

# One thread a worker: two workers that each start a thread per core get in each other's way, and sums that are
# split over a varying number of threads differ in their last bits.
test: export OMP_NUM_THREADS ?= 1
test: $(STAMP) ## all tests; ARGS="-k gptq" picks some
	$(BIN)/python -m pytest -n $(WORKERS) $(ARGS)

lint: $(STAMP) ## style, format, types, import floors
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP) ## mend style and format in place
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(STAMP) ## write the catalogue and the taxonomy that the code generates
	$(BIN)/shoestring techniques --write docs

# Resolves pyproject.toml anew in a fresh environment. torch is named exactly, and its local version (+cpu, +cu130)
# left out: the pin fits whichever build of that release the machine's index offers.
lock: ## resolve pyproject.toml anew into requirements.lock
	@dir=$$(mktemp -d) && trap 'rm -rf "$$dir"' EXIT && $(PYTHON) -m venv "$$dir/venv" \
	&& echo "==> resolving shoestring[dev,cluster]" \
	&& "$$dir/venv/bin/pip" install --quiet --quiet torch==2.13.0 '.[dev,cluster]' \
	&& { echo "# Exact versions for shoestring[dev,cluster]: what CI runs and what make installs. Written by make lock."; \
	     "$$dir/venv/bin/pip" freeze --all | grep -vE '^(pip|shoestring)( @|==)|^-e ' \
	       | grep -vE '^(nvidia-(cu|nccl|nvj|nvtx|nvs)|cuda-|triton==)' | sed -E 's/\+[a-z0-9.]+$$//'; } > requirements.lock.part \
	&& mv requirements.lock.part requirements.lock && echo "==> requirements.lock: $$(grep -c == requirements.lock) packages"

clean: ## remove the environment and every cache
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .schemathesis
	find . -path ./.git -prune -o -name __pycache__ -type d -print0 | xargs -0 rm -rf
