#!/usr/bin/env bash
# Fuzz the readers and the writer with atheris, each for so many seconds; an input that breaks one ends this with an error.
# With clang the extension is built with coverage and AddressSanitizer; without it only the Python modules guide the fuzzer.
# usage: tools/fuzz.sh [seconds [target ...]]
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${1:-60}
targets=("${@:2}")
[ ${#targets[@]} -gt 0 ] || targets=(gzip zlib deflate pages encode)

venv=.venv-fuzz
tools/install.sh $venv meson-python ninja "Cython>=3.1"
export PATH="$PWD/$venv/bin:$PATH" PYTHONPATH=tests/support:tests/fuzz

mkdir -p build/fuzz-corpus
options=()
probe=build/fuzz-corpus/probe
echo "int main(void) { return 0; }" >$probe.c
if clang -fsanitize=fuzzer-no-link $probe.c -o $probe 2>/dev/null; then
    echo "== with clang: the extension has coverage, and AddressSanitizer watches it"
    export CC=clang CXX=clang++
    options=(-Cbuild-dir=build/fuzz -Csetup-args=-Db_sanitize=address,fuzzer-no-link)
    options+=(-Csetup-args=-Db_lundef=false -Csetup-args=-Dbuildtype=debugoptimized)
else
    echo "== without clang and its runtime (apt-get install clang): only the Python modules have coverage" >&2
    options=(-Cbuild-dir=build/fuzz-cc)
fi
rm -f $probe $probe.c
tools/install.sh $venv --no-build-isolation "${options[@]}" ".[fuzz]"

# libFuzzer has to be there before the extension, which refers to it.
preload=$(python -P -c 'import atheris; print(atheris.path())')/asan_with_fuzzer.so
for target in "${targets[@]}"; do
    echo "== $target, $seconds s:"
    LD_PRELOAD=$preload ASAN_OPTIONS=detect_leaks=0 PYTHONMALLOC=malloc \
        python -P tests/fuzz/run.py "$target" --seconds "$seconds" 2>build/fuzz-corpus/"$target".log ||
        { tail -n 40 build/fuzz-corpus/"$target".log >&2; exit 1; }
    grep -E "^stat::number_of_executed_units|^stat::new_units_added" build/fuzz-corpus/"$target".log
done
