"""Log lines of a service, as the journal and as a terminal or a file get them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from commands import PATIENCE
from programs import environment

LOG = """
import logging
from numcodecs_qpl.cli.logs import configure
configure()
log = logging.getLogger("numcodecs_qpl.multifd.service")
log.debug("unseen")
log.info("route %s listens", "out")
log.warning("first\\nsecond")
log.error("wrong")
log.critical("worse")
logging.getLogger("other").info("other")
"""
LOG_ALL = LOG.replace("configure()", "configure(logging.DEBUG)")
LOG_A_FAULT = """
import logging
from numcodecs_qpl.cli.logs import configure
configure()
try:
    1 / 0
except ZeroDivisionError:
    logging.getLogger("numcodecs_qpl").exception("fault")
"""


def log(code: str, folder: Path, stream: str | None = None) -> list[str]:
    """Lines that a process writes to a file; `stream` is JOURNAL_STREAM, with which systemd names the file."""
    with (folder / "log").open("wb") as file:
        status = os.fstat(file.fileno())
        names = {"own": f"{status.st_dev}:{status.st_ino}", "other": f"{status.st_dev}:{status.st_ino + 1}"}
        variables = {} if stream is None else {"JOURNAL_STREAM": names.get(stream, stream)}
        subprocess.run(
            [sys.executable, "-c", code], stderr=file, env=environment(**variables), check=True, timeout=PATIENCE
        )
    return (folder / "log").read_text().splitlines()


def test_the_journal_gets_priorities_and_no_time(tmp_path: Path) -> None:
    lines = ["<6>route out listens", "<4>first", "<4>second", "<3>wrong", "<3>worse", "<6>other"]
    assert log(LOG, tmp_path, "own") == lines
    assert log(LOG_ALL, tmp_path, "own") == ["<7>unseen", *lines]


def test_each_line_of_a_traceback_has_the_priority(tmp_path: Path) -> None:
    lines = log(LOG_A_FAULT, tmp_path, "own")
    assert lines[:2] == ["<3>fault", "<3>Traceback (most recent call last):"]
    assert lines[-1] == "<3>ZeroDivisionError: division by zero"
    assert all(line.startswith("<3>") for line in lines)


@pytest.mark.parametrize("stream", [None, "other"])
def test_what_is_not_the_journal_gets_the_time_and_the_level(tmp_path: Path, stream: str | None) -> None:
    lines = log(LOG, tmp_path, stream)
    time = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4}"
    assert [re.sub(f"^{time} ", "", line) for line in lines] == [
        "INFO route out listens",
        "WARNING first",
        "second",
        "ERROR wrong",
        "CRITICAL worse",
        "INFO other",
    ]
    assert all(re.match(time, line) for line in lines if line != "second")


@pytest.mark.parametrize("stderr", ["2>&-", "2>/dev/full"])
def test_a_service_goes_on_without_its_log(stderr: str) -> None:
    done = subprocess.run(
        ["bash", "-c", f'exec "$@" {stderr}', "bash", sys.executable, "-c", f"{LOG}\nprint('went on', flush=True)"],
        stdout=subprocess.PIPE,
        env=environment(),
        timeout=PATIENCE,
    )
    assert done.stdout == b"went on\n"
