"""Builds with and without libqpl. Tests of the other kind of build cannot apply, in CI neither."""

from __future__ import annotations

from typing import Final

import pytest

from numcodecs_qpl import _core

HAS_LIBQPL: Final = _core.libqpl_version() is not None
NO_LIBQPL: Final = "the test is about libqpl, and this build has none"

needs_libqpl: Final = pytest.mark.skipif(not HAS_LIBQPL, reason=NO_LIBQPL)
without_libqpl: Final = pytest.mark.skipif(
    HAS_LIBQPL, reason="the test is about a build with -Dqpl=disabled: tools/test_without_libqpl.sh runs it"
)
