#!/usr/bin/env bash
# Print the Pythons that are here, from 3.11 on and the newest first: lines of version and program.
set -euo pipefail

for version in 3.{15..11}; do
    candidates=("python$version" python3)
    if command -v pyenv >/dev/null; then
        candidates+=("$(pyenv root)/versions/$version".*/bin/python3)
    fi
    for candidate in "${candidates[@]}"; do
        # A pyenv shim exists for versions that are not active, too: only running it tells.
        if "$candidate" -c "import ensurepip, sys, venv; sys.exit('%d.%d' % sys.version_info[:2] != '$version')" \
            2>/dev/null; then
            echo "$version $candidate"
            break
        fi
    done
done
