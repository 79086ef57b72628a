# `make` needs Python 3.11 or newer, pip and make; everything else goes into .venv.
# Another interpreter: make PYTHON=/path/to/python3

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.SUFFIXES:
.NOTPARALLEL:

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check
PYTEST := $(BIN)/python -m pytest
BENCHMARKS := streaming whole_replies agent_run durable_runs appends idle_sessions long_conversation many_streams importing
WORKERS := auto
# Without bytecode every process of the tests (and there are many) would compile everything anew.
unexport PYTHONDONTWRITEBYTECODE
ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))

.PHONY: help demo test unit live check fmt fuzz record bench bench-quick docs clean

help: ## show this list
	@sed -n 's/^\([a-z][a-z-]*\):[^#]*## \(.*\)/  make \1|\2/p' Makefile | \
	while IFS='|' read -r target text; do printf '%-18s %s\n' "$$target" "$$text"; done

demo: $(VENV)/.stamp-cli ## from nothing to an agent with a tool on a real model (DEMO_ARGS=…)
	@$(BIN)/vllm-agent demo $(DEMO_ARGS)

test: unit live ## all tests: without a server first, then on real vLLM servers

unit: $(VENV)/.stamp-dev ## the tests that need no server
	@$(PYTEST) tests --ignore=tests/live -m "not live" -n $(WORKERS) $(TEST_ARGS)

# Serial, and never beside the unit tests: the servers share the machine's cores.
live: $(VENV)/.stamp-dev ## the tests on real vLLM servers (set up on first use)
	@if ls tests/live/test_*.py >/dev/null 2>&1; then \
		$(PYTEST) tests/live -m live $(TEST_ARGS); \
	elif [ -n "$$VLLM_AGENT_REQUIRE_LIVE" ]; then \
		echo "Live tests are required (VLLM_AGENT_REQUIRE_LIVE), and tests/live has none." >&2; exit 1; \
	else \
		echo "tests/live has no tests."; \
	fi

check: $(VENV)/.stamp-dev ## format, lint, types, architecture, generated pages
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(BIN)/pyright
	@$(PYTEST) -q tests/architecture
	@$(BIN)/python tools/features_doc.py --check
	@$(BIN)/python tools/run_diagram.py --check
	@$(BIN)/python tools/requests_doc.py --check

fmt: $(VENV)/.stamp-dev ## format the code and repair what can be repaired
	@$(BIN)/ruff check --fix --exit-zero -q .
	@$(BIN)/ruff format .

fuzz: $(VENV)/.stamp-dev ## a million spoilt replies (FUZZ_ARGS=…), then the property tests with many examples
	@$(BIN)/python tools/fuzz.py --cases 1000000 $(FUZZ_ARGS)
	@$(PYTEST) tests --ignore=tests/live --ignore=tests/architecture -m "not live" \
		-o timeout=3600 --hypothesis-profile=fuzz $(TEST_ARGS)

record: $(VENV)/.stamp-dev ## record fixtures anew, from the server at VLLM_BASE_URL or one of its own
	@$(BIN)/python tools/record.py

bench-quick: $(VENV)/.stamp-dev ## what the client costs beside a bare loop, in under a minute
	@for name in $(BENCHMARKS); do $(BIN)/python -m benchmarks.$$name --quick || exit 1; done

bench: $(VENV)/.stamp-dev ## the same beside the peers; writes docs/performance.md
	@$(PIP) -e '.[bench]'
	@for name in $(BENCHMARKS); do $(BIN)/python -m benchmarks.$$name || exit 1; done
	@$(BIN)/python -m benchmarks.page

docs: $(VENV)/.stamp-dev ## write the generated pages anew
	@$(BIN)/python tools/features_doc.py
	@$(BIN)/python tools/run_diagram.py
	@$(BIN)/python tools/requests_doc.py

clean: ## remove .venv, caches and build output
	@rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# ── set-up ────────────────────────────────────────────────────────────────────────────────────────

$(VENV)/.stamp-venv:
	@python="$(PYTHON)"; \
	if [ -z "$$python" ]; then \
		for candidate in python3 python3.13 python3.12 python3.11 python3.14; do \
			if "$$candidate" -c '$(ENOUGH)' >/dev/null 2>&1; then python="$$candidate"; break; fi; \
		done; \
		if [ -z "$$python" ]; then \
			echo "Python 3.11 or newer is needed and none was found: install one, or name it: make PYTHON=/path/to/python3" >&2; \
			exit 1; \
		fi; \
	elif ! "$$python" -c '$(ENOUGH)' >/dev/null 2>&1; then \
		echo "PYTHON=$$python does not run, or is older than Python 3.11." >&2; \
		exit 1; \
	fi; \
	if ! "$$python" -c 'import ensurepip, venv' >/dev/null 2>&1; then \
		version=$$("$$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])'); \
		echo "$$python (Python $$version) cannot make virtual environments: install its venv package (Debian and Ubuntu: apt-get install python$$version-venv)." >&2; \
		exit 1; \
	fi; \
	echo "Setting up $(VENV) (first run, about a minute) …"; \
	"$$python" -m venv $(VENV)
	@touch $@

$(VENV)/.stamp-dev: pyproject.toml | $(VENV)/.stamp-venv
	@if [ -e $@ ]; then echo "Bringing $(VENV) up to date (pyproject.toml has changed) …"; fi
	@$(PIP) -e '.[dev]'
	@touch $@

# What `make demo` needs; the development set has it too.
$(VENV)/.stamp-cli: pyproject.toml | $(VENV)/.stamp-venv
	@if [ -e $(VENV)/.stamp-dev ] && [ $(VENV)/.stamp-dev -nt pyproject.toml ]; then :; \
	else $(PIP) -e '.[cli]'; fi
	@touch $@
