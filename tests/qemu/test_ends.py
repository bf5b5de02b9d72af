"""Ends of failed migrations: both QEMUs end as without relays, and each relay's report is true.

On QEMU 7.2 each case is run with relays and without. The others run those cases in which QEMU itself has changed since.
``ENDS_TURNS=20`` runs each case twenty times, and all of them on each QEMU.
"""

from __future__ import annotations

import itertools
import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import PATIENCE, wait_until
from guest import CANCELLED
from programs import need
from qemus import INSTALLED, NAMES, qemu
from way import Way, is_gone

need("qemu-system-x86_64", "nasm")

TURNS = int(os.environ.get("ENDS_TURNS", "1"))
MISSING = ("-device", "i6300esb")
"""A watchdog that the destination does not have. It has no RAM block: only its state, at the very end, is refused."""


def cancel(way: Way) -> None:
    way.source.qmp("migrate_cancel")


def kill_source(way: Way) -> None:
    os.kill(way.source.pid, signal.SIGKILL)


def terminate_first(way: Way) -> None:
    way.first.signal(signal.SIGTERM)


def terminate_second(way: Way) -> None:
    way.second.signal(signal.SIGTERM)


def kill_destination(way: Way) -> None:
    os.kill(way.destination.pid, signal.SIGKILL)


def finish(way: Way) -> None:
    way.source.converge()


CASES = {
    "cancelled": (cancel, "cancelled", ("failed", "failed")),
    "source killed": (kill_source, None, ("failed", "failed")),
    "source's relay terminated": (terminate_first, "failed", ("terminated", "failed")),
    "destination's relay terminated": (terminate_second, "failed", ("failed", "terminated")),
    "destination killed": (kill_destination, "failed", ("failed", "failed")),
    "refused at the end": (finish, "failed", ("failed", "failed")),
}
"""By name: what is done, the status of the migration at the source, if it lives, and what each relay reports."""

DECISIVE = ("cancelled", "refused at the end")
"""Cases that run on newer QEMUs too: they cancel and switch over in other steps than 7.2."""


def rows() -> Iterator[tuple[str, str, bool]]:
    """Return the runs: case, name of the QEMU, and whether there are relays."""
    for name, case, relays in itertools.product(NAMES, CASES, (True, False)):
        everywhere = name == INSTALLED.name or TURNS > 1 or (case in DECISIVE and relays)
        if everywhere and (relays or "relay" not in case):
            yield case, name, relays


@pytest.mark.parametrize("turn", range(TURNS))
@pytest.mark.parametrize(
    ("case", "name", "relays"), list(rows()), ids=lambda value: {True: "relays", False: "direct"}.get(value, value)
)
def test_the_guest_runs_on_and_the_destination_ends(
    tmp_path: Path, firmware: dict[bool, Path], case: str, name: str, relays: bool, turn: int
) -> None:
    act, source_status, verdicts = CASES[case]
    missing = MISSING if act is finish else ()
    with Way(tmp_path, firmware[True], dirty=True, qemu=qemu(name), source_more=missing, relays=relays) as way:
        way.source.migrate(way.uri)
        way.source.wait_rounds(2, PATIENCE)
        time.sleep(random.random() / 2)  # half a second is a round
        act(way)
        if source_status is not None:
            statuses = CANCELLED if (act, name) == (cancel, INSTALLED.name) else (source_status,)
            assert way.source.wait_migration(PATIENCE)["status"] in statuses
            assert way.source.status() == "running"
            assert way.source.is_running_and_dirtying(PATIENCE)
        wait_until(lambda: is_gone(way.destination.pid), "the destination to end")
        if relays:
            for each, verdict in zip((way.first, way.second), verdicts, strict=True):
                status, line, _ = each.finish_relay()
                assert (status, line["ended"]) == (143 if verdict == "terminated" else 1, verdict)
                assert not line["confirmed"]
