"""How a migration ends when something goes wrong: both QEMUs as without relays, and what each relay says is true.

Each case is run with relays and without. ``ENDS_TURNS=20`` runs each of them twenty times.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import PATIENCE, wait_until
from guest import build_firmware
from programs import need
from qemus import NAMES, qemu
from way import Way, is_gone

need("qemu-system-x86_64", "nasm")

TURNS = int(os.environ.get("ENDS_TURNS", "1"))
MISSING = ("-device", "i6300esb")
"""A watchdog that the destination does not have. It has no RAM block: only its state, at the very end, is refused."""


@pytest.fixture(scope="module")
def firmware(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The firmware that keeps dirtying its memory."""
    return build_firmware(tmp_path_factory.mktemp("firmware"), True)


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


@pytest.mark.parametrize("turn", range(TURNS))
@pytest.mark.parametrize("relays", [True, False], ids=["relays", "direct"])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("act", "source_status", "verdicts"),
    [
        (cancel, "cancelled", ("failed", "failed")),
        (kill_source, None, ("failed", "failed")),
        (terminate_first, "failed", ("terminated", "failed")),
        (terminate_second, "failed", ("failed", "terminated")),
        (kill_destination, "failed", ("failed", "failed")),
        (finish, "failed", ("failed", "failed")),
    ],
    ids=[
        "cancelled",
        "source killed",
        "source's relay terminated",
        "destination's relay terminated",
        "destination killed",
        "refused at the end",
    ],
)
def test_the_guest_runs_on_and_the_destination_ends(
    tmp_path: Path,
    firmware: Path,
    act: Callable[[Way], None],
    source_status: str | None,
    verdicts: tuple[str, str],
    name: str,
    relays: bool,
    turn: int,
) -> None:
    if not relays and "terminate" in act.__name__:
        pytest.skip("there are no relays to terminate")
    missing = MISSING if act is finish else ()
    with Way(tmp_path, firmware, dirty=True, qemu=qemu(name), source_more=missing, relays=relays) as way:
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
