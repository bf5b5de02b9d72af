"""Migrate a guest of real QEMU in several ways, over an open and over a 1 Gbit/s link, and say what each way costs.

Two network namespaces joined by a veth pair stand for two hosts. The source's RAM is filled and never changes, as it is
not started; the destination's must be the same afterwards. Directly, QEMU sends as it is or with its own zlib or zstd,
level 1. With relays, QEMU sends as it is to one at its side, what goes over the link is in the qpl method's format, and
one at the other side undoes it. Ways take turns, and medians are told. Needs root, iproute2, nasm and QEMU.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from types import FrameType
from typing import Any, NamedTuple

import numpy as np
from commands import Command
from guest import MIB, Guest, GuestError, build_firmware, make_data
from network import Network, inside
from rich.console import Console
from rich.table import Table

DATA_AT = 1 * MIB
LINKS: dict[str, list[str]] = {"open": [], "1gbit": ["tbf", "rate", "1gbit", "burst", "512kb", "latency", "50ms"]}
"""By name: the queueing discipline at both ends, for tc."""
MIGRATION_TIMEOUT = 600.0
END_TIMEOUT = 60.0


class BenchmarkError(RuntimeError):
    """A migration that did not do what it should, so that its times mean nothing."""


class Way(NamedTuple):
    """Method of a migration: QEMU's method, and the Huffman tables of the relays, if any."""

    method: str
    huffman: str | None = None


WAYS = {
    "none": Way("none"),
    "zlib": Way("zlib"),
    "zstd": Way("zstd"),
    "qpl-fixed": Way("none", "fixed"),
    "qpl-dynamic": Way("none", "dynamic"),
}

COLUMNS = {
    "arrived_ms": ("arrived ms", 1, 0),
    "down_ms": ("down ms", 1, 0),
    "total_ms": ("QEMU: total", 1, 0),
    "setup_ms": ("setup", 1, 0),
    "downtime_ms": ("downtime", 1, 0),
    "qemu_mbps": ("Mbit/s", 1, 0),
    "pages_per_second": ("kpages/s", 1e-3, 1),
    "wire_bytes": ("MB on wire", 1e-6, 1),
    "cpu_source": ("CPU s: source", 1, 2),
    "cpu_relay_source": ("relay 1", 1, 2),
    "cpu_relay_destination": ("relay 2", 1, 2),
    "cpu_destination": ("dest.", 1, 2),
    "cpu_all": ("all", 1, 2),
}
"""By the name in a run: heading, factor and decimals of what the tables show.

"Arrived" is from the command to the completion at the destination, "down" the part of it in which no side could have
run the guest. "Total", "setup", "downtime" and "Mbit/s" (of pages, before compression) are what QEMU's source says,
which does not wait for what buffers and relays still hold. The wire's bytes are those of the frames that the veth
device saw: one header for as many bytes as the kernel sends in one piece, not for each 1500.
"""


