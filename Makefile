# `make demo` and `make test` set up all that they need in .venv; nothing else has to be installed but Python and make.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
INPUTS := pyproject.toml constraints.txt

.PHONY: demo test check docs conformance fuzz matrix lint format bench dist image clean

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

# The tests with each Python, with the smallest and with the newest versions, each in an environment of its own. One row:
# `make matrix ROWS=3.12`; a part of the tests: `make matrix TESTS=tests/mapping`. uv is used where it is installed.
matrix: $(VENV)/.installed-test
	$(BIN)/python -m tests.matrix $(ROWS) -- $(TESTS)

lint: $(VENV)/.installed-test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/mypy

format: $(VENV)/.installed-test
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.installed-bench
	$(BIN)/python -m benchmarks.start
	$(BIN)/python -m benchmarks.convert
	$(BIN)/python -m benchmarks.verify --shape base
	$(BIN)/python -m benchmarks.tokenize
	$(BIN)/python -m benchmarks.encoder

# What is released. ALBERT_HUB_BRIDGE_URL is the address of the repository: hatch_build.py.
dist: $(VENV)/.installed-dist
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/python -m twine check --strict dist/*

image: dist
	docker build --tag albert-hub-bridge .

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

$(VENV)/.installed-dist: $(INPUTS) | $(BIN)/python
	$(BIN)/python -m pip install --quiet --constraint constraints.txt build twine
	touch $@
