#!/usr/bin/env bash
# Build the package without libqpl, as on a host other than Linux on x86-64, and run a few tests of each part that such a
# build compiles: arrays, pages, migration methods and info. The software engine is the same with libqpl, and tested there.
# usage: tools/test_without_libqpl.sh [option of pytest ...]
set -euo pipefail
cd "$(dirname "$0")/.."

venv=.venv-without-libqpl
tools/install.sh $venv meson-python meson ninja "Cython>=3.1"
tools/install.sh $venv --no-build-isolation -Cbuild-dir=build/without-libqpl \
    -Csetup-args=-Dqpl=disabled -Csetup-args=-Dwerror=true ".[migration,zarr]" hypothesis isal pytest pytest-timeout pytest-xdist
export PATH="$PWD/$venv/bin:$PATH"
# Every libqpl has this name in it: the library that it loads to find devices.
if grep -l libaccel-config $venv/lib/python3*/site-packages/numcodecs_qpl/_core/*.so; then
    echo "libqpl is linked into these extensions, but this build was to have none" >&2
    exit 1
fi
echo "== without libqpl: $(numcodecs-qpl --version)"
exec pytest tests/codec/test_codec.py tests/codec/test_fixtures.py tests/core/test_core.py tests/multifd/test_methods.py \
    tests/zarr/test_zarr_v3.py tests/commands/test_cli.py "$@"
