# Everything a person types here. `make` lists the targets.
#
# The only things needed are make and Python 3.11 or newer; the rest is installed into .venv, from the locked and
# hashed requirements, the first time a target needs it.

STACK ?= dev
OUT ?= manifests/$(STACK)
UV_VERSION := 0.13.9

VENV := .venv
BIN := $(VENV)/bin
# Stamps: a target depends on what it needs installed, so a second run installs nothing. What tests need includes what
# the program needs; both live in one environment, and one that has everything is never cut back.
UV := $(VENV)/.uv-$(UV_VERSION)
PROGRAM := $(VENV)/.installed-program
EVERYTHING := $(VENV)/.installed-everything
EMULATORS := $(VENV)/emulators/.installed

# Bytecode is kept, inside .venv: with it a preview starts three times faster.
export PYTHONPYCACHEPREFIX := $(CURDIR)/$(VENV)/bytecode
unexport PYTHONDONTWRITEBYTECODE
unexport VIRTUAL_ENV

MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help
.PHONY: help preview timeouts manifests preflight preflight-demo smoke actuals leftovers test test-slow cluster-tools test-cluster soak bench lint types format docs lock clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

preview: $(PROGRAM) ## plan, monthly cost, resources and outputs of a stack: [STACK=dev] [ALL=1]
	@$(BIN)/python -m offline preview $(STACK) $(if $(ALL),--all)

timeouts: $(PROGRAM) ## every time-out of a stack's tiers and what it must outlast: [STACK=dev] [JSON=1]
	@$(BIN)/python -m planning timeouts Pulumi.$(STACK).yaml $(if $(JSON),--json)

manifests: $(PROGRAM) ## Kubernetes objects and Helm values of a stack as files: STACK=dev OUT=dir
	@$(BIN)/python -m offline manifests $(STACK) $(OUT) $(if $(SAMPLES),--samples)

preflight: $(PROGRAM) ## what the AWS account lacks for a stack, before up: [STACK=dev] [JSON=1]
	@$(BIN)/python -m preflight $(STACK) $(if $(JSON),--json)

preflight-demo: $(EVERYTHING) $(EMULATORS) ## the same against emulated AWS whose GPU quota is too low: [STACK=dev]
	@$(BIN)/python -m tests.emulators --quota L-DB2E81BA=8 -- $(BIN)/python -m preflight $(STACK)

smoke: $(PROGRAM) ## what a client sees of a deployed stack; wakes its tiers: URL=… [JSON=1], the key from API_KEY
	@$(BIN)/python -m smoke "$(URL)" $(if $(JSON),--json)

PROMETHEUS ?= http://localhost:9090
actuals: $(PROGRAM) ## what the nodes cost this month against the forecast: [STACK=dev] [PROMETHEUS=http://localhost:9090] [JSON=1]
	@$(BIN)/python -m actuals $(STACK) --prometheus "$(PROMETHEUS)" $(if $(JSON),--json)

leftovers: $(PROGRAM) ## what a destroyed stack left in the AWS account, and its price: [STACK=dev] [JSON=1]
	@$(BIN)/python -m preflight leftovers $(STACK) $(if $(JSON),--json)

test: lint types ## lint, types and the fast tests
	@$(BIN)/pytest -q -n auto --dist loadfile

test-slow: $(EVERYTHING) $(EMULATORS) ## the tests that take longer than a few seconds
	@$(BIN)/pytest -q -n auto --dist worksteal -m slow || [ $$? -eq 5 ]  # 5: there are none

cluster-tools: $(UV) ## build etcd, kube-apiserver, Karpenter, KEDA and the like (Go 1.26; 15 to 25 minutes, once): [PARTS=…]
	@$(BIN)/python -m tests.cluster.build $(PARTS)

test-cluster: $(EVERYTHING) $(EMULATORS) cluster-tools ## the program before the real API server, Karpenter and KEDA
	@$(BIN)/pytest -q -n 3 --dist loadfile -m 'cluster and not soak' tests/cluster  # they wait more than they compute

soak: $(EVERYTHING) $(EMULATORS) cluster-tools ## the cluster tests that repeat, in full
	@$(BIN)/pytest -q -n 2 --dist worksteal -m soak tests/cluster

bench: $(EVERYTHING) ## how long plans take and what a router adds, against their limits
	@$(BIN)/python benchmarks/plan.py
	@$(MAKE) cluster-tools >/dev/null
	@$(BIN)/python -m benchmarks.router

lint: $(EVERYTHING) ## ruff: rules and format
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check .

types: $(EVERYTHING) ## pyrefly, strict
	@$(BIN)/pyrefly check --output-format min-text --summary=none

format: $(EVERYTHING) ## write the format and the fixes that lint asks for
	@$(BIN)/ruff check --quiet --fix . ; $(BIN)/ruff format --quiet .

docs: $(EVERYTHING) ## write the pages that are made from the code
	@$(BIN)/python docs/generate.py

COMPILE = $(BIN)/uv pip compile --quiet pyproject.toml --universal --python-version 3.11 --generate-hashes \
	--no-annotate --custom-compile-command "make lock" $(if $(UPGRADE),--upgrade)
lock: $(UV) ## write the requirements from pyproject.toml; versions stay as they are unless UPGRADE=1
	@$(COMPILE) -o requirements.txt
	@$(COMPILE) --group dev -c requirements.txt -o requirements-dev.txt
	@$(BIN)/uv pip compile --quiet --group pyproject.toml:emulators --universal --python-version 3.11 --generate-hashes \
		--no-annotate --custom-compile-command "make lock" $(if $(UPGRADE),--upgrade) -o requirements-emulators.txt

clean: ## remove what these targets made, .venv included
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis manifests
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(UV):
	@python=; for candidate in "$${PYTHON:-python3}" python3.14 python3.13 python3.12 python3.11; do \
		if "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then python=$$candidate; break; fi; \
	done; \
	if [ -z "$$python" ]; then \
		echo "Python 3.11 or newer is needed; found: $$(python3 --version 2>&1 || true). Set PYTHON=/path/to/python3" >&2; exit 1; \
	fi; \
	"$$python" -m venv $(VENV) && $(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@touch $@

$(PROGRAM): requirements.txt $(UV)
	@if [ -e $(EVERYTHING) ]; then $(MAKE) $(EVERYTHING); else \
		echo "installing what the program needs into $(VENV) (once)"; \
		$(BIN)/uv pip sync --quiet --require-hashes --python $(BIN)/python requirements.txt; fi
	@touch $@

$(EVERYTHING): requirements.txt requirements-dev.txt $(UV)
	@echo "installing what the program and its tests need into $(VENV) (once)"
	@$(BIN)/uv pip sync --quiet --require-hashes --python $(BIN)/python requirements-dev.txt
	@touch $@ $(PROGRAM)

# AWS' emulators, in an environment of their own: they hold boto3 back to a version before the program's.
$(EMULATORS): requirements-emulators.txt $(UV)
	@echo "installing emulators of AWS into $(VENV)/emulators (once)"
	@$(BIN)/uv venv --quiet --allow-existing --python $(BIN)/python $(VENV)/emulators
	@$(BIN)/uv pip sync --quiet --require-hashes --python $(VENV)/emulators/bin/python requirements-emulators.txt
	@touch $@
