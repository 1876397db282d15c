# Every target first makes .venv, from the constraints file, when it is not up to date.
PYTHON ?= python3
PYTHONS ?= python3.11 python3.12 python3.13
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready

# A worker a core, four at most: each holds torch, the shipped world and a recording. Tests of a file stay together, they
# share what is expensive to make. One thread each: two that wait for each other on a busy core are slower than one.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses logical --maxprocesses 4 --dist loadfile

.PHONY: setup demo test test-fast test-pythons check format docs clean

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
	$(PYTEST)

test-fast: setup
	@echo "== running the tests that train nothing for long (2 minutes)"
	$(PYTEST) -m "not learning"

test-pythons:
	@for python in $(PYTHONS); do \
		version=$$($$python -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) \
			|| { echo "== $$python is not installed here: left out"; continue; }; \
		echo "== Python $$version"; \
		$(MAKE) test-fast PYTHON=$$python VENV=.venv-$$version || exit 1; \
	done

check: setup
	@echo "== lint, format, types, import directions"
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: setup
	@echo "== building the site into site/, running what its pages run (three to four minutes of one core)"
	NO_MKDOCS_2_WARNING=1 OMP_NUM_THREADS=1 $(BIN)/python -m mkdocs build --strict

clean:
	rm -rf build dist site *.egg-info runs
