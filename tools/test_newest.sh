#!/usr/bin/env bash
# Run the tests on the newest Python of this machine, 3.12 or later, with the newest zarr and numcodecs, as a user has them:
# from the wheel that make wheel built, in a new environment, without a compiler.
set -euo pipefail
cd "$(dirname "$0")/.."

read -r version python < <(tools/pythons.sh)
if [ "$version" = 3.11 ]; then
    echo "== NOT TESTED: the newest zarr and numcodecs. They need Python 3.12 or later, which is not on this machine." >&2
    exit
fi
venv=$PWD/.venv-newest
"$python" -m venv --clear "$venv"
tools/without_compiler.sh "$venv/bin/pip" install -q --disable-pip-version-check \
    "$(echo dist/*-cp"${version/./}"-*.whl)[test]"
echo "== the newest: $("$venv/bin/python" --version), $("$venv/bin/pip" list 2>/dev/null | grep -E '^(zarr|numcodecs) ' | xargs)"
# The package does not contain the emulated IAA. The tests use the one that make lint built.
NUMCODECS_QPL_EMULATED_IAA="$PWD/build/make/tests/iaa" tools/without_compiler.sh "$venv/bin/pytest"
