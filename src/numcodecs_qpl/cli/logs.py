"""Log lines of a service, with a priority for systemd's journal, else with the time."""

from __future__ import annotations

import logging
import os

PRIORITIES = ((logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
"""Priorities of syslog(3) by level, for the prefix of sd-daemon(3). Lower levels have 7."""
STDERR = 2
TIME = "%Y-%m-%dT%H:%M:%S%z"


class JournalFormatter(logging.Formatter):
    """Formatter for the journal, which adds the time itself; each line of a message begins with the priority."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the lines of a record."""
        priority = next((number for level, number in PRIORITIES if record.levelno >= level), 7)
        return "\n".join(f"<{priority}>{line}" for line in super().format(record).splitlines())


def configure(level: int = logging.INFO) -> None:
    """Configure all loggers to write to stderr, from `level` on."""
    handler = logging.StreamHandler()
    plain = logging.Formatter("%(asctime)s %(levelname)s %(message)s", TIME)
    handler.setFormatter(JournalFormatter() if is_journal(STDERR) else plain)
    logging.basicConfig(level=level, handlers=[handler])


def is_journal(fd: int) -> bool:
    """Return True if systemd has connected the file `fd` of this process to its journal (systemd.exec(5))."""
    try:
        status = os.fstat(fd)
    except OSError:  # it is closed
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"
