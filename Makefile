# Two commands matter: `make run` and `make test`. Each makes .venv first if it is missing or older than its pins.

.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:

VENV := .venv
BIN := $(VENV)/bin
# One environment: `make run` installs what running needs, everything else adds the tools of development.
RUNTIME := $(VENV)/.installed
STAMP := $(VENV)/.installed-dev

# The first interpreter that runs and is new enough; `make PYTHON=/path/to/python` overrides.
PYTHON ?= $(shell for p in python3.11 python3 python3.12 python3.13; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)

WORKERS ?= 2
ARGS ?=

.PHONY: help venv run test lint format docs lock clean

help: ## list the targets
	@grep -hE '^[a-z]+:.*## ' Makefile | sed -E 's/^([a-z]+):.*## /\1\t/' | while IFS=$$'\t' read -r name what; do \
		printf '  make %-8s %s\n' "$$name" "$$what"; done

venv: $(STAMP) ## make or refresh .venv from requirements-dev.lock

# A stamp is written last, so an install that was interrupted is taken up again. It is also the cheap check: pip
# finds what is already there and installs only what differs. The development lock holds every pin of the other.
$(RUNTIME): requirements.lock
	$(call install,requirements.lock)

$(STAMP): requirements-dev.lock
	$(call install,requirements-dev.lock)
	@touch $(RUNTIME)

define install
	@if [ -z "$(PYTHON)" ]; then echo "make: no Python 3.11 or newer found; name one with make PYTHON=/path/to/python" >&2; exit 2; fi
	@rm -f $@
	@if ! $(BIN)/python -m pip --version >/dev/null 2>&1; then \
		echo "==> creating $(VENV) with $$($(PYTHON) --version)"; \
		$(PYTHON) -m venv --clear $(VENV) || { echo "make: could not make $(VENV); on Debian, install python3-venv" >&2; exit 2; }; \
	fi
	@echo "==> installing $$(grep -c == $(1)) packages from $(1) (one to three minutes the first time)"
	@$(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check -r $(1)
	@echo "==> installing shoestring, editable"
	@$(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check --no-build-isolation --no-deps -e .
	@touch $@
	@echo "==> $(VENV) is ready"
endef

run: $(RUNTIME) ## the quickstart: corpus to compressed model in minutes, with its ledger
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

docs: $(STAMP) ## write the pages of docs that the code generates: catalogue, taxonomy, techniques
	$(BIN)/shoestring techniques --write docs

# Resolves pyproject.toml anew in a fresh environment, first what running needs, then the rest on top. torch is named
# exactly, and its local version (+cpu, +cu130) left out: the pin fits whichever build of that release the machine's
# index offers.
FREEZE := pip freeze --all | grep -vE '^(pip|shoestring)( @|==)|^-e ' \
	| grep -vE '^(nvidia-(cu|nccl|nvj|nvtx|nvs)|cuda-|triton==)' | sed -E 's/\+[a-z0-9.]+$$//'

lock: ## resolve pyproject.toml anew into requirements.lock and requirements-dev.lock
	@dir=$$(mktemp -d) && trap 'rm -rf "$$dir"' EXIT && $(PYTHON) -m venv "$$dir/venv" && bin="$$dir/venv/bin" \
	&& echo "==> resolving shoestring[build]" && "$$bin/pip" install --quiet --quiet torch==2.13.0 '.[build]' \
	&& { echo '# Exact versions for shoestring and its build: what `make run` installs. Written by make lock.'; \
	     "$$bin/"$(FREEZE); } > requirements.lock.part \
	&& echo "==> resolving shoestring[dev,cluster]" && "$$bin/pip" install --quiet --quiet -c requirements.lock.part '.[dev,cluster]' \
	&& { echo '# Exact versions for shoestring[dev,cluster]: what CI and `make test` install. Written by make lock.'; \
	     "$$bin/"$(FREEZE); } > requirements-dev.lock.part \
	&& for lock in requirements requirements-dev; do mv $$lock.lock.part $$lock.lock; \
	     echo "==> $$lock.lock: $$(grep -c == $$lock.lock) packages"; done

clean: ## remove the environment and every cache
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .schemathesis
	find . -path ./.git -prune -o -name __pycache__ -type d -print0 | xargs -0 rm -rf
