# From a fresh clone: `make demo` or `make test`. Each sets up what is missing first.

VENV := .venv
# What runs the examples; and the same with all that tests, checks and documents need.
RUNS := $(VENV)/.runs
READY := $(VENV)/.ready
BIN := $(VENV)/bin

# Asked at each use, not once: it is quick, and Java may come or go after the set-up.
WITH_JAVA = JAVA_HOME="$$(scripts/setup.sh java)" && export JAVA_HOME &&

# What `make test-long` runs: WING=tests/faults for one part of it.
WING := tests

.PHONY: help setup demo test test-trials test-long lint format docs clean

help:
	@echo "make demo         train, evaluate and predict on a Spark DataFrame of digits"
	@echo "make test         run the tests; ARGS='-k shards' goes to pytest"
	@echo "make test-trials  break each thing that a fit lives with, once"
	@echo "make test-long    run the trials that take hours; WING=tests/faults for one part of them"
	@echo "make lint         check style, format and types"
	@echo "make format       write the format, the safe fixes and the map in docs/architecture.md"
	@echo "make docs         make the site of the documents in build/site"
	@echo "make setup        make $(VENV) and find Java, which all of the above do by themselves"
	@echo "make clean        remove everything that was made here"

setup: $(READY)
	@$(WITH_JAVA) echo "Ready: Python in $(VENV), Java in $$JAVA_HOME"

$(RUNS): pyproject.toml constraints.txt scripts/setup.sh
	@scripts/setup.sh venv $(VENV) $(RUNS)

$(READY): $(RUNS)
	@scripts/setup.sh tools $(VENV) $(READY)

demo: $(RUNS)
	@$(WITH_JAVA) $(BIN)/python examples/digits.py

# Two processes share the tests, file by file; ARGS='-n 0' runs them in one.
test: $(READY)
	@$(WITH_JAVA) $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

# A short trial of each fault; those of one Spark share a program, and two programs run at a time.
test-trials: $(READY)
	@$(WITH_JAVA) $(BIN)/python -m pytest -m trial -n 2 --dist loadfile tests/faults $(ARGS)

# One after the other: these measure, or keep the machine busy by themselves.
test-long: $(READY)
	@$(WITH_JAVA) $(BIN)/python -m pytest -m long $(WING) $(ARGS)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m mypy

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/python scripts/architecture_map.py

# A warning is an error: a page that is in no menu, a link into nothing, a docstring out of form.
docs: $(READY)
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going --doctree-dir build/doctrees docs build/site
	@echo "The documents: build/site/index.html"

clean:
	rm -rf $(VENV) build dist docs/api out spark-warehouse .pytest_cache .mypy_cache .ruff_cache
	rm -rf src/*.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
