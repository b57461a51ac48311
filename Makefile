# `make run` and `make test` each work as the first command on a machine that has python3.11+ and make.
PYTHON ?= python3
CORES ?= all
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help run test test-cluster check bench report status schema envs

help: ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

$(INSTALLED): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Plumbline needs Python 3.11 or later; name one with: make PYTHON=python3.11 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --requirement requirements.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

run: $(INSTALLED) ## Run every study, ending with results/report.html; SET="ablation.runs=3" overrides settings
	$(BIN)/plumbline run --cores $(CORES) $(SET)

report: $(INSTALLED) ## Rewrite results/report.html from the results that are there
	@$(BIN)/plumbline report

status: $(INSTALLED) ## Show the progress of each study
	@$(BIN)/plumbline status

check: $(INSTALLED) ## Lint, types, formatting, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/snakefmt --check Snakefile workflow/rules
	$(BIN)/lint-imports --no-cache
	$(BIN)/snakemake --lint

test: check ## Every check and every test, a file of tests on each core
	$(BIN)/pytest --numprocesses auto --dist loadfile --no-loadscope-reorder

test-cluster: $(INSTALLED) ## Run tiny studies, trials that share jobs, and a sweep that loses a job, on a local Slurm cluster; root on Debian
	$(BIN)/python -m tests.cluster

bench: $(INSTALLED) ## Measure; writes results/benchmarks/*.json
	$(BIN)/python -m tests.benchmarks

envs: ## Regenerate envs/plumbline.yaml from requirements.txt
	@sed -n '1,/pip:$$/p' envs/plumbline.yaml > envs/.new
	@sed -n 's/^[A-Za-z]/      - &/p' requirements.txt >> envs/.new
	@mv envs/.new envs/plumbline.yaml

schema: $(INSTALLED) ## Regenerate workflow/config.schema.json
	$(BIN)/plumbline schema
