"""Real QEMUs through a pair of relays that stay."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

from commands import PATIENCE, free_port, wait_until
from guest import CANCELLED, Guest
from programs import need
from relays import Served
from way import DATA_AT, is_gone, set_up

need("qemu-system-x86_64", "nasm")

AT_ONCE = 4
TURNS = 2


class Pair:
    """Two relays that stay: all sources connect to one socket, and each destination listens at one with its uuid."""

    def __init__(self, folder: Path) -> None:
        between = f"tcp:127.0.0.1:{free_port()}"
        self.folder = folder
        self.second = Served(between, f"unix:{folder}/{{uuid}}", "qpl", "none", log=folder / "second.log")
        self.first = Served(f"unix:{folder}/in", between, "none", "qpl", "--send-proxy", log=folder / "first.log")
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Pair:
        for relay in (self.second, self.first):
            self._stack.enter_context(relay)
        return self

    def __exit__(self, *raised: object) -> None:
        self._stack.close()


@contextlib.contextmanager
def guests(folder: Path, number: int, firmware: Path, data: Path, channels: int = 2) -> Iterator[tuple[Guest, Guest]]:
    """A source with a uuid of its own, and its destination, which does not listen yet."""
    uuid = str(UUID(int=number))
    with (
        Guest(folder, f"source-{number}", firmware=firmware, data=(data, DATA_AT), uuid=uuid) as source,
        Guest(folder, f"there-{number}", firmware=firmware, incoming=True, paused=True, uuid=uuid) as destination,
    ):
        for guest in (source, destination):
            guest.set_capabilities("return-path")
            set_up(guest, channels)
        yield source, destination


def assert_that_it_arrived(source: Guest, destination: Guest) -> None:
    assert source.wait_migration(PATIENCE)["status"] == "completed"
    assert destination.wait_migration(PATIENCE)["status"] == "completed"
    assert destination.ram_sha256() == source.ram_sha256()


def resident(pid: int) -> int:
    """Bytes that a process has resident."""
    (line,) = (line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024


def test_eight_migrations_four_at_a_time_go_through_one_pair(
    folder: Path, data: Path, firmware: dict[bool, Path]
) -> None:
    with Pair(folder) as pair:
        memory = []
        for turn in range(TURNS):
            with contextlib.ExitStack() as stack:
                numbers = range(1 + turn * AT_ONCE, 1 + (turn + 1) * AT_ONCE)
                ways = [stack.enter_context(guests(folder, number, firmware[False], data)) for number in numbers]
                for number, (_, destination) in zip(numbers, ways, strict=True):
                    destination.listen(f"unix:{folder}/{UUID(int=number)}")
                for source, _ in ways:
                    source.migrate(f"unix:{folder}/in")
                for source, destination in ways:
                    assert_that_it_arrived(source, destination)
            for relay in (pair.first, pair.second):
                relay.wait_for("complete;", (turn + 1) * AT_ONCE)
            memory.append([resident(relay.pid) for relay in (pair.first, pair.second)])
        for before, after in zip(*memory, strict=True):
            assert after - before < 8 << 20  # less than a MiB for each channel of a turn, which has 8 with 512 KiB each
        for relay in (pair.first, pair.second):
            log = relay.drain()
            assert "WARNING" not in log
            assert "ERROR" not in log


def test_a_failed_migration_is_tried_again_without_touching_the_relays(
    folder: Path, data: Path, firmware: dict[bool, Path]
) -> None:
    """The first time, the destination does not listen yet."""
    with Pair(folder) as pair, guests(folder, 1, firmware[False], data) as (source, destination):
        source.migrate(f"unix:{folder}/in")
        assert source.wait_migration(PATIENCE)["status"] == "failed"
        pair.second.wait_for("failed: main channel: cannot connect to unix:")
        destination.listen(f"unix:{folder}/{UUID(int=1)}")
        source.migrate(f"unix:{folder}/in")
        assert_that_it_arrived(source, destination)
        pair.first.wait_for("complete;")


def test_a_source_that_is_cancelled_migrates_again_at_once(
    folder: Path, data: Path, firmware: dict[bool, Path]
) -> None:
    """The first migration is cancelled while it waits for the switchover, so that it cannot complete before.

    A destination of QEMU 7.2 that still lacks a channel does not end. The state "active" shows that it has all of them.
    """
    uuid = str(UUID(int=1))
    with Pair(folder), guests(folder, 1, firmware[False], data) as (source, first):
        source.set_capabilities("pause-before-switchover")
        first.listen(f"unix:{folder}/{uuid}")
        source.migrate(f"unix:{folder}/in")
        source.wait_status("pre-switchover", PATIENCE)
        first.wait_status("active", PATIENCE)
        source.qmp("migrate_cancel")
        assert source.wait_migration(PATIENCE)["status"] in CANCELLED
        source.set_capabilities("pause-before-switchover", on=False)
        wait_until(lambda: is_gone(first.pid), "the first destination to end")
        with Guest(folder, "again", firmware=firmware[False], incoming=True, paused=True, uuid=uuid) as second:
            second.set_capabilities("return-path")
            set_up(second, 2)
            second.listen(f"unix:{folder}/{uuid}")
            source.migrate(f"unix:{folder}/in")
            assert_that_it_arrived(source, second)
