# make demo   watch routers work, offline            make test    formatter, linter, types, all tests
# make quick  the tests that take no longer than two minutes       make bench   measurements, several minutes
# make circle the tiny router is served, run, trained on its own runs, served again: minutes, with a real vLLM
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := orchestra_graph training tests examples graphs

.PHONY: demo test quick circle lint types bench sandbox postgres browser format clean

demo: $(VENV)/.demo
	@$(BIN)/orchestra demo

test: lint types sandbox postgres browser
	$(BIN)/pytest -n 2 -m "not vllm"
	$(BIN)/pytest -m vllm
	@$(MAKE) --no-print-directory circle

quick: $(VENV)/.dev sandbox
	$(BIN)/pytest -n 2 -m "not slow and not vllm" --hypothesis-profile quick

circle: $(VENV)/.dev
	@$(BIN)/python tests/integration/circle.py

lint: $(VENV)/.dev
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)

types: $(VENV)/.dev
	$(BIN)/mypy

format: $(VENV)/.dev
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/ruff check --fix $(SOURCES)

bench: $(VENV)/.dev postgres
	$(BIN)/python tests/benchmarks/import_time.py
	$(BIN)/python tests/benchmarks/overhead.py
	$(BIN)/python tests/benchmarks/concurrency.py
	$(BIN)/python tests/benchmarks/tracing.py
	$(BIN)/python tests/benchmarks/views.py
	$(BIN)/python tests/benchmarks/retriever.py
	$(BIN)/python tests/benchmarks/evaluation.py
	$(BIN)/python tests/benchmarks/serving.py
	$(BIN)/python tests/benchmarks/rollouts.py
	$(BIN)/python tests/benchmarks/kills.py
	$(BIN)/python tests/benchmarks/harvest.py
	$(BIN)/python -m tests.benchmarks.round_trip
	$(BIN)/python tests/benchmarks/data_sets.py

# Code of experts runs in bubblewrap; its tests need the real one.
sandbox:
	@command -v bwrap >/dev/null || if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get update -qq && apt-get install -y -qq bubblewrap >/dev/null; \
	else \
		echo "bubblewrap is missing; fix: install it, for example: sudo apt-get install bubblewrap" >&2; exit 1; \
	fi

# The kill tests start a real PostgreSQL server.
postgres:
	@ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || command -v initdb >/dev/null || \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get update -qq && apt-get install -y -qq postgresql >/dev/null; \
	else \
		echo "PostgreSQL is missing; fix: install it, for example: sudo apt-get install postgresql" >&2; exit 1; \
	fi

# The page of an evaluation is opened and clicked in a real browser.
browser:
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium >/dev/null; \
	else \
		echo "chromium is missing; fix: install it, for example: sudo apt-get install chromium" >&2; exit 1; \
	fi

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed; fix, for example: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "installing orchestra-graph into $(VENV) (once)"
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[demo]'
	@touch $@

# torch by itself first, by its exact version: nothing after it asks for another build.
$(VENV)/.dev: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "installing orchestra-graph and its development tools into $(VENV) (once)"
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt "$$(grep ^torch== constraints.txt)"
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@ $(VENV)/.demo

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist
