# The whole project in four targets: install, demo, test, check.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
CONFIG := $(if $(FULL),configs/complete_journey_full.toml,configs/complete_journey.toml)

.PHONY: install demo test check

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[benchmark,demo,test]"
	touch $@

# Raw purchases to a served, explained ranking. FULL=1: the whole year of all households.
demo: install
	$(BIN)/python -m serving.demo --config $(CONFIG)

test: install
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

check: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
