# make test: everything that has to hold; make demo: see it work; make bench: how fast it is here.
# Each sets up what it needs in a virtual environment of this checkout and installs nothing else anywhere.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# A build folder of its own for each interpreter keeps libqpl and the objects from one run to the next.
install = PATH="$(1)/bin:$$PATH" $(1)/bin/pip install -q --disable-pip-version-check \
	-Cbuild-dir=build/$(notdir $(1)) -Csetup-args=-Dwerror=true

.PHONY: test demo bench lint newest sanitize clean

test: lint .run-tests newest sanitize

.PHONY: .run-tests
.run-tests: $(VENV)/ready
	$(call install,$(VENV)) ".[dev]"
	$(BIN)/pytest

demo: $(VENV)/ready
	$(call install,$(VENV)) ".[demo]"
	$(BIN)/numcodecs-qpl demo

bench: $(VENV)/ready
	$(call install,$(VENV)) ".[bench]"
	$(BIN)/pytest benchmarks --benchmark-json=build/benchmarks.json
	$(BIN)/python benchmarks/goals.py

lint: $(VENV)/ready
	$(call install,$(VENV)) ".[dev]"
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/cython-lint numcodecs_qpl

# The newest zarr and numcodecs want Python 3.12 or later.
newest:
	tools/test_newest.sh

# The hostile input once more, with AddressSanitizer watching the extension.
sanitize:
	tools/test_sanitized.sh

$(VENV)/ready:
	$(PYTHON) -m venv $(VENV)
	touch $@

clean:
	rm -rf build dist .venv*
