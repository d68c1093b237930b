# The commands of the book. Each sets up what it needs; `make PYTHON=python3.12 book` chooses the Python.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
REQUIREMENTS ?= requirements.txt
READY := $(VENV)/.ready
BENCH := build/bench
OPEN_CLIP := open_clip_torch==3.3.0
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export OMP_NUM_THREADS ?= 1

.DEFAULT_GOAL := help
.PHONY: help setup book test unit chapter lab sync plant links experiments bench clean

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
	$(BIN)/codespell
	$(BIN)/mypy

chapter: $(READY) ## execute one chapter: make chapter N=02
	@test -n "$(N)" || { echo "Which one? make chapter N=02"; exit 2; }
	$(BIN)/python book/tools/execute.py --only "$(N)"

lab: $(READY) ## open the chapters in JupyterLab
	$(BIN)/python book/tools/install.py
	$(BIN)/jupyter lab --notebook-dir=book

sync: $(READY) ## write the first cell of each chapter, normalize and format the notebooks
	$(BIN)/python book/tools/sync.py
	$(BIN)/ruff format .

plant: $(READY) ## plant errors in the statements and see whether checks and tests notice: make plant N="03 05"
	$(BIN)/python book/tools/plant.py $(N)

links: $(READY) ## ask every address outside of the book whether it answers (needs a network)
	$(BIN)/jupyter-book config sphinx .
	PYTHONPATH=book/tools $(BIN)/sphinx-build -b linkcheck -q -D nb_execution_mode=off \
		-D linkcheck_report_timeouts_as_broken=1 . build/links

experiments: $(READY) ## measure what balance/datasets/data/results lacks; remove a table to measure it anew
	PYTHONPATH=. $(BIN)/python experiments/contrastive.py
	PYTHONPATH=. $(BIN)/python experiments/clustering.py
	PYTHONPATH=. $(BIN)/python experiments/curation.py

bench: $(BENCH)/.ready ## measure the speed beside other packages: make bench ARGS="dense records --quick"
	PYTHONPATH=. $(BENCH)/bin/python benchmarks/engine.py $(ARGS)

# The peers have an environment of their own: none of them reaches the pinned one.
$(BENCH)/.ready: requirements-bench.txt constraints.txt
	@test -x $(BENCH)/bin/pip || $(PYTHON) -m venv --clear $(BENCH)
	@echo "Installing requirements-bench.txt into $(BENCH) (some minutes, once)"
	@$(BENCH)/bin/python -m pip install --quiet --requirement requirements-bench.txt
	@$(BENCH)/bin/python -m pip install --quiet --no-deps $(OPEN_CLIP)
	@touch $@

clean: ## remove what the commands made, except .venv
	rm -rf build _build .hypothesis .mypy_cache .pytest_cache .ruff_cache book/.ruff_cache
