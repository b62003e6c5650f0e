# `make help` lists the targets. Needs make and Python 3.11 or newer; everything else is installed
# into .venv from requirements/, which pins every package by hash. The guards for Go and TypeScript
# need Go with gcc, and Node 20 with npm, and the example a Chromium. Targets whose toolchain is missing
# are skipped with a message; if CI is set, that is a failure.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Empty: Python keeps what it compiles. Otherwise each of a thousand processes of the tests compiles again.
export PYTHONDONTWRITEBYTECODE :=
PROTOS := $(wildcard proto/pdpapi/v1/*.proto)
# Parts of other projects' messages. They are not in the contract with our clients.
INNER_PROTOS := pdp/wire/external_auth.proto pdp/decision/cel_expr.proto
TYPESCRIPT := clients/typescript
PRISMA := $(TYPESCRIPT)/tests/prisma
EXAMPLE := examples/next-courses
CONSOLE := tests/console/browser
HAS_GO = command -v go >/dev/null && command -v gcc >/dev/null
HAS_NPM = command -v npm >/dev/null
skipped = { echo "SKIPPED: $(1)"; test -z "$$CI"; }
NO_GO = $(call skipped,the guard for Go (go and gcc are not both installed))
NO_PROTOCOLS = $(call skipped,the protocol suites (go is not installed))
NO_NPM = $(call skipped,the guard for TypeScript and its example (npm is not installed))
NO_AXE = $(call skipped,what axe finds in the console (npm is not installed))

.DEFAULT_GOAL := help

.PHONY: help
help: ## List the targets.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

# Installs the packages of requirements files by hash, and reports its progress.
pip_install = ( $(BIN)/pip install --disable-pip-version-check --progress-bar off --no-compile --no-deps \
	--require-hashes $(foreach file,$(1),-r $(file)) || echo failed ) | { \
	all=$$(cat $(1) | grep -c '^[a-z].*=='); n=0; \
	while read -r word rest; do case $$word in \
		Collecting|Requirement|Ignoring) \
			n=$$((n + 1)); test $$((n % 10)) -ne 0 || echo "  $$n of $$all packages" ;; \
		Installing) echo "  unpacking" ;; \
		failed) exit 1 ;; \
	esac; done; }
RUNTIME := requirements/runtime.txt requirements/build.txt

$(VENV)/.runtime: $(RUNTIME) pyproject.toml clients/python/pyproject.toml
	@echo "Installing what the service needs into $(VENV): half a minute, once."
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; say make PYTHON=python3.11")'
	@$(PYTHON) -m venv --clear $(VENV)
	@$(call pip_install,$(RUNTIME))
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation \
		-e clients/python -e .
	@touch $@

$(VENV)/.installed: $(VENV)/.runtime requirements/dev.txt
	@echo "Installing the tools for development into $(VENV): a minute, once."
	@$(call pip_install,requirements/dev.txt)
	@touch $@

.PHONY: install
install: $(VENV)/.installed ## Install the project and the tools for development into .venv.

$(VENV)/.docs: $(VENV)/.installed requirements/docs.txt
	@echo "Installing the generator of the documentation into $(VENV): some seconds, once."
	@$(call pip_install,requirements/docs.txt)
	@touch $@

.PHONY: docs
docs: $(VENV)/.docs ## Build the documentation as a site into build/docs, and fail on a dead link or anchor.
	@rm -rf build/docs
	@$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going --nitpicky --jobs auto \
		--conf-dir docs . build/docs
	@echo "build/docs/index.html"

.PHONY: demo
demo: $(VENV)/.runtime ## Run the main job on a small example: an allow, a 401, a 403 and the audit rows.
	@$(BIN)/python -m examples.demo

.PHONY: demo-console
demo-console: $(VENV)/.runtime ## Fill a small invented company and print a link to its console.
	@$(BIN)/python -m examples.console_demo

# Packages of npm, as locked.
%/node_modules/.package-lock.json: %/package-lock.json
	@cd $* && npm ci --silent --no-audit --no-fund

.PHONY: test
# The other languages run beside Python, and what they print follows once it has ended.
test: install ## Run the tests of every language, side by side.
	@mkdir -p build
	@$(MAKE) --no-print-directory test-clients >build/test-clients.log 2>&1 & clients=$$!; \
		trap "kill $$clients" INT TERM; \
		$(MAKE) --no-print-directory test-python; python=$$?; \
		wait $$clients; others=$$?; \
		cat build/test-clients.log; \
		result() { test $$2 -eq 0 && echo "$$1: passed" || echo "$$1: FAILED"; }; \
		result "Python" $$python; result "Go, TypeScript and the example" $$others; \
		test $$python -eq 0 && test $$others -eq 0

.PHONY: test-clients
test-clients: test-go test-typescript test-example ## Run the tests in Go and TypeScript, and of the example.

# Tests also wait for processes that they start: two cores with three workers take a sixth longer
# than with four.
WORKERS = $$(($$(getconf _NPROCESSORS_ONLN) * 2))

.PHONY: test-python
# Not ordered by number of tests: otherwise slow files with few tests come last, on one worker.
test-python: install ## Run the tests in Python.
	@if $(HAS_NPM); then $(MAKE) --no-print-directory -s $(CONSOLE)/node_modules/.package-lock.json; \
		else $(NO_AXE); fi
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

.PHONY: coverage
coverage: ## Run the tests in Python with coverage (takes half as long again).
	@$(MAKE) --no-print-directory test-python \
		ARGS="--cov --cov-report=term:skip-covered $(ARGS)"

.PHONY: test-go
test-go: install ## Run the tests of the guard for Go.
	@if $(HAS_GO); then cd clients/go && go test -race -count=1 ./...; else $(NO_GO); fi

.PHONY: test-typescript
test-typescript: install ## Run the tests of the guard for TypeScript.
	@if $(HAS_NPM); then \
		$(MAKE) --no-print-directory -s $(TYPESCRIPT)/node_modules/.package-lock.json \
			$(PRISMA)/node_modules/.package-lock.json \
		&& (cd $(TYPESCRIPT) && npm test --silent) && cd $(PRISMA) && npm test --silent; \
		else $(NO_NPM); fi

.PHONY: test-example
test-example: install ## Drive the example for Next.js in a Chromium.
	@if $(HAS_NPM); then \
		$(MAKE) --no-print-directory -s $(TYPESCRIPT)/node_modules/.package-lock.json \
			$(EXAMPLE)/node_modules/.package-lock.json \
		&& cd $(EXAMPLE) && npm test --silent; else $(NO_NPM); fi

.PHONY: check
check: install lint words types house proto-check docs test protocols ## Exactly what CI runs.

.PHONY: protocols
protocols: h2spec connect-conformance ## Test the listener with the suites of HTTP/2, gRPC and Connect.

# Suites in Go, pinned by hash in tests/protocols/tools.
PROTOCOLS := build/protocols
$(PROTOCOLS)/%: tests/protocols/tools/go.mod tests/protocols/tools/go.sum
	@echo "Building $(@F): some minutes, once."
	@mkdir -p $(PROTOCOLS)
	@cd tests/protocols/tools && go build -o ../../../$(PROTOCOLS)/ \
		$$(go list -f '{{.ImportPath}}' tool | grep '/$*$$')

.PHONY: h2spec
h2spec: install ## Run h2spec against the port of a server.
	@if command -v go >/dev/null; then \
		$(MAKE) --no-print-directory -s $(PROTOCOLS)/h2spec \
		&& $(BIN)/python -m tests.protocols.h2spec $(PROTOCOLS)/h2spec; else $(NO_PROTOCOLS); fi

.PHONY: connect-conformance
connect-conformance: install ## Run Connect's conformance suite for servers.
	@if command -v go >/dev/null; then \
		$(MAKE) --no-print-directory -s $(PROTOCOLS)/connectconformance \
		&& $(BIN)/python -m tests.protocols.connect $(PROTOCOLS)/connectconformance; \
		else $(NO_PROTOCOLS); fi

.PHONY: lint
lint: install ## Lint the code and the contract.
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/buf lint proto
	@if $(HAS_GO); then \
		cd clients/go && test -z "$$(gofmt -l . | tee /dev/stderr)" && go vet ./...; else $(NO_GO); fi
	@if $(HAS_NPM); then \
		$(MAKE) --no-print-directory -s $(TYPESCRIPT)/node_modules/.package-lock.json \
		&& cd $(TYPESCRIPT) && npm run --silent lint; else $(NO_NPM); fi

.PHONY: words
words: install ## Check that texts use the field's words (tests/words/words.yaml).
	@$(BIN)/python -m tests.words

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
proto: install ## Generate the stubs of every language from proto/.
	@mkdir -p $(OUT)/clients/python $(OUT)/clients/go $(OUT)/$(TYPESCRIPT)
	@$(BIN)/python -m grpc_tools.protoc -Iproto \
		--plugin=protoc-gen-mypy=$(BIN)/protoc-gen-mypy \
		--plugin=protoc-gen-mypy_grpc=$(BIN)/protoc-gen-mypy_grpc \
		--python_out=$(OUT)/clients/python --grpc_python_out=$(OUT)/clients/python \
		--mypy_out=quiet:$(OUT)/clients/python --mypy_grpc_out=quiet:$(OUT)/clients/python $(PROTOS)
	@for proto in $(INNER_PROTOS); do room=$$(dirname $$proto) && mkdir -p $(OUT)/$$room \
		&& $(BIN)/python -m grpc_tools.protoc -I$$room \
			--plugin=protoc-gen-mypy=$(BIN)/protoc-gen-mypy \
			--python_out=$(OUT)/$$room --mypy_out=quiet:$(OUT)/$$room $$proto || exit 1; done
	@if $(HAS_GO); then cd clients/go && ../../$(BIN)/buf generate ../../proto \
		--template buf.gen.yaml --output $(abspath $(OUT))/clients/go; else $(NO_GO); fi
	@if $(HAS_NPM); then \
		$(MAKE) --no-print-directory -s $(TYPESCRIPT)/node_modules/.package-lock.json \
		&& cd $(TYPESCRIPT) && ../../$(BIN)/buf generate --output $(abspath $(OUT))/$(TYPESCRIPT); \
		else $(NO_NPM); fi
proto: OUT ?= .

STUBS := clients/python/pdpapi clients/go/pdpapi $(TYPESCRIPT)/src/pdpapi $(TYPESCRIPT)/src/google \
	$(INNER_PROTOS:.proto=_pb2.py) $(INNER_PROTOS:.proto=_pb2.pyi)

.PHONY: proto-check
proto-check: install ## Fail if the generated stubs are stale.
	@rm -rf build/proto && mkdir -p build/proto
	@$(MAKE) --no-print-directory proto OUT=build/proto
	@for stubs in $(STUBS); do \
		if [ -e build/proto/$$stubs ]; then \
			diff -r --exclude=__init__.py --exclude=__pycache__ --exclude=py.typed \
				build/proto/$$stubs $$stubs || { echo "stale stubs: run make proto"; exit 1; }; \
		fi; \
	done

.PHONY: bench
bench: install ## Measure this PDP next to its peers (about 15 minutes; PEERS=all: OPA and OpenFGA too).
	@$(BIN)/python -m bench $(if $(PEERS),--peers $(PEERS)) $(ARGS)

.PHONY: soak
soak: install ## Run all cases of the large oracles (lists, filters, row-level security: 1.5 hours of CPU time), and 100,000 operations under faults.
	@SOAK=1 $(BIN)/python -m pytest -q -m soak -n auto --dist loadfile $(ARGS)
	@$(BIN)/python -m tests.history --operations 100000
	@if $(HAS_NPM); then SOAK=1 $(MAKE) --no-print-directory test-typescript; else $(NO_NPM); fi

.PHONY: lock
lock: install ## Pin the newest version of every dependency, by hash.
	@for kind in runtime dev; do \
		group=$$([ $$kind = dev ] && echo "--group dev"); \
		$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
			--no-header --no-emit-index-url --no-emit-find-links --no-emit-package pdp-client \
			--upgrade $$group pyproject.toml -o requirements/$$kind.txt || exit 1; \
	done
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
		--no-annotate --no-emit-index-url --no-emit-find-links -c requirements/dev.txt \
		--upgrade --group docs -o requirements/docs.txt
	@printf 'editables\nhatchling\n' | $(BIN)/uv pip compile --quiet --universal --python-version 3.11 \
		--generate-hashes --no-header --no-annotate --no-emit-index-url --no-emit-find-links \
		--upgrade - -o requirements/build.txt

.PHONY: clean
clean: ## Remove what was built and installed.
	@rm -rf $(TYPESCRIPT)/node_modules $(TYPESCRIPT)/build $(TYPESCRIPT)/dist \
		$(PRISMA)/node_modules $(PRISMA)/build $(PRISMA)/generated \
		$(EXAMPLE)/node_modules $(EXAMPLE)/.next $(EXAMPLE)/build $(CONSOLE)/node_modules
	@rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis \
		.import_linter_cache .coverage*
