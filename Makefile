# Two commands, from a fresh clone, with nothing but Python (3.11 or newer) and make:
#   make demo                  colors free photographs (or PHOTO=path) into demo/
#   make test                  lint, types and tests
PYTHON ?= python3
VENV := .venv
PHOTO ?=

.PHONY: demo test clean

demo: $(VENV)/.demo
	$(VENV)/bin/python -m pipeline.demo --out demo $(if $(PHOTO),"$(PHOTO)")

test: $(VENV)/.test
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(VENV)/bin/python -m pytest

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml | $(VENV)/bin/python
	$(VENV)/bin/python -m pip install --quiet --editable '.[demo]'
	touch $@

$(VENV)/.test: pyproject.toml | $(VENV)/bin/python
	$(VENV)/bin/python -m pip install --quiet --editable '.[test,train]'
	touch $@

clean:
	rm -rf $(VENV) demo
