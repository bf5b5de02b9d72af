#!/usr/bin/env bash
# Run the tests on the build without libqpl: pure Python, on ISA-L. What is about libqpl or an IAA is skipped there.
set -euo pipefail
cd "$(dirname "$0")/.."

venv=.venv-isal
"${PYTHON:-python3}" -m venv --clear $venv
export PATH="$PWD/$venv/bin:$PATH"
# As a user would, where libqpl is not: from the wheel that make wheel built.
pip install -q --disable-pip-version-check "$(echo dist/*-none-any.whl)[test]"
version=$(numcodecs-qpl --version)
case $version in
    *"(isal "*) echo "== without libqpl: $version" ;;
    *) echo "this build is not on ISA-L: $version" >&2; exit 1 ;;
esac
# Guests that really migrate, and the build, are tested with libqpl, and know nothing of the engine. Recorded migrations are
# tested here too.
exec pytest --ignore=tests/test_build.py --ignore=tests/test_guest.py --ignore=tests/test_migration_page.py \
    --ignore=tests/test_qemu.py "$@"
