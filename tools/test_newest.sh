#!/usr/bin/env bash
# Run the tests on the newest Python of this machine, 3.12 or later, with the newest zarr and numcodecs, as a user has them:
# from the wheel that make wheel built, in a new environment, without a compiler.
# usage: tools/test_newest.sh [option of pytest ...]
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
# Files that are left out: make test has run them on the same sources, and no version of Python, zarr or numcodecs changes
# their outcome.
same=(
    # libqpl, the emulated IAA, and the IAA engine on a device that fails: none of them calls Python.
    tests/device/test_emulated_iaa.py tests/device/test_libqpl.py tests/device/test_faulty.py
    # The large matrices of streams. test_damage.py, test_foreign.py and test_properties.py are not left out.
    tests/containers/test_damage_matrix.py tests/interoperability/test_streams.py
    # Real QEMUs. Recordings of QEMU stand for them in the tests of relay and receiver, which are not left out.
    tests/qemu/test_capabilities.py tests/qemu/test_ends.py tests/qemu/test_guest.py tests/qemu/test_qemu.py
    tests/qemu/test_qemu_send.py tests/qemu/test_qemu_versions.py tests/docs/test_migration_page.py
    tests/docs/test_restore_page.py
)
# The package does not contain the emulated IAA. The tests use the one that make lint built.
NUMCODECS_QPL_EMULATED_IAA="$PWD/build/make/tests/iaa" tools/without_compiler.sh "$venv/bin/pytest" \
    "${same[@]/#/--ignore=}" "$@"
