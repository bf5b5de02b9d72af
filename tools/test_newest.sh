#!/usr/bin/env bash
# Run the tests on the newest Python that is here, 3.12 or later, with the newest zarr and numcodecs.
set -euo pipefail
cd "$(dirname "$0")/.."

candidates=(python3.{15,14,13,12})
if command -v pyenv >/dev/null; then
    for version in 15 14 13 12; do
        candidates+=("$(pyenv root)"/versions/3."$version".*/bin/python3)
    done
fi

for candidate in "${candidates[@]}"; do
    # A pyenv shim exists for versions that are not active, too: only running it tells.
    if "$candidate" -c 'import ensurepip, venv' 2>/dev/null; then
        venv=".venv-newest"
        [ -e "$venv/ready" ] || { "$candidate" -m venv "$venv" && touch "$venv/ready"; }
        export PATH="$PWD/$venv/bin:$PATH"
        # As a user would: with the build's own environment, and libqpl fetched anew.
        pip install -q --disable-pip-version-check -Csetup-args=-Dwerror=true ".[test]"
        echo "== the newest: $(python --version), $(pip list 2>/dev/null | grep -E '^(zarr|numcodecs) ' | xargs)"
        # The emulated IAA is no part of the package: it is the one that make lint built.
        NUMCODECS_QPL_EMULATED_IAA="$PWD/build/make/tests/iaa" exec pytest
    fi
done

echo "== NOT TESTED: the newest zarr and numcodecs. They want Python 3.12 or later, and this machine has none." >&2
echo "== Looked for: ${candidates[*]}" >&2
