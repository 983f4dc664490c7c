# What CI runs. VENV is where the project is installed: `make VENV=.venv check`.
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: check test mutants torture demo install

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

# Our own code with one promise broken at a time: every one must make its tests fail.
mutants:
	$(BIN)/python -m tests.mutants

demo:
	$(BIN)/acgs2 demo

# Faults and load for so long, then judged; the seed is printed. `make torture MINUTES=30 SEED=7` replays seed 7.
torture:
	$(BIN)/python -m tests.cluster.torture --minutes $(or $(MINUTES),5) $(if $(SEED),--seed $(SEED))
