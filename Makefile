# segserve: `make demo` sets everything up and shows the main job; `make test` proves it; `make help` lists the rest.
SHELL := /bin/bash
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# One thread a process: TorchServe's workers and the tests share the cores.
export OMP_NUM_THREADS ?= 1

.PHONY: help install chromium demo serve test lint format bench image-test containers clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12

install: $(STAMP) ## create .venv with everything in it, Java included, and the tests' browser
	@$(MAKE) --no-print-directory chromium || echo "segserve is installed; only the web page's tests need a browser."

# Debian splits the part of Python that makes virtual environments into a package of its own.
$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))' \
	  || { echo "segserve needs Python 3.11 or 3.12; name it: make PYTHON=python3.11"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
	  || { [ "$$(id -u)" = 0 ] && apt-get update -qq && apt-get install -y -qq python3-venv; } \
	  || { echo "Python's venv module is missing: sudo apt-get install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --progress-bar on --quiet --editable '.[serve,train,test,lint]'
	@touch $(STAMP)

# The browser of the web page's tests: Debian's package, which Playwright drives, where none of its names is there yet.
chromium:
	@command -v chromium chromium-browser google-chrome >/dev/null \
	  || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get update -qq \
	       && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium >/dev/null; } \
	  || { echo "Chromium is missing, which the web page's tests run in: sudo apt-get install chromium"; exit 1; }

demo: $(STAMP) ## segment three pictures by text, class and click and re-tile a floor; pictures go to demo_output/
	$(BIN)/segserve demo --out demo_output

serve: $(STAMP) ## serve the demo models on http://127.0.0.1:8080 until Ctrl-C
	@[ -n "$$(ls model_store/*.mar 2>/dev/null)" ] || $(BIN)/segserve archive demo
	$(BIN)/segserve serve

test: $(STAMP) chromium ## every test: unit, contract, end to end with a real TorchServe and a real browser
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

lint: $(STAMP) ## ruff, ruff format, mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP) ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP) ## throughput, latency and CPU of the served models against in-process calls
	$(BIN)/python benchmarks/serving.py

image-test: $(STAMP) containers ## build the container image, run it as SageMaker does and hold it to the contract (gigabytes)
	$(BIN)/python -m pytest tests/image -o python_files='image_*.py' -o timeout=7200 -o log_cli=true -o log_cli_level=INFO

# What builds and runs containers: Docker or podman, and debootstrap for machines that reach no registry.
containers:
	@command -v docker podman >/dev/null \
	  || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get update -qq \
	       && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends podman buildah crun runc debootstrap >/dev/null; } \
	  || { echo "Docker or podman is missing: sudo apt-get install podman buildah runc debootstrap"; exit 1; }

clean: ## remove what was built, the virtual environment included
	rm -rf $(VENV) build demo_output logs model_store/*.mar .pytest_cache .mypy_cache .ruff_cache
