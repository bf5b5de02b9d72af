"""Cost of `numcodecs-qpl receive` in memory, seconds and disk, for a large guest and for snapshots of a running one.

Guests are real QEMUs whose memory is filled with made data. The large guest is paused. The other guests run: one keeps
dirtying the same 8 MiB, one dirties pages all over its memory. For a snapshot, the guest is stopped and migrates into a
folder, and then goes on in the same QEMU. What was received is compared with the guest's memory. Needs nasm and QEMU.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import zarr
from commands import is_listening, wait_until
from guest import MIB, PAGE, Guest, build_firmware, make_data
from numpy.typing import NDArray

from numcodecs_qpl.multifd.folder.layout import CHUNK_PAGES

DATA_AT = 1 * MIB
CHANNELS = 2
TIMEOUT = 600
GUESTS: dict[str, dict[str, Any]] = {"one region": {"dirty": True}, "scattered": {"scattered": 500_000}}
"""Guests that run, by name: how `build_firmware` makes them."""


class BenchmarkError(RuntimeError):
    """A migration that did not do what it should, so that its figures mean nothing."""


RECEIVE = """
import sys
from pathlib import Path
from numcodecs_qpl.cli import main
from numcodecs_qpl.multifd.folder import reader, writer
reader.CHUNK_PAGES = writer.CHUNK_PAGES = int(sys.argv[1])
status = main(sys.argv[2:])
print(next(line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line))
sys.exit(status)
"""
"""`numcodecs-qpl receive`, with other chunks, that prints its peak memory in KiB."""


def migrate(guest: Guest, kind: str, path: Path, chunk_pages: int, like: Path | None = None) -> dict[str, Any]:
    """Migrate a guest into a folder; tell what that took."""
    with tempfile.TemporaryDirectory() as name:
        listen = f"unix:{name}/s"
        words = ["receive", "--listen", listen, "--channels", str(CHANNELS), "--output", str(path), "--format", kind]
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", RECEIVE, str(chunk_pages), *words, *(["--like", str(like)] if like else [])],
            stdout=subprocess.PIPE,
            text=True,
        )
        with process:
            try:
                wait_until(lambda: process.poll() is not None or is_listening(listen, process.pid), "it to listen")
                start = time.monotonic()
                guest.migrate(listen)
                said, _ = process.communicate(timeout=TIMEOUT)
                total = time.monotonic() - start
                answer = guest.wait_migration(TIMEOUT)
            except BaseException:
                process.kill()
                raise
    if answer["status"] != "completed" or process.returncode:
        raise BenchmarkError(f"{answer}; receive ended with {process.returncode}")
    comes = json.loads((path / "manifest.json").read_text())["seconds"]
    return {"comes_s": comes, "after_s": total - comes, "peak_mb": int(said.split()[-1]) * 1024 / 1e6}


@contextlib.contextmanager
def memory_folder() -> Iterator[Path]:
    """Make a folder for a guest's memory, off the disk where that can be."""
    shm = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shm if shm.is_dir() else None) as name:
        yield Path(name)


# ---- A large guest -------------------------------------------------------------------------------------------------


def large(into: Path, firmware: Path, ram: int, repeat: int, chunk_pages: Sequence[int]) -> Iterator[dict[str, Any]]:
    """Receive a paused guest in each way, in turns."""
    data = into / "data"
    make_data(data, 256)
    with memory_folder() as memory, Guest(memory, "large", memory_mib=ram, firmware=firmware, paused=True) as guest:
        # Not by the loader device: there is a hole in the addresses below 4 GiB.
        with guest.ram_path.open("r+b") as file:
            for start in range(MIB, ram * MIB, 256 * MIB):
                file.seek(start)
                file.write(data.read_bytes()[: ram * MIB - start])
        guest.set_migration(CHANNELS)
        guest.set_capabilities("return-path")
        for turn in range(repeat):
            for kind, pages in [("raw", CHUNK_PAGES), *(("zarr", pages) for pages in chunk_pages)]:
                path = into / f"{turn}"
                took = migrate(guest, kind, path, pages)
                check(path, guest)
                yield {"format": kind, "chunk_pages": pages, **took, "disk_mb": disk([path]) / 1e6}
                shutil.rmtree(path)
                guest.cont()  # QEMU migrates no guest that it has stopped for a migration. This one only halts.
                guest.stop()


