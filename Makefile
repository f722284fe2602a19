# The whole project in five targets: install, demo, serve, test, check.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
MODELS ?= workspace/complete_journey/models
CONFIG := $(if $(FULL),configs/complete_journey_full.toml,configs/complete_journey.toml)

.PHONY: install demo serve test check

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[benchmark,demo,test]"
	touch $@

# Raw purchases to a served, explained ranking. FULL=1: the whole year of all households.
demo: install
	$(BIN)/python -m serving.demo --config $(CONFIG)

# TensorFlow Serving in Docker, on the exported models. MODELS=DIR: other ones. GPU=1: on a GPU.
serve:
	@sh serving/tf_serving/serve.sh "$(MODELS)" $(if $(GPU),gpu)

test: install
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

check: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
