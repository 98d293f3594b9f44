# Two commands do everything on a fresh machine with Python >= 3.11: `make demo` and `make test`.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
WORKERS ?= $(shell $(PYTHON) -c "import os; print(os.cpu_count() or 1)")

# one thread per process, parallel over runs: more threads per process are slower
export OMP_NUM_THREADS := 1

.PHONY: demo test lint docs bench clean

demo: $(VENV)/installed
	$(BIN)/metarule search first_rule --workers $(WORKERS)

test: $(VENV)/installed lint
	$(BIN)/python -m pytest -n 2

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --project pyproject.toml --pythonpath $(BIN)/python

docs: $(VENV)/installed
	$(BIN)/zensical build --strict

bench: $(VENV)/installed
	$(BIN)/metarule bench

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[test]'
	touch $@

clean:
	rm -rf $(VENV)
