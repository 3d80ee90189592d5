# Everything a user types. Each target does all it needs on a machine with Python 3.11+ and git.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: venv repro smoke test lint ui

venv: $(VENV)/.complete

# A run starts Python many times: modules must not be compiled anew at each start.
unexport PYTHONDONTWRITEBYTECODE

# PyTorch first and by its exact pin: other specifiers may pull gigabytes of CUDA packages. Modules are compiled
# when they are first imported: most never are.
$(VENV)/.complete: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "ipbasis needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check -c constraints.txt $$(grep '^torch==' constraints.txt)
	$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check -c constraints.txt -e '.[pipeline,dev]'
	touch $@

repro: venv
	$(BIN)/python -m pipelines.dependencies --write
	. $(BIN)/activate && IPBASIS_PIPELINE_RUN=repro-$$(date +%Y%m%d-%H%M%S)-$$$$ dvc repro
	$(BIN)/python -m pipelines.report.readme

smoke: venv
	$(BIN)/python -m pipelines.smoke

test: venv
	$(BIN)/python -m pytest

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

ui: venv
	. $(BIN)/activate && python -m pipelines.ui
