# `make demo` and `make test` set up all that they need in .venv; nothing else has to be installed but Python and make.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
INPUTS := pyproject.toml constraints.txt

.PHONY: demo test check docs conformance fuzz lint format bench clean

demo: $(VENV)/.installed
	$(BIN)/python -m conversion.demo

test: check

# A process for each core.
check: lint docs
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal --durations 15

# The pages in docs/ become site/, and a warning is an error.
docs: $(VENV)/.installed-test
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# transformers' own common tests, a part of `test`.
conformance: $(VENV)/.installed-test
	$(BIN)/python -m pytest tests/conformance

# What `make test` does a part of: every fault at every call that touches the disk, which takes minutes; and mutants of
# every file that is read, which take hours.
fuzz: $(VENV)/.installed-test
	$(BIN)/python -m pytest tests/kill/every_call.py
	$(BIN)/python -m tests.hostile.fuzz

lint: $(VENV)/.installed-test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/mypy

format: $(VENV)/.installed-test
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.installed-bench
	$(BIN)/python -m benchmarks.convert
	$(BIN)/python -m benchmarks.tokenize
	$(BIN)/python -m benchmarks.encoder

clean:
	rm -rf $(VENV) demo build dist site .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(INPUTS) | $(BIN)/python
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

$(VENV)/.installed-test: $(INPUTS) | $(BIN)/python
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test]'
	touch $@ $(VENV)/.installed

$(VENV)/.installed-bench: $(INPUTS) | $(BIN)/python
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[bench]'
	touch $@ $(VENV)/.installed
