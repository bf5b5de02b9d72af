# make test: everything that has to hold; make demo: see it work; make bench: how fast it is here; make bench-migration:
# how fast guests migrate (root, and the packages of .ci/apt-packages); make docs: the site, build/docs/index.html.
# Each sets up what it needs in a virtual environment of this checkout and installs nothing else anywhere.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# The build folder stays: it keeps the fetched libraries and the objects from one run to the next. ISA-L and libdeflate are
# Debian's newest, not the machine's, so that tests and figures are of known versions.
install = PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/pip install -q --disable-pip-version-check \
	--no-build-isolation -Cbuild-dir=build/make -Csetup-args=-Dwerror=true -Csetup-args=-Demulated_iaa=true \
	-Csetup-args=-Dsoftware_libraries=debian

# Every page anew (-E): of pages that have not changed, sphinx would not repeat a warning.
sphinx = PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/sphinx-build -E -n -W --keep-going -q -d build/doctrees docs build/docs

linters = '$(BIN)/mypy' '$(BIN)/ruff check .' '$(BIN)/ruff format --check .' \
	'PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/cython-lint --max-line-length=120 src'

# A process for each processor. All tests of a file run in the same process, as they share fixtures.
in_parallel := -n logical --maxprocesses 8 --dist loadfile

.PHONY: test demo bench bench-migration docs pictures lint dev wheel newest upstream without-libqpl sanitize fuzz clean

test: dev
	printf '%s\n' '$(sphinx)' $(linters) | tools/side_by_side.sh
	$(BIN)/pytest $(in_parallel)
	$(MAKE) newest upstream without-libqpl sanitize

demo: $(VENV)/ready
	$(install) ".[demo]"
	$(BIN)/numcodecs-qpl demo

bench: $(VENV)/ready
	$(install) ".[benchmarks]"
	$(BIN)/pytest benchmarks -c benchmarks/pytest.ini --benchmark-json=build/benchmarks.json
	$(BIN)/python benchmarks/goals.py --json build/goals-1.json
	$(BIN)/python benchmarks/served.py --json build/served.json
	$(BIN)/python benchmarks/report.py build/benchmarks.json build/goals-1.json --served build/served.json

bench-migration: $(VENV)/ready
	$(install) ".[benchmarks,test]"
	PYTHONPATH=testbed $(BIN)/python benchmarks/migration.py --json build/migration.json --markdown build/migration.md
	PYTHONPATH=testbed $(BIN)/python benchmarks/relay_cost.py --json build/relay-cost.json

docs: $(VENV)/ready
	$(install) ".[docs]"
	$(sphinx)

# The pages' pictures of a terminal: what the commands show here and now.
pictures: $(VENV)/ready
	$(install) ".[demo]"
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python docs/pictures.py

lint: dev
	printf '%s\n' $(linters) | tools/side_by_side.sh

dev: $(VENV)/ready
	$(install) ".[dev]"

# An sdist and the wheels, in dist/ (docs/wheels.md).
wheel:
	tools/make_wheels.sh

# From the wheel. The newest zarr and numcodecs need Python 3.12 or later.
newest: wheel
	tools/test_newest.sh $(in_parallel)

# numcodecs' and zarr's own tests of what this package serves. From the wheels, too.
upstream: wheel
	tools/test_upstream.sh

# A build without libqpl: the same package without the IAA engine.
without-libqpl:
	tools/test_without_libqpl.sh $(in_parallel)

# Hostile input, and an emulated IAA that fails, with AddressSanitizer watching the extensions, ISA-L and libdeflate.
sanitize:
	tools/test_sanitized.sh

# Coverage-guided, SECONDS for each target; what it finds is in build/fuzz-corpus. make test replays tests/fuzz/corpus.
SECONDS ?= 60
fuzz:
	tools/fuzz.sh $(SECONDS)

# A build folder that was configured before an option was added does not accept it: begin anew.
$(VENV)/ready: meson.options
	rm -rf build/make
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --disable-pip-version-check meson-python ninja "Cython>=3.1"
	touch $@

clean:
	rm -rf build dist .venv*
