# What there is to do here; each target makes the virtual environment that it needs.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
ARGS ?=

# Python is started some two thousand times by the tests, and keeps here what it has compiled.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup demo scale-demo dev redis cluster sellfern test image check format bench chaos siege lock clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(READY) ## make .venv from the pinned lock

# Stamped last, so that an interrupted set-up starts anew.
$(READY): requirements-dev.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "error: PYTHON: expected Python 3.11 or newer, got $$($(PYTHON) --version 2>&1 || echo 'no $(PYTHON)')" >&2; \
		exit 2; }
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $(READY)

demo: $(READY) ## run the main job: 2,000 signed events, one ingress, two workers
	@$(BIN)/python -m deploy.local demo $(ARGS)

scale-demo: $(READY) ## ten times the load and back: workers follow by the ScaledObject's rule
	@$(BIN)/python -m deploy.local scale-demo $(ARGS)

dev: $(READY) ## run everything to develop with: ARGS="--handlers shop.hooks:handlers"
	@$(BIN)/python -m deploy.local dev $(ARGS)

redis: $(READY) ## start the bundled Redis alone, and print its URL
	@$(BIN)/python -m deploy.local redis $(ARGS)

cluster: $(READY) ## start a Redis Cluster of the bundled Redis, and print its URL
	@$(BIN)/python -m deploy.local cluster $(ARGS)

sellfern: $(READY) ## start a Sellfern to develop against, on port 8090
	@$(BIN)/python -m deploy.sellfern --port 8090 --api-key sk_test_local:org_123 $(ARGS)

# With ARGS it is a part of the tests, and what they cover says nothing of the whole. In their own
# order the long files come first; by the number of their tests they came last, one beside idle cores.
# Five processes on two cores: a third of the time tests wait, for leases and limits.
test: $(READY) ## run the tests with their coverage
	@$(BIN)/python -m coverage erase
	$(BIN)/python -m coverage run -m pytest --numprocesses 5 --dist loadfile \
		--no-loadscope-reorder $(ARGS)
	@$(BIN)/python -m coverage combine --quiet
	$(BIN)/python -m coverage report $(if $(strip $(ARGS)),--fail-under=0)

# It has to be root, and downloads: so it is no part of the tests.
image: $(READY) ## build the container images, and run them as strictly as Kubernetes would
	@CI=1 $(BIN)/python -m pytest tests/image/facts.py $(ARGS)

check: $(READY) ## check format, lint and types
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m ruff check .
	$(BIN)/python -m mypy

format: $(READY) ## write the format that check wants
	$(BIN)/python -m ruff check --fix-only --quiet .
	$(BIN)/python -m ruff format .

bench: $(READY) ## measure against the peers; results go to tests/bench/results/
	@$(BIN)/python -m tests.bench $(ARGS)

chaos: $(READY) ## break everything while events come in, and balance the account
	@$(BIN)/python -m tests.chaos $(ARGS)

siege: $(READY) ## attack an ingress in every way, and print what its genuine senders got
	@$(BIN)/python -m tests.siege $(ARGS)

lock: $(READY) ## resolve the pinned locks anew (needs uv)
	uv pip compile --universal --generate-hashes --no-header --upgrade --python-version 3.11 --quiet pyproject.toml --output-file requirements.lock
	uv pip compile --universal --generate-hashes --no-header --upgrade --python-version 3.11 --quiet --extra dev pyproject.toml --output-file requirements-dev.lock
	$(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], sep="\n")' \
		| uv pip compile --universal --generate-hashes --no-header --upgrade --python-version 3.11 --quiet -c requirements-dev.lock - --output-file requirements-build.lock
	uv pip compile --universal --generate-hashes --no-header --upgrade --python-version 3.11 --quiet --extra deploy -c requirements-dev.lock pyproject.toml --output-file requirements-deploy.lock
	cd deploy/handlers && uv pip compile --universal --generate-hashes --no-header --no-annotate --upgrade --python-version 3.11 --quiet -c ../../requirements.lock requirements.in --output-file requirements.txt

clean: ## remove what make has made
	rm -rf $(VENV) .bench .dev build dist *.egg-info .coverage .coverage.* htmlcov .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
