# Two commands do all the set-up: `make serve` runs the server, `make test` runs every test.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin

.PHONY: serve test check lint types settings binary binary-test systemd-test clean

serve: $(VENV)/.serve            ## install and run the server on embedded defaults
	$(BIN)/xiaozhi serve

test: $(VENV)/.dev build/clients/.done ## install what the tests need and run them all
	$(BIN)/python -m pytest -n 4 --dist worksteal --durations 12

check: lint types test           ## everything CI runs

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

settings: $(VENV)/.dev           ## write settings.toml and the tables of the READMEs anew from xiaozhi/settings
	$(BIN)/python -m xiaozhi.settings.documents

types: $(VENV)/.dev
	$(BIN)/mypy

binary: $(VENV)/.dev             ## one executable with everything in it: dist/xiaozhi
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[binary,mcp,redis]'
	$(BIN)/pyinstaller --noconfirm --log-level WARN packaging/xiaozhi.spec

binary-test: binary              ## run it in an empty root, without Python
	$(BIN)/python packaging/smoke.py dist/xiaozhi

systemd-test: binary             ## the printed unit under a real systemd (root, systemd-container, debootstrap)
	$(BIN)/python packaging/systemd_check.py dist/xiaozhi

# A client of other make that the tests talk to. It brings a command that is called like ours, so it lives apart; where
# it cannot be had the tests that need it are skipped and say so.
build/clients/.done: $(VENV)/.dev
	-@mkdir -p build/clients && $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade \
	  --target build/clients xiaozhi-sdk==0.5.1 opuslib==3.0.1 py-machineid==1.0.0 'websockets>=15.0.1,<18' && touch $@

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