class Migrations:
    """All that the migrations over one link have in common."""

    def __init__(
        self,
        network: Network,
        folder: Path,
        *,
        firmware: Path,
        data: Path,
        ram: int,
        channels: int,
    ) -> None:
        self._network = network
        self._folder = folder
        self._firmware = firmware
        self._data = data
        self._ram = ram
        self._channels = channels

    def run(self, way: Way) -> dict[str, Any]:
        """Migrate once, with guests of its own, and tell what it took."""
        network = self._network
        with contextlib.ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=self._folder)))
            source = stack.enter_context(
                Guest(
                    folder,
                    "source",
                    memory_mib=self._ram,
                    firmware=self._firmware,
                    data=(self._data, DATA_AT),
                    paused=True,
                    namespace=network.source,
                )
            )
            destination = stack.enter_context(
                Guest(
                    folder,
                    "destination",
                    memory_mib=self._ram,
                    firmware=self._firmware,
                    incoming=True,
                    paused=True,
                    namespace=network.destination,
                )
            )
            if not np.array_equal(source.ram()[DATA_AT:], np.memmap(self._data, np.uint8, "r")):
                raise BenchmarkError("the source does not have its data")
            for guest in (source, destination):
                guest.set_migration(self._channels, way.method)
            across = f"tcp:{network.destination_address}:{network.port()}"
            relays: dict[str, Command] = {}
            if way.huffman is None:
                uri = across
                destination.listen(across)
            else:
                uri = f"unix:{folder / 'from-source'}"
                relays = self._start_relays(stack, folder, destination, uri, across, way.huffman)
            return self._measure(source, destination, uri, relays)

    def _start_relays(
        self, stack: contextlib.ExitStack, folder: Path, destination: Guest, uri: str, across: str, huffman: str
    ) -> dict[str, Command]:
        """Set the way from `uri` over `across` to the destination up, from its end to its beginning."""
        last = f"unix:{folder / 'to-destination'}"
        destination.listen(last)
        undo = ["--listen", across, "--connect", last, "--from", "qpl", "--to", "none"]
        there = stack.enter_context(Command("relay", *undo, prefix=inside(self._network.destination)))
        do = ["--listen", uri, "--connect", across, "--from", "none", "--to", "qpl", "--huffman", huffman]
        here = stack.enter_context(Command("relay", *do, prefix=inside(self._network.source)))
        return {"relay_source": here, "relay_destination": there}

    def _measure(self, source: Guest, destination: Guest, uri: str, relays: dict[str, Command]) -> dict[str, Any]:
        guests = (source, destination)
        before = [guest.cpu_seconds() for guest in guests]
        sent = self._network.sent_bytes()
        start = time.time()
        source.migrate(uri)
        try:
            answer = source.wait_migration(MIGRATION_TIMEOUT)
            if answer["status"] == "completed":
                answer_there = destination.wait_migration(END_TIMEOUT)
            else:
                answer_there = destination.qmp("query-migrate")
            if not answer["status"] == answer_there.get("status") == "completed":
                raise BenchmarkError(f"source: {answer}; destination: {answer_there}")
        except (BenchmarkError, GuestError, TimeoutError) as error:
            said = "".join(f"; {name}: {relay.finish().stderr}" for name, relay in relays.items())
            raise BenchmarkError(f"the migration did not complete: {error}{said}") from error
        cpu = [guest.cpu_seconds() - start for guest, start in zip(guests, before, strict=True)]
        sent = self._network.sent_bytes() - sent
        stats = {name: relay.finish_relay()[1] for name, relay in relays.items()}
        sha256 = source.ram_sha256()
        if destination.ram_sha256() != sha256:
            raise BenchmarkError("the destination's RAM is not the source's")
        # What the source has got rid of may still be in sockets and relays: the destination tells when it is over.
        arrived_ms = (destination.migration_times()["completed"] - start) * 1e3
        run = {
            "arrived_ms": arrived_ms,
            "down_ms": arrived_ms - (answer["total-time"] - answer["downtime"]),
            "total_ms": answer["total-time"],
            "setup_ms": answer["setup-time"],
            "downtime_ms": answer["downtime"],
            "qemu_mbps": answer["ram"]["mbps"],
            "pages_per_second": (answer["ram"]["normal"] + answer["ram"]["duplicate"]) / answer["total-time"] * 1e3,
            "wire_bytes": sent,
            "cpu_source": cpu[0],
            "cpu_destination": cpu[1],
            **{f"cpu_{name}": relay["cpu_seconds"] for name, relay in stats.items()},
        }
        run["cpu_all"] = sum(value for name, value in run.items() if name.startswith("cpu_"))
        return {**run, "relays": stats, "query_migrate": answer, "ram_sha256": sha256}


def machine() -> dict[str, Any]:
    """Return a description of the machine."""
    cpuinfo = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in cpuinfo if line.startswith("model name")]
    qemu = subprocess.run(["qemu-system-x86_64", "--version"], check=True, stdout=subprocess.PIPE, text=True).stdout
    return {
        "cpu": models[0] if models else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "kernel": ".".join(platform.release().split(".")[:2]),
        "qemu": qemu.splitlines()[0],
        "accelerator": "TCG",
        "compression": "software path",
    }


