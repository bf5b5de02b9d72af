"""How a migration ends when something goes wrong: both QEMUs as without relays, and what each relay says is true.

Each case is run with relays and without. ``ENDS_TURNS=20`` runs each of them twenty times.
"""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest
from commands import PATIENCE, wait_until
from programs import need
from qemus import NAMES, qemu
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


@pytest.mark.parametrize("turn", range(TURNS))
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("case", "relays"),
    [(case, relays) for case in CASES for relays in (True, False) if relays or "relay" not in case],
    ids=lambda value: {True: "relays", False: "direct"}.get(value, value),
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
            assert way.source.wait_migration(PATIENCE)["status"] == source_status
            assert way.source.status() == "running"
            assert way.source.is_running_and_dirtying(PATIENCE)
        wait_until(lambda: is_gone(way.destination.pid), "the destination to end")
        if relays:
            for each, verdict in zip((way.first, way.second), verdicts, strict=True):
                status, line, _ = each.finish_relay()
                assert (status, line["ended"]) == (143 if verdict == "terminated" else 1, verdict)
                assert not line["confirmed"]
