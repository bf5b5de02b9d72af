#!/usr/bin/env bash
# Install packages into a virtual environment, which is made with PYTHON (python3) if it is missing. uv does it because it
# is faster than pip: 9 s instead of 86 s (pip 23.2) for the packages of make dev.
# usage: tools/install.sh FOLDER [argument of uv pip install ...]
set -euo pipefail

venv=$1
[ -x "$venv/bin/uv" ] || {
    "${PYTHON:-python3}" -m venv --clear "$venv"
    "$venv/bin/pip" install -q --disable-pip-version-check uv
}
# uv does not read pip's settings, which may name a mirror.
index=$("$venv/bin/pip" config get global.index-url 2>/dev/null) || index=${PIP_INDEX_URL-}
[ -z "$index" ] || export UV_DEFAULT_INDEX=${UV_DEFAULT_INDEX:-$index}
# Build backends run their programs from PATH. The package itself is built anew each time: uv compares only pyproject.toml.
PATH="$(realpath "$venv")/bin:$PATH" exec "$venv/bin/python" -m uv pip install -q --reinstall-package numcodecs-qpl "${@:2}"
