"""A plugin of pytest for tools/test_upstream.sh: a session in which this package did nothing fails."""

from __future__ import annotations

import pytest

import numcodecs_qpl


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the session if no chunk was compressed, or none was decompressed."""
    if not all(numcodecs_qpl.stats()["software"].values()):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print how many chunks this package served."""
    done = numcodecs_qpl.stats()["software"]
    terminalreporter.write_line(
        f"served by numcodecs-qpl: {done['compressed']} chunks compressed, {done['decompressed']} decompressed"
    )
