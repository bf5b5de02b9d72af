# Each target sets up what it needs in a virtual environment of this checkout and installs nothing else anywhere.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# The build folder stays: it keeps the fetched libraries and the objects from one run to the next. ISA-L and libdeflate are
# Debian's newest, not the machine's, so that tests and figures are of known versions.
install = PYTHON='$(PYTHON)' tools/install.sh $(VENV) --no-build-isolation -Cbuild-dir=build/make \
	-Csetup-args=-Dwerror=true -Csetup-args=-Demulated_iaa=true -Csetup-args=-Dsoftware_libraries=debian

# Every page anew (-E): of pages that have not changed, sphinx would not repeat a warning.
sphinx = PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/sphinx-build -E -n -W --keep-going -q -d build/doctrees docs build/docs

linters = '$(BIN)/mypy' '$(BIN)/ruff check .' '$(BIN)/ruff format --check .' \
	'PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/cython-lint --max-line-length=120 src'

# A process for each processor. All tests of a file run in the same process, as they share fixtures.
in_parallel := -n logical --maxprocesses 8 --dist loadfile

# Tests for make check: half of all, in about a minute of CPU time. Left out are those of devices, QEMU, whole migrations
# and large matrices, and those that start many processes.
quick = tests/codec tests/containers/test_damage.py tests/core/test_core.py tests/core/test_input.py tests/fuzz tests/host \
	tests/commands/test_bench_sample.py tests/commands/test_bench_verdict.py tests/commands/test_cli.py \
	tests/docs/test_docs.py tests/package/test_files.py tests/package/test_release.py tests/package/test_types.py \
	$(patsubst %,tests/multifd/test_%.py,methods opening proxy ram rounds routes totals wire) \
	tests/zarr/test_zarr.py tests/zarr/test_zarr_v3.py

# Everything that has to hold, in stages. Those that others need come first, then the longest.
stages := dev wheels tests newest upstream sanitize without-libqpl lint site

.PHONY: help
help: ## This list.
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: $(VENV)/ready ## See it work.
	$(install) ".[demo]"
	$(BIN)/numcodecs-qpl demo

.PHONY: check
check: dev ## Lint, types and the quick tests, while you work.
	printf '%s\n' $(linters) '$(BIN)/pytest -q $(in_parallel) $(quick)' | tools/side_by_side.sh

.PHONY: test
test: ## Everything that has to hold: what CI runs.
	tools/stages.sh $(stages)

.PHONY: bench
bench: $(VENV)/ready ## Measure codecs, pages and zarr on this machine.
	$(install) ".[benchmarks]"
	$(BIN)/pytest benchmarks -c benchmarks/pytest.ini --benchmark-json=build/benchmarks.json
	$(BIN)/python benchmarks/goals.py --json build/goals-1.json
	$(BIN)/python benchmarks/served.py --json build/served.json
	$(BIN)/python benchmarks/report.py build/benchmarks.json build/goals-1.json --served build/served.json

.PHONY: bench-migration
bench-migration: $(VENV)/ready ## Measure migrations of guests (root, and the packages of .ci/apt-packages).
	$(install) ".[benchmarks,test]"
	PYTHONPATH=testbed $(BIN)/python benchmarks/migration.py --json build/migration.json --markdown build/migration.md
	PYTHONPATH=testbed $(BIN)/python benchmarks/relay_cost.py --json build/relay-cost.json

.PHONY: docs
docs: $(VENV)/ready ## Build the documentation, build/docs/index.html.
	$(install) ".[docs]"
	$(sphinx)

.PHONY: pictures
pictures: $(VENV)/ready ## Make the documentation's pictures of a terminal: what the commands show here and now.
	$(install) ".[demo]"
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python docs/pictures.py

.PHONY: lint
lint: dev ## Lint and types.
	printf '%s\n' $(linters) | tools/side_by_side.sh

.PHONY: dev
dev: $(VENV)/ready ## Install the package into .venv, with all that its tests and linters need.
	$(install) ".[dev]"

.PHONY: wheel
wheel: ## Build an sdist and wheels into dist/ (docs/wheels.md).
	tools/make_wheels.sh

.PHONY: release-check
release-check: wheel ## Check that what is in dist/ can be released (RELEASING.md).
	tools/install.sh .venv-wheels twine
	.venv-wheels/bin/python tools/release_check.py

.PHONY: fuzz
SECONDS ?= 60
fuzz: ## Fuzz each target for SECONDS (60). What is found is in build/fuzz-corpus.
	tools/fuzz.sh $(SECONDS)

.PHONY: clean
clean: ## Remove all that was made here.
	rm -rf build dist .venv* .benchmarks .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -prune -exec rm -rf {} +

# ---- Stages of make test that are of no use on their own every day ------------------------------------------------

.PHONY: tests
tests: dev
	$(BIN)/pytest $(in_parallel)

.PHONY: site
site: dev
	$(sphinx)

# Wheels for the Pythons that the next two stages need. A release builds and tests them for all (make wheel).
.PHONY: wheels
wheels:
	tools/make_wheels.sh --oldest-and-newest

# From the wheel. The newest zarr and numcodecs need Python 3.12 or later.
.PHONY: newest
newest: wheels
	tools/test_newest.sh $(in_parallel)

# numcodecs' and zarr's own tests of what this package serves. From the wheels, too.
.PHONY: upstream
upstream: wheels
	tools/test_upstream.sh

# A build without libqpl: the same package without the IAA engine.
.PHONY: without-libqpl
without-libqpl:
	tools/test_without_libqpl.sh $(in_parallel)

# Hostile input, and an emulated IAA that fails, with AddressSanitizer watching the extensions, ISA-L and libdeflate.
.PHONY: sanitize
sanitize:
	tools/test_sanitized.sh

# For tools/stages.sh. What a stage needs was made by a stage before it, so make is told not to make that again.
first := dev wheels
.PHONY: $(stages:%=%.stage)
$(stages:%=%.stage): %.stage:
	tools/stage.sh $* $(MAKE) $(patsubst %,-o %,$(filter-out $*,$(first))) $*
tests.stage lint.stage site.stage: dev.stage
newest.stage: dev.stage wheels.stage
upstream.stage: wheels.stage
# They need nothing. Without this they would begin as soon as dev has ended, before the tests, which take longest.
sanitize.stage without-libqpl.stage: dev.stage

# A build folder that was configured before an option was added does not accept it: begin anew.
$(VENV)/ready: meson.options
	rm -rf build/make
	PYTHON='$(PYTHON)' tools/install.sh $(VENV) meson-python ninja "Cython>=3.1"
	touch $@
