"""Two network namespaces joined by a veth pair, which stand for two hosts. Needs root and iproute2."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

DEVICE = "veth0"
RAW_SECONDS = 2.0
START_TIMEOUT = 30.0


class Network:
    """Two namespaces and the link between them, gone when the context ends, and with them every process inside.

    Parameters
    ----------
    discipline : sequence of str
        The queueing discipline at both ends, for tc.
    source_address, destination_address : str
        IPv4 addresses of the same /30 network.

    Attributes
    ----------
    source, destination : str
        Names of the namespaces.
    """

    def __init__(
        self,
        discipline: Sequence[str] = (),
        source_address: str = "10.77.0.1",
        destination_address: str = "10.77.0.2",
    ) -> None:
        unique = f"migration-{os.getpid()}-{secrets.token_hex(3)}"
        self.source, self.destination = f"{unique}-src", f"{unique}-dst"
        self.source_address, self.destination_address = source_address, destination_address
        self._discipline = discipline
        self._port = 4999

    def __enter__(self) -> Self:
        try:
            for name in (self.source, self.destination):
                _ip("netns", "add", name)
            peer = ["peer", "name", DEVICE, "netns", self.destination]
            _ip("-n", self.source, "link", "add", DEVICE, "type", "veth", *peer)
            for name, address in ((self.source, self.source_address), (self.destination, self.destination_address)):
                _ip("-n", name, "address", "add", f"{address}/30", "dev", DEVICE)
                _ip("-n", name, "link", "set", "lo", "up")
                _ip("-n", name, "link", "set", DEVICE, "up")
                if self._discipline:
                    tc = ["tc", "-n", name, "qdisc", "add", "dev", DEVICE, "root", *self._discipline]
                    subprocess.run(tc, check=True)
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._remove()

    def cut(self) -> None:
        """Lose every frame from now on, without either side being told: they go to a device that is not there."""
        for name, address in ((self.source, self.destination_address), (self.destination, self.source_address)):
            nobody = ["lladdr", "02:00:00:00:00:01", "nud", "permanent"]
            _ip("-n", name, "neighbour", "replace", address, *nobody, "dev", DEVICE)

    def port(self) -> int:
        """A port that has not been used here."""
        self._port += 1
        return self._port

    def sent_bytes(self) -> int:
        """Bytes that the source's side has put on the link so far, in frames as the veth device counts them."""
        (device,) = json.loads(_ip("-n", self.source, "-s", "-j", "link", "show", "dev", DEVICE))
        return int(device["stats64"]["tx"]["bytes"])

    def raw_mbps(self) -> float:
        """Return the rate of one TCP connection over the link in Mbit/s, payload only."""
        address = (self.destination_address, self.port())
        receive = (
            "import socket, sys, time\n"
            f"with socket.create_server({address!r}) as server:\n"
            "    print('ready', flush=True)\n"
            "    connection, _ = server.accept()\n"
            "buffer, received, start = bytearray(1 << 20), 0, time.perf_counter()\n"
            "with connection:\n"
            "    while size := connection.recv_into(buffer):\n"
            "        received += size\n"
            "print(received * 8e-6 / (time.perf_counter() - start))\n"
        )
        send = (
            "import socket, time\n"
            f"with socket.create_connection({address!r}) as connection:\n"
            f"    data, end = bytes(1 << 20), time.perf_counter() + {RAW_SECONDS}\n"
            "    while time.perf_counter() < end:\n"
            "        connection.sendall(data)\n"
        )
        with subprocess.Popen(
            [*inside(self.destination), sys.executable, "-c", receive], stdout=subprocess.PIPE
        ) as sink:
            try:
                assert sink.stdout is not None
                sink.stdout.readline()
                source = [*inside(self.source), sys.executable, "-c", send]
                subprocess.run(source, check=True, timeout=START_TIMEOUT + RAW_SECONDS)
                return float(sink.stdout.read())
            finally:
                sink.kill()

    def _remove(self) -> None:
        signals = {signal.SIGINT, signal.SIGTERM}
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
        try:
            for name in (self.source, self.destination):
                if not Path("/run/netns", name).exists():
                    continue
                for pid in _ip("netns", "pids", name).split():
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(int(pid), signal.SIGKILL)
                _ip("netns", "delete", name)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _ip(*arguments: str) -> str:
    return subprocess.run(["ip", *arguments], check=True, stdout=subprocess.PIPE, text=True).stdout


def inside(namespace: str) -> list[str]:
    """Return the prefix that runs a command in a namespace."""
    return ["ip", "netns", "exec", namespace]
