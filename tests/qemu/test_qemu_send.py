"""Guests of real QEMUs that were received, and sent to a QEMU again."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trustme
from commands import PATIENCE, Command, free_port, relay, tls
from guest import MIB, PAGE, Guest
from programs import need
from qemus import NAMES, qemu
from tls_files import issue
from way import DATA_AT, migrate, set_up

need("qemu-system-x86_64", "nasm")

MACHINE = "pc-q35-7.2"
VIRTIO_MEM = (
    *("-m", "16M,maxmem=1G,slots=2", "-object", "memory-backend-ram,id=plugged,size=128M"),
    *("-device", "virtio-mem-pci,memdev=plugged,requested-size=0"),
)


FORMS = {"7.2": "raw", "10.0": "zarr", "newest": "raw"}
"""Form in which the guest of each QEMU is kept. QEMU does not see it when the guest comes back."""


@dataclass
class Kept:
    """A guest that was received while it kept dirtying its memory: its folder, and the hash of its RAM."""

    folder: Path
    sha256: str


Keep = Callable[..., Kept]


@pytest.fixture(scope="module")
def keep(tmp_path_factory: pytest.TempPathFactory, data: Path, firmware: dict[bool, Path]) -> Keep:
    """Receive a guest of a QEMU; each is received only once."""
    kept: dict[tuple[object, ...], Kept] = {}

    def receive(name: str, **options: Any) -> Kept:
        key = (name, *options.items())
        if key not in kept:
            folder = tmp_path_factory.mktemp("kept")
            arguments = ("--listen", f"unix:{folder}/s", "--channels", "2", "--output", f"{folder}/out")
            with (
                Guest(folder, "a", firmware=firmware[True], data=(data, DATA_AT), qemu=qemu(name), **options) as source,
                Command("receive", *arguments, "--format", FORMS[name]) as end,
            ):
                set_up(source, 2, dirty=True)
                assert migrate(source, f"unix:{folder}/s", dirty=True)["status"] == "completed"
                done = end.finish()
                assert (done.returncode, done.stderr) == (0, "")
                kept[key] = Kept(folder / "out", source.ram_sha256())
        return kept[key]

    return receive


def send(kept: Kept, address: str, *options: str) -> subprocess.CompletedProcess[str]:
    command = ["numcodecs-qpl", "send", str(kept.folder), "--connect", address, *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)


def restore(kept: Kept, destination: Guest, address: str, options: Sequence[str] = (), onward: str = "") -> None:
    """Send a guest to a destination that waits; its RAM is equal, and it runs on."""
    with destination.ram_path.open("r+b") as memory:  # where the guest has zeros
        memory.seek(14 * MIB)
        memory.write(b"new" * PAGE)
    done = send(kept, onward or address, *options)
    assert (done.returncode, done.stderr) == (0, "")
    assert "the QEMU has loaded everything" in done.stdout
    assert destination.wait_migration(PATIENCE)["status"] == "completed"
    assert destination.ram_sha256() == kept.sha256
    destination.cont()
    assert destination.is_running_and_dirtying(PATIENCE)


def waiting(folder: Path, firmware: dict[bool, Path], name: str, **options: Any) -> Guest:
    return Guest(folder, "b", firmware=firmware[True], incoming=True, paused=True, qemu=qemu(name), **options)


@pytest.mark.parametrize("name", NAMES)
def test_a_guest_is_restored_twice_and_runs_on(
    tmp_path: Path, firmware: dict[bool, Path], keep: Keep, name: str
) -> None:
    kept = keep(name)
    for channels in (0, 4):
        with waiting(tmp_path, firmware, name) as destination:
            destination.set_migration(channels)
            destination.listen(f"unix:{tmp_path}/{channels}")
            restore(kept, destination, f"unix:{tmp_path}/{channels}", ("--channels", f"{channels}"))


@pytest.mark.parametrize(("name", "method"), [("7.2", "zlib"), ("10.0", "zstd"), ("newest", "zlib")])
def test_a_guest_is_restored_in_each_method(
    tmp_path: Path, firmware: dict[bool, Path], keep: Keep, name: str, method: str
) -> None:
    with waiting(tmp_path, firmware, name) as destination:
        destination.set_migration(3, method)
        destination.listen(f"unix:{tmp_path}/s")
        options = ("--channels", "3", "--method", method)
        restore(keep(name), destination, f"unix:{tmp_path}/s", options)


@pytest.mark.parametrize("name", NAMES)
def test_a_guest_is_restored_in_qpl_through_a_relay_with_tls(
    tmp_path: Path, firmware: dict[bool, Path], keep: Keep, name: str
) -> None:
    authority = trustme.CA()
    for each in ("here", "there"):
        issue(tmp_path, authority, each)
    onward = f"tls:127.0.0.1:{free_port()}"
    options = ("--channels", "2", "--method", "qpl", "--huffman", "dynamic", *tls(tmp_path, "here"))
    with waiting(tmp_path, firmware, name) as destination:
        destination.set_migration(2)
        destination.listen(f"unix:{tmp_path}/s")
        with relay(onward, f"unix:{tmp_path}/s", "qpl", "none", *tls(tmp_path, "there")) as between:
            restore(keep(name), destination, f"unix:{tmp_path}/s", options, onward)
            status, line, said = between.finish_relay()
    assert (status, said) == (0, "")
    assert line["confirmed"]


@pytest.mark.parametrize("channels", [0, 2])
def test_a_guest_of_7_2_is_restored_in_the_newest(
    tmp_path: Path, firmware: dict[bool, Path], keep: Keep, channels: int
) -> None:
    with waiting(tmp_path, firmware, "newest", machine=MACHINE) as destination:
        destination.set_migration(channels)
        destination.listen(f"unix:{tmp_path}/s")
        restore(keep("7.2"), destination, f"unix:{tmp_path}/s", ("--channels", f"{channels}"))


def test_a_guest_with_a_uuid_is_restored(tmp_path: Path, firmware: dict[bool, Path], keep: Keep) -> None:
    uuid = "6d0ff2c0-5c4b-4a5e-9d0f-000000000001"
    with waiting(tmp_path, firmware, "7.2", uuid=uuid) as destination:
        destination.set_migration(2)
        destination.listen(f"unix:{tmp_path}/s")
        restore(keep("7.2", uuid=uuid), destination, f"unix:{tmp_path}/s", ("--channels", "2"))


@pytest.mark.parametrize("name", NAMES)
def test_a_guest_with_virtio_mem_is_restored(tmp_path: Path, firmware: dict[bool, Path], keep: Keep, name: str) -> None:
    # Machine types from 8.1 on have a section of it before guest memory.
    with waiting(tmp_path, firmware, name, more=VIRTIO_MEM) as destination:
        destination.set_migration(2)
        destination.listen(f"unix:{tmp_path}/s")
        kept = keep(name, more=VIRTIO_MEM)
        restore(kept, destination, f"unix:{tmp_path}/s", ("--channels", "2"))
    framing = json.loads((kept.folder / "manifest.json").read_text())["main_channel"]
    assert (framing["early_bytes"] > 0) == (name != "7.2")


ANOTHER_MEMORY, ANOTHER_MACHINE = {"memory_mib": 32}, {"machine": "pc"}


@pytest.mark.parametrize(
    ("name", "options"),
    [("7.2", ANOTHER_MEMORY), ("10.0", ANOTHER_MACHINE), ("newest", ANOTHER_MEMORY)],
    ids=str,
)
def test_a_destination_that_refuses_the_guest_is_an_error(
    tmp_path: Path, firmware: dict[bool, Path], keep: Keep, name: str, options: dict[str, Any]
) -> None:
    with waiting(tmp_path, firmware, name, **options) as destination:
        destination.set_migration(0)
        destination.listen(f"unix:{tmp_path}/s")
        done = send(keep(name), f"unix:{tmp_path}/s")
    assert done.returncode == 1
    assert "look at what the QEMU there wrote" in done.stderr
