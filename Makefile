# Every target first makes .venv, from the constraints file, when it is not up to date.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready

.PHONY: setup demo test check format clean

setup: $(STAMP)

$(STAMP): setup.cfg pyproject.toml constraints.txt
	@echo "== setting up $(VENV) from constraints.txt (a few minutes the first time)"
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "flam_rl needs Python 3.11 or newer; set PYTHON=...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip setuptools wheel -c constraints.txt
	$(BIN)/python -m pip install --quiet torch -c constraints.txt
	$(BIN)/python -m pip install --quiet --editable '.[dev]' -c constraints.txt
	@touch $(STAMP)

demo: setup
	@echo "== training an agent in imagination and evaluating it on the real task (a minute or two)"
	$(BIN)/flam-rl demo --out runs/demo

test: setup check
	@echo "== running the tests"
	$(BIN)/python -m pytest

check: setup
	@echo "== lint, format, types, import directions"
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/test_architecture.py

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf build dist *.egg-info runs
