#!/usr/bin/env bash
# Run a command as on a machine that has no compiler and no build tools: its PATH leads to links to all other programs.
# usage: tools/without_compiler.sh COMMAND [ARGUMENT...]
set -euo pipefail

links=$(mktemp -d)
trap 'rm -rf "$links"' EXIT
# With or without a target before and a version after: x86_64-linux-gnu-gcc-12, python3.11's cython.
compilers='/([^/]*-)?(cc|c89|c99|gcc|cpp|c\+\+|g\+\+|clang|clang\+\+|clang-cpp|tcc|cython|cythonize|meson|ninja)(-?[0-9.]+)?$'
IFS=: read -ra folders <<<"$PATH"
# The first folder of PATH is linked last, so that it wins.
for ((i = ${#folders[@]} - 1; i >= 0; i--)); do
    if [ -d "${folders[i]}" ]; then
        find "$(realpath "${folders[i]}")" -maxdepth 1 ! -type d -executable | { grep -vE "$compilers" || true; } |
            xargs -r -d '\n' ln -sf -t "$links"
    fi
done

export PATH=$links NUMCODECS_QPL_WITHOUT_COMPILER=1
unset CC CXX
for tool in cc gcc c++ g++ clang cython meson ninja; do
    if command -v $tool >/dev/null; then
        echo "$tool is still on the PATH that should have no compiler" >&2
        exit 1
    fi
done
"$@"
