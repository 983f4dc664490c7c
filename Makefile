# What CI runs. VENV is where the project is installed: `make VENV=.venv check`.
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: check test demo install

install:
	python3 -m venv $(VENV)
	$(BIN)/pip install --quiet -e '.[test,dev]'

check:
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/lint-imports
	$(BIN)/deptry src
	$(BIN)/pyright --pythonpath $(BIN)/python

test:
	$(BIN)/pytest

demo:
	$(BIN)/acgs2 demo
