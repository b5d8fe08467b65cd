# Two commands for people: `make demo` and `make test`. Both set up .venv themselves.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt

# Real text and models, where they are at hand. Without them the tests that need them are skipped.
CERTIFY_DATA ?= $(abspath $(wildcard ../shared))
ifneq ($(CERTIFY_DATA),)
export CERTIFY_DATA
endif

PYTEST := $(BIN)/python -m pytest
# Tests start hundreds of processes: each module is compiled once, not in every one of them.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test lint format test-slow test-statistical test-gpu test-mutation prove bench clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 20

demo: $(VENV)/.core ## check the shipped ticket: what holds, what is missing, and a tampered copy
	@$(BIN)/python -m reports.demo

test: $(VENV)/.all lint ## lint, then the fast tier of the tests
	$(PYTEST) -n 2 --dist worksteal

lint: $(VENV)/.all ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.all ## let ruff fix and format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test-slow: $(VENV)/.all ## the slow tier
	$(PYTEST) -m slow

test-statistical: $(VENV)/.all ## Monte-Carlo validity of the guarantees
	$(PYTEST) -m statistical

test-gpu: $(VENV)/.all ## tests that need a CUDA device
	$(PYTEST) -m gpu

SAMPLE ?= 60
SEED ?= 0
test-mutation: $(VENV)/.all ## slow tier: mutation score of SAMPLE mutants, drawn by SEED
	$(BIN)/python tests/mutation_score.py --sample $(SAMPLE) --seed $(SEED)

prove: $(VENV)/.all ## try to break the theory: every check, fast depth
	$(BIN)/certify prove --fast

bench: $(VENV)/.all ## benchmarks: ratios against a peer in the same run
	$(BIN)/python tests/benchmarks/bench_ks.py
	$(BIN)/python tests/benchmarks/bench_rows.py
	$(BIN)/python tests/benchmarks/bench_evaluate.py reports/published/base-small $(CERTIFY_DATA)/data/en-ca/gv.dev
	$(BIN)/python tests/benchmarks/bench_sequential.py
	$(BIN)/python tests/benchmarks/bench_evidence.py
	$(BIN)/python tests/benchmarks/bench_check.py

clean: ## remove the environment and caches
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed: make PYTHON=python3.11 …" >&2; exit 2; }
	@echo "creating $(VENV)"
	@$(PYTHON) -m venv --clear $(VENV)
	@touch $@

# The light install that a release gate needs.
$(VENV)/.core: $(VENV)/.python pyproject.toml constraints.txt
	@echo "installing the core"
	@$(PIP) --editable .
	@touch $@

# Everything: tuning, proofs, development.
$(VENV)/.all: $(VENV)/.python pyproject.toml constraints.txt
	@echo "installing everything (torch included; some minutes on a fresh machine)"
	@$(PIP) --editable '.[all]'
	@touch $@ $(VENV)/.core
