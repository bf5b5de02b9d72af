"""Relays and receivers as processes, and what a relay that stays logs."""

from __future__ import annotations

import json
import re
import signal
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from commands import PATIENCE, Command, wait_until
from prometheus_client.parser import text_string_to_metric_families
from scrape import get

from numcodecs_qpl.multifd.relay import Relay, relay_one
from numcodecs_qpl.multifd.transport.address import Address
from numcodecs_qpl.multifd.transport.listener import Listener


def run_in_process(run: Callable[[], object]) -> tuple[threading.Thread, list[BaseException]]:
    """A thread that calls `run`, and what it raises."""
    raised: list[BaseException] = []

    def call() -> None:
        try:
            run()
        except BaseException as error:
            raised.append(error)

    return threading.Thread(target=call, daemon=True), raised


class RunningRelay:
    """A relay of one migration in a thread of this process, from ``in`` to ``end``, both in one folder.

    Parameters
    ----------
    folder : Path
        Folder of both sockets.
    decode, encode : str
        Methods of incoming and of outgoing packets.
    end : str
        Name of the far end's socket.
    options
        Of the relay.

    Attributes
    ----------
    relay : Relay
        The relay that runs.
    refused : list of str
        Reasons of the refused connections.
    """

    def __init__(self, folder: Path, decode: str, encode: str, *, end: str = "end", **options: Any) -> None:
        self.relay = Relay(Address("unix", f"{folder}/{end}"), decode, encode, **options)
        self.refused: list[str] = []
        listener = Listener(Address("unix", f"{folder}/in"))
        self._runner, self._raised = run_in_process(partial(relay_one, self.relay, listener, self.refused.append))
        self._runner.start()

    def finish(self) -> str:
        """Wait for its end; return the text of its error, or "" if the migration is complete."""
        self._runner.join(PATIENCE)
        assert not self._runner.is_alive(), "the relay hangs"
        return str(self._raised[0]) if self._raised else ""


def statistics(number: int, seconds: float = 1.0) -> dict[str, Any]:
    """Return the summed part of `Relay.statistics`; each value is another multiple of `number`."""
    return {
        "bytes_in": number,
        "bytes_out": 2 * number,
        "packets": 3 * number,
        "pages": {"normal": 4 * number, "zero": 5 * number},
        "seconds": seconds,
    }


class Served(Command):
    """A relay that stays, and what it has logged."""

    def __init__(self, listen: str, connect: str, decode: str, encode: str, *more: str, log: Path, **how: Any) -> None:
        self._log = log
        self._metrics = Address("unix", f"{log}.metrics")
        words = (
            "--serve",
            "--metrics",
            str(self._metrics),
            "--listen",
            listen,
            "--connect",
            connect,
            "--from",
            decode,
            "--to",
            encode,
            *more,
        )
        super().__init__("relay", *words, stderr=log, **how)

    def log(self) -> str:
        """Return its log so far."""
        return self._log.read_text()

    def wait_for(self, pattern: str, times: int = 1) -> list[str]:
        """Wait until as many lines of the log match; return what they match."""
        wait_until(lambda: len(re.findall(pattern, self.log())) >= times, f"{pattern!r} in the log")
        return re.findall(pattern, self.log())

    def status(self) -> dict[str, Any]:
        """Return its status."""
        found: dict[str, Any] = json.loads(get(self._metrics, "/status")[2])
        return found

    def metric(self, name: str, **labels: str) -> float:
        """Return the sum of a metric's samples that have these labels."""
        return sum(
            sample.value
            for family in text_string_to_metric_families(get(self._metrics, "/metrics")[2])
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def drain(self) -> str:
        """Stop it, as systemd would; return the log."""
        self.signal(signal.SIGTERM)
        assert self.finish().returncode == 0
        return self.log()
