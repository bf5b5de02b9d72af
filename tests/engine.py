"""Which engine is under test. Tests of the other one cannot apply, in CI neither."""

from __future__ import annotations

from typing import Final

import pytest

from numcodecs_qpl import _core

NO_LIBQPL: Final = "the test is about libqpl, and this build has none"

needs_libqpl: Final = pytest.mark.skipif(_core.ENGINE != "libqpl", reason=NO_LIBQPL)
without_libqpl: Final = pytest.mark.skipif(
    _core.ENGINE == "libqpl", reason="the test is about a build without libqpl: tools/test_isal.sh runs it"
)
