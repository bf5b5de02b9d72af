#!/usr/bin/env bash
# Run the tests of arrays on the newest Python of this machine, 3.12 or later, with the newest zarr and numcodecs, as a user
# has them: from the wheel that make wheel built, in a new environment, without a compiler.
# usage: tools/test_newest.sh [option of pytest ...]
set -euo pipefail
cd "$(dirname "$0")/.."

read -r version python < <(tools/pythons.sh)
if [ "$version" = 3.11 ]; then
    echo "== NOT TESTED: the newest zarr and numcodecs. They need Python 3.12 or later, which is not on this machine." >&2
    exit
fi
venv=$PWD/.venv-newest
rm -rf "$venv"
PYTHON=$python tools/without_compiler.sh tools/install.sh "$venv" \
    "$(echo dist/*-cp"${version/./}"-*.whl)[demo,peers]" "dask[array,distributed]" hypothesis icechunk isal jsonschema \
    markdown-it-py pytest pytest-timeout pytest-xdist virtualizarr
echo "== the newest: $("$venv/bin/python" --version), $("$venv/bin/pip" list 2>/dev/null | grep -E '^(zarr|numcodecs) ' | xargs)"
# What a version of Python, zarr, NumPy, numcodecs or another reader of stores can change. The large matrices, hostile input
# and interrupts have been tested on the same sources with Python 3.11.
# The package does not contain the emulated IAA. The tests use the one that make dev built.
NUMCODECS_QPL_EMULATED_IAA="$PWD/build/make/tests/iaa" tools/without_compiler.sh "$venv/bin/pytest" \
    tests/package/test_build.py tests/core tests/containers tests/codec tests/zarr tests/interoperability/test_stores.py \
    --ignore tests/containers/test_damage_checks.py --ignore tests/containers/test_damage_matrix.py \
    --ignore tests/core/test_hostile.py --ignore tests/core/test_interrupts.py "$@"
