# The commands of the book. Each sets up what it needs; `make PYTHON=python3.12 book` chooses the Python.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
REQUIREMENTS ?= requirements.txt
READY := $(VENV)/.ready
NOTEBOOKS := $(wildcard book/*.ipynb)
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export OMP_NUM_THREADS ?= 1

.DEFAULT_GOAL := help
.PHONY: help setup book test unit chapter lab sync experiments clean

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

setup: $(READY) ## create .venv with the pinned environment

$(READY): $(REQUIREMENTS) constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 ...")'
	@test -x $(BIN)/pip || $(PYTHON) -m venv --clear $(VENV)
	@echo "Installing $(REQUIREMENTS) into $(VENV) (some minutes, once)"
	@$(BIN)/python -m pip install --quiet --requirement $(REQUIREMENTS)
	@touch $@

book: $(READY) ## execute the stale chapters and render the book; warnings are errors
	$(BIN)/python book/tools/execute.py
	$(BIN)/jupyter-book build . -W --keep-going -n -q
	@echo "The book: $(CURDIR)/_build/html/index.html"

test: lint $(READY) ## lint, execute the stale chapters, run all tests
	$(BIN)/python book/tools/execute.py
	$(BIN)/python -m pytest

unit: lint $(READY) ## lint and run all tests, without executing chapters
	$(BIN)/python -m pytest

.PHONY: lint
lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(if $(NOTEBOOKS),$(BIN)/nbstripout --verify --keep-id $(NOTEBOOKS))

chapter: $(READY) ## execute one chapter: make chapter N=02
	@test -n "$(N)" || { echo "Which one? make chapter N=02"; exit 2; }
	$(BIN)/python book/tools/execute.py --only "$(N)"

lab: $(READY) ## open the chapters in JupyterLab
	$(BIN)/python book/tools/install.py
	$(BIN)/jupyter lab --notebook-dir=book

sync: $(READY) ## write the first cell of each chapter, normalize and format the notebooks
	$(BIN)/python book/tools/sync.py
	$(BIN)/ruff format .

experiments: $(READY) ## measure what balance/datasets/data/results lacks; remove a table to measure it anew
	PYTHONPATH=. $(BIN)/python experiments/contrastive.py
	PYTHONPATH=. $(BIN)/python experiments/clustering.py
	PYTHONPATH=. $(BIN)/python experiments/curation.py

clean: ## remove what the commands made, except .venv
	rm -rf build _build .hypothesis .pytest_cache .ruff_cache book/.ruff_cache
