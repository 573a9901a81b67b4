# `make demo` and `make test` do all their own set-up on a fresh Debian-like machine, as root or not.
.PHONY: help env demo test lint bench accuracy scenarios validation case-study clean
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= python3
export PYTHON VENV

help:
	@echo 'make demo    capture this host for ten seconds, replay it through four strategies, write demo/report.html'
	@echo 'make test    lint, types and all tests'
	@echo 'make bench   benchmarks (a few minutes; wants an idle machine)'
	@echo 'make accuracy  check the machine against the shipped traces, write the table of docs/accuracy.md'
	@echo 'make scenarios  run the scenarios, write their tables into docs/scenarios'
	@echo 'make validation  set published figures beside the simulator, write the tables of docs/validation.md'
	@echo 'make case-study  compound pages against bulk: replay, price, write docs/case-study.md and its pictures'
	@echo 'make env     the virtual environment only'
	@echo 'make clean   remove demo/, caches and the virtual environment'

env: $(VENV)/.installed
$(VENV)/.installed: pyproject.toml .ci/env
	@.ci/env

demo: env
	@$(BIN)/python -m tracereplay.cli.demo

lint: env
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

# live tests by themselves, since they measure this host; then all others, a file a core. Everything runs, and any failure
# fails the whole
test: env
	@$(MAKE) --no-print-directory lint; lint=$$?; \
	$(BIN)/python -m pytest -m 'live and not bench'; live=$$?; \
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile -m 'not live and not bench' && \
	exit $$((lint + live))

bench: env
	@$(BIN)/python -m pytest -m bench -s tests/bench

accuracy: env
	@$(BIN)/python -m tracereplay.cli.accuracy -o docs/accuracy.md
	@$(BIN)/python -m tracereplay.cli.accuracy --sums docs/accuracy.md

scenarios: env
	@$(BIN)/python -m tracereplay.cli.scenario_pages docs/scenarios

validation: env
	@$(BIN)/python -m tracereplay.cli.validation -o docs/validation.md

case-study: env
	@$(BIN)/python -m tracereplay.cli.case_study docs

clean:
	rm -rf demo $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist
