#!/usr/bin/env bash
# Install packages into a virtual environment, which is made with PYTHON (python3) if it is missing.
# usage: tools/install.sh FOLDER [argument of uv pip install ...]
set -euo pipefail

# The package itself is built anew each time: uv compares only pyproject.toml.
exec "$(dirname "$0")/uv.sh" "$1" pip install -q --reinstall-package numcodecs-qpl "${@:2}"
