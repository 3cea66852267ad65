VENV ?= .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-all check check-gpu lock bench clean clean-runs

help:           ## show these targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 12

setup: $(VENV)/.ready  ## virtual environment with everything (minutes)

$(VENV)/.ready: $(wildcard requirements/*.txt) pyproject.toml scripts/setup.sh
	scripts/setup.sh $(VENV)

demo: setup     ## the whole method on this CPU, into runs/demo; continues where it was stopped
	test -d runs/tiny || $(BIN)/ringrl tiny runs/tiny
	$(BIN)/ringrl run configs/tiny/run.yaml --resume

test: setup     ## the tests (minutes)
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not slow"

test-all: setup ## the tests, slow ones too
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

check: setup    ## lint, format, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

check-gpu: setup ## what a GPU must show, docs/gpu.md (ten minutes); ARGS=--vllm for the sampler, DEVICE=cpu without one
	$(BIN)/python scripts/check_gpu.py $(if $(DEVICE),--device $(DEVICE)) $(ARGS)

lock:           ## hashes for requirements/*.in, with uv; then audit them: docs/security.md
	for set in build cpu reasoning-gym; do \
	    uv pip compile --quiet --no-deps --universal --python-version 3.11 --generate-hashes --no-annotate \
	        --custom-compile-command "make lock" requirements/$$set.in -o requirements/$$set.txt; done
	uv pip compile --quiet pyproject.toml --extra vllm --constraints requirements/gpu.in --universal --python-version 3.11 \
	    --generate-hashes --no-annotate --custom-compile-command "make lock" -o requirements/gpu.txt

bench: setup    ## the demo over three seeds, with standard errors (an hour)
	$(BIN)/python scripts/bench_demo.py

clean:          ## remove the virtual environment and caches, no results
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find ringrl scripts tests examples -name __pycache__ -type d -prune -exec rm -rf {} +

clean-runs:     ## remove runs/, with all results in it
	rm -rf runs