def medians(runs: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """By way and column: the median of the runs."""
    ways = dict.fromkeys(run["way"] for run in runs)
    return {
        way: {column: median(run[column] for run in mine) for column in COLUMNS if all(column in run for run in mine)}
        for way in ways
        for mine in [[run for run in runs if run["way"] == way]]
    }


def _rows(runs: Sequence[dict[str, Any]]) -> Iterator[list[str]]:
    for way, values in medians(runs).items():
        cells = (
            f"{values[column] * factor:.{decimals}f}" if column in values else "-"
            for column, (_, factor, decimals) in COLUMNS.items()
        )
        yield [way, *cells]


def _headings() -> list[str]:
    return ["way", *(heading for heading, _, _ in COLUMNS.values())]


def _caption(report: dict[str, Any], link: str) -> str:
    return (
        f"{report['ram_mib']} MiB, {report['channels']} channels, {link} link ({report['links'][link]['raw_mbps']:.0f} "
        f"Mbit/s raw), {report['machine']['compression']}, medians of {report['repeat']}"
    )


def markdown(report: dict[str, Any]) -> str:
    """The tables of what `--json` wrote."""
    machine = report["machine"]
    lines = [f"{machine['cpu']}, {machine['cores']} cores, Linux {machine['kernel']}, {machine['qemu']}."]
    for link, measured in report["links"].items():
        lines += ["", f"{_caption(report, link)}:", ""]
        lines += [f"| {' | '.join(row)} |" for row in [_headings(), ["---", *["---:"] * len(COLUMNS)]]]
        lines += [f"| {' | '.join(row)} |" for row in _rows(measured["runs"])]
    return "\n".join(lines) + "\n"


def print_table(console: Console, report: dict[str, Any], link: str) -> None:
    """The table of one link, for people."""
    table = Table(title=_caption(report, link))
    for heading in _headings():
        table.add_column(heading, justify="left" if heading == "way" else "right", no_wrap=heading == "way")
    for row in _rows(report["links"][link]["runs"]):
        table.add_row(*row)
    console.print(table)


def _names(known: dict[str, Any], text: str) -> list[str]:
    names = text.split(",")
    if unknown := [name for name in names if name not in known]:
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: not among {', '.join(known)}")
    return names


def _ram(text: str) -> int:
    ram = int(text)
    # More does not lie in one piece below 4 GiB, and less has no room for all kinds of data.
    if not 16 <= ram <= 2048:
        raise argparse.ArgumentTypeError("from 16 to 2048")
    return ram


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Live migration of real QEMU: directly and through relays.")
    parser.add_argument("--ram", type=_ram, default=512, metavar="MIB", help="RAM of the guest (512)")
    parser.add_argument("--channels", type=_positive, default=2, help="multifd channels (2)")
    parser.add_argument("--repeat", type=_positive, default=3, help="runs of each way (3)")
    parser.add_argument("--links", type=lambda text: _names(LINKS, text), default=[*LINKS], help=",".join(LINKS))
    parser.add_argument("--ways", type=lambda text: _names(WAYS, text), default=[*WAYS], help=",".join(WAYS))
    parser.add_argument("--json", type=Path, help="file for all that was measured")
    parser.add_argument("--markdown", type=Path, help="file for the tables")
    return parser.parse_args()


def _stop(number: int, _: FrameType | None) -> None:
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)
    sys.exit(128 + number)


def main() -> None:
    """Measure, print and write."""
    arguments = _parse()
    if os.geteuid():
        sys.exit("network namespaces need root")
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, _stop)
    # Commands are those of the environment that this runs in, also where that is not an active one.
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    console = Console(width=None if sys.stdout.isatty() else 160)
    report: dict[str, Any] = {
        "machine": machine(),
        "ram_mib": arguments.ram,
        "channels": arguments.channels,
        "repeat": arguments.repeat,
        "links": {},
    }
    # RAM in RAM: on a disk, writing it back would be measured too.
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as name:
        folder = Path(name)
        data = folder / "data"
        make_data(data, arguments.ram - DATA_AT // MIB)
        firmware = build_firmware(folder, dirty=False)
        for link in arguments.links:
            with Network(LINKS[link]) as network:
                runs: list[dict[str, Any]] = []
                report["links"][link] = {"raw_mbps": network.raw_mbps(), "runs": runs}
                console.print(f"{link}: {report['links'][link]['raw_mbps']:.0f} Mbit/s raw")
                migrations = Migrations(
                    network,
                    folder,
                    firmware=firmware,
                    data=data,
                    ram=arguments.ram,
                    channels=arguments.channels,
                )
                for turn in range(arguments.repeat):
                    for way in arguments.ways:
                        run = {"way": way, "turn": turn, **migrations.run(WAYS[way])}
                        runs.append(run)
                        console.print(f"{link}, {way}, turn {turn + 1}: {run['arrived_ms']:.0f} ms", highlight=False)
            print_table(console, report, link)
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2) + "\n")
    if arguments.markdown:
        arguments.markdown.write_text(markdown(report))


if __name__ == "__main__":
    main()
