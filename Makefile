# Each target is one command on a fresh machine with Python 3.11 or newer: it makes its own .venv, and is quick the second time.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
WORKERS := -n auto --maxprocesses=4 --dist=loadfile

.PHONY: demo models test test-all quick all lint bench docs archive clean

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(STAMP)
	$(BIN)/fabrica demo -o demo

# the models that ship, made anew; --only NAME and what else it takes: make models MODELS="--only chest-text"
models: $(STAMP)
	$(BIN)/python -m models $(MODELS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# one thread a worker, of every library: threads beyond the cores wait for one another
quick all: export OMP_NUM_THREADS ?= 1

# a share of the examples of each property; all of them in test-all
quick: export TEST_SHARE ?= 0.4

# side by side: workers that wait for one another leave a core to the types
test: $(STAMP)
	$(MAKE) -j2 lint quick

test-all: $(STAMP)
	$(MAKE) -j2 lint all

quick: $(STAMP)
	$(BIN)/python -m pytest -m "not slow" $(WORKERS)

all: $(STAMP)
	$(BIN)/python -m pytest $(WORKERS)

bench: $(STAMP)
	$(BIN)/python -m benchmarks

docs: $(STAMP)
	$(BIN)/python docs/gallery.py

# an archive to try the node with, until Ctrl-C: Debian's Orthanc, in a network of its own where that is possible
archive: $(STAMP)
	$(BIN)/python -m tests.orthanc

clean:
	rm -rf $(VENV) demo build dist