def check(path: Path, guest: Guest) -> None:
    """Compare a received guest's memory with the guest's, which holds still."""
    if (path / "m.bin").exists():
        found: Any = np.memmap(path / "m.bin", np.uint8, "r").reshape(-1, PAGE)
    else:
        found = zarr.open_group(path / "ram.zarr", mode="r")["m"]
    memory = guest.ram().reshape(-1, PAGE)
    for start in range(0, len(memory), 4096):
        differ = np.flatnonzero((found[start : start + 4096] != memory[start : start + 4096]).any(axis=1))
        if len(differ):
            raise BenchmarkError(f"{path}: {len(differ)} pages differ from the guest's, first {start + differ[0]}")


def disk(folders: Iterable[Path]) -> int:
    """Bytes that folders take on the disk, with a file that has several names counted once, as `du` does."""
    found = [path.stat() for each in folders for path in [each, *each.rglob("*")]]
    return sum({status.st_ino: status.st_blocks * 512 for status in found}.values())


# ---- Snapshots -----------------------------------------------------------------------------------------------------


def snapshots(into: Path, start: Guest, count: int, chunk_pages: int, share: float) -> dict[str, Any]:
    """Take snapshots of a guest that runs, each like the one before."""
    folders, runs, changed = list[Path](), list[dict[str, Any]](), list[int]()
    with start as guest:
        guest.set_migration(CHANNELS)
        guest.set_capabilities("return-path")
        before = guest.ram().reshape(-1, PAGE).copy()
        for number in range(count):
            wait_until(lambda: _changed(guest, before) >= share * len(before), "the guest to change its memory")  # noqa: B023
            guest.stop()  # Under TCG, QEMU 7.2 may miss pages of a guest that runs on since an earlier migration.
            path = into / f"{number}"
            runs.append(migrate(guest, "zarr", path, chunk_pages, folders[-1] if folders else None))
            check(path, guest)
            changed.append(_changed(guest, before))
            before = guest.ram().reshape(-1, PAGE).copy()
            folders.append(path)
            guest.cont()
    later = runs[1:] or runs
    return {
        "chunk_pages": chunk_pages,
        "changed_pages": median(changed),
        "one_mb": disk(folders[:1]) / 1e6,
        "all_mb": disk(folders) / 1e6,
        "files": sum(1 for path in folders[0].rglob("*") if path.is_file()),
        "first_s": runs[0]["comes_s"] + runs[0]["after_s"],
        "later_s": median(run["comes_s"] + run["after_s"] for run in later),
        "peak_mb": max(run["peak_mb"] for run in runs),
    }


def _changed(guest: Guest, before: NDArray[np.uint8]) -> int:
    """Count the pages that the guest has changed: in each, the word that the firmware counts in."""
    words = [memory.view(np.uint32).reshape(-1, PAGE // 4)[:, 4] for memory in (guest.ram(), before)]
    return int(np.count_nonzero(words[0] != words[1]))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Memory, seconds and disk that numcodecs-qpl receive takes.")
    parser.add_argument("--large", type=int, default=3072, metavar="MIB", help="RAM of the paused guest; 0: leave out")
    parser.add_argument("--repeat", type=int, default=3, help="runs of each format (3)")
    parser.add_argument("--ram", type=int, default=256, metavar="MIB", help="RAM of the guests that run (256)")
    parser.add_argument("--snapshots", type=int, default=10, help="snapshots of each; 0: leave out (10)")
    parser.add_argument("--share", type=float, default=0.01, help="of pages that change between two snapshots (0.01)")
    parser.add_argument("--chunk-pages", type=int, nargs="*", default=[CHUNK_PAGES], help="pages in a chunk")
    parser.add_argument("--folder", type=Path, help="on the disk to write to")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        into = Path(name)
        if arguments.large:
            idle = build_firmware(into)
            for run in large(into, idle, arguments.large, arguments.repeat, arguments.chunk_pages):
                print(json.dumps(run), flush=True)
        if arguments.snapshots:
            data = into / "data"
            make_data(data, arguments.ram - DATA_AT // MIB)
            for kind, options in GUESTS.items():
                firmware = build_firmware(into, **options)
                for pages in arguments.chunk_pages:
                    with tempfile.TemporaryDirectory(dir=into) as each, memory_folder() as memory:
                        guest = Guest(memory, "runs", memory_mib=arguments.ram, firmware=firmware, data=(data, DATA_AT))
                        run = snapshots(Path(each), guest, arguments.snapshots, pages, arguments.share)
                    print(json.dumps({"guest": kind, **run}), flush=True)


if __name__ == "__main__":
    main()
