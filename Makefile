# `make demo` and `make test` do all the set-up themselves.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: setup demo test faults lint types lab

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[all]'
	touch $(READY)

demo: setup            ## four methods on real text, two at a time, then stability and comparison
	$(BIN)/mhcnb sweep params/sweeps/demo.yaml --out outputs/demo
	@echo "Look at outputs/demo/04-compare.ipynb and outputs/demo/figures"

test: setup            ## the whole default suite, ruff included
	$(BIN)/python -m pytest

faults: setup          ## kills, hangs, full disks, flipped bits, poison: the long set and its table (ten minutes)
	$(BIN)/python -m tests.faults long

types: setup
	$(BIN)/pyright --pythonpath $(BIN)/python

lint: setup
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

lab: setup
	$(BIN)/jupyter lab notebooks
