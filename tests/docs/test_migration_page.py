"""docs/migration.md, step by step: its commands are run as they stand, between two network namespaces."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from commands import PATIENCE, is_listening, wait_until
from network import Network, inside
from programs import need
from qmpshell import answer

need("ip", "openssl", "qemu-system-x86_64")
if os.geteuid():
    pytest.skip("network namespaces need root", allow_module_level=True)

DOCS = Path(__file__).parents[2] / "docs"
SOURCE, DESTINATION = "192.0.2.1", "192.0.2.2"


class Step(NamedTuple):
    """A block of commands: where it runs, whether it stays in the foreground of a terminal, and the commands."""

    host: str
    stays: bool
    commands: str


def steps() -> list[Step]:
    """The blocks of the page that are marked with a host, in their order."""
    page = (DOCS / "migration.md").read_text()
    found = re.findall(r"^```sh (source|destination)( stays)?\n(.*?)^```$", page, re.M | re.S)
    return [Step(host, bool(stays), commands) for host, stays, commands in found]


class Hosts:
    """Two hosts, each a network namespace and a folder."""

    def __init__(self, network: Network, folder: Path) -> None:
        self._namespaces = {"source": network.source, "destination": network.destination}
        self.folders = {host: folder / host for host in self._namespaces}
        self.terminals: list[subprocess.Popen[str]] = []
        for path in self.folders.values():
            path.mkdir()

    def run(self, step: Step) -> str:
        """Run a block to its end, or until what it listens on is there; what it wrote to stdout."""
        command = [*inside(self._namespaces[step.host]), "bash", "-euc", step.commands]
        folder = self.folders[step.host]
        if not step.stays:
            return subprocess.run(
                command, cwd=folder, check=True, stdout=subprocess.PIPE, text=True, timeout=PATIENCE
            ).stdout
        terminal = subprocess.Popen(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.terminals.append(terminal)
        (address,) = re.findall(r"--listen (\S+)|-qmp (unix:[^,]+)", step.commands)
        where = "".join(address)
        wait_until(lambda: terminal.poll() is not None or is_listening(where, terminal.pid), where)
        assert terminal.poll() is None, terminal.communicate()
        return ""

    def close(self) -> None:
        for terminal in self.terminals:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(terminal.pid, signal.SIGKILL)
            terminal.communicate()


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Hosts]:
    with Network(source_address=SOURCE, destination_address=DESTINATION) as network:
        made = Hosts(network, tmp_path)
        yield made
        made.close()


def test_the_steps_of_the_page_migrate_a_guest(hosts: Hosts) -> None:
    certificates, *others, ask_source, ask_destination = steps()
    hosts.run(certificates)
    for name in ("ca.pem", f"{DESTINATION}.pem", f"{DESTINATION}.key"):
        shutil.copy(hosts.folders["source"] / name, hosts.folders["destination"])
    for step in others:
        said = hosts.run(step)
        assert "error" not in said
    wait_until(lambda: answer(hosts.run(ask_source)).get("status") in ("completed", "failed"), "the migration's end")
    assert answer(hosts.run(ask_source))["status"] == "completed"
    wait_until(lambda: answer(hosts.run(ask_destination))["status"] == "running", "the guest at the destination")
    relays = [terminal for terminal in hosts.terminals if "relay" in str(terminal.args)]
    assert len(relays) == 2
    for relay in relays:
        stdout, stderr = relay.communicate(timeout=PATIENCE)
        assert relay.returncode == 0
        assert re.fullmatch("listening at .*\n", stderr)
        line = json.loads(stdout)
        assert line["ended"] == "complete"
        assert line["pages"]["normal"] > 10
        assert line.keys() == documented_fields()


def documented_fields() -> set[str]:
    """The fields that the table of a relay's report names."""
    table = (DOCS / "relay.md").read_text().partition("## What a relay reports")[2].partition("\n## ")[0]
    return {name for row in re.findall(r"^\| (`.*?) \|", table, re.M) for name in re.findall(r"`(\w+)`", row)}
