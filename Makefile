# `make help` lists the targets. Needs make and Python 3.11 or newer; everything else is installed
# into .venv from requirements/, which pins every package by hash.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PROTOS := $(wildcard proto/pdpapi/v1/*.proto)

.DEFAULT_GOAL := help

.PHONY: help
help: ## List the targets.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(VENV)/.installed: requirements/dev.txt pyproject.toml clients/python/pyproject.toml
	@echo "Installing into $(VENV): about a minute, once."
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; say make PYTHON=python3.11")'
	@$(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements/dev.txt
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation \
		-e clients/python -e .
	@touch $@

.PHONY: install
install: $(VENV)/.installed ## Install the project and its tools into .venv.

.PHONY: demo
demo: install ## Run the main job on a small example: an allow, a 401, a 403 and the audit rows.
	@$(BIN)/python -m examples.demo

.PHONY: test
test: install ## Run the tests, with coverage.
	@$(BIN)/python -m pytest -n auto --dist loadfile --cov --cov-report=term:skip-covered $(ARGS)

.PHONY: check
check: install lint types house proto-check test ## Exactly what CI runs.

.PHONY: lint
lint: install ## Lint the code and the contract.
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/buf lint proto

.PHONY: types
types: install ## Check the types.
	@$(BIN)/mypy

.PHONY: house
house: install ## Check that imports point one way.
	@$(BIN)/lint-imports

.PHONY: format
format: install ## Format the code.
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix-only --quiet .

.PHONY: proto
proto: install ## Generate the Python stubs from proto/.
	@$(BIN)/python -m grpc_tools.protoc -Iproto \
		--plugin=protoc-gen-mypy=$(BIN)/protoc-gen-mypy \
		--plugin=protoc-gen-mypy_grpc=$(BIN)/protoc-gen-mypy_grpc \
		--python_out=$(OUT) --grpc_python_out=$(OUT) \
		--mypy_out=quiet:$(OUT) --mypy_grpc_out=quiet:$(OUT) $(PROTOS)
proto: OUT ?= clients/python

.PHONY: proto-check
proto-check: install ## Fail where the generated stubs are stale.
	@rm -rf build/proto && mkdir -p build/proto
	@$(MAKE) --no-print-directory proto OUT=build/proto
	@diff -r --exclude=__init__.py --exclude=__pycache__ --exclude=py.typed \
		build/proto/pdpapi clients/python/pdpapi \
		|| (echo "stale stubs: run make proto"; exit 1)

.PHONY: bench
bench: install ## Measure this PDP, Cerbos and pycasbin side by side (about 10 minutes).
	@$(BIN)/python -m bench

.PHONY: soak
soak: install ## Look for stale answers in 100,000 operations under faults (about 5 minutes).
	@$(BIN)/python -m tests.history --operations 100000 $(ARGS)

.PHONY: lock
lock: install ## Pin every dependency anew, by hash.
	@for kind in runtime dev; do \
		group=$$([ $$kind = dev ] && echo "--group dev"); \
		$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
			--no-header --no-emit-index-url --no-emit-find-links --no-emit-package pdp-client \
			--upgrade $$group pyproject.toml -o requirements/$$kind.txt || exit 1; \
	done
	@echo hatchling | $(BIN)/uv pip compile --quiet --universal --python-version 3.11 \
		--generate-hashes --no-header --no-annotate --no-emit-index-url --no-emit-find-links \
		--upgrade - -o requirements/build.txt

.PHONY: clean
clean: ## Remove what was built and installed.
	@rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis \
		.import_linter_cache .coverage*
