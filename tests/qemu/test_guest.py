"""QEMU to QEMU without anything in between: the harness itself works."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from guest import MIB, SEVERAL_ROUNDS, Guest, GuestError, build_firmware, make_data
from programs import need

need("qemu-system-x86_64", "nasm")

CHANNELS = 2


@pytest.mark.parametrize(("dirty", "method"), [(False, "none"), (True, "zstd")], ids=["idle", "dirty"])
def test_ram_arrives_unchanged(tmp_path: Path, data: Path, dirty: bool, method: str) -> None:
    firmware = build_firmware(tmp_path, dirty)
    uri = f"unix:{tmp_path / 'migration'}"
    uuid = "6d0ff2c0-5c4b-4a5e-9d0f-000000000001"
    with (
        Guest(tmp_path, "source", firmware=firmware, data=(data, 4 * MIB), uuid=uuid) as source,
        Guest(tmp_path, "destination", firmware=firmware, incoming=True, paused=True, uuid=uuid) as destination,
    ):
        assert source.is_running_and_dirtying(30 if dirty else 0.3) == dirty
        for guest in (source, destination):
            guest.set_migration(CHANNELS, method, **SEVERAL_ROUNDS if dirty else {})
        if dirty:
            source.wait_dirtied(30)
        destination.listen(uri)
        assert destination.status() == "inmigrate"
        source.migrate(uri)
        if dirty:
            source.wait_rounds(3, 30)
            source.converge()
        done = source.wait_migration(30)
        assert done["status"] == "completed", done
        assert destination.wait_migration(30)["status"] == "completed"
        assert list(source.migration_times())[-1] == list(destination.migration_times())[-1] == "completed"
        assert (source.status(), destination.status()) == ("postmigrate", "paused")
        if dirty:
            assert done["ram"]["dirty-sync-count"] > 3
        else:
            assert bytes(source.ram()[4 * MIB : 6 * MIB]) == data.read_bytes()
        assert source.ram_sha256() == destination.ram_sha256()
        destination.cont()
        assert destination.is_running_and_dirtying(30 if dirty else 0.3) == dirty
        assert destination.cpu_seconds() > 0
    assert not source.ram_path.exists()


def test_nothing_listens(tmp_path: Path) -> None:
    with Guest(tmp_path, "source", firmware=build_firmware(tmp_path, dirty=False)) as source:
        source.set_migration(CHANNELS)
        source.migrate(f"unix:{tmp_path / 'nobody'}")
        assert source.wait_migration(10)["status"] == "failed"
        assert source.status() == "running"
        with pytest.raises(GuestError, match=r"source: migrate-nowhere: .*migrate-nowhere"):
            source.qmp("migrate-nowhere")


def test_timeout(tmp_path: Path) -> None:
    with Guest(tmp_path, "destination", firmware=build_firmware(tmp_path, dirty=False), incoming=True) as destination:
        with pytest.raises(TimeoutError, match="destination: still migrating"):
            destination.wait_migration(0.1)
        destination.ram().tofile(tmp_path / "copy")
    assert (tmp_path / "copy").stat().st_size == 16 * MIB


def test_qemu_that_does_not_start(tmp_path: Path) -> None:
    guest = Guest(tmp_path, "broken", firmware=tmp_path / "absent")
    with (
        pytest.raises(GuestError, match=r"QEMU ended with 1; it wrote:\n.*absent"),
        guest,
    ):
        pass


def test_qemu_that_ends(tmp_path: Path) -> None:
    with Guest(tmp_path, "ending", firmware=build_firmware(tmp_path, dirty=False)) as guest:
        guest.qmp("quit")
        with pytest.raises(GuestError, match=r"QEMU ended with 0"):
            guest.status()


def test_data_is_the_same_each_time(tmp_path: Path, data: Path) -> None:
    make_data(tmp_path / "again", 2)
    make_data(tmp_path / "other", 2, seed=1)
    first, again, other = (
        hashlib.sha256(path.read_bytes()).digest() for path in (data, tmp_path / "again", tmp_path / "other")
    )
    assert first == again != other
