# The verbs of the house. `.ci/run` is `make check test test-docker`; a fresh machine needs Python >= 3.11, pip and make.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Per cent of branches that the unit tests must reach in common/ and */core/, the simulations unmeasured (the whole: pyproject.toml, fail_under).
CORE_COVERAGE := 99.5
# Only what exists: mypy refuses a folder that does not.
CODE := $(wildcard server agent common host lab tests bench)
LOCKS := requirements.lock requirements-dev.lock

.PHONY: help setup lab check fmt test sim bench bench-shaped bench-unshaped bench-relay bench-idle bench-latency bench-fairness bench-mend bench-accuracy bench-attack soak docs fuzz images test-docker lock audit clean

help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.installed ## make .venv with everything in it (quick when up to date)

# Two stamps, so that a changed tool setting does not reinstall sixty packages.
$(VENV)/.locked: $(LOCKS)
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("arborcast needs Python >= 3.11, this is " + sys.version.split()[0] + "; try make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@touch $@

$(VENV)/.installed: $(VENV)/.locked pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

lab: setup ## the whole method once: six agents and a server on loopback, 64 MiB from A
	$(BIN)/arborcast-lab run --scenario lab/scenarios/six.toml --size 64M --backend loopback

check: setup ## lint, formatting, types, the rooms' arrows, no host name in a lock
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy $(CODE)
	$(BIN)/lint-imports --no-logo
	@if grep -niE 'https?://|index|host' $(LOCKS); then echo 'a lock must name no host' >&2; exit 1; fi

fmt: setup ## format, and mend what ruff can mend
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

# Two lanes, one for each processor; what times real processes, or floods them, has both to itself afterwards. Coverage makes
# a simulation three times as long and adds no line of the cores to what the unit tests reach; real processes run as they do at
# a user's.
LANE_LOG := lane.log
ALONE := tests/attacks/test_flood.py
SECOND := tests/unit
APART := tests/simulation tests/attacks tests/system tests/docker $(SECOND)
test: setup ## every test but the long simulations and the containers, with both coverage gates
	$(BIN)/coverage erase
	@{ first=0; $(BIN)/pytest tests/simulation tests/attacks --ignore=$(ALONE) || first=$$?; \
	$(BIN)/coverage run -m pytest $(APART:%=--ignore=%) || first=$$?; exit $$first; } > $(LANE_LOG) 2>&1 & lane=$$!; \
	ended=0; trap 'kill $$lane 2>/dev/null; exit 130' INT TERM; \
	$(BIN)/coverage run -m pytest $(SECOND) || ended=$$?; \
	wait $$lane || ended=$$?; \
	cat $(LANE_LOG); rm -f $(LANE_LOG); \
	(( ended == 0 )) || exit $$ended
	$(BIN)/pytest tests/system $(ALONE)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report
	$(BIN)/coverage report --include='common/*,*/core/*' --fail-under=$(CORE_COVERAGE)

sim: setup ## the long seeded simulations (hypothesis profile soak: 5,000 examples)
	HYPOTHESIS_PROFILE=soak $(BIN)/pytest -m soak --timeout=0 -o faulthandler_timeout=0

bench: setup ## every script in bench/ but the soak, one after the other
	@shopt -s nullglob; scripts=(bench/[!_]*.py); \
	if (( $${#scripts[@]} == 0 )); then echo 'no script in bench/ yet'; fi; \
	for script in "$${scripts[@]}"; do [[ $$script == bench/soak.py ]] && continue; echo "== $$script"; $(BIN)/python -m "bench.$$(basename "$$script" .py)"; done

# ARGS is passed on: make bench-shaped ARGS='--size 16M --runs 1'. Root and iproute2; bench/README.md says the rest.
bench-shaped: setup ## a file over shaped links, against what the tree's slowest link allows
	@$(BIN)/python -m bench.shaped $(ARGS)

bench-unshaped: setup ## the same over unshaped links, beside Zenoh (extra `bench`) and a TCP tree
	@$(BIN)/python -m bench.unshaped $(ARGS)

bench-relay: setup ## what a relay costs by the gigabyte, beside what it costs at the least
	@$(BIN)/python -m bench.relay $(ARGS)

bench-idle: setup ## processor time and memory of an agent at rest
	@$(BIN)/python -m bench.idle $(ARGS)

bench-latency: setup ## messages over three hops: idle, lossy, and beside a file
	@$(BIN)/python -m bench.latency $(ARGS)

bench-fairness: setup ## our share of a link beside one TCP flow
	@$(BIN)/python -m bench.fairness $(ARGS)

bench-mend: setup ## cut links and killed relays of a random mesh: how long devices are without data
	@$(BIN)/python -m bench.mend $(ARGS)

# ARGS='--minutes 2 --seed 7'. Root and iproute2. `make bench` leaves it out: it measures nothing, it looks for mistakes.
soak: setup ## ten minutes of six agents under random events, with files and messages flowing (root)
	@$(BIN)/python -m bench.soak $(ARGS)

bench-accuracy: setup ## what agents measure of their links, against what those are
	@$(BIN)/python -m bench.accuracy $(ARGS)

bench-attack: setup ## a file to a device that is flooded with garbage, beside the same file in peace
	@$(BIN)/python -m bench.attack $(ARGS)

# ARGS='--seconds 600 node group' or '--seconds 60 --keep'. Needs the extra `fuzz` (Linux); tests/fuzz/__main__.py says the rest.
fuzz: setup ## coverage-guided fuzzing of every decoder and of both cores, 30 s each
	@$(BIN)/python -m tests.fuzz $(ARGS)

docs: setup ## the docs' links, and the examples in them
	$(BIN)/pytest tests/docs

# ARBORCAST_COMPOSE names the compose program where it is not one of the two that are tried.
images: ## build the images of server, agent and shaping (needs a Docker engine and compose)
	@compose=$${ARBORCAST_COMPOSE:-docker compose}; $$compose version >/dev/null 2>&1 || compose=docker-compose; \
	$$compose -f docker-compose.yml -f docker-compose.shaped.yml build --quiet server a shape-a

test-docker: setup ## the compose lab for real, where a Docker engine answers; elsewhere one line says why not
	$(BIN)/pytest tests/docker

# Needs uv, which nothing else here does: make lock UV=path/to/uv
UV ?= uv
COMPILE := $(UV) pip compile --quiet --generate-hashes --universal --fork-strategy fewest --no-header --no-annotate \
	pyproject.toml --group build
lock: ## compile the locks again from pyproject.toml (needs uv; UPGRADE=--upgrade for newer releases)
	$(COMPILE) $(UPGRADE) -o requirements.lock
	$(COMPILE) $(UPGRADE) --extra dev --constraint requirements.lock -o requirements-dev.lock

# Needs pip-audit and the network, which nothing else here does. --strict: a package of which nothing is known is no good news.
AUDIT ?= pip-audit
audit: ## look the locked packages up in the advisory database (AUDIT=path/to/pip-audit)
	$(AUDIT) --strict --require-hashes --disable-pip --progress-spinner off -r requirements.lock
	$(AUDIT) --strict --require-hashes --disable-pip --progress-spinner off -r requirements-dev.lock

clean: ## remove .venv and everything a tool left behind
	rm -rf $(VENV) build dist *.egg-info htmlcov .coverage .coverage.* lab-out fuzz-out \
		.hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache .schemathesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
