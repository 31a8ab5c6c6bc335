# Two commands do all the set-up: `make serve` runs the server, `make test` runs every test.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin

.PHONY: serve test check lint types binary binary-test clean

serve: $(VENV)/.serve            ## install and run the server on embedded defaults
	$(BIN)/xiaozhi serve

test: $(VENV)/.dev               ## install what the tests need and run them all
	@# Whole turns run in real time: a machine that stands still for a second costs one more try, and says so.
	$(BIN)/python -m pytest -n 6 --dist worksteal --reruns 1 -r R

check: lint types test           ## everything CI runs

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy

binary: $(VENV)/.dev             ## one executable with everything in it: dist/xiaozhi
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[binary,mcp,redis]'
	$(BIN)/pyinstaller --noconfirm --log-level WARN packaging/xiaozhi.spec

binary-test: binary              ## run it in an empty root, without Python
	$(BIN)/python packaging/smoke.py dist/xiaozhi

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; name one with: make serve PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.serve: $(VENV)/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@ $(VENV)/.serve

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
