# Commands from a fresh clone, with nothing but Python (3.11 or newer) and make:
#   make demo                  colors free photographs (or PHOTO=path) into demo/
#   make test                  lint, types and tests
#   make test-app              the web pages in a real browser: Debian's chromium, which it installs where it may
#   make test-ray              trichrome batch on a Ray of two actors, which are killed (KILLS=)
#   make load                  fifty clients of the HTTP API for two minutes (CLIENTS=, SECONDS=, FUZZED=)
#   make fuzz                  reads 10 000 damaged pictures (COUNT=, SEED=)
#   make soak                  stops the command 100 times in the middle of its writes (ROUNDS=), kills a folder of 300
#                              photos or one of its two workers 30 times, and stops videos 90 times
PYTHON ?= python3
VENV := .venv
PHOTO ?=
COUNT ?= 10000
SEED ?= 0
ROUNDS ?= 100
KILLS ?= 30
CLIENTS ?= 50
SECONDS ?= 120
FUZZED ?= 500

.PHONY: demo test test-app test-ray load fuzz soak clean

demo: $(VENV)/.demo
	$(VENV)/bin/python -m pipeline.demo --out demo $(if $(PHOTO),"$(PHOTO)")

test: $(VENV)/.test
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(VENV)/bin/python -m pytest

test-app: $(VENV)/.test-app
	$(VENV)/bin/python -m pytest -m browser tests/app

test-ray: $(VENV)/.test-ray
	TRICHROME_KILLS=$(KILLS) $(VENV)/bin/python -m pytest -m ray tests/batch

load: $(VENV)/.test
	$(VENV)/bin/python tests/app/load.py --clients $(CLIENTS) --seconds $(SECONDS) --fuzzed $(FUZZED)

fuzz: $(VENV)/.test
	$(VENV)/bin/python tests/fuzz/fuzz.py --count $(COUNT) --seed $(SEED)

soak: $(VENV)/.test
	$(VENV)/bin/python tests/fuzz/kills.py --count $(ROUNDS) --seed $(SEED)
	$(VENV)/bin/python tests/fuzz/kills.py --count 30 --video --seed $(SEED)
	$(VENV)/bin/python tests/fuzz/kills.py --count 30 --photos 300 --workers 2 --seed $(SEED)

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml | $(VENV)/bin/python
	$(VENV)/bin/python -m pip install --quiet --editable '.[demo]'
	touch $@

$(VENV)/.test: pyproject.toml | $(VENV)/bin/python
	$(VENV)/bin/python -m pip install --quiet --editable '.[test,train,app,video]'
	touch $@

$(VENV)/.test-app: $(VENV)/.test $(VENV)/.demo
	$(VENV)/bin/python -m pip install --quiet --editable '.[test-app]'
	command -v chromium >/dev/null || { apt-get update --quiet && apt-get install --quiet --yes chromium; }
	$(VENV)/bin/python tests/app/axe.py
	$(VENV)/bin/python tests/app/ort_web.py
	touch $@

$(VENV)/.test-ray: $(VENV)/.test
	$(VENV)/bin/python -m pip install --quiet --editable '.[ray,test-ray]'
	touch $@

clean:
	rm -rf $(VENV) demo
