#!/usr/bin/env bash
# Build ISA-L and libdeflate, static, from Debian's sources with compiler flags of our own, so that a sanitizer or a
# fuzzer watches them too. ISA-L is built without its assembly, which no compiler can instrument: the C functions that it
# has for processors without one are the same algorithms. meson finds the result by PKG_CONFIG_PATH=PREFIX/lib/pkgconfig.
# usage: build-aux/build_libraries.sh PREFIX FLAG...
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

prefix=$(mkdir -p "$1" && cd "$1" && pwd)
shift
read -ra compiler <<<"${CC:-cc}"
made="$("${compiler[@]}" --version | head -n1) $*"
[ "$(cat "$prefix/made" 2>/dev/null)" != "$made" ] || exit 0

folders=$("${PYTHON:-python3}" "$here/fetch_debian.py" --into "$prefix" --sources libisal libdeflate)
{ read -r isal; read -r libdeflate; } <<<"$folders"
rm -rf "$prefix/work" "$prefix/lib" "$prefix/include" "$prefix/made"
mkdir -p "$prefix/work" "$prefix/lib/pkgconfig" "$prefix/include/isa-l"

# ISA-L's makefile builds in its source folder. It has its own CFLAGS, without which it finds no header; CFLAGS_ are its
# warnings, and _FORTIFY_SOURCE, which gets into a sanitizer's way.
cp -r "$isal" "$prefix/work/isal"
make -s -j "$(nproc)" -C "$prefix/work/isal" -f Makefile.unx arch=noarch units="igzip crc" CC="${CC:-cc} $* -fPIC" CFLAGS_= \
    lib isa-l.h >"$prefix/log" 2>&1 || { cat "$prefix/log" >&2; exit 1; }
cp "$prefix/work/isal/bin/isa-l.a" "$prefix/lib/libisal.a"
cp "$prefix/work/isal/isa-l.h" "$prefix/include/"
cp "$prefix/work/isal/include/"*.h "$prefix/include/isa-l/"

find "$libdeflate/lib" -name '*.c' | while read -r file; do
    printf '%q ' "${compiler[@]}" "$@" -fPIC -c "$file" -o \
        "$prefix/work/$(basename "$(dirname "$file")")-$(basename "$file" .c).o"
    echo
done | "$here/../tools/side_by_side.sh"
"${AR:-ar}" rcs "$prefix/lib/libdeflate.a" "$prefix/work/"*.o
cp "$libdeflate/libdeflate.h" "$prefix/include/"

# pkgconfig NAME VERSION LIBRARY
pkgconfig() {
    printf '%s\n' "Name: $1" "Description: $1, built by build-aux/build_libraries.sh" "Version: $2" \
        "Libs: -L$prefix/lib -l$3" "Cflags: -I$prefix/include" >"$prefix/lib/pkgconfig/$1.pc"
}
version=$(sed -n '/^AC_INIT/,/)/s/.*\[\([0-9.]*\)\].*/\1/p' "$isal/configure.ac")
pkgconfig libisal "$version" isal
version=$(sed -n 's/^#define LIBDEFLATE_VERSION_STRING[^"]*"\(.*\)"/\1/p' "$libdeflate/libdeflate.h")
pkgconfig libdeflate "$version" deflate
rm -r "$prefix/work"
echo "$made" >"$prefix/made"
