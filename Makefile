# `make demo` and `make test` set up everything they need.
SHELL := /bin/sh
BIN := .venv/bin

.PHONY: help install demo test e2e stack faults lint format lock bench clean

help: ## this list
	@sed -n 's/^\([a-z0-9]*\):.*## \(.*\)/make \1\t\2/p' Makefile | expand -t 16

install: ## everything into .venv (done by the others when needed)
	@scripts/install.sh

demo: install ## the whole line on the virtual bench, with a report at the end; DEMO="--seed 7" passes flags
	@$(BIN)/gripwire demo $(DEMO)

# A machine that is held up for a moment (a busy host, a slow disk) can fail a test that watches live devices:
# such a test is run again, at most twice, and listed as RERUN. RERUNS=0 asks for the first result.
RERUNS ?= 2

test: install ## the tests
	@$(BIN)/python -m pytest --reruns $(RERUNS) -n 3 --dist loadfile --ignore=tests/faults --ignore=tests/e2e \
		--ignore=tests/stack --ignore=tests/lerobot/test_lerobot_tools.py $(TESTS)
	@$(BIN)/python -m pytest --reruns $(RERUNS) tests/faults $(TESTS) # these look at the clock: nothing beside them

e2e: install ## the demo in small, and what it leaves behind; LeRobot's own tools on the bench
	@$(BIN)/python -m pytest --reruns $(RERUNS) tests/e2e tests/lerobot/test_lerobot_tools.py $(TESTS)

stack: install ## images and containers: builds all of the sim profile and runs it, where an engine can run
	@$(BIN)/python -m pytest -rs --reruns $(RERUNS) tests/stack $(TESTS)

faults: install ## the fault tests with their full counts
	@FAULTS_IN_FULL=1 $(BIN)/python -m pytest tests/faults $(TESTS)

lint: install ## ruff and mypy
	@$(BIN)/ruff check . && $(BIN)/ruff format --check --quiet . && $(BIN)/mypy

format: install ## let ruff rewrite what it can
	@$(BIN)/ruff check --fix --quiet . ; $(BIN)/ruff format --quiet .

lock: ## requirements.lock anew from the pyproject.toml files; LOCK="--upgrade" for newer versions
	@scripts/lock.sh $(LOCK)

bench: install ## every speed the README claims, one JSON line each
	@for file in benchmarks/bench_*.py; do $(BIN)/python "$$file" || exit 1; done

clean: ## forget .venv and what tools cached; data is left alone
	@rm -rf .venv .uv .pytest_cache .ruff_cache .mypy_cache
