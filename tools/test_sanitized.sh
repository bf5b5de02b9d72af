#!/usr/bin/env bash
# Build the extensions, ISA-L, libdeflate and the emulated IAA with AddressSanitizer, feed them the hostile input of
# tests/support/hostile.py, and have the device fail as tests/support/faulty.py does. libqpl is Debian's:
# AddressSanitizer does not watch it.
# usage: tools/test_sanitized.sh [inputs [seed]]
set -euo pipefail
cd "$(dirname "$0")/.."

venv=.venv-sanitized
tools/install.sh $venv meson-python ninja "Cython>=3.1" isal numcodecs numpy pytest
export PATH="$PWD/$venv/bin:$PATH"
libraries=$PWD/build/sanitized-libraries
build-aux/build_libraries.sh "$libraries" -g -O1 -fno-omit-frame-pointer -fsanitize=address
export PKG_CONFIG_PATH=$libraries/lib/pkgconfig
tools/install.sh $venv --no-build-isolation --no-deps -Cbuild-dir=build/sanitized \
    -Csetup-args=-Db_sanitize=address -Csetup-args=-Db_lundef=false -Csetup-args=-Ddebug=true -Csetup-args=-Doptimization=1 \
    -Csetup-args=-Dsoftware_libraries=system -Csetup-args=-Dwerror=true -Csetup-args=-Demulated_iaa=true .

runtime=$("${CC:-cc}" -print-file-name=libasan.so)
device=$PWD/build/sanitized/tests/iaa
for library in $venv/lib/python3*/site-packages/numcodecs_qpl/*/*.so "$device"/*.so.1; do
    needed=$(readelf -d "$library")
    [[ $needed == *libasan* ]] || { echo "$library was built without AddressSanitizer" >&2; exit 1; }
    [[ $needed != *libisal* && $needed != *libdeflate* ]] ||
        { echo "$library uses an ISA-L or libdeflate that AddressSanitizer does not watch" >&2; exit 1; }
done

# Leaks are not detected: Python keeps some memory to its end. PYTHONMALLOC=malloc gives each object its own guards. The
# quarantine is small because the programs bound their own memory.
# watched ARGUMENT...: a Python under AddressSanitizer.
watched() {
    echo "== under AddressSanitizer: $*"
    LD_PRELOAD=$runtime ASAN_OPTIONS=detect_leaks=0:quarantine_size_mb=8 PYTHONMALLOC=malloc python "$@"
}
# on_device ARGUMENT...: the same on the emulated IAA.
on_device() {
    echo "== on the emulated IAA, EMULATED_IAA=${EMULATED_IAA-}"
    export LD_LIBRARY_PATH=$device
    watched "$@"
}
export -f watched on_device
export runtime device
tools/side_by_side.sh <<END
on_device -P -c 'from numcodecs_qpl import set_path; set_path("hardware")'
EMULATED_IAA=size=8 on_device tests/support/faulty.py --batches 2000 --seed ${2:-2}
on_device tests/support/hostile.py --inputs ${1:-10000} --seed ${2:-2}
watched tests/support/hostile.py --inputs ${1:-10000} --seed ${2:-2}
on_device tests/support/damage.py --path hardware --threads 4 gzip zlib deflate
watched tests/support/damage.py --threads 4 gzip zlib deflate
$(for how in hang lost hold; do
    for path in auto hardware; do
        echo "EMULATED_IAA=size=8 on_device tests/support/faulty.py --lose $how --path $path --batches 200 --seed ${2:-2}"
    done
done)
END
